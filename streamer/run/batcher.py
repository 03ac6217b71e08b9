"""Frames of several sources to batches, and the results back into the order of their source.

`Gathering` decides, with the time given to it; `Batcher` is the blocking front that worker threads call.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from streamer.run.ring import Ring


class Queued(Protocol):
    """A frame, as far as batches are concerned."""

    @property
    def captured_ns(self) -> int: ...


Result = TypeVar("Result")
Item = TypeVar("Item", bound=Queued)

Group = Callable[[Any], Hashable]
"""What frames of one batch have in common: the same for frames that one run of one model takes together."""

IsReady = Callable[[Any], bool]
"""Whether a frame may be taken; one that may not holds up those behind it."""


@dataclass(frozen=True, slots=True, eq=False)
class SequencedFrame(Generic[Item]):
    """A frame with its place among the frames that its source gave to the workers."""

    order: int
    """From 0 without gaps for each source, unlike `frame_id`, which a dropped frame leaves a gap in."""
    frame: Item


@dataclass(frozen=True, slots=True)
class Wait:
    """No batch yet."""

    at_most_ns: int | None
    """Ask again after so long even if no frame comes; None: nothing will change until one does."""


@dataclass(frozen=True, slots=True)
class _Full:
    """A group with a whole batch; a class of its own because None is a group too."""

    group: Hashable


class Gathering(Generic[Item]):
    """Which frames make the next batch. Not for several threads at once; takes from the rings, never waits.

    A batch is of one group: frames that one run of a model takes together. It is ready with `max_frames`, or when the
    oldest frame of all was captured `max_wait_ms` ago, or when no ring that may give another frame is awaited; the
    group of a frame that is due goes before one that is full. Sources of a group take turns, one frame each, and the
    turn carries over to the next batch, so that a fast source can't keep a slow one waiting. The frames of a source
    stay in their order.

    A source of `live` that has a frame waiting is not waited for: its next one is a whole frame time away. A frame that
    is not ready yet is no frame: whoever makes it ready has to ask again.
    """

    def __init__(
        self,
        rings: Mapping[str, Ring[Item]],
        *,
        max_frames: int,
        max_wait_ms: float,
        live: Collection[str] = (),
        group: Group = lambda frame: None,
        is_ready: IsReady = lambda frame: True,
    ) -> None:
        if max_frames < 1:
            raise ValueError(f"max_frames: got {max_frames}, expected 1 or more")
        self._names = tuple(rings)
        self._rings = dict(rings)
        self._max_frames = max_frames
        self._max_wait_ns = round(max_wait_ms * 1e6)
        self._live = frozenset(live)
        self._group = group
        self._is_ready = is_ready
        self._next_order = dict.fromkeys(rings, 0)
        self._turn = 0
        self.is_held_up = False
        """Whether the last step saw a frame that is not ready."""

    def step(self, now_ns: int) -> list[SequencedFrame[Item]] | Wait | None:
        """A batch of 1 to `max_frames` frames; Wait where none is ready; None when every ring is drained."""
        self.is_held_up = False
        while True:
            if all(ring.drained for ring in self._rings.values()):
                return None
            heads = {name: head for name, ring in self._rings.items() if (head := self._head(ring)) is not None}
            if not heads:
                return Wait(None)
            oldest = min(heads.values(), key=lambda head: head.captured_ns)
            due_in_ns = oldest.captured_ns + self._max_wait_ns - now_ns
            group = self._group(oldest)
            if due_in_ns > 0:
                full = self._full_group(heads)
                if full is not None:
                    group = full.group
                elif any(self._may_give(name, ring) for name, ring in self._rings.items()):
                    return Wait(due_in_ns)
            batch = self._take(group)
            if batch:
                return batch

    def _may_give(self, name: str, ring: Ring[Item]) -> bool:
        """Whether another frame may come into the ring before one is taken out, soon enough to wait for."""
        return not ring.closed and not ring.full and not (name in self._live and len(ring))

    def _full_group(self, heads: Mapping[str, Item]) -> _Full | None:
        """The group that has a whole batch waiting, as far as the first frames of the rings tell; by turn."""
        waiting: Counter[Hashable] = Counter()
        groups = {name: self._group(head) for name, head in heads.items()}
        for name, group in groups.items():
            waiting[group] += len(self._rings[name])
        for name in self._names[self._turn :] + self._names[: self._turn]:
            if name in groups and waiting[groups[name]] >= self._max_frames:
                return _Full(groups[name])
        return None

    def _take(self, group: Hashable) -> list[SequencedFrame[Item]]:
        batch: list[SequencedFrame[Item]] = []
        passed_by = 0
        while len(batch) < self._max_frames and passed_by < len(self._names):
            name = self._names[self._turn]
            self._turn = (self._turn + 1) % len(self._names)
            frame = self._next(name, group)
            if frame is None:
                passed_by += 1
                continue
            passed_by = 0
            batch.append(SequencedFrame(self._next_order[name], frame))
            self._next_order[name] += 1
        return batch

    def _next(self, name: str, group: Hashable) -> Item | None:
        """The next frame of a source; None where there is none, or it is of another group."""
        head = self._head(self._rings[name])
        return self._rings[name].get(timeout=0) if head is not None and self._group(head) == group else None

    def _head(self, ring: Ring[Item]) -> Item | None:
        """The next frame of a ring, left there; None where there is none that may be taken."""
        head = ring.peek()
        if head is None or self._is_ready(head):
            return head
        self.is_held_up = True
        return None


class Batcher(Generic[Item]):
    """`Gathering` for any number of worker threads. The rings must have no other consumer."""

    def __init__(
        self,
        rings: Mapping[str, Ring[Item]],
        *,
        now_ns: Callable[[], int],
        max_frames: int,
        max_wait_ms: float,
        live: Collection[str] = (),
        group: Group = lambda frame: None,
        is_ready: IsReady = lambda frame: True,
    ) -> None:
        self._now_ns = now_ns
        self._changed = threading.Condition()
        self._gathering = Gathering(
            rings, max_frames=max_frames, max_wait_ms=max_wait_ms, live=live, group=group, is_ready=is_ready
        )
        for ring in rings.values():
            ring.listen(self._wake)

    def next_batch(self, timeout: float | None = None) -> list[SequencedFrame[Item]] | None:
        """The next frames; an empty list where none were ready within `timeout` seconds (None: wait for ever).

        None when all rings are closed and empty: there will be no more.
        """
        until_ns = None if timeout is None else self._now_ns() + round(timeout * 1e9)
        with self._changed:
            while True:
                now_ns = self._now_ns()
                step = self._gathering.step(now_ns)
                if step is None:
                    self._changed.notify_all()
                if not isinstance(step, Wait):
                    return step
                waits = [step.at_most_ns, None if until_ns is None else until_ns - now_ns]
                shortest_ns = min((wait for wait in waits if wait is not None), default=None)
                if until_ns is not None and now_ns >= until_ns:
                    return []
                self._changed.wait(None if shortest_ns is None else shortest_ns / 1e9)

    def look_again(self) -> None:
        """Frames may have become ready."""
        with self._changed:
            if self._gathering.is_held_up:
                self._changed.notify_all()

    def _wake(self) -> None:
        """For one frame one worker is enough: each asks for frames before it waits, and the first to find the end tells
        the others."""
        with self._changed:
            self._changed.notify()


class InOrder(Generic[Result]):
    """Gives results back in the order of their source, whichever worker finished first.

    For the one thread that takes the results. Each SequencedFrame must come back once, with a result or with what
    stands for a failed one; what waits here is at most what the workers hold.
    """

    def __init__(self) -> None:
        self._next: dict[str, int] = {}
        self._early: dict[str, dict[int, Result]] = {}

    def put(self, source: str, order: int, result: Result) -> list[Result]:
        """All results of `source` that are now next in line; empty while an earlier one is missing."""
        expected = self._next.setdefault(source, 0)
        early = self._early.setdefault(source, {})
        if order < expected or order in early:
            raise ValueError(f"source {source!r}: got order {order} twice, expected each once")
        early[order] = result
        ready: list[Result] = []
        while expected in early:
            ready.append(early.pop(expected))
            expected += 1
        self._next[source] = expected
        return ready

    @property
    def waiting(self) -> int:
        """Results that came before an earlier one of their source."""
        return sum(map(len, self._early.values()))
