"""Whether a run works: one of five states, from what it publishes. No clock, no socket.

starting: no source has opened yet. ready: all that there is to do is being done. degraded: something is lost, and the
rest goes on. stalled: nothing goes on. stopping: the sources have ended, or were told to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from streamer.protocol.messages import AnyMessage, EndMessage, FrameMessage, HealthMessage

RunState = Literal["starting", "ready", "degraded", "stalled", "stopping"]
RUN_STATES: tuple[RunState, ...] = ("starting", "ready", "degraded", "stalled", "stopping")
SERVING: frozenset[RunState] = frozenset(("ready", "degraded"))
_GONE = ("reopening", "failed")

SILENCE_NS = 10_000_000_000
"""No health message for this long: the publishing thread hangs. No frame while some wait: the analysis hangs."""

RECENT_NS = 10_000_000_000
"""So long after messages were lost to a subscriber, the run counts as degraded."""


@dataclass(frozen=True, slots=True)
class Readiness:
    state: RunState
    reasons: tuple[str, ...]
    """Why it is not ready, for people."""
    alive: bool
    """False: the publishing thread does nothing any more, and a restart is all that helps."""


@dataclass(slots=True)
class _Seen:
    status: str = "starting"
    queue: int = 0
    health_ns: int = 0
    frame_ns: int = 0
    """When the newest frame was published; when the source opened, before there is one."""
    ended: bool = False
    """Nothing of it follows, unless it goes on with another slide."""


@dataclass(slots=True)
class RunWatch:
    """Takes in what a run publishes and says how it does. One thread at a time uses it."""

    now_ns: Callable[[], int]
    _sources: dict[str, _Seen] = field(default_factory=dict)
    _lost: int = 0
    _lost_ns: int | None = None

    def take(self, message: AnyMessage) -> None:
        now_ns = self.now_ns()
        seen = self._sources.get(message.source)
        if isinstance(message, FrameMessage) and seen is not None:
            seen.frame_ns = now_ns
        if seen is not None:
            seen.ended = isinstance(message, EndMessage)
        if not isinstance(message, HealthMessage):
            return
        for name, status in message.sources.items():
            seen = self._sources.setdefault(name, _Seen())
            if status.state == "open" and seen.status != "open":
                seen.frame_ns = now_ns
            seen.status, seen.queue, seen.health_ns = status.state, status.queue, now_ns
        lost = 0 if message.stream is None else sum(message.stream.lost.values())
        if lost > self._lost:
            self._lost, self._lost_ns = lost, now_ns

    def readiness(self, *, stopping: bool) -> Readiness:
        now_ns = self.now_ns()
        sources = self._sources
        silent = [name for name, seen in sources.items() if now_ns - seen.health_ns > SILENCE_NS and not seen.ended]
        if silent:
            return Readiness("stopping" if stopping else "stalled", ("no message of health for ten seconds",), False)
        if stopping:
            return Readiness("stopping", ("the sources have ended, or were told to",), True)
        if all(seen.status == "starting" for seen in sources.values()):
            return Readiness("starting", ("no source has opened yet",), True)
        gone = [f"source {name}: {seen.status}" for name, seen in sources.items() if seen.status in _GONE]
        stuck = [
            f"source {name}: frames wait, and none was analysed for ten seconds"
            for name, seen in sources.items()
            if seen.status == "open" and seen.queue and now_ns - seen.frame_ns > SILENCE_NS
        ]
        lost = ["messages were lost to a subscriber that is too slow"]
        recently = self._lost_ns is not None and now_ns - self._lost_ns <= RECENT_NS
        reasons = (*gone, *stuck, *(lost if recently else ()))
        working = sum(seen.status == "open" for seen in sources.values()) - len(stuck)
        if (gone or stuck) and not working:
            return Readiness("stalled", reasons, True)
        return Readiness("degraded" if reasons else "ready", reasons, True)
