"""The geometry of the charts, in the units of their SVG: pure functions of shares. The templates draw it.

Nothing is told by colour alone: every bar has its name and number beside it, limits are dark lines, usual ranges are
hatched.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from streamer.dashboard.palette import class_colour, in_order
from streamer.dashboard.share_table import axis_top
from streamer.dashboard.words import number
from streamer.records import ClassShare
from streamer.report.growth import Growth, GrowthPoint

Ranges = Mapping[str, tuple[float, float]]

BARS_WIDTH = 420
BARS_LEFT, BARS_RIGHT = 138, 362
"""Where 0 and the end of the axis lie."""
BARS_TOP = 8
BAR_PITCH = 26

CURVE_WIDTH, CURVE_HEIGHT = 260, 150
CURVE_LEFT, CURVE_RIGHT = 34, 252
CURVE_TOP, CURVE_BOTTOM = 10, 122


@dataclass(frozen=True, slots=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Bar:
    name: str
    label: str
    colour: str
    y: float
    """Of its middle."""
    end: float | None
    """x of the percentage; None: nothing was counted."""
    limits: tuple[float, float] | None
    usual: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class BarChart:
    width: int
    height: float
    left: float
    bottom: float
    bars: Sequence[Bar]
    ticks: Sequence[Tick]


@dataclass(frozen=True, slots=True)
class Curve:
    """One small chart of how a count grew."""

    title: str
    colour: str
    line: str
    """Points of a polyline."""
    band: str
    """Points of a polygon: the limits; empty for none."""
    usual: tuple[float, float] | None
    """y of the upper and lower end of the usual range."""
    final: tuple[float, float, float, float] | None
    """x, y and the y of upper and lower limit of the finished count."""
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    x_label: str


def bar_chart(shares: Sequence[tuple[str, ClassShare]], ranges: Ranges) -> BarChart:
    top = axis_top([share for _, share in shares])

    def x(percent: float) -> float:
        return round(BARS_LEFT + min(percent, top) / top * (BARS_RIGHT - BARS_LEFT), 1)

    def ends(pair: tuple[float, float] | None) -> tuple[float, float] | None:
        return None if pair is None or pair[0] > top else (x(pair[0]), x(pair[1]))

    bars = []
    for place, (name, share) in enumerate(shares):
        limits = None if share.low is None or share.high is None else (share.low, share.high)
        bars.append(
            Bar(
                name,
                f"{number(share.percent, 1)} %" if share.percent is not None else "–",
                class_colour(name),
                BARS_TOP + (place + 0.5) * BAR_PITCH,
                None if share.percent is None else x(share.percent),
                ends(limits),
                ends(ranges.get(name)),
            )
        )
    bottom = BARS_TOP + len(bars) * BAR_PITCH + 2
    ticks = [Tick(x(top * part / 5), f"{top * part / 5:g}") for part in range(6)]
    return BarChart(BARS_WIDTH, bottom + 34, BARS_LEFT, bottom, bars, ticks)


def growth_curves(growth: Growth, ranges: Ranges) -> list[Curve]:
    """White cells over time, where that is known, then each class that has cells over the cells. Empty for a count of
    fewer than two points, in which nothing grew."""
    points = [*growth.running, *([growth.final] if growth.final is not None else [])]
    if len({point.cells for point in points}) < 2:
        return []
    last = points[-1]
    curves = [] if (over_time := _over_time(points)) is None else [over_time]
    names = in_order([name for name, share in last.shares.items() if share.count])
    return [*curves, *(_of_class(name, growth, ranges.get(name)) for name in names)]


def _over_time(points: Sequence[GrowthPoint]) -> Curve | None:
    timed = [(point.minutes, float(point.cells)) for point in points if point.minutes is not None]
    if len(timed) < 2 or not (longest := max(minutes for minutes, _ in timed)):
        return None
    per, unit = (1.0, "minutes") if longest >= 2 else (60.0, "seconds")
    x_ticks, right = _ticks(longest * per)
    y_ticks, top = _ticks(max(cells for _, cells in timed))
    line = " ".join(f"{_x(minutes * per, right)},{_y(cells, top)}" for minutes, cells in sorted(timed))
    return Curve(
        "White cells over time",
        "#4b4453",
        line,
        "",
        None,
        None,
        [Tick(_x(value, right), number(value, 0 if value == int(value) else 1)) for value in x_ticks],
        [Tick(_y(value, top), number(value)) for value in y_ticks],
        f"{unit} since the first result",
    )


def _of_class(name: str, growth: Growth, usual: tuple[float, float] | None) -> Curve:
    running, final = growth.running, growth.final
    everything = [*running, *([final] if final is not None else [])]
    x_ticks, right = _ticks(max(point.cells for point in everything))
    settled = [point for point in everything if point.cells >= everything[-1].cells / 8] or everything
    highest = max((share.high or 0.0) for point in settled if (share := point.shares.get(name)) is not None)
    y_ticks, top = _ticks(min(100.0, max(highest, 0.0 if usual is None else usual[1])))
    shares = [(point.cells, point.shares[name]) for point in running if name in point.shares]
    upper = [(n, share.high) for n, share in shares if share.high is not None]
    lower = [(n, share.low) for n, share in shares if share.low is not None]
    line = " ".join(f"{_x(n, right)},{_y(share.percent, top)}" for n, share in shares if share.percent is not None)
    band = " ".join(f"{_x(n, right)},{_y(value, top)}" for n, value in [*upper, *reversed(lower)])
    end = None
    if final is not None and (share := final.shares.get(name)) is not None and share.percent is not None:
        limits = (_y(share.high or 0.0, top), _y(share.low or 0.0, top))
        end = (_x(final.cells, right), _y(share.percent, top), *limits)
    return Curve(
        name,
        class_colour(name),
        line,
        band,
        None if usual is None else (_y(usual[1], top), _y(usual[0], top)),
        end,
        [Tick(_x(value, right), number(value)) for value in x_ticks],
        [Tick(_y(value, top), f"{value:g}") for value in y_ticks],
        "white cells counted",
    )


def _x(value: float, right: float) -> float:
    return round(CURVE_LEFT + value / right * (CURVE_RIGHT - CURVE_LEFT), 1)


def _y(value: float, top: float) -> float:
    return round(CURVE_BOTTOM - min(value, top) / top * (CURVE_BOTTOM - CURVE_TOP), 1)


def _ticks(largest: float) -> tuple[list[float], float]:
    """Three to five round numbers from 0 on, and where the axis ends."""
    largest = max(largest, 1e-9)
    unit = 10.0 ** math.floor(math.log10(largest))
    step = next(unit * part for part in (0.2, 0.25, 0.5, 1.0, 2.0, 2.5, 5.0) if largest <= 4 * unit * part)
    count = math.ceil(largest / step - 1e-9)
    return [round(step * place, 6) for place in range(count + 1)], step * count
