"""How long whoever has a frame waits for servers, over all questions of the frame. No clock."""

from __future__ import annotations

from collections import deque

from streamer.inference.dispatch import LEAST_PATIENCE_MS

SAME_FRAME_S = 2.0
"""A question that comes so long after another was waited for in vain may be of the same frame: several batches of
crops, each of which this machine ran."""


class Patience:
    """Of one thread, which asks one question after the other. What it waited in vain is taken off what it waits next:
    a detector's question and three of a classifier, each to a server that hangs, would take four times as long."""

    def __init__(self, whole_ms: float) -> None:
        """`whole_ms`: for all questions of a frame."""
        self._whole_ms = whole_ms
        self._in_vain: deque[tuple[int, float]] = deque()
        """When a wait ended, and its milliseconds."""

    def left_ms(self, now_ns: int) -> float:
        """For the next question."""
        while self._in_vain and now_ns - self._in_vain[0][0] > SAME_FRAME_S * 1e9:
            self._in_vain.popleft()
        used_ms = sum(ms for _, ms in self._in_vain)
        return max(self._whole_ms - used_ms, min(LEAST_PATIENCE_MS, self._whole_ms))

    def waited_in_vain(self, began_ns: int, ended_ns: int) -> None:
        self._in_vain.append((ended_ns, (ended_ns - began_ns) / 1e6))
