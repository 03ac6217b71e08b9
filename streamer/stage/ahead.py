"""A tracker that places frames before they are counted, as it was at the last one that was."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from streamer.stage.config import StageConfig
from streamer.stage.keyframes import KeyframeState
from streamer.stage.preparation import PreparedFrame
from streamer.stage.readings import KeyframeReading
from streamer.stage.static_mask import BoxesPx
from streamer.stage.tracker import StageTracker
from streamer.stage.tracker_state import StageChanges, TrackerState


class CountedStage:
    """What the counted frames made of a tracker: when counting stops, frames on their way are placed that nobody will
    count, and how many these are is chance."""

    def __init__(
        self,
        readings: Iterable[KeyframeReading] = (),
        state: TrackerState | None = None,
        *,
        config: StageConfig,
    ) -> None:
        """`readings` and `state`: what the tracker begins with, and `noting` its keyframes."""
        self._config = config
        self._keyframes: dict[int, KeyframeState] = {}
        self._readings = list(readings)
        self._state = state

    def noting(
        self, keyframes: Iterable[tuple[KeyframeState, PreparedFrame]]
    ) -> Iterator[tuple[KeyframeState, PreparedFrame]]:
        """The same, on their way to a tracker that begins with them; no picture is kept here."""
        for state, picture in keyframes:
            self._keyframes[state.number] = state
            yield state, picture

    def add(self, changes: StageChanges) -> None:
        """A frame was counted that came with these."""
        self._keyframes.update((state.number, state) for state, _ in changes.keyframes)
        self._readings += changes.readings
        self._state = changes.tracker

    def tracker(self, ahead: StageTracker, ignored_px: BoxesPx) -> StageTracker:
        """A tracker that goes on from the last counted frame; `ahead` placed it and later ones."""
        tracker = StageTracker(self._config, ignored_px)
        if self._state is not None:
            pictures = ((state, ahead.picture(number)) for number, state in sorted(self._keyframes.items()))
            tracker.restore(pictures, self._state, self._readings)
        return tracker
