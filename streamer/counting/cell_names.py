"""How the cells of a slide are called by now, and what people said of them: read from the tables, without a record for
each cell.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from streamer.counting.cell_table import AS_DETECTED, CellTable
from streamer.counting.fusion import Fusion
from streamer.counting.tallies import Tallies
from streamer.records import UNCLASSIFIED, Reclassification


class NamedCell(NamedTuple):
    cell_id: int
    class_name: str
    subclass: str | None
    counted: bool
    partial: bool


class CellNames:
    """Reads the tables of one slide map; it changes nothing."""

    def __init__(self, cells: CellTable, fusion: Fusion, tallies: Tallies) -> None:
        self._cells = cells
        self._fusion = fusion
        self._tallies = tallies

    @property
    def nameable(self) -> tuple[str, ...]:
        """What a person may call a cell, but for unclassified; empty before the first look."""
        return self._fusion.nameable

    def named_cells(self) -> list[NamedCell]:
        """All published cells by number, without what their looks say: a hundred times as fast as their records."""
        rows, cells, fusion = self._cells.published_rows(), self._cells, self._fusion
        classes, subclasses = (UNCLASSIFIED, *fusion.nameable), (None, *fusion.subclass_names)
        columns = cells.class_index[rows] + 1, cells.subclass_index[rows] + 1, self._tallies.counted(rows)
        return [
            NamedCell(row, classes[class_], subclasses[subclass], counted, partial)
            for row, class_, subclass, counted, partial in zip(
                rows.tolist(), *(column.tolist() for column in columns), cells.partial[rows].tolist(), strict=True
            )
        ]

    def name_of(self, cell_id: int) -> tuple[str, str | None]:
        """Class and subclass of a cell, or of the one that it was joined to."""
        row, fusion = self._cells.row_of(cell_id), self._fusion
        class_, subclass = int(self._cells.class_index[row]), int(self._cells.subclass_index[row])
        name = UNCLASSIFIED if class_ < 0 else fusion.nameable[class_]
        return name, None if subclass < 0 else fusion.subclass_names[subclass]

    def row_of(self, cell_id: int) -> int:
        """The number of a cell, or of the one that it turned out to be."""
        return self._cells.row_of(cell_id)

    def said_of(self, cell_id: int) -> Reclassification:
        """What gives a cell what people said of it so far: nothing, where nobody did."""
        row = self._cells.row_of(cell_id)
        if not self._cells.reclassified_order[row]:
            return Reclassification(row, None)
        confirmed = bool(self._cells.reclassified_class[row] == AS_DETECTED)
        return Reclassification(row, *self.name_of(row), confirmed=confirmed)

    def reviewed(self) -> tuple[int, int, int]:
        """How many published cells a person named, confirmed or added; how many of these were seen whole; and how many
        were at all."""
        cells, rows = self._cells, self._cells.published_rows()
        told, whole = cells.reclassified_order[rows] > 0, ~cells.partial[rows]
        return int(told.sum()), int((told & whole).sum()), int(whole.sum())

    def white_at(self, island: int, x_px: float, y_px: float) -> int | None:
        """The published cell whose box holds a point of the slide; None: there is none."""
        cells, rows = self._cells, self._cells.published_rows()
        boxes, point = cells.boxes[rows], np.array([x_px, y_px])
        inside = (boxes[:, :2] <= point).all(1) & (point <= boxes[:, 2:]).all(1) & (cells.island[rows] == island)
        return int(rows[inside][0]) if inside.any() else None

    def usual_size_px(self) -> tuple[float, float] | None:
        """Median width and height of the boxes of the white cells seen whole; None: there are none."""
        rows = self._cells.published_rows()
        boxes = self._cells.boxes[rows[~self._cells.partial[rows] & (self._cells.kind(rows) == 0)]]
        if not len(boxes):
            return None
        width, height = np.median(boxes[:, 2:] - boxes[:, :2], axis=0).tolist()
        return width, height
