"""The geometry of Levey and Jennings' charts, in the units of their SVG. The template draws it.

Nothing is told by colour alone: what is judged, warned of and rejected has a shape of its own, and its rules in words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streamer.qc.levey_jennings import Chart, ChartPoint
from streamer.qc.westgard import WARNING
from streamer.report.charts import Tick

WIDTH, HEIGHT = 460, 190
LEFT, RIGHT, TOP, BOTTOM = 46, 418, 18, 150
MOST_SD = 4.5
"""Half of the height; what lies beyond is drawn at the edge, with its score."""


@dataclass(frozen=True, slots=True)
class Mark:
    x: float
    y: float
    shape: str
    """"baseline", "left out", "judged", "warned" or "rejected"."""
    label: str
    """Beside it: the rules that reject it, of the newest of those in a row; empty for all others."""
    words: str
    """What it is, in a sentence."""


@dataclass(frozen=True, slots=True)
class Level:
    y: float
    kind: str
    """"mean", "one", "two" or "three" standard deviations."""
    label: str
    """Empty where there is none."""


@dataclass(frozen=True, slots=True)
class DrawnChart:
    line: str
    """Points of a polyline."""
    marks: Sequence[Mark]
    levels: Sequence[Level]
    y_ticks: Sequence[Tick]
    x_ticks: Sequence[Tick]
    baseline_end: float | None
    """x of the end of the baseline; None: there is none yet."""


def drawn(chart: Chart) -> DrawnChart:
    """`chart` has points."""
    values = [point.value for point in chart.points]
    digits = chart.measure.digits
    if chart.mean is None or chart.sd is None:
        low, high = min(values), max(values)
        middle, half = (low + high) / 2.0, max((high - low) / 2.0, chart.measure.least_sd) * 1.2
        levels: list[Level] = []
        y_ticks = [Tick(_y(value, middle, half), f"{value:.{digits}f}") for value in dict.fromkeys((low, high))]
    else:
        middle, half = chart.mean, MOST_SD * chart.sd
        kinds = {0: "mean", 1: "one", 2: "two", 3: "three"}
        levels = [
            Level(_y(middle + count * chart.sd, middle, half), kinds[abs(count)], f"{count:+d} SD" if count else "mean")
            for count in range(-3, 4)
        ]
        shown = (middle + count * chart.sd for count in (-2, 0, 2))
        y_ticks = [Tick(_y(value, middle, half), f"{value:.{digits}f}") for value in shown]
    marks = [_mark(chart, place, point, middle, half) for place, point in enumerate(chart.points)]
    ends = [place for place, point in enumerate(chart.points) if point.role == "baseline"]
    count = len(marks)
    return DrawnChart(
        line=" ".join(f"{mark.x},{mark.y}" for mark in marks),
        marks=marks,
        levels=levels,
        y_ticks=y_ticks,
        x_ticks=[Tick(marks[place].x, str(place + 1)) for place in sorted({0, (count - 1) // 2, count - 1})],
        baseline_end=None if chart.mean is None else (_x(ends[-1], count) + _x(ends[-1] + 1, count)) / 2.0,
    )


def _mark(chart: Chart, place: int, point: ChartPoint, middle: float, half: float) -> Mark:
    shape = "rejected" if point.rejected else "warned" if point.rules else point.role
    followed = place + 1 < len(chart.points) and chart.points[place + 1].rejected
    label = " ".join(rule for rule in point.rules if rule != WARNING) if point.rejected and not followed else ""
    outside = abs(point.value - middle) > half
    score = "" if point.z is None else f", {point.z:+.1f} SD"
    unit = f" {chart.measure.unit}" if chart.measure.unit else ""
    words = f"{point.slide.name}, {point.slide.begun_utc}: {point.value:.{chart.measure.digits}f}{unit}{score}"
    return Mark(
        _x(place, len(chart.points)),
        _y(point.value, middle, half),
        shape,
        f"{label} ({point.z:+.1f})" if outside and label and point.z is not None else label,
        f"{words}; {', '.join(point.rules)}" if point.rules else words,
    )


def _x(place: int, count: int) -> float:
    return round(LEFT + (place + 0.5) / count * (RIGHT - LEFT), 1)


def _y(value: float, middle: float, half: float) -> float:
    share = max(-1.0, min(1.0, (value - middle) / half))
    return round((TOP + BOTTOM) / 2.0 - share * (BOTTOM - TOP) / 2.0, 1)
