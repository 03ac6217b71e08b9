"""The Bland-Altman plots of a comparison as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from engines.base import printable
from streamer import RESEARCH_USE
from streamer.counting.agreement import BlandAltman
from streamer.dashboard.palette import class_colour
from streamer.qc.over_slides import ClassOverSlides

WIDTH, HEIGHT = 420, 260
LEFT, RIGHT, TOP, BOTTOM = 48, 78, 14, 36
"""Margins of a plot in px: the numbers of its axes, and the words of its lines."""

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 60em; padding: 0 1em; }
figure { display: inline-block; margin: 0 1em 1em 0; } figcaption { font-weight: 600; } svg { max-width: 100%; }
text { font: 11px system-ui, sans-serif; fill: #444; } .axis { stroke: #888; } .mean { stroke: #222; }
.limit { stroke: #b8860b; stroke-dasharray: 5 3; } .zero { stroke: #ccc; }
"""


def page(first: str, second: str, classes: Sequence[ClassOverSlides]) -> str:
    """`first` and `second`: what was compared. A plot a class that has two slides or more."""
    plots = [_figure(one, one.agreement) for one in classes if one.agreement is not None]
    names = [escape(printable(name)) for name in (first, second)]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Two counts of the same slides</title>'
        f"<style>{_STYLE}</style></head><body>\n<h1>Two counts of the same slides</h1>\n"
        f"<p>A: {names[0]}<br>B: {names[1]}</p>\n<p>Each point is a slide: B minus A in percentage points over the mean"
        " of both (Bland and Altman). The black line is the mean difference, the dashed ones are the limits of"
        f" agreement, between which 95 % of the differences are expected.</p>\n{''.join(plots)}"
        f"<p>{RESEARCH_USE}</p>\n</body></html>\n"
    )


def _figure(one: ClassOverSlides, found: BlandAltman) -> str:
    points = [((a + b) / 2.0, b - a) for a, b in zip(one.first, one.second, strict=True)]
    x_low, x_high = _padded([x for x, _ in points])
    y_low, y_high = _padded([*(y for _, y in points), found.low, found.high, 0.0])

    def across(x: float) -> float:
        return LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def down(y: float) -> float:
        return TOP + (y_high - y) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    def level(kind: str, y: float, words: str) -> str:
        return f'<line class="{kind}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{down(y):.1f}" y2="{down(y):.1f}"/>' + (
            f'<text x="{WIDTH - RIGHT + 4}" y="{down(y) + 4:.1f}">{words}</text>' if words else ""
        )

    parts = [
        level("zero", 0.0, ""),
        level("mean", found.mean, f"mean {found.mean:+.1f}"),
        level("limit", found.high, f"{found.high:+.1f}"),
        level("limit", found.low, f"{found.low:+.1f}"),
        f'<line class="axis" x1="{LEFT}" x2="{LEFT}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>',
        f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}"/>',
        *(f'<text x="{LEFT - 5}" y="{down(y) + 4:.1f}" text-anchor="end">{y:+.1f}</text>' for y in (y_low, y_high)),
        *(
            f'<text x="{across(x):.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{x:.1f}</text>'
            for x in (x_low, x_high)
        ),
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">mean of A and B, %</text>',
        *(
            f'<circle cx="{across(x):.1f}" cy="{down(y):.1f}" r="3.5" fill="{class_colour(one.name)}"/>'
            for x, y in points
        ),
    ]
    name = escape(printable(one.name))
    return (
        f'<figure><figcaption>{name}, {found.slides} slides</figcaption><svg role="img" width="{WIDTH}"'
        f' height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"><title>{name}: mean difference {found.mean:+.1f}, limits of'
        f" agreement {found.low:+.1f} to {found.high:+.1f} percentage points</title>{''.join(parts)}</svg></figure>\n"
    )


def _padded(values: Sequence[float]) -> tuple[float, float]:
    """The range of an axis: a little beyond its values, and never empty."""
    low, high = min(values), max(values)
    more = 0.06 * (high - low) or 1.0
    return low - more, high + more
