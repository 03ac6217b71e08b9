"""A picture larger than a camera's field, cut into fields of a camera's size: where the tiles lie."""

from __future__ import annotations

from collections.abc import Iterator

TILE_PX = (1280, 1024)
"""Width and height. The sensor of a common microscope camera, so that a tile is a field such as the models, the quality
gate and the map of the slide know: 320 x 256 µm at 0.25 µm/px, some hundred red cells or more."""

OVERLAP = 0.2
"""Of a tile's sides, with the next one: 51 µm of 1024 px at 0.25 µm/px, where the largest white cells are 25 µm wide.
So cells at the edge of one tile lie whole in another."""

Corner = tuple[int, int]
"""x and y of a tile's upper left pixel."""


def starts(length_px: int, tile_px: int, overlap: float) -> list[int]:
    """Where tiles begin along one side, with `overlap` of `tile_px` in common; the last one ends with the side. Only 0
    where the side is no longer than a tile."""
    step = max(1, round(tile_px * (1 - overlap)))
    last = max(0, length_px - tile_px)
    return [*range(0, last, step), last]


def serpentine(columns: list[int], rows: list[int]) -> Iterator[Corner]:
    """All corners, to the right and back again row by row, so that each tile lies beside the one before."""
    for number, top in enumerate(rows):
        for left in columns if number % 2 == 0 else reversed(columns):
            yield left, top
