"""Where the frames of one slide lie, as its session asks for it: a stage tracker of this process, or of another one."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from streamer.analysis.measured import MeasuredFrame
from streamer.records import Frame, PositionsStatus
from streamer.stage.ahead import CountedStage
from streamer.stage.config import StageConfig
from streamer.stage.hidden import HiddenParts
from streamer.stage.keyframes import KeyframeState
from streamer.stage.placement import Correction, Placement
from streamer.stage.preparation import PreparedFrame
from streamer.stage.readings import KeyframeReading, Reading
from streamer.stage.static_mask import BoxesPx
from streamer.stage.tracker import StageTracker
from streamer.stage.tracker_state import StageChanges, TrackerState

if TYPE_CHECKING:  # the process that places frames needs no model
    from streamer.analysis.analyser import Analysed

STAGE = StageConfig(max_search=12, comparisons_per_frame=4, max_pending=1500, max_links=4)
"""Bounds of what one frame may cost: a folder of unrelated fields fits nowhere, and each would be compared with all."""

Pictures = Iterable[tuple[KeyframeState, PreparedFrame]]


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """Where a frame lies, and what it changed in the stage tracker."""

    placement: Placement
    changes: StageChanges
    took_ms: float


def reading_of(frame: Frame) -> tuple[Reading | None, bool]:
    """Where its source says that a frame was taken, and whether it said what is no position."""
    reading = Reading.of(frame)
    return reading, reading is None and frame.stage_um is not None


class SlideStage(Protocol):
    """`place` takes the frames of a slide in their order, by one thread; the rest is for any while none is placed."""

    ahead: int
    """Frames that it begins with before the one before them is decided on."""

    @property
    def islands(self) -> tuple[int, ...]:
        """See StageTracker."""

    @property
    def hidden(self) -> HiddenParts | None:
        """See StageTracker."""

    @property
    def positions(self) -> PositionsStatus | None:
        """What was made of the positions that frames came with; None: none did."""

    def restore(self, keyframes: Pictures, state: TrackerState, readings: Iterable[KeyframeReading]) -> None:
        """See StageTracker."""

    def expect(self, frame: Frame) -> None:
        """Begin with this frame, which `place` is given next, after those that were expected before it."""

    def place(self, measured: MeasuredFrame | Analysed) -> Placed:
        """The next frame, expected or not."""

    def finish(self, counted: CountedStage | None = None) -> tuple[Correction, ...]:
        """What still moves at the end of the slide. `counted`: the tracker as it was at the last counted frame, where
        others were placed after it."""


class OwnStage:
    """A tracker of this process."""

    ahead = 0

    def __init__(self, ignored_px: BoxesPx = ()) -> None:
        self._tracker = StageTracker(STAGE, ignored_px)
        self._ignored_px = ignored_px

    @property
    def islands(self) -> tuple[int, ...]:
        return self._tracker.islands

    @property
    def hidden(self) -> HiddenParts | None:
        return self._tracker.hidden

    @property
    def positions(self) -> PositionsStatus | None:
        return self._tracker.positions

    def restore(self, keyframes: Pictures, state: TrackerState, readings: Iterable[KeyframeReading]) -> None:
        self._tracker.restore(keyframes, state, readings)

    def expect(self, frame: Frame) -> None:
        pass

    def place(self, measured: MeasuredFrame | Analysed) -> Placed:
        assert measured.prepared is not None
        return self.place_prepared(measured.prepared, measured.quality.accepted, *reading_of(measured.frame))

    def place_prepared(
        self, prepared: PreparedFrame, may_start: bool, reading: Reading | None, unusable: bool
    ) -> Placed:
        """As `StageTracker.update`."""
        started = time.perf_counter()
        placement = self._tracker.update(prepared, may_start=may_start, reading=reading, unusable=unusable)
        changes = self._tracker.take_changes()
        return Placed(placement, changes, (time.perf_counter() - started) * 1000)

    def finish(self, counted: CountedStage | None = None) -> tuple[Correction, ...]:
        if counted is None:
            return self._tracker.finish().corrections
        tracker = StageTracker(STAGE, self._ignored_px)
        if counted.state is not None:
            pictures = ((keyframe, self._tracker.picture(keyframe.number)) for keyframe in counted.keyframes)
            tracker.restore(pictures, counted.state, counted.readings)
        return tracker.finish().corrections
