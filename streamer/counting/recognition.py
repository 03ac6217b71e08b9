"""Which cell is which: the known cells that a frame's boxes show, and those that turn out to be one cell.

A cell is known by its place. This reads the cells and changes none; whether two boxes are alike enough is in
streamer/counting/matching.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streamer.counting.cell_table import CellTable
from streamer.counting.matching import (
    Cuts,
    Field,
    Ints,
    MatchConfig,
    SlideBoxes,
    new_and_double,
    one_to_one,
    overlaps,
    touching_pairs,
)

_FAMILY = np.array([0, 0, 1, 2])
"""Of each kind: white and nucleated red cells are taken for one another, the others seldom."""


@dataclass(frozen=True, slots=True, eq=False)
class Recognised:
    """What the boxes of one frame show, as indices of boxes. Those in none of `known`, `new` and `doubles` show parts
    of what better boxes show, and no cell."""

    known: Ints
    """SlideBoxes that each show another known cell."""
    cells: Ints
    """The numbers of these cells."""
    new: Ints
    doubles: Ints
    """Further boxes of what one of `known` or `new` shows."""
    originals: Ints
    """That box, for each of `doubles`."""


class Recognition:
    """Knows the cells of a store again, by their boxes and kinds."""

    def __init__(self, cells: CellTable, config: MatchConfig) -> None:
        self._cells = cells
        self._config = config

    def recognise(
        self, boxes: SlideBoxes, cut: Cuts, kinds: Ints, scores: npt.NDArray[np.float32], field: Field
    ) -> Recognised:
        """What each box, (n, 4) on the slide and n > 0, of the frame `field` shows; `cut`, `kinds` and `scores` are
        theirs."""
        near = self._near(boxes, field.island)
        known, matched = one_to_one(*self._like(boxes, cut, kinds, near, field))
        is_known = np.zeros(len(boxes), bool)
        is_known[known] = True
        new, doubles, originals = new_and_double(is_known, boxes, cut, _FAMILY[kinds], scores, self._config)
        return Recognised(known, near[matched], new, doubles, originals)

    def doubles(self, rows: Ints, island: int) -> tuple[Ints, Ints]:
        """Pairs (a, b), a < b, of cells that are the same, one of them among `rows`, which lie in `island`; no cell
        comes twice."""
        cells = self._cells
        near = self._near(cells.boxes[rows], island)
        i, j, likeness = self._like(cells.boxes[rows], cells.cut[rows], cells.kind(rows), near)
        a, b = rows[i], near[j]
        # Cells that were there at the same time were told apart then, unless one of them lay elsewhere on the map.
        together = (cells.first_frame[a] <= cells.last_frame[b]) & (cells.first_frame[b] <= cells.last_frame[a])
        surely = (cells.anchor[a] != cells.anchor[b]) & (likeness >= 1 + self._config.min_iou_together)
        chosen = (a != b) & (~together | surely)
        a, b = np.minimum(a, b)[chosen], np.maximum(a, b)[chosen]
        taken: set[int] = set()
        pairs = []
        for pair in np.argsort(-likeness[chosen], kind="stable").tolist():
            one, two = int(a[pair]), int(b[pair])
            if one not in taken and two not in taken:
                taken |= {one, two}
                pairs.append(pair)
        best = np.array(pairs, np.intp)
        return a[best], b[best]

    def _near(self, boxes: SlideBoxes, island: int) -> Ints:
        """Cells that any of these boxes may show."""
        return self._cells.within(island, np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)]))

    def _like(
        self, boxes: SlideBoxes, cut: Cuts, kinds: Ints, near: Ints, field: Field | None = None
    ) -> tuple[Ints, Ints, npt.NDArray[np.float64]]:
        """(i, j, likeness): box i, seen in `field`, may show cell near[j]."""
        cells, config = self._cells, self._config
        known = cells.boxes[near]
        if field is not None:  # more of a cell than lies in the field can't be seen
            known = field.seen(known)
        i, j = touching_pairs(boxes, known)
        rows = near[j]
        iou, containment = overlaps(boxes[i], cut[i], known[j], cells.cut[rows])
        same = _FAMILY[kinds[i]] == _FAMILY[cells.kind(rows)]
        whole = ~(cut[i].any(1) | cells.cut[rows].any(1))
        enough = np.where(whole, config.min_iou, config.min_iou_cut)
        like = np.where(same, iou >= enough, iou >= config.min_iou_other_family)
        like |= same & ~whole & (containment >= config.min_containment_cut)
        return i[like], j[like], iou[like] + same[like]
