"""A fleet as seen from outside: its state once a second. Ray is asked in a process of its own, since it ends whoever is
connected when its head is lost, and a microscope goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

from engines.base import Engine, EngineId, LeukostreamError
from streamer.inference.client import InferenceClient
from streamer.inference.fleet_plan import FleetState
from streamer.records import InferenceStatus
from streamer.sources.own_process import OwnProcess, ProcessEndedError

RAY = "ray"

AUTO = "auto"
"""The cluster that this machine is a node of, or that RAY_ADDRESS names."""

FIRST_STATE_S = 15.0
"""How long the first state is waited for: Ray takes seconds to be connected."""

SILENT_S = 30.0
"""A watching process that says nothing for so long is ended, and another one begun: Ray tries for ten minutes to reach
a head that is gone."""

_LOOK_S = 1.0
_AGAIN_AFTER_S, _AGAIN_AT_MOST_S = 2.0, 30.0
_POLL_S = 0.25


class FleetWatch:
    """The newest state of the fleet on a cluster, until it is closed. While the cluster does not answer, the one that
    was known last."""

    def __init__(
        self,
        address: str,
        option: str,
        *,
        on_state: Callable[[FleetState], None] = lambda state: None,
        on_fault: Callable[[str], None] = lambda line: None,
    ) -> None:
        """`option`: what faults name. Both are called on a thread of its own; a fault once, until there is another one
        or a state."""
        self._address, self._option = address, option
        self._on_state, self._on_fault = on_state, on_fault
        self.state: FleetState | None = None
        """None: none is known yet."""
        self.fault: str | None = None
        """Why there is no newer state; None: there is."""
        self._closing, self._first = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="fleet watch", daemon=True)
        self._thread.start()

    def wait(self, within_s: float = FIRST_STATE_S) -> FleetState | None:
        """The first state; None where a fault came before it, or nothing."""
        self._first.wait(within_s)
        return self.state

    def close(self) -> None:
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        again_s = _AGAIN_AFTER_S
        while not self._closing.is_set():
            if self._watched():
                again_s = _AGAIN_AFTER_S
            self._closing.wait(again_s)
            again_s = min(2 * again_s, _AGAIN_AT_MOST_S)

    def _watched(self) -> bool:
        """Until the process ends; whether it knew a state."""
        known = False
        process = OwnProcess(_watch, self._address, self._option)
        silent_at_s = time.monotonic() + SILENT_S
        try:
            while not self._closing.is_set():
                try:
                    message = process.receive(_POLL_S)
                except TimeoutError:
                    if time.monotonic() < silent_at_s:
                        continue
                    raise ProcessEndedError(f"nothing for {SILENT_S:.0f} s") from None
                silent_at_s = time.monotonic() + SILENT_S
                if isinstance(message, FleetState):
                    known, self.state, self.fault = True, message, None
                    self._on_state(message)
                    self._first.set()
                else:
                    self._fault(message)
        except ProcessEndedError as error:
            if self.fault is None:
                self._fault(f"{self._option}: got no word of the fleet ({error}), expected one; as it was known last")
        finally:
            process.end(0.0)
        return known

    def _fault(self, line: str) -> None:
        if line != self.fault:
            self.fault = line
            self._on_fault(line)
        self._first.set()


def _watch(pipe: Connection, address: str, option: str) -> None:
    """Sends a FleetState once a second, a text where there is none to have."""
    try:
        from streamer.inference.ray_fleet import connected, state
    except ModuleNotFoundError as error:
        pipe.send(f"{option}: got no package {error.name}, expected it: pip install 'leukostream[fleet]'")
        return
    try:
        with connected(address, option):
            while True:
                found = state()
                pipe.send(found or f"{option}: got a cluster without a fleet, expected one: leukostream fleet up")
                time.sleep(_LOOK_S)
    except LeukostreamError as error:
        pipe.send(str(error))


class FleetInference:
    """An InferenceClient whose servers are those of a fleet, as they come and go."""

    def __init__(self, client: InferenceClient, address: str, say: Callable[[str], None]) -> None:
        """`address`: of the cluster. Waits for the first servers."""
        self._client, self._say = client, say
        self._used: list[str] = []
        self._watch = FleetWatch(address, f"--inference {RAY}", on_state=self._use, on_fault=say)
        self._watch.wait()

    def engine(self, id_: EngineId, local: Engine) -> Engine:
        return self._client.engine(id_, local)

    def status(self) -> InferenceStatus:
        return self._client.status()

    def close(self) -> None:
        self._watch.close()
        self._client.close()

    def _use(self, state: FleetState) -> None:
        # A fleet actor that was started again knows of no server at first: those of before are asked meanwhile.
        if not state.endpoints or state.endpoints == self._used:
            return
        self._used = state.endpoints
        try:
            self._client.use(self._used)
        except LeukostreamError as error:  # of another machine, without keys
            self._say(str(error))
