"""Where the stage has been and the white cells found there, from messages alone, in bounded memory.

A Chart has a grid of square tiles for each island: whether a tile was seen, and the class of a white cell in it. An
island that outgrows its grid gets tiles twice as large. Later corrections of a position are usually smaller than a tile
and don't move what is drawn. An island that becomes part of another one moves as a whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streamer.protocol import messages
from streamer.records import MergedIsland, StagePosition

TILES_A_FRAME = 16
"""Tiles along the longer side of a frame, so that a tile is about as large as a white cell."""
MOST_TILES = 512
"""Along a side of an island's grid."""
MOST_ISLANDS = 64
"""Beyond it, the islands left longest ago are dropped and counted."""
MOST_CLASSES = 254
FINE = 2.0
"""Tiles up to this many times as large as the first ones still measure areas well."""
USUAL_TILE_PX = 40.0
"""Used until the first frame gives the size of frames."""

PASSED = 1
"""The stage was there, and no frame of it was counted."""
COUNTED = 2

Grid = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Visit:
    """A frame's part of the chart. `stage` is None for a frame that could not be placed."""

    session: str
    stage: StagePosition | None
    width: int
    height: int
    accepted: bool
    merged_islands: tuple[MergedIsland, ...]


@dataclass(frozen=True, slots=True)
class Mark:
    """A white cell's part of the chart."""

    session: str
    island: int
    x_px: float
    y_px: float
    class_name: str | None
    """None: there is no white cell after all."""


Step = Visit | Mark


def step_of(message: messages.AnyMessage) -> Step | None:
    """What a message adds to the chart, in a few bytes; None if nothing."""
    if isinstance(message, messages.FrameMessage):
        merged = tuple(message.merged_islands)
        return Visit(message.session, message.stage, message.width, message.height, message.accepted, merged)
    if isinstance(message, messages.CellMessage) and message.joined_to is None:
        class_name = message.class_ if message.counted else None
        return Mark(message.session, message.island, message.x_px, message.y_px, class_name)
    return None


