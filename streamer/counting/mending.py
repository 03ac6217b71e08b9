"""What turns out later: cells that the stage map moves, that lie on one spot, that a line cuts, or that are none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streamer.counting.cell_classes import classify, seen_whole
from streamer.counting.cell_table import CellTable
from streamer.counting.fusion import Fusion
from streamer.counting.matching import Ints
from streamer.counting.pieces import around, find_pieces
from streamer.counting.recognition import Recognition
from streamer.counting.sight import SightConfig, veiled_by
from streamer.counting.tallies import Tallies
from streamer.counting.visits import Visits
from streamer.stage.hidden import HiddenParts
from streamer.stage.placement import Correction


class Mending:
    """Of the cells of one slide."""

    def __init__(
        self,
        cells: CellTable,
        fusion: Fusion,
        tallies: Tallies,
        recognition: Recognition,
        visits: Visits,
        sight: SightConfig,
        *,
        cut_weight: float,
        double_check_px: float,
    ) -> None:
        """`cut_weight`, `double_check_px`: those of `SlideConfig`."""
        self._cells, self._fusion, self._tallies = cells, fusion, tallies
        self._recognition, self._visits, self._sight = recognition, visits, sight
        self._cut_weight, self._double_check_px = cut_weight, double_check_px
        self.hidden: HiddenParts | None = None
        """Of the last frame."""

    def hide(self, hidden: HiddenParts | None, longer_px: int) -> None:
        """Count the cells anew that were seen only where it is known now that the slide is hidden: as cut ones, or not
        at all. Each place between their first and their last frame must hide them."""
        before, self.hidden = self.hidden, hidden
        if hidden is None or hidden is before or hidden.same_as(before):
            return
        cells = self._cells
        self._join_pieces(hidden)
        rows = self._visits.known(cells, cells.living())
        veiled, unseen = np.ones(len(rows), bool), np.ones(len(rows), bool)
        for seen, boxes_px in self._visits.views(cells, rows):
            is_veiled, is_unseen = veiled_by(hidden, boxes_px, longer_px, self._sight)
            veiled[seen] &= is_veiled
            unseen[seen] &= is_unseen
        with self._tallies.change(rows[veiled]):
            cells.partial[rows[veiled]] = True
            for row in rows[unseen].tolist():
                cells.drop(row)

    def _join_pieces(self, hidden: HiddenParts) -> None:
        """Make one cell of white ones that were counted as two, since it was not known then that a line cuts them."""
        cells = self._cells
        rows = self._visits.known(cells, cells.living())
        rows = rows[cells.kind(rows) == 0]
        pairs: dict[int, int] = {}
        for seen, boxes_px in self._visits.views(cells, rows):
            for pair in find_pieces(boxes_px, hidden):
                larger, smaller = rows[seen[list(pair)]].tolist()
                if not {larger, smaller} & {*pairs, *pairs.values()}:
                    pairs[larger] = smaller
        for larger, smaller in pairs.items():
            both = np.array([larger, smaller])
            with self._tallies.change(both):
                union = around(cells.boxes[larger], cells.boxes[smaller])
                self._join(larger, smaller)
                cells.boxes[larger] = union
                cells.moved(both[:1])

    def correct(self, corrections: Sequence[Correction]) -> None:
        """Move with the stage map; cells that come to lie on one spot become one."""
        cells = self._cells
        self._visits.correct(corrections)
        if not corrections or cells.count == 0:
            return
        size = 1 + max(int(cells.anchor[: cells.count].max()), max(c.anchor for c in corrections))
        shift, island = np.zeros((size, 2)), np.full(size, -1)
        for correction in corrections:
            shift[correction.anchor] = correction.dx_px, correction.dy_px
            island[correction.anchor] = correction.island
        rows = cells.living()
        rows = rows[island[cells.anchor[rows]] >= 0]
        if len(rows) == 0:
            return
        by = shift[cells.anchor[rows]]
        cells.boxes[rows] += np.concatenate([by, by], axis=1)
        joined = (cells.island[rows] != island[cells.anchor[rows]]).any()
        cells.island[rows] = island[cells.anchor[rows]]
        cells.moved(rows)
        if joined or float(np.abs(by).max()) > self._double_check_px:
            self.join_doubles(rows)

    def join_doubles(self, rows: Ints) -> None:
        """Join each of these cells with the one that lies on the same spot, if any."""
        cells = self._cells
        for island in np.unique(cells.island[rows]).tolist():
            own = rows[cells.island[rows] == island]
            while len(own):  # a cell that was joined has another box: its neighbours are looked at anew
                a, b = self._recognition.doubles(own, island)
                if len(a) == 0:
                    break
                with self._tallies.change(np.unique(np.concatenate([a, b]))):
                    for kept, gone in zip(a.tolist(), b.tolist(), strict=True):
                        self._join(kept, gone)
                own = np.unique(a)

    def _join(self, kept: int, gone: int) -> None:
        cells = self._cells
        if cells.partial[kept] != cells.partial[gone]:
            seen_whole(cells, self._fusion, np.array([kept, gone]), self._cut_weight)
        rows = int(cells.white_row[kept]), int(cells.white_row[gone])
        cells.join(kept, gone)
        if rows[1] >= 0:
            if rows[0] >= 0:
                self._fusion.join(*rows)
            else:
                cells.white_row[kept] = rows[1]
            classify(cells, self._fusion, np.array([kept]))
