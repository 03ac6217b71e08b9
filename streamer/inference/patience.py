"""How long whoever has a frame waits for servers, over all questions of the frame. No clock."""

from __future__ import annotations

import threading
from collections import deque

from streamer.inference.dispatch import LEAST_PATIENCE_MS

SAME_FRAME_S = 2.0
"""A question that comes so long after another may be of the same frame, where nobody says when the next one begins."""

_frames = threading.local()


def next_frame() -> None:
    """The calling thread begins another frame, or a batch of them: what it waited for the last one is forgotten."""
    _frames.number = _number() + 1


def _number() -> int:
    return int(getattr(_frames, "number", 0))


class Patience:
    """Of one thread, which asks one question after the other. What it waited is taken off what it waits next, whether
    an answer came or not: a detector's question and three of a classifier, each to a server that is slow or hangs,
    would take four times as long."""

    def __init__(self, whole_ms: float) -> None:
        """`whole_ms`: for all questions of a frame."""
        self._whole_ms = whole_ms
        self._frame = _number()
        self._waits: deque[tuple[int, float]] = deque()
        """When a wait ended, and its milliseconds."""

    def left_ms(self, now_ns: int) -> float:
        """For the next question."""
        if self._frame != _number():
            self._frame = _number()
            self._waits.clear()
        while self._waits and now_ns - self._waits[0][0] > SAME_FRAME_S * 1e9:
            self._waits.popleft()
        used_ms = sum(ms for _, ms in self._waits)
        return max(self._whole_ms - used_ms, min(LEAST_PATIENCE_MS, self._whole_ms))

    def waited(self, began_ns: int, ended_ns: int) -> None:
        self._waits.append((ended_ns, (ended_ns - began_ns) / 1e6))
