"""How many servers a fleet has, and which of them go: a step function without Ray, clock or socket."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from streamer.inference.server import InferenceServer
from streamer.inference.wire import StatusReply

Kind = Literal["cpu", "gpu"]

GROW_MS = 100.0
"""Requests that wait longer than this on every server, for HOLD_S, are too many for the servers there are: a frame of a
camera of 10 a second is late by then."""
HOLD_S = 3.0
IDLE_MS = 5.0
"""Below it on every server, for SHRINK_S, there may be one server too many."""
SHRINK_S = 120.0
SPARE = 0.7
"""Of the rate at which servers were found full: what those that would be left may have to do."""
PAUSE_S = 15.0
"""From one change of size to the next: a new server loads its models meanwhile."""
NO_ROOM_S = 20.0
"""An update waits so long for room for old and new servers side by side; then old ones go first, one at a time."""
OVERLAP_S = 10.0
"""Of new servers with old ones in an update: microscopes hear of them, connect, and have their engines loaded there."""
DRAIN_S = 15.0
"""From when a server is told to end to when it is ended."""
SILENT_S = 5.0
"""A server that has not reported for so long is not given to microscopes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSpec:
    """What `fleet up` asks for."""

    generation: str
    """New with every `fleet up`, later ones sort behind: servers of another one are replaced."""
    kind: Kind
    least: int
    most: int
    """Servers."""
    models: tuple[str, ...]
    backend: str = "auto"
    precision: str | None = None
    cores: int = 1
    """Of each server."""
    keys: str | None = None
    """A key folder, at the same path on every node."""
    insecure: bool = False
    metrics: Callable[[InferenceServer, str], str] | None = None
    """Serves the counts of a server at a free port of a host, and returns the address; a function of a module. None:
    nobody does."""
    host: str | None = None
    """Where servers listen; None: at the address that their node has for the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerReport:
    """What a server says of itself once a second."""

    name: str
    spec: FleetSpec
    endpoint: str
    node: str
    process: int
    status: StatusReply
    metrics: str | None = None
    """HOST:PORT; None: they are not served."""
    is_over: bool = False
    """It was told to end and has answered everything."""


@dataclass(slots=True)
class Member:
    """A server as its fleet knows it."""

    name: str
    generation: str
    started_s: float
    report: ServerReport | None = None
    """None: it has not begun yet."""
    begun_s: float | None = None
    """When it first reported; None: it has not."""
    reported_s: float = 0.0
    rate: float = 0.0
    """Answers a second, of late."""
    told_to_end_s: float | None = None
    """None: it was not."""

    def take(self, report: ServerReport, now_s: float) -> None:
        before, since_s = self.report, now_s - self.reported_s
        if before is not None and before.process == report.process and since_s > 0:
            self.rate = max(0, report.status.answered - before.status.answered) / since_s
        self.report, self.reported_s = report, now_s
        if self.begun_s is None:
            self.begun_s = now_s

    def answers(self, now_s: float) -> bool:
        """Whether microscopes may ask it."""
        report = self.report
        return report is not None and not report.status.draining and now_s - self.reported_s <= SILENT_S

    @property
    def queue_age_ms(self) -> float:
        return 0.0 if self.report is None else self.report.status.queue_age_ms


@dataclass(frozen=True, slots=True)
class FleetState:
    spec: FleetSpec
    wanted: int
    members: tuple[Member, ...]
    now_s: float
    """On the clock of the times of members."""
    fault: str | None
    """Why the last server that could not begin did not; None: all did."""

    @property
    def endpoints(self) -> list[str]:
        """Of the servers that microscopes may ask, oldest first."""
        ready = sorted((one for one in self.members if one.answers(self.now_s)), key=lambda one: one.started_s)
        return [one.report.endpoint for one in ready if one.report is not None]


@dataclass(frozen=True, slots=True)
class Steps:
    start: int = 0
    """Servers to start."""
    drain: tuple[str, ...] = ()
    """Servers to tell that they end."""
    end: tuple[str, ...] = ()
    """Servers whose process ends."""


@dataclass(slots=True)
class Planner:
    """Keeps a fleet as its spec says."""

    spec: FleetSpec
    wanted: int
    """Servers of this generation."""
    changed_s: float
    """When that was changed last."""
    full_rate: float | None = None
    """Answers a second of one server, when all had too much; None: they never had."""
    full_since_s: float | None = None
    idle_since_s: float | None = None

    @classmethod
    def of(cls, spec: FleetSpec, present: int, now_s: float) -> Planner:
        """`present`: servers of this generation that there are already."""
        return cls(spec, min(max(present, spec.least), spec.most), now_s)

    def step(self, members: Sequence[Member], now_s: float) -> Steps:
        """What is to be done; `told_to_end_s` of a member is set by whoever does it."""
        staying = [one for one in members if one.told_to_end_s is None]
        new = [one for one in staying if one.generation == self.spec.generation]
        old = [one for one in staying if one.generation != self.spec.generation]
        ready = [one for one in new if one.answers(now_s)]
        self._resize(ready, now_s)
        ending = [one for one in members if one.told_to_end_s is not None]
        drain = [one.name for one in _youngest_last(new, now_s)[self.wanted :]]
        if sum(_has_overlapped(one, now_s) for one in ready) >= self.wanted:
            drain += [one.name for one in old]
        elif old and not ending and any(now_s - one.started_s > NO_ROOM_S for one in new if one not in ready):
            drain.append(old[0].name)
        return Steps(
            start=max(0, self.wanted - len(new)),
            drain=tuple(drain),
            end=tuple(one.name for one in ending if _is_over(one, now_s)),
        )

    def _resize(self, ready: Sequence[Member], now_s: float) -> None:
        ages = [one.queue_age_ms for one in ready]
        full, idle = bool(ages) and min(ages) > GROW_MS, bool(ages) and max(ages) < IDLE_MS
        rate = sum(one.rate for one in ready)
        if full:
            self.full_rate = max(self.full_rate or 0.0, rate / len(ready))
        self.full_since_s = (now_s if self.full_since_s is None else self.full_since_s) if full else None
        self.idle_since_s = (now_s if self.idle_since_s is None else self.idle_since_s) if idle else None
        if now_s - self.changed_s < PAUSE_S or len(ready) < self.wanted:
            return
        if self.full_since_s is not None and now_s - self.full_since_s >= HOLD_S and self.wanted < self.spec.most:
            self._change(1, now_s)
        elif self.idle_since_s is not None and now_s - self.idle_since_s >= SHRINK_S and self.wanted > self.spec.least:
            can_do = None if self.full_rate is None else self.full_rate * (self.wanted - 1)
            self._change(-1 if can_do is None or rate <= SPARE * can_do else 0, now_s)

    def _change(self, by: int, now_s: float) -> None:
        self.wanted += by
        self.changed_s, self.full_since_s, self.idle_since_s = now_s, None, None


def _youngest_last(members: Sequence[Member], now_s: float) -> list[Member]:
    """Those that answer before those that don't."""
    return sorted(members, key=lambda one: (not one.answers(now_s), one.started_s))


def _has_overlapped(member: Member, now_s: float) -> bool:
    return member.begun_s is not None and now_s - member.begun_s >= OVERLAP_S


def _is_over(member: Member, now_s: float) -> bool:
    told_s = member.told_to_end_s
    return told_s is not None and (member.report is None or member.report.is_over or now_s - told_s > DRAIN_S)
