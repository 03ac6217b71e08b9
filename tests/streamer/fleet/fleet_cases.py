"""Servers and microscopes that several tests show."""

from __future__ import annotations

from streamer.inference.fleet_plan import FleetSpec, FleetState, Member, ServerReport
from streamer.inference.wire import ServedModel, StatusReply

SPEC = FleetSpec(generation="2", kind="cpu", least=2, most=4, models=("m",))


def member(name: str, *, reported_s: float = 100.0, draining: bool = False, answered: int = 10) -> Member:
    status = StatusReply(
        server="s",
        release="0.1.0",
        models=(ServedModel("a1b2c3d4" * 8, "yolov5n-blood", "detector"),),
        draining=draining,
        uptime_s=9.0,
        waiting=3,
        queue_age_ms=42.0,
        answered=answered,
        faults={"busy": 1, "stale": 2},
    )
    one = Member(name, "2", 90.0)
    endpoint = f"tcp://10.0.0.1:{name}"
    one.take(ServerReport(name=name, spec=SPEC, endpoint=endpoint, node="gpu-1", process=7, status=status), reported_s)
    return one


def fleet() -> FleetState:
    """One server of each state."""
    members = (member("1"), member("2", reported_s=80.0), member("3", draining=True), Member("4", "2", 99.0))
    return FleetState(SPEC, 3, members, 101.0, None)
