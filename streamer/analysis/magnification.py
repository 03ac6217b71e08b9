"""At which input size the detector looks at the frames of each source, from the size of the red cells in them.

The reader of a source shows its first frames to `Magnification` before they are handed over, so that the choice depends
on the order of the frames alone and not on which worker is the faster; from then on a frame costs one look into a
dictionary. A size of frame has its own choice: a folder may hold pictures of several laboratories.

Where the first frame shows too few red cells, as the border of a smear on a scanned slide does, the scale that its
source states is believed; where it states none, the next frames are looked at.

Frames smaller than the card's input are shown as they are rather than enlarged, unless their red cells ask for it: a
small picture is mostly one cut out around a cell. (White cells found in 322 such pictures of 120 and 300 px, of two
laboratories unknown to the detector: enlarged to 416 px 77 %, as they are 99 %.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engines.models.detector import Detector
from engines.models.scale import in_input, is_trained_for, long_side_for, measure_rbc_diameter, trained_range
from streamer.counting.verdict import RED_CELL_UM
from streamer.records import Frame, Skip
from streamer.sources.base import PassedOnSource, Source

LOOKS = 5
"""Frames of a size that are looked at, at most, until one has enough red cells; after that the card's input stays."""


@dataclass(slots=True)
class _View:
    """What is known of the frames of one source and size."""

    usual: Detector
    looks: int = 0
    settled: bool = False
    chosen: Detector | None = None
    """None: `usual` does, or nothing does."""
    first_frame_id: int = 0
    """The first frame that `chosen` and `rbc_px` are for."""
    rbc_px: float | None = None
    """Usual diameter of the red cells, in full-frame pixels; None as long as too few were seen."""


class Magnification:
    """Chooses, once for each source and size of frame. `look` is called by the source's reader, in the frames' order,
    `detector_for` by any thread."""

    def __init__(
        self,
        detector: Detector,
        *,
        rbc_diameter_px: float | None = None,
        adjustable: bool = True,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """`rbc_diameter_px`: of red cells, in full-frame pixels, where somebody knows it; None: measured.
        `adjustable`: False where somebody chose the input; then an unsuitable one is only reported. `say` gets one line
        where the usual input does not do."""
        self._detector = detector
        self._known_px = rbc_diameter_px
        self._adjustable = adjustable
        self._say = say
        self._views: dict[tuple[str, int, int], _View] = {}
        self._told: set[tuple[str, str]] = set()

    def look(self, frame: Frame) -> None:
        view = self._view(frame)
        if view.settled:
            return
        view.looks += 1
        diameter = self._known_px or measure_rbc_diameter(view.usual, [frame.image]) or _stated_px(frame)
        view.settled = diameter is not None or view.looks >= LOOKS
        view.rbc_px, view.first_frame_id = diameter, frame.frame_id
        if diameter is None or is_trained_for(view.usual, frame.width, frame.height, diameter):
            return
        side = long_side_for(view.usual, frame.width, frame.height, diameter) if self._adjustable else None
        if side is not None:
            view.chosen = view.usual.with_long_side(side)
        self._tell(frame, view.usual, diameter, side)

    def detector_for(self, frame: Frame) -> Detector:
        view = self._views.get((frame.source, frame.width, frame.height))
        if view is None:
            return self._detector
        return view.usual if view.chosen is None or frame.frame_id < view.first_frame_id else view.chosen

    def rbc_px_for(self, frame: Frame) -> float | None:
        """The usual diameter of red cells in px of a frame, None where it is not known (yet)."""
        view = self._views.get((frame.source, frame.width, frame.height))
        return None if view is None or frame.frame_id < view.first_frame_id else view.rbc_px

    def _view(self, frame: Frame) -> _View:
        key = frame.source, frame.width, frame.height
        view = self._views.get(key)
        if view is None:
            view = self._views[key] = _View(self._usual(frame))
        return view

    def _usual(self, frame: Frame) -> Detector:
        own = max(frame.width, frame.height)
        if not self._adjustable or self._detector.fixed_size is not None or own >= self._detector.long_side_px:
            return self._detector
        return self._detector.with_long_side(own)

    def _tell(self, frame: Frame, detector: Detector, diameter: float, chosen: int | None) -> None:
        outcome = "unsuitable" if chosen is None else "chosen"
        if (frame.source, outcome) in self._told:
            return
        self._told.add((frame.source, outcome))
        low, high = trained_range(detector) or (0.0, 0.0)
        seen = in_input(detector, frame.width, frame.height, diameter)
        size = f"{frame.source}: red cells are {diameter:.0f} px wide in frames of {frame.width}x{frame.height}"
        if chosen is not None:
            self._say(
                f"{size}, {seen:.0f} px in an input of {detector.long_side_px} px, where {detector.card.name} expects "
                f"{low:g} to {high:g}: looking at {chosen} px instead"
            )
        else:
            remedy = "leave out --long-side-px" if not self._adjustable else "use another objective or camera"
            self._say(
                f"{size}, {seen:.0f} px in the input: outside the magnifications that {detector.card.name} was trained "
                f"for ({low:g} to {high:g} px), cells will be missed; {remedy}"
            )


def _stated_px(frame: Frame) -> float | None:
    """How wide red cells should be by the scale that the source states; None: it states none."""
    return None if not frame.um_per_px else RED_CELL_UM / frame.um_per_px


class MeasuredSource(PassedOnSource):
    """A source whose frames `magnification` sees before anybody else."""

    def __init__(self, source: Source, magnification: Magnification) -> None:
        super().__init__(source)
        self._magnification = magnification

    def read(self) -> Frame | Skip | None:
        item = self._source.read()
        if isinstance(item, Frame):
            self._magnification.look(item)
        return item
