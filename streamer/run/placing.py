"""The frames of one source are placed on their slide, in their order, before the models see them.

`Placer.run` is the body of a thread: ring of frames > place > ring of placed frames, which the batcher reads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from streamer.analysis.analyser import MeasuredFrame
from streamer.records import Frame
from streamer.run.ring import Ring
from streamer.run.session import Placed, SlideSession

STALE = "stale"
"""The reason under which frames older than the budget are counted."""


@dataclass(frozen=True, slots=True, eq=False)
class PlacedFrame:
    """A frame on its way from the stage tracker to the models and to the count."""

    measured: MeasuredFrame
    placed: Placed

    @property
    def frame(self) -> Frame:
        return self.measured.frame

    @property
    def captured_ns(self) -> int:
        return self.frame.captured_ns


class Placer:
    """Places the frames of one source."""

    def __init__(
        self,
        frames: Ring[Frame],
        placed: Ring[PlacedFrame],
        measure: Callable[[Frame], MeasuredFrame],
        session: SlideSession,
        *,
        stale_after_ms: float | None,
        now_ns: Callable[[], int],
        on_failure: Callable[[Exception], None],
    ) -> None:
        """`stale_after_ms`: the budget of a live source, None for one that loses nothing: what is older when its turn
        comes is dropped and counted. `on_failure` gets what ended it before its frames did."""
        self._frames = frames
        self._placed = placed
        self._measure = measure
        self.session = session
        """That of the next frame; changed while it is held."""
        self._stale_after_ns = None if stale_after_ms is None else round(stale_after_ms * 1e6)
        self._now_ns = now_ns
        self._on_failure = on_failure
        self._turn = threading.Lock()
        """Held while a frame is placed."""
        self.count = 0
        """Frames placed so far."""
        self.dropped: dict[str, int] = {}

    def run(self) -> None:
        try:
            while not self._frames.drained:
                frame = self._frames.get()
                if frame is not None and not self._is_stale(frame):
                    self._place(frame)
        except Exception as error:
            self._on_failure(error)
            while (frame := self._frames.get()) is not None:
                frame.settle(False)
        finally:
            self._placed.close()

    @contextmanager
    def held(self) -> Iterator[int]:
        """No frame is placed meanwhile; gives how many were."""
        with self._turn:
            yield self.count

    def _is_stale(self, frame: Frame) -> bool:
        if self._stale_after_ns is None or self._now_ns() - frame.captured_ns <= self._stale_after_ns:
            return False
        self.dropped = {STALE: self.dropped.get(STALE, 0) + 1}
        return True

    def _place(self, frame: Frame) -> None:
        try:
            measured = self._measure(frame)
            with self._turn:
                placed = self.session.place(measured)
                self.count += 1
            self._placed.put(PlacedFrame(measured, placed))
        except BaseException:
            frame.settle(False)
            raise
