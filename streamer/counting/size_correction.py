"""How many cells a whole one stands for: the larger a cell, the likelier an edge of the frame cuts it.

A box w x h lies whole in a field W x H with the probability (W - w)(H - h) / (W H), so that it stands for the inverse
of that many cells; on an island of several fields, for the inverse of the share of the accepted area in which it would
lie whole in one of them. Sources: Miles, in Stochastic Geometry (1974) 228; Lantuejoul, in Proc. 5th Int. Conf. Pattern
Recognition (1980) 84; in sampling, Horvitz & Thompson, J. Am. Stat. Assoc. 47 (1952) 663.

Of an island it is known how deep each point of a grid lies in the field that has it deepest, so that a field costs the
same however large the slide is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from streamer.counting.matching import Field, SlideBoxes
from streamer.records import MergedIsland

POINTS = 32
"""Of the grid, across a field and down it."""

DEPTHS = POINTS // 2

_INWARD = np.minimum(np.arange(POINTS), np.arange(POINTS)[::-1])
_DEPTH = (1 + np.minimum.outer(_INWARD, _INWARD)).astype(np.uint8)
"""(POINTS, POINTS) of one field: 1 at its edges. A box of 2 k / POINTS of the field's sides lies whole around a point
deeper than k."""
_DEEPER = (POINTS - 2 * np.arange(DEPTHS)) ** 2
"""How many points of one field are deeper than k."""

LARGEST = 0.95
"""Of the field's side, for a box that is as large as the field."""

Place = tuple[int, int]
"""Row and column of a field's first point on the grid of its island."""


@dataclass(slots=True)
class _Island:
    places: set[Place] = field(default_factory=set)
    tiles: dict[Place, npt.NDArray[np.uint8]] = field(default_factory=dict)
    """(POINTS, POINTS) depths, by row and column of the tile; 0 outside all fields."""
    points: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(DEPTHS + 1, np.int64))
    """How many there are of each depth."""

    def add(self, place: Place) -> None:
        self.places.add(place)
        (tile_row, row), (tile_column, column) = (divmod(at, POINTS) for at in place)
        for down in (0, 1) if row else (0,):
            for right in (0, 1) if column else (0,):
                tile = self.tiles.setdefault((tile_row + down, tile_column + right), np.zeros_like(_DEPTH))
                rows = slice(0, row) if down else slice(row, POINTS)
                columns = slice(0, column) if right else slice(column, POINTS)
                part = tile[rows, columns]
                self.points -= np.bincount(part.ravel(), minlength=DEPTHS + 1)
                of_field = _DEPTH[-row:] if down else _DEPTH[: POINTS - row]
                np.maximum(part, of_field[:, -column:] if right else of_field[:, : POINTS - column], out=part)
                self.points += np.bincount(part.ravel(), minlength=DEPTHS + 1)

    def fields(self) -> npt.NDArray[np.float64]:
        """(DEPTHS,) as how many fields apart from one another it shows boxes of 2 k / POINTS of a field's sides."""
        deeper = np.cumsum(self.points[:0:-1])[::-1]
        return np.asarray(deeper / _DEEPER, np.float64)


class AcceptedArea:
    """Where the accepted fields of a slide lie; those of one island are of one size."""

    def __init__(self) -> None:
        self._islands: dict[int, _Island] = {}
        self._sizes = np.ones((1, 2))
        """(islands, 2) width and height of a field, px."""
        self._fields = np.ones((1, DEPTHS))

    def add(self, seen: Field) -> None:
        column, row = np.rint(seen.corner * POINTS / seen.size).astype(int).tolist()
        self._add(seen.island, seen.size, [(row, column)])

    def knows(self, island: int) -> bool:
        """Whether an accepted field lies there."""
        return island in self._islands

    def merge(self, merged: MergedIsland) -> None:
        """An island turned out to be part of another one."""
        gone = self._islands.pop(merged.island, None)
        if gone is not None:
            size = self._sizes[merged.island]
            right, down = np.rint(np.array([merged.dx_px, merged.dy_px]) * POINTS / size).astype(int).tolist()
            self._add(merged.into, size, [(row + down, column + right) for row, column in gone.places])

    def _add(self, number: int, size: npt.NDArray[np.float64], places: Sequence[Place]) -> None:
        self._grow(number, size)
        island = self._islands.setdefault(number, _Island())
        new = [place for place in places if place not in island.places]
        for place in new:
            island.add(place)
        if new:
            self._sizes[number] = size
            self._fields[number] = island.fields()

    def _grow(self, number: int, size: npt.NDArray[np.float64]) -> None:
        """Have room for an island, which counts as one field as long as nothing is known of it."""
        if number >= len(self._sizes):
            more = max(number + 1, 2 * len(self._sizes)) - len(self._sizes)
            self._sizes = np.concatenate([self._sizes, np.tile(size, (more, 1))])
            self._fields = np.concatenate([self._fields, np.ones((more, DEPTHS))])

    def weights(self, islands: npt.NDArray[np.integer], boxes: SlideBoxes) -> npt.NDArray[np.float64]:
        """(n,) how many cells each of n whole ones stands for, by its island and its box (n, 4) on the slide."""
        if len(islands):  # one that the stage joined at once and gave back again has no field of its own
            self._grow(int(islands.max()), self._sizes[0])
        shares = np.minimum((boxes[:, 2:] - boxes[:, :2]) / self._sizes[islands], LARGEST)
        depth = shares.mean(1) * DEPTHS
        k = np.minimum(depth.astype(np.intp), DEPTHS - 2)
        fields = self._fields[islands]
        rows = np.arange(len(k))
        between = fields[rows, k] + (fields[rows, k + 1] - fields[rows, k]) * (depth - k)
        return np.asarray(fields[:, 0] / (between * (1 - shares).prod(1)), np.float64)

    def state(self) -> dict[int, tuple[float, float, list[Place]]]:
        """By island the width and height of its fields and their places: what `restore` needs."""
        return {
            number: (*self._sizes[number].tolist(), sorted(island.places)) for number, island in self._islands.items()
        }

    def restore(self, state: Mapping[int, tuple[float, float, Sequence[Place]]]) -> None:
        """Only of one that is empty yet."""
        for number, (width, height, places) in state.items():
            self._add(number, np.array([width, height]), places)
