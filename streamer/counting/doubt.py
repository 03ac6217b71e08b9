"""Cells around a frame of which something is in doubt: their class, whether they are there, where they end."""

from __future__ import annotations

import numpy as np

from streamer.counting.cell_table import CellTable
from streamer.counting.fusion import Fusion
from streamer.counting.matching import Field, Ints
from streamer.counting.presence import is_doubted
from streamer.counting.tallies import Tallies
from streamer.looking.plan import NO_DOUBT, CellsInDoubt, KnownCells

SURE = 0.9
"""Probability of the fused class from which on it is not in doubt."""
MOST_LOOKS = 12
"""Looks after which a class owes none: twelve count as 1.38 independent ones (fusion.py), and no number as more than
1.43."""


def cells_in_doubt(cells: CellTable, fusion: Fusion, tallies: Tallies, field: Field) -> CellsInDoubt:
    """White and nucleated red cells in a field and around it, half its size each way; none that a person named."""
    around = field.size / 2
    rows = cells.within(field.island, np.concatenate([field.corner - around, field.corner + field.size + around]))
    kinds = cells.kind(rows)
    rows, kinds = rows[kinds <= 1], kinds[kinds <= 1]  # first, as most cells are red ones
    asked = cells.exist(rows) & (cells.reclassified_order[rows] == 0)
    if not asked.any():
        return NO_DOUBT
    partial, white = cells.partial[rows], (kinds == 0) & (cells.white_row[rows] >= 0)
    cut, whole, named = rows[asked & partial], rows[asked & ~partial], rows[asked & ~partial & white]
    return CellsInDoubt(
        classes=_known(cells, _unsure(cells, fusion, tallies, named)),
        presence=_known(cells, whole[is_doubted(cells, whole)]),
        extent=_known(cells, cut),
    )


def _unsure(cells: CellTable, fusion: Fusion, tallies: Tallies, rows: Ints) -> Ints:
    """Those whose class is in doubt, or of which a single one flags the slide, until they were looked at often
    enough."""
    rows = rows[cells.looks[rows] < MOST_LOOKS]
    if not len(rows) or not fusion.class_names:
        return rows[:0]
    surest = fusion.surest(cells.white_row[rows].astype(np.intp))
    unsure = (cells.class_index[rows] < 0) | (surest < SURE) | tallies.were_listed(rows)
    return np.asarray(rows[unsure])


def _known(cells: CellTable, rows: Ints) -> KnownCells:
    return KnownCells(rows, cells.boxes[rows].copy(), cells.label[rows].astype(np.intp))
