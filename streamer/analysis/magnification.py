"""At which input size the detector looks at the frames of each source, from the size of the red cells in them.

The reader of a source shows its first frames to `Magnification` before they are handed over, so that the choice depends
on the order of the frames alone and not on which worker is the faster; from then on a frame costs one look into a
dictionary. A size of frame has its own choice: a folder may hold pictures of several laboratories.

A source that states how large a pixel is (`Frame.um_per_px`) is believed at its first frame, with red cells of 7.5 µm;
their size is measured all the same, and said where no blood explains the difference.

Frames smaller than the card's input are shown as they are rather than enlarged, unless their red cells ask for it: a
small picture is mostly one cut out around a cell. (White cells found in 322 such pictures of 120 and 300 px, of two
laboratories unknown to the detector: enlarged to 416 px 77 %, as they are 99 %.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from engines.models.detector import Detector
from engines.models.scale import in_input, is_trained_for, long_side_for, measure_rbc_diameter, trained_range
from streamer.counting.verdict import RED_CELL_UM
from streamer.records import Frame, Skip, usable_scale
from streamer.sources.base import PassedOnSource, Source

UNEXPLAINED = 1.5
"""Red cells are 5.5 to 9.5 µm wide in the median, from iron deficiency to megaloblasts; farther from 7.5 µm by this
factor, and the scale that a source states is of another objective, or in another unit."""

LOOKS = 5
"""Frames of a size that are looked at, at most, until one has enough red cells; after that the card's input stays."""


def is_explained(um_per_px: float, rbc_px: float) -> bool:
    """Whether blood can have red cells as wide as a scale makes them."""
    return 1 / UNEXPLAINED <= um_per_px * rbc_px / RED_CELL_UM <= UNEXPLAINED


@dataclass(frozen=True, slots=True)
class _Choice:
    """How frames are looked at from one on."""

    first_frame_id: int
    rbc_px: float
    """Usual diameter of the red cells, in full-frame pixels."""
    detector: Detector


@dataclass(slots=True)
class _View:
    """What is known of the frames of one source and size."""

    usual: Detector
    looks: int = 0
    settled: bool = False
    choices: list[_Choice] = field(default_factory=list)
    """In the order of their first frames; empty as long as too few red cells were seen."""
    contradicted: bool = False
    """Whether red cells contradict the scale that the source states."""

    def choice_for(self, frame: Frame) -> _Choice | None:
        return next((one for one in reversed(self.choices) if one.first_frame_id <= frame.frame_id), None)


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
        stated = usable_scale(frame.um_per_px) if self._known_px is None else None
        if stated is not None:
            self._check(frame, view, stated)
            return
        diameter = self._known_px or measure_rbc_diameter(view.usual, [frame.image])
        view.settled = diameter is not None or view.looks >= LOOKS
        if diameter is not None:
            self._choose(frame, view, diameter)

    def _check(self, frame: Frame, view: _View, um_per_px: float) -> None:
        """Take the scale that the source states, until red cells contradict it."""
        measured = measure_rbc_diameter(view.usual, [frame.image])
        view.settled = measured is not None or view.looks >= LOOKS
        if measured is None or is_explained(um_per_px, measured):
            if view.looks == 1:
                self._choose(frame, view, RED_CELL_UM / um_per_px)
            return
        self._say(
            f"{frame.source}: got {um_per_px:.4g} µm a pixel from the source, by which red cells are "
            f"{measured * um_per_px:.3g} µm wide, expected about {RED_CELL_UM:g}: no anaemia explains that; looking by "
            "the red cells, check the source's scale"
        )
        view.contradicted = True
        self._choose(frame, view, measured)

    def _choose(self, frame: Frame, view: _View, diameter: float) -> None:
        """Look by red cells of this diameter from this frame on."""
        usual = view.usual
        if is_trained_for(usual, frame.width, frame.height, diameter):
            view.choices.append(_Choice(frame.frame_id, diameter, usual))
            return
        side = long_side_for(usual, frame.width, frame.height, diameter) if self._adjustable else None
        detector = usual if side is None else usual.with_long_side(side)
        view.choices.append(_Choice(frame.frame_id, diameter, detector))
        self._tell(frame, usual, diameter, side)

    def detector_for(self, frame: Frame) -> Detector:
        view = self._views.get((frame.source, frame.width, frame.height))
        if view is None:
            return self._detector
        choice = view.choice_for(frame)
        return view.usual if choice is None else choice.detector

    def rbc_px_for(self, frame: Frame) -> float | None:
        """The usual diameter of red cells in px of a frame, None where it is not known (yet)."""
        view = self._views.get((frame.source, frame.width, frame.height))
        choice = None if view is None else view.choice_for(frame)
        return None if choice is None else choice.rbc_px

    def um_per_px_for(self, frame: Frame) -> float | None:
        """What the source states for a frame, unless red cells contradict it."""
        view = self._views.get((frame.source, frame.width, frame.height))
        return None if view is not None and view.contradicted else usable_scale(frame.um_per_px)

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
