"""Running counts over the cells of a slide: which of them count, how many there are of each kind and class, and which
changes have to be published."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streamer.counting.cell_table import KINDS, CellTable
from streamer.counting.fusion import Fusion
from streamer.counting.matching import Ints
from streamer.records import UNCLASSIFIED


@dataclass(frozen=True, slots=True)
class SlideCounts:
    """Unique cells seen whole; with `finish`, those only seen in part too."""

    white: int
    nucleated_red: int
    red: int
    platelets: int
    classes: dict[str, int]
    """White cells of each class, `unclassified` among them."""
    subclasses: dict[str, int]
    """White cells of each subclass; those without one are in none."""
    partial_white: int
    """White cells that no frame showed whole yet."""


class Tallies:
    """Running counts over a cell store; every change of cells goes through `change`."""

    def __init__(self, cells: CellTable, fusion: Fusion) -> None:
        self._cells = cells
        self._fusion = fusion
        self.finished = False
        """Whether cells that were only seen cut count too."""
        self._kinds = np.zeros(len(KINDS), np.int64)
        self._partial = np.zeros(len(KINDS), np.int64)
        self._classes = np.zeros(1, np.int64)
        """Unclassified first, then the fusion's classes."""
        self._subclasses = np.zeros(1, np.int64)
        """None first, then the fusion's subclasses."""
        self._changed: dict[int, None] = {}
        self._removed: dict[int, None] = {}

    def counts(self) -> SlideCounts:
        names = (UNCLASSIFIED, *self._fusion.class_names)
        white, nucleated_red, red, platelets = self._kinds.tolist()
        classes = dict(zip(names, self._classes.tolist(), strict=True))
        subclasses = dict(zip(self._fusion.subclass_names, self._subclasses[1:].tolist(), strict=True))
        return SlideCounts(white, nucleated_red, red, platelets, classes, subclasses, int(self._partial[0]))

    def count_anew(self, rows: Ints) -> None:
        """Count a store that was filled from outside; `rows` are all its living cells."""
        self._kinds, self._partial, self._classes, self._subclasses, _ = self._contribution(rows)

    def counted(self, rows: Ints) -> npt.NDArray[np.bool_]:
        """Whether each of these cells counts now."""
        counted = self._cells.alive[rows] & (self._cells.looks[rows] > 0)
        return counted if self.finished else counted & ~self._cells.partial[rows]

    def drain(self) -> tuple[list[int], list[int]]:
        """(cells to publish, cells to take back), by number; the list starts anew with every call."""
        changed, self._changed = self._changed, {}
        removed, self._removed = self._removed, {}
        return list(changed), list(removed)

    @contextmanager
    def change(self, rows: Ints) -> Iterator[None]:
        """Update the counts, and note what has to be published, while these cells change."""
        cells = self._cells
        before = self._contribution(rows)
        classes = cells.class_index[rows].copy(), cells.subclass_index[rows].copy()
        yield
        after = self._contribution(rows)
        self._kinds += after[0] - before[0]
        self._partial += after[1] - before[1]
        self._classes = _added(self._classes, after[2], before[2])
        self._subclasses = _added(self._subclasses, after[3], before[3])
        changed = (classes[0] != cells.class_index[rows]) | (classes[1] != cells.subclass_index[rows])
        shown = after[4]
        for row in rows[shown & (changed | ~cells.published[rows])].tolist():
            cells.published[row] = True
            self._removed.pop(row, None)
            self._changed[row] = None
        for row in rows[~shown & cells.published[rows]].tolist():
            cells.published[row] = False
            self._changed.pop(row, None)
            self._removed[row] = None

    def note(self, row: int) -> None:
        """Publish a counted cell as it is, changed or not."""
        self._changed[row] = None

    def _contribution(self, rows: Ints) -> tuple[Ints, Ints, Ints, Ints, npt.NDArray[np.bool_]]:
        """What cells add to (kinds counted, kinds only seen in part, classes, subclasses), and which of them are
        published: counted white and nucleated red ones."""
        cells = self._cells
        kinds = cells.kind(rows)
        seen = cells.alive[rows] & (cells.looks[rows] > 0)
        partial = seen & cells.partial[rows]
        counted = seen if self.finished else seen & ~partial
        white = counted & (kinds == 0)
        return (
            np.bincount(kinds[counted], minlength=len(KINDS)),
            np.bincount(kinds[partial], minlength=len(KINDS)),
            np.bincount(cells.class_index[rows[white]] + 1, minlength=1 + len(self._fusion.class_names)),
            np.bincount(cells.subclass_index[rows[white]] + 1, minlength=1 + len(self._fusion.subclass_names)),
            counted & (kinds <= 1),
        )


def _added(counts: Ints, plus: Ints, minus: Ints) -> Ints:
    """The names are known from the first look on: `plus` may be longer than what was counted before."""
    result = plus.copy()
    result[: len(counts)] += counts
    result[: len(minus)] -= minus
    return result
