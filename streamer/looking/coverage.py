"""Where a slide was looked at, and how far inside the frame that showed each spot best.

A spot that a look showed deep inside its frame is done: whatever lies there was seen whole. What lay nearer to an edge
was cut, unless it is small. So coverage is a depth: the distance of a spot from the nearest edge of the look that has
it deepest, between `LEAST` (no cell is so small) and `ENOUGH` (none is larger).

What is kept is the looks themselves, by the keyframe that each hangs on: they move when the stage map is corrected and
islands are joined, and there are as many as the area has room for, not as there are frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from streamer.records import StagePosition
from streamer.stage.placement import Correction, Placement

Depths = npt.NDArray[np.float32]
SlideBoxes = npt.NDArray[np.float64]

POINTS = 40
"""Of the grid that a frame is judged on, along its longer side."""
LEAST = 0.03
"""Depth, as a share of the frame's longer side, that does for no cell."""
ENOUGH = 0.105
"""Depth that does for all: half the diameter of a large monocyte at the usual magnifications, and what a detector errs
at an edge."""


class Coverage:
    """The looks at one slide."""

    def __init__(self) -> None:
        self._count = 0
        self._places = np.zeros((64, 6))
        """(n, 6) island, anchor, x1, y1, x2, y2 on the slide."""
        self._sharpness = np.zeros(64)

    def __len__(self) -> int:
        return self._count

    def add(self, placement: Placement, size_px: tuple[int, int], sharpness: float) -> None:
        """A frame (width, height) that has a position was looked at."""
        position = placement.position
        assert position is not None
        if self._count == len(self._places):
            self._places = np.concatenate([self._places, np.zeros((max(64, self._count), 6))])
            self._sharpness = np.concatenate([self._sharpness, np.zeros(max(64, self._count))])
        x, y = position.x_px, position.y_px
        anchor = 0 if placement.anchor is None else placement.anchor
        self._places[self._count] = position.island, anchor, x, y, x + size_px[0], y + size_px[1]
        self._sharpness[self._count] = sharpness
        self._count += 1

    @property
    def rows(self) -> npt.NDArray[np.float64]:
        """(n, 7) a copy: island, anchor, x1, y1, x2, y2, sharpness of each look."""
        return np.column_stack([self._places[: self._count], self._sharpness[: self._count]])

    @classmethod
    def of(cls, rows: npt.NDArray[np.float64]) -> Coverage:
        """With these `rows`."""
        self = cls()
        self._count, self._places, self._sharpness = len(rows), rows[:, :6].copy(), rows[:, 6].copy()
        return self

    def correct(self, corrections: Sequence[Correction]) -> None:
        """Move with the stage map."""
        places = self._places[: self._count]
        for one in corrections:
            moved = places[:, 1] == one.anchor
            places[moved, 0] = one.island
            places[moved, 2:] += one.dx_px, one.dy_px, one.dx_px, one.dy_px

    def inside_px(self, boxes_px: SlideBoxes, island: int) -> npt.NDArray[np.float64]:
        """(n,) how far inside a frame boxes (n, 4) on the slide lay, from the nearest edge, in the look that had them
        deepest; -inf where there was none on the island."""
        places = self._places[: self._count]
        places = places[places[:, 0] == island]
        low, high = boxes_px[:, None, :2] - places[:, 2:4], places[:, 4:] - boxes_px[:, None, 2:]
        return np.asarray(np.minimum(low, high).min(2).max(1, initial=-np.inf))

    def seen(self, position: StagePosition, size_px: tuple[int, int], sharpness: float) -> Depths:
        """Of the spots of a frame: how deep looks of at least such a sharpness showed them; see `own_depths`."""
        places = self._places[: self._count]
        x, y = position.x_px, position.y_px
        near = (places[:, 0] == position.island) & (self._sharpness[: self._count] >= sharpness)
        near &= (places[:, 2] < x + size_px[0]) & (places[:, 4] > x)
        near &= (places[:, 3] < y + size_px[1]) & (places[:, 5] > y)
        columns, rows = spots(size_px)
        return _depths(columns + x, rows + y, places[near, 2:].astype(np.float32), max(size_px))


@lru_cache(maxsize=16)
def spots(size_px: tuple[int, int]) -> tuple[Depths, Depths]:
    """(columns, rows): where in a frame (width, height) the spots lie that it is judged by."""
    step = max(size_px) / POINTS
    columns, rows = (np.arange(step / 2, side, step, dtype=np.float32) for side in size_px)
    for places in (columns, rows):
        places.setflags(write=False)
    return columns, rows


@lru_cache(maxsize=16)
def own_depths(size_px: tuple[int, int]) -> Depths:
    """(rows, columns) of the spots of a frame: how deep it shows each, 0 to 1: from what does for no cell to what does
    for all."""
    columns, rows = spots(size_px)
    depths = _depths(columns, rows, np.array([(0, 0, *size_px)], np.float32), max(size_px))
    depths.setflags(write=False)
    return depths


def _depths(columns: Depths, rows: Depths, boxes: Depths, longer: int) -> Depths:
    """(rows, columns) how deep the spots lie in the box, of (n, 4), that has them deepest."""
    x1, y1, x2, y2 = boxes.T[:, :, None]
    across, down = np.minimum(columns - x1, x2 - columns), np.minimum(rows - y1, y2 - rows)
    inside = np.minimum(down[:, :, None], across[:, None, :]).max(0, initial=0.0)
    return np.asarray(np.clip((inside / longer - LEAST) / (ENOUGH - LEAST), 0.0, 1.0), np.float32)
