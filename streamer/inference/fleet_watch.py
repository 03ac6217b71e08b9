"""`run --inference ray`: the servers of a fleet, as they come and go. Ray is asked in a process of its own: it ends
whoever is connected when its head is lost, and a microscope goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

from engines.base import Engine, EngineId, LeukostreamError
from streamer.inference.client import InferenceClient
from streamer.records import InferenceStatus
from streamer.sources.own_process import OwnProcess, ProcessEndedError

RAY = "ray"

FIRST_SERVERS_S = 15.0
"""How long the start of a run waits for the addresses of a fleet: Ray takes seconds to be connected."""

_LOOK_S = 1.0
_AGAIN_AFTER_S, _AGAIN_AT_MOST_S = 2.0, 30.0
_POLL_S = 0.25


class FleetInference:
    """An InferenceClient whose servers are those of a fleet. While its cluster does not answer, those known last."""

    def __init__(self, client: InferenceClient, address: str, say: Callable[[str], None]) -> None:
        """`address`: of the cluster, "auto" for that of this machine. Waits for the first servers."""
        self._client, self._address, self._say = client, address, say
        self._closing, self._known = threading.Event(), threading.Event()
        self._said: str | None = None
        self._thread = threading.Thread(target=self._run, name="fleet watch", daemon=True)
        self._thread.start()
        self._known.wait(FIRST_SERVERS_S)

    def engine(self, id_: EngineId, local: Engine) -> Engine:
        return self._client.engine(id_, local)

    def status(self) -> InferenceStatus:
        return self._client.status()

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        self._client.close()

    def _run(self) -> None:
        again_s = _AGAIN_AFTER_S
        while not self._closing.is_set():
            if self._watch():
                again_s = _AGAIN_AFTER_S
            self._closing.wait(again_s)
            again_s = min(2 * again_s, _AGAIN_AT_MOST_S)

    def _watch(self) -> bool:
        """Until the process ends; whether it had something to say."""
        endpoints: list[str] | None = None
        process = OwnProcess(watch, self._address)
        try:
            while not self._closing.is_set():
                try:
                    message = process.receive(_POLL_S)
                except TimeoutError:
                    continue
                if isinstance(message, str):
                    self._tell(message)
                elif message != endpoints:
                    endpoints = message
                    self._client.use(endpoints)
                    self._said = None
                if not isinstance(message, str) or not endpoints:
                    self._known.set()
        except ProcessEndedError as error:
            self._tell(
                f"--inference ray: got no word of the fleet ({error}), expected one; going on with what is known"
            )
        except LeukostreamError as error:  # servers that can't be used: another machine's, without keys
            self._tell(str(error))
            self._known.set()
        finally:
            process.end(0.0)
        return endpoints is not None

    def _tell(self, line: str) -> None:
        """Once, until it is another line."""
        if line != self._said:
            self._said = line
            self._say(line)


def watch(pipe: Connection, address: str) -> None:
    """Sends the endpoints of the fleet once a second, a text where there are none to have."""
    try:
        from streamer.inference.ray_fleet import connected, state
    except ModuleNotFoundError as error:
        pipe.send(f"--inference ray: got no package {error.name}, expected it: pip install 'leukostream[fleet]'")
        return
    try:
        with connected(address, "--inference ray"):
            while True:
                found = state()
                if found is None:
                    pipe.send("--inference ray: got a cluster without a fleet, expected one: leukostream fleet up")
                else:
                    pipe.send(found.endpoints)
                time.sleep(_LOOK_S)
    except LeukostreamError as error:
        pipe.send(str(error))
