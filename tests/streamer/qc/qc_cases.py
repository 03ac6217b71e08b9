"""Slides of a history as they would have been measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from streamer.qc.measures import FOCUS, MEASURES, Measure, MeasuredSlide

USUAL: Mapping[Measure, float] = dict.fromkeys(MEASURES, 1.0)


def slide(number: int, focus: float | None, *, instrument: str = "camera:0", verdict: str | None = "incomplete"):
    """All that is not focus stays as it is."""
    return MeasuredSlide(
        session=f"{instrument} {number}",
        name=f"slide {number}",
        instrument=instrument,
        begun_utc=f"2031-02-03T04:{number:02}:00.000000Z",
        verdict=verdict,
        values={**USUAL, FOCUS: focus},
    )


def slides(focus: Sequence[float | None], **of: object) -> list[MeasuredSlide]:
    """In order of time."""
    return [slide(number, value, **of) for number, value in enumerate(focus)]
