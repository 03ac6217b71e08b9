"""Frames are measured before their turn comes to be placed: on the thread that reads them, or by another process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from streamer.analysis.measured import MeasuredFrame
from streamer.records import Frame
from streamer.run.gate import Gate


class Measuring(Protocol):
    """`begin` may be called by the thread that reads, `measured` by the one that places."""

    def begin(self, frame: Frame) -> None:
        """Harmless when called twice."""

    def measured(self, frame: Frame) -> MeasuredFrame:
        """What it came to, once for each frame."""


class OwnMeasuring:
    """Where `begin` is called."""

    def __init__(self, measure: Callable[[Frame], MeasuredFrame]) -> None:
        self._measure = measure
        self._measured: dict[int, MeasuredFrame] = {}
        """By frame_id: those on their way."""

    def begin(self, frame: Frame) -> None:
        if frame.frame_id not in self._measured:
            self._measured[frame.frame_id] = self._measure(frame)

    def measured(self, frame: Frame) -> MeasuredFrame:
        return self._measured.pop(frame.frame_id)


class MeasuringGate:
    """A gate for the reader of a source that loses none: a frame is measured while the one before is placed."""

    def __init__(self, gate: Gate, measuring: Measuring) -> None:
        self._gate, self._measuring = gate, measuring

    def put(self, item: Frame, timeout: float | None = None) -> bool:
        """As Gate.put; a frame that is put again is measured once."""
        self._measuring.begin(item)
        return self._gate.put(item, timeout)

    def close(self) -> None:
        self._gate.close()

    @property
    def closed(self) -> bool:
        return self._gate.closed
