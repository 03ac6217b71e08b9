"""The class of a cell: what its looks say together, or what a person said."""

from __future__ import annotations

import numpy as np

from streamer.counting.cell_table import AS_DETECTED, CellTable
from streamer.counting.fusion import Fusion
from streamer.counting.matching import Ints


def classify(cells: CellTable, fusion: Fusion, rows: Ints) -> None:
    """Give these cells, which were looked at or told, the class and subclass that they have by now."""
    sums = cells.white_row[rows].astype(np.intp)
    cells.class_index[rows] = fusion.classes(sums)
    cells.subclass_index[rows] = fusion.subclasses(sums, cells.class_index[rows])
    told = (cells.reclassified_order[rows] > 0) & (cells.reclassified_class[rows] != AS_DETECTED)
    reclassified = rows[told]
    cells.class_index[reclassified] = cells.reclassified_class[reclassified]
    cells.subclass_index[reclassified] = cells.reclassified_subclass[reclassified]


def seen_whole(cells: CellTable, fusion: Fusion, rows: Ints, cut_weight: float) -> None:
    """These cells are partial no more, where they were: what was seen of them cut counts `cut_weight`."""
    rows = rows[cells.partial[rows]]
    cells.partial[rows] = False
    rows = rows[cells.white_row[rows] >= 0]
    if len(rows):
        fusion.lighten(cells.white_row[rows].astype(np.intp), cut_weight)
        classify(cells, fusion, rows)
