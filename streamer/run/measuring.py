"""Frames of a source that loses none are measured on the thread that reads them, while the one before is placed."""

from __future__ import annotations

from collections.abc import Callable

from streamer.analysis.analyser import MeasuredFrame
from streamer.records import Frame
from streamer.run.gate import Gate


class MeasuringGate:
    """A gate for the reader; `measured` for whoever takes the frames out of the ring behind it."""

    def __init__(self, gate: Gate, measure: Callable[[Frame], MeasuredFrame]) -> None:
        self._gate, self._measure = gate, measure
        self._measured: dict[int, MeasuredFrame] = {}
        """By frame_id: those on their way."""

    def put(self, item: Frame, timeout: float | None = None) -> bool:
        """As Gate.put; a frame that is put again is measured once."""
        if item.frame_id not in self._measured:
            self._measured[item.frame_id] = self._measure(item)
        return self._gate.put(item, timeout)

    def measured(self, frame: Frame) -> MeasuredFrame:
        """Once for each frame."""
        return self._measured.pop(frame.frame_id)

    def close(self) -> None:
        self._gate.close()

    @property
    def closed(self) -> bool:
        return self._gate.closed
