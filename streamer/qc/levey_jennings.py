"""Levey and Jennings' charts of a history: each measure of an instrument over its slides, with the mean and the
standard deviation of the first of them, and Westgard's rules for each that follows.

Source: Levey & Jennings, Am. J. Clin. Pathol. 20 (1950) 1059.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from streamer.qc.measures import MEASURES, Measure, MeasuredSlide
from streamer.qc.westgard import Rule, rejected, violated

BASELINE = 20
"""Slides that mean and standard deviation are taken from; CLSI C24 asks for 20 measurements at least."""

LEAST_BASELINE = 3


Role = Literal["baseline", "left out", "judged"]
"""Left out: it came before the baseline was whole, with the verdict `do not use`."""


@dataclass(frozen=True, slots=True)
class ChartPoint:
    slide: MeasuredSlide
    value: float
    role: Role
    z: float | None
    """None: there is no baseline yet."""
    rules: tuple[Rule, ...] = ()
    """Those that it breaks, of a slide that is judged."""

    @property
    def rejected(self) -> bool:
        return rejected(self.rules)


@dataclass(frozen=True, slots=True)
class Chart:
    measure: Measure
    points: Sequence[ChartPoint]
    """Oldest first; slides without a value are left out."""
    mean: float | None
    """None: there are too few slides for a baseline."""
    sd: float | None
    """What the rules go by: that of the baseline, the measure's `least_sd` where that is larger."""
    not_measured: int
    """Slides without a value."""


@dataclass(frozen=True, slots=True)
class InstrumentHistory:
    instrument: str
    slides: Sequence[MeasuredSlide]
    """Oldest first."""
    baseline: int
    """How many slides it takes."""
    charts: Sequence[Chart]

    @property
    def violations(self) -> list[tuple[Chart, ChartPoint]]:
        """Oldest first, warnings among them."""
        found = [(chart, point) for chart in self.charts for point in chart.points if point.rules]
        return sorted(found, key=lambda one: one[1].slide.begun_utc)

    @property
    def out_of_control(self) -> list[tuple[Chart, ChartPoint]]:
        """Of the newest slide: what rejects it. Older slides were judged when they came."""
        return [one for one in self.violations if one[1].slide is self.slides[-1] and one[1].rejected]

    @property
    def judged(self) -> int:
        """Slides that at least one chart judged."""
        return len({point.slide.session for chart in self.charts for point in chart.points if point.role == "judged"})


def histories(slides: Iterable[MeasuredSlide], baseline: int = BASELINE) -> list[InstrumentHistory]:
    """By instrument, in the order of their first slides. A session that comes twice is one slide."""
    by_session = {one.session: one for one in slides}
    ordered = sorted(by_session.values(), key=lambda one: (one.begun_utc, one.session))
    found = []
    for instrument in dict.fromkeys(one.instrument for one in ordered):
        of_it = [one for one in ordered if one.instrument == instrument]
        charts = [chart_of(measure, of_it, baseline) for measure in MEASURES]
        found.append(InstrumentHistory(instrument, of_it, baseline, charts))
    return found


def chart_of(measure: Measure, slides: Sequence[MeasuredSlide], baseline: int) -> Chart:
    """`slides`: oldest first. The baseline are the first `baseline` with a value and another verdict than `do not use`;
    the rules look at what follows alone. ValueError for a `baseline` below 2."""
    if baseline < 2:
        raise ValueError(f"chart_of: got a baseline of {baseline}, expected at least 2 slides")
    values = [(one, value) for one in slides if (value := one.values[measure]) is not None]
    fit = [place for place, (one, _) in enumerate(values) if one.verdict != "do not use"][:baseline]
    without = len(slides) - len(values)
    roles: dict[int, Role] = dict.fromkeys(fit, "baseline")
    if len(fit) < baseline:
        points = [
            ChartPoint(one, value, roles.get(place, "left out"), None) for place, (one, value) in enumerate(values)
        ]
        return Chart(measure, points, None, None, without)
    first = [values[place][1] for place in fit]
    mean, sd = statistics.fmean(first), max(statistics.stdev(first), measure.least_sd)
    points, judged = [], list[float]()
    for place, (one, value) in enumerate(values):
        z = (value - mean) / sd
        if place > fit[-1]:
            judged.append(z)
            points.append(ChartPoint(one, value, "judged", z, violated(judged)))
        else:
            points.append(ChartPoint(one, value, roles.get(place, "left out"), z))
    return Chart(measure, points, mean, sd, without)
