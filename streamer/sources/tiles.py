"""A picture larger than a field, cut into tiles: where they lie."""

from __future__ import annotations

import math
from collections.abc import Iterator

Corner = tuple[int, int]
"""x and y of a tile's upper left pixel."""


def starts(length_px: int, tile_px: int, overlap: float) -> list[int]:
    """Where tiles begin along one side: as few as share `overlap` of `tile_px` or more, the first at 0, the last one
    ending with the side, the others evenly between. Only 0 where the side is no longer than a tile."""
    last = length_px - tile_px
    if last <= 0:
        return [0]
    steps = math.ceil(last / max(1, round(tile_px * (1 - overlap))))
    return [round(number * last / steps) for number in range(steps + 1)]


def serpentine(columns: list[int], rows: list[int]) -> Iterator[Corner]:
    """All corners, to the right and back again row by row, so that each tile lies beside the one before."""
    for number, top in enumerate(rows):
        for left in columns if number % 2 == 0 else reversed(columns):
            yield left, top
