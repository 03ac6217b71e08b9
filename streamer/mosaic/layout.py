"""Islands side by side: rectangles on shelves. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

GAP_PX = 16
CAPTION_PX = 26
"""Above each island, for its name."""


@dataclass(frozen=True, slots=True)
class Layout:
    """All in pixels of the picture."""

    scale: float
    """Of the slide's pixels."""
    corners: tuple[tuple[int, int], ...]
    """x, y of each rectangle."""
    width: int
    height: int


def layout(sizes: Sequence[tuple[float, float]], max_side: int) -> Layout:
    """Place rectangles of these (width, height) in slide pixels, so that the picture's longer side is `max_side` at
    most. Nothing is enlarged."""
    area = sum(width * height for width, height in sizes)
    row_width = max(*(width for width, _ in sizes), 1.25 * math.sqrt(area))
    scale = 1.0
    for _ in range(60):  # gaps and captions do not shrink, so the scale that fits is found by trying
        placed = _shelves(sizes, scale, row_width)
        longest = max(placed.width, placed.height)
        if longest <= max_side:
            return placed
        scale *= max(0.5, min(0.995, (max_side - 2 * GAP_PX) / longest))
    return placed


def _shelves(sizes: Sequence[tuple[float, float]], scale: float, row_width: float) -> Layout:
    narrowest = math.ceil(math.sqrt(len(sizes))) * (GAP_PX + CAPTION_PX)
    limit = 2 * GAP_PX + max(math.ceil(row_width * scale), narrowest)
    corners: list[tuple[int, int]] = [(0, 0)] * len(sizes)
    x, y, deepest, right = GAP_PX, GAP_PX, 0, 0
    for place in sorted(range(len(sizes)), key=lambda place: -sizes[place][1]):
        width, height = (max(1, round(side * scale)) for side in sizes[place])
        if x > GAP_PX and x + width + GAP_PX > limit:
            x, y, deepest = GAP_PX, y + deepest + GAP_PX, 0
        corners[place] = x, y + CAPTION_PX
        x += width + GAP_PX
        deepest = max(deepest, CAPTION_PX + height)
        right = max(right, x)
    return Layout(scale, tuple(corners), right, y + deepest + GAP_PX)
