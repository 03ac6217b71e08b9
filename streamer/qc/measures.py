"""What of a slide is watched over time: focus, light, colour, and the share of cells unlike those of the training."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from streamer.counting.verdict import SlideEvidence
from streamer.journal import SeenFrame, StoredSession, recounted


@dataclass(frozen=True, slots=True)
class Measure:
    name: str
    unit: str
    """Empty for a plain number."""
    about: str
    """What it is and what moves it, for people."""
    digits: int
    least_sd: float
    """A baseline that varies less is taken to vary so much: smaller differences are of rounding, or of few cells."""


FOCUS = Measure(
    "Focus", "", "sharpness, the median of the frames; falls when the focus is off or the optics are dirty", 2, 0.02
)
BRIGHTNESS = Measure("Brightness", "%", "of the background, of the sensor's range; lamp, condenser, exposure", 1, 1.0)
LIGHT_COLOUR = Measure(
    "Colour of the light", "OD", "blue less red of the background; lamp, filters, white balance", 3, 0.01
)
STAIN = tuple(
    Measure(
        f"Red cells in {colour}",
        "OD",
        f"{colour} light that red cells hold back beyond the background; stain, {why}",
        3,
        0.01,
    )
    for colour, why in (("blue", "thickness of the film"), ("green", "eosin above all"), ("red", "azure above all"))
)
UNLIKE_TRAINING = Measure(
    "Unlike the training", "%", "of the white cells; stain, optics, preparation, or cells never seen before", 1, 1.0
)

MEASURES = (FOCUS, BRIGHTNESS, LIGHT_COLOUR, *STAIN, UNLIKE_TRAINING)


@dataclass(frozen=True, slots=True)
class MeasuredSlide:
    """A slide of the history."""

    session: str
    name: str
    instrument: str
    begun_utc: str
    """As its journal has it."""
    verdict: str | None
    """A VerdictState."""
    values: Mapping[Measure, float | None]
    """None: not measured."""


def measured(stored: StoredSession) -> MeasuredSlide:
    """Count a session again for what is measured of it. JournalError for what can't be."""
    focus: list[float] = []

    def note(seen: SeenFrame) -> None:
        if seen.focus is not None:
            focus.append(seen.focus)

    result = recounted(stored, note)
    verdict = result.differential.verdict
    return MeasuredSlide(
        session=stored.id,
        name=stored.name,
        instrument=instrument_of(stored),
        begun_utc=stored.created_utc,
        verdict=None if verdict is None else verdict.state,
        values=values_of(
            result.count.evidence(final=stored.ended), focus, knows_training=stored.rules.novel_above is not None
        ),
    )


def values_of(evidence: SlideEvidence, focus: list[float], *, knows_training: bool) -> dict[Measure, float | None]:
    """`focus`: of the frames. `knows_training`: whether the classifier says which cells are unlike its training."""
    plasma, red, cells = evidence.plasma, evidence.red, evidence.white_cells
    return {
        FOCUS: statistics.median(focus) if focus else None,
        BRIGHTNESS: None if plasma is None else 100.0 * math.exp(-sum(plasma) / 3),
        LIGHT_COLOUR: None if plasma is None else plasma[0] - plasma[2],
        **{measure: None if red is None else red[channel] for channel, measure in enumerate(STAIN)},
        UNLIKE_TRAINING: 100.0 * evidence.unlike_training / cells if cells and knows_training else None,
    }


def instrument_of(stored: StoredSession) -> str:
    """What people call it (`run --instrument`), else the camera; files say of no camera that it took them, and are
    taken for those of one."""
    return stored.slide.instrument or (stored.address if stored.live else "files")
