"""What the counted frames made of a tracker that places frames before they are counted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from streamer.stage.keyframes import KeyframeState
from streamer.stage.preparation import PreparedFrame
from streamer.stage.readings import KeyframeReading
from streamer.stage.tracker_state import StageChanges, TrackerState


class CountedStage:
    """As of the last counted frame: when counting stops, frames on their way are placed that nobody will count, and how
    many these are is chance. Without pictures, which the tracker keeps."""

    def __init__(self, readings: Iterable[KeyframeReading] = (), state: TrackerState | None = None) -> None:
        """`readings` and `state`: what the tracker begins with, and `noting` its keyframes."""
        self._keyframes: dict[int, KeyframeState] = {}
        self._readings = list(readings)
        self.state = state
        """None: no frame was counted."""

    def noting(
        self, keyframes: Iterable[tuple[KeyframeState, PreparedFrame]]
    ) -> Iterator[tuple[KeyframeState, PreparedFrame]]:
        """The same, on their way to a tracker that begins with them."""
        for state, picture in keyframes:
            self._keyframes[state.number] = state
            yield state, picture

    def add(self, changes: StageChanges) -> None:
        """A frame was counted that came with these."""
        self._keyframes.update((state.number, state) for state, _ in changes.keyframes)
        self._readings += changes.readings
        self.state = changes.tracker

    @property
    def keyframes(self) -> list[KeyframeState]:
        """All, by number."""
        return [state for _, state in sorted(self._keyframes.items())]

    @property
    def readings(self) -> Sequence[KeyframeReading]:
        """All, in their order."""
        return self._readings
