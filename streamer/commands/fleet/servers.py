"""`fleet up` and `fleet down`: the servers of a fleet, as they come and go."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import FrameType
from typing import TYPE_CHECKING

from engines.base import LeukostreamError
from streamer.commands.fleet.metrics import serve_metrics
from streamer.commands.output import remark, say
from streamer.commands.serve import DEFAULT_MODELS
from streamer.inference import ray_fleet
from streamer.inference.fleet_plan import FleetSpec, FleetState, Kind
from streamer.inference.fleet_watch import AUTO

if TYPE_CHECKING:
    from streamer.commands.fleet import Options

READY_WITHIN_S = 120.0
"""Servers load their models; a GPU's engines may have to be built first."""
ENDED_WITHIN_S = 30.0
_LOOK_S = 0.5


def up(options: Options, kind: Kind, least: int, most: int) -> int:
    """Returns once the servers answer; of a cluster of this machine alone, when it is told to end."""
    here = options.address is None and not _is_node()
    spec = FleetSpec(
        generation=datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f"),
        kind=kind,
        least=least,
        most=most,
        models=tuple(options.model or DEFAULT_MODELS),
        backend=options.backend,
        precision=options.precision,
        cores=options.cores,
        keys=options.keys,
        insecure=bool(options.insecure),
        metrics=serve_metrics if options.metrics else None,
        host="127.0.0.1" if here else None,
    )
    with ray_fleet.connected(ray_fleet.HERE if here else options.address or AUTO), _told_to_end() as told:
        where = ray_fleet.own_address()
        if not here and options.address is None:
            remark(f"--address: not given; the cluster of this machine, {where}, keeps the servers until fleet down")
        ray_fleet.bring_up(spec)
        endpoints = _until(lambda state: _ready(state, spec), least, told)
        if told.is_set():
            return 0 if _down() else 1
        say(f"fleet at {where}: {len(endpoints)} servers, {' '.join(endpoints)}")
        if not here:
            return 0
        remark(f"run --inference ray://{where} uses it; Ctrl-C ends it")
        told.wait()
        return 0 if _down() else 1


def down(address: str | None) -> int:
    address = address or AUTO
    with ray_fleet.connected(address):
        if ray_fleet.state() is None:
            raise LeukostreamError(f"--address {address}: got no fleet, expected one: leukostream fleet up")
        return 0 if _down() else 1


def _down() -> bool:
    """Whether all servers ended in time."""
    ray_fleet.tell_all_to_end()
    until_s = time.monotonic() + ENDED_WITHIN_S
    while (left := ray_fleet.state()) is not None and left.members and time.monotonic() < until_s:
        time.sleep(_LOOK_S)
    ray_fleet.forget()
    if left is not None and left.members:
        remark(f"{len(left.members)} servers have not ended within {ENDED_WITHIN_S:.0f} s; see ray list actors")
        return False
    say("the fleet has ended")
    return True


def _ready(state: FleetState, spec: FleetSpec) -> list[str] | None:
    """Of the servers of this spec, once there are enough; None before."""
    endpoints = [
        one.report.endpoint
        for one in state.members
        if one.report is not None and one.generation == spec.generation and one.answers(state.now_s)
    ]
    return endpoints if len(endpoints) >= spec.least else None


def _until(found: Callable[[FleetState], list[str] | None], least: int, told: threading.Event) -> list[str]:
    until_s = time.monotonic() + READY_WITHIN_S
    while not told.is_set():
        state = ray_fleet.state()
        if state is not None and (result := found(state)) is not None:
            return result
        if state is not None and state.fault is not None:
            raise LeukostreamError(f"fleet up: got a server that can't begin: {state.fault}")
        if time.monotonic() >= until_s:
            raise LeukostreamError(
                f"fleet up: got too few servers within {READY_WITHIN_S:.0f} s, expected {least};"
                " see whether the cluster has room: ray status"
            )
        told.wait(_LOOK_S)
    return []


def _is_node() -> bool:
    """Whether a Ray cluster has this machine as a node, or RAY_ADDRESS names one."""
    try:
        with ray_fleet.connected(AUTO):
            return True
    except LeukostreamError:
        return False


@contextlib.contextmanager
def _told_to_end() -> Iterator[threading.Event]:
    """Set by Ctrl-C and SIGTERM."""
    told = threading.Event()

    def stop(number: int, _: FrameType | None) -> None:
        told.set()

    previous = {int(number): signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield told
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