class Island:
    """One grid. Slide point = (`left` + column, `top` + row) * `tile_px` for the upper left corner of a tile."""

    __slots__ = ("cells", "first_tile_px", "left", "seen", "tile_px", "top")

    def __init__(self, tile_px: float) -> None:
        self.tile_px = self.first_tile_px = tile_px
        self.left = self.top = 0
        self.seen: Grid = np.zeros((0, 0), np.uint8)
        """(rows, columns): 0, PASSED or COUNTED."""
        self.cells: Grid = np.zeros((0, 0), np.uint8)
        """(rows, columns): 0, or 1 + the index into `Chart.class_names` of a white cell there."""

    @property
    def size_px(self) -> tuple[float, float]:
        """Width and height on the slide."""
        return self.seen.shape[1] * self.tile_px, self.seen.shape[0] * self.tile_px

    def visit(self, x_px: float, y_px: float, width: int, height: int, value: int) -> None:
        """Draw a frame that lies at (x_px, y_px)."""
        self._reach(x_px, y_px, x_px + width, y_px + height)
        tile = self.tile_px
        part = self.seen[_tiles(y_px, height, tile, self.top), _tiles(x_px, width, tile, self.left)]
        np.maximum(part, value, out=part)

    def mark(self, x_px: float, y_px: float, code: int) -> None:
        """Draw a cell; code 0 erases it."""
        self._reach(x_px, y_px, x_px, y_px)
        self.cells[math.floor(y_px / self.tile_px) - self.top, math.floor(x_px / self.tile_px) - self.left] = code

    def take_over(self, gone: Island, dx_px: float, dy_px: float) -> None:
        """Draw all of another island over this one, moved by (dx_px, dy_px)."""
        while self.tile_px < gone.tile_px:
            self._coarsen()
        rows, columns = np.nonzero(gone.seen | gone.cells)
        if not len(rows):
            return
        x = (gone.left + columns + 0.5) * gone.tile_px + dx_px
        y = (gone.top + rows + 0.5) * gone.tile_px + dy_px
        self._reach(x.min(), y.min(), x.max(), y.max())
        here = (
            np.floor(y / self.tile_px).astype(np.intp) - self.top,
            np.floor(x / self.tile_px).astype(np.intp) - self.left,
        )
        np.maximum.at(self.seen, here, gone.seen[rows, columns])
        codes = gone.cells[rows, columns]
        new = (codes > 0) & (self.cells[here] == 0)
        self.cells[here[0][new], here[1][new]] = codes[new]

    def _reach(self, x1_px: float, y1_px: float, x2_px: float, y2_px: float) -> None:
        """Make the grid hold the tiles of both corners and all between: enlarge it or, at its largest, coarsen it."""
        while True:
            left, right = math.floor(x1_px / self.tile_px), math.floor(x2_px / self.tile_px) + 1
            top, bottom = math.floor(y1_px / self.tile_px), math.floor(y2_px / self.tile_px) + 1
            rows, columns = self.seen.shape
            if self.seen.size:
                left, right = min(left, self.left), max(right, self.left + columns)
                top, bottom = min(top, self.top), max(bottom, self.top + rows)
            if max(right - left, bottom - top) <= MOST_TILES:
                break
            self._coarsen()
        if (left, top, right - left, bottom - top) != (self.left, self.top, columns, rows):
            self._resize(left, top, right - left, bottom - top)

    def _coarsen(self) -> None:
        """Double the size of tiles. A tile is seen if half of it was; of several cells in it one remains."""
        rows, columns = self.seen.shape
        left, top = self.left // 2, self.top // 2
        right, bottom = -(-(self.left + columns) // 2), -(-(self.top + rows) // 2)
        self._resize(2 * left, 2 * top, 2 * (right - left), 2 * (bottom - top))
        seen, self.cells = _quarters(self.seen), _quarters(self.cells).max(0)
        # A single frame must not vanish in tiles larger than itself.
        self.seen = np.sort(seen, axis=0)[2] if self.tile_px <= FINE * self.first_tile_px else seen.max(0)
        self.left, self.top, self.tile_px = left, top, 2.0 * self.tile_px

    def _resize(self, left: int, top: int, columns: int, rows: int) -> None:
        """Set the extent of the grid, which includes its present one."""
        old_rows, old_columns = self.seen.shape
        seen, cells = np.zeros((rows, columns), np.uint8), np.zeros((rows, columns), np.uint8)
        x, y = self.left - left, self.top - top
        if self.seen.size:
            seen[y : y + old_rows, x : x + old_columns] = self.seen
            cells[y : y + old_rows, x : x + old_columns] = self.cells
        self.seen, self.cells, self.left, self.top = seen, cells, left, top


def _quarters(grid: Grid) -> Grid:
    """(4, rows / 2, columns / 2): each block of two by two. Both sides of the grid are even."""
    return np.stack([grid[0::2, 0::2], grid[0::2, 1::2], grid[1::2, 0::2], grid[1::2, 1::2]])


def _tiles(start_px: float, length_px: float, tile_px: float, first: int) -> slice:
    """The tiles at least half covered by a length, one at least, counted from tile `first`."""
    start = math.floor(start_px / tile_px + 0.5)
    stop = math.floor((start_px + length_px) / tile_px + 0.5)
    if stop <= start:
        start = math.floor(start_px / tile_px)
        stop = start + 1
    return slice(start - first, stop - first)


class Chart:
    """All islands of one slide, the most recently used last."""

    def __init__(self) -> None:
        self.islands: dict[int, Island] = {}
        self.given_up = 0
        """Islands dropped because there were too many."""
        self.missed = 0
        """Steps lost before they reached the chart, which is then incomplete."""
        self.class_names: list[str] = []
        self._tile_px = USUAL_TILE_PX
        self._frame_px2 = 0.0

    @property
    def fields(self) -> tuple[float, float]:
        """Areas of the slide that were counted and only passed, in frames."""
        if not self._frame_px2:
            return 0.0, 0.0
        counted = sum(np.count_nonzero(one.seen == COUNTED) * one.tile_px**2 for one in self.islands.values())
        passed = sum(np.count_nonzero(one.seen == PASSED) * one.tile_px**2 for one in self.islands.values())
        return counted / self._frame_px2, passed / self._frame_px2

    @property
    def is_fine(self) -> bool:
        """Whether tiles are fine enough for `fields` to be accurate."""
        return all(one.tile_px <= FINE * one.first_tile_px for one in self.islands.values())

    def take(self, step: Step) -> None:
        """Draw one step. Drawing a step again changes nothing."""
        if isinstance(step, Mark):
            code = 0 if step.class_name is None else self._code(step.class_name)
            if _is_place(step.x_px, step.y_px):
                self._island(step.island).mark(step.x_px, step.y_px, code)
            return
        for merged in step.merged_islands:
            self._merge(merged)
        if not self._frame_px2 and min(step.width, step.height) > 0:
            self._frame_px2 = float(step.width * step.height)
            self._tile_px = max(step.width, step.height) / TILES_A_FRAME
        stage = step.stage
        if stage is not None and _is_place(stage.x_px, stage.y_px):
            value = COUNTED if step.accepted else PASSED
            self._island(stage.island).visit(stage.x_px, stage.y_px, step.width, step.height, value)

    def _island(self, number: int) -> Island:
        island = self.islands.pop(number, None) or Island(self._tile_px)
        self.islands[number] = island
        if len(self.islands) > MOST_ISLANDS:
            del self.islands[next(iter(self.islands))]
            self.given_up += 1
        return island

    def _merge(self, merged: MergedIsland) -> None:
        gone = self.islands.pop(merged.island, None)
        if gone is not None and _is_place(merged.dx_px, merged.dy_px):
            self._island(merged.into).take_over(gone, merged.dx_px, merged.dy_px)

    def _code(self, class_name: str) -> int:
        if class_name not in self.class_names:
            if len(self.class_names) == MOST_CLASSES:
                return MOST_CLASSES + 1
            self.class_names.append(class_name)
        return 1 + self.class_names.index(class_name)


def _is_place(x_px: float, y_px: float) -> bool:
    """Whether a slide can be so large: anything may come over a network."""
    return abs(x_px) < 1e9 and abs(y_px) < 1e9
