"""Running counts over the cells of a slide: which of them count, how many there are of each kind and class, and which
changes have to be published."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engines.zoo.slide_flags import SlideFlag
from streamer.counting.cell_table import KINDS, CellTable
from streamer.counting.differential import NOT_CELLS, NOT_LEUKOCYTES
from streamer.counting.flags import METAMYELOCYTE, SEEN
from streamer.counting.fusion import Fusion
from streamer.counting.matching import Ints
from streamer.counting.presence import present
from streamer.counting.suspects import Suspects
from streamer.records import UNCLASSIFIED

LISTED = (*SEEN, METAMYELOCYTE)
"""Classes and subclasses whose cells the flags list, seen whole or not; an erythroblast is one by its kind too."""


@dataclass(frozen=True, slots=True)
class SlideCounts:
    """Unique cells seen whole, and apart from them those only ever seen cut by an edge."""

    white: int
    nucleated_red: int
    red: int
    platelets: int
    classes: dict[str, int]
    """White cells of each class, `unclassified` among them."""
    subclasses: dict[str, int]
    """White cells of each subclass; those without one are in none."""
    partial_white: int
    """White cells that no frame showed whole yet; the three below likewise."""
    partial_classes: dict[str, int]
    partial_red: int
    partial_platelets: int
    listed: int
    """Cells of `LISTED`, and those that count for a flag of the slide, whole or not."""


class Tallies:
    """Running counts over a cell store; every change of cells goes through `change`."""

    def __init__(self, cells: CellTable, fusion: Fusion, slide_flags: Sequence[SlideFlag] = ()) -> None:
        self._cells = cells
        self._fusion = fusion
        self._slide_flags = slide_flags
        self.finished = False
        """Whether cells that were only seen cut are published too."""
        self._whole = self._partial = _Sums.of_none()
        self._listed: set[int] = set()
        self._counts: SlideCounts | None = None
        self._suspects: dict[str, Suspects] | None = None
        """None: to be found anew, since cells have changed; likewise the counts."""
        self._changed: dict[int, None] = {}
        self._removed: dict[int, None] = {}

    def counts(self) -> SlideCounts:
        if self._counts is None:
            self._counts = self._summed()
        return self._counts

    def _summed(self) -> SlideCounts:
        white, nucleated_red, red, platelets = self._whole.kinds.tolist()
        partial_white, _, partial_red, partial_platelets = self._partial.kinds.tolist()
        return SlideCounts(
            white=white,
            nucleated_red=nucleated_red,
            red=red,
            platelets=platelets,
            classes=self._by_class(self._whole),
            subclasses=dict(zip(self._fusion.subclass_names, self._whole.subclasses[1:].tolist(), strict=True)),
            partial_white=partial_white,
            partial_classes=self._by_class(self._partial),
            partial_red=partial_red,
            partial_platelets=partial_platelets,
            listed=len(self._listed),
        )

    def _by_class(self, sums: _Sums) -> dict[str, int]:
        """Those that only a person can name where there are any."""
        names, own = (UNCLASSIFIED, *self._fusion.nameable), 1 + len(self._fusion.class_names)
        counts = zip(names, sums.classes.tolist(), strict=True)
        return {name: count for index, (name, count) in enumerate(counts) if index < own or count}

    def count_anew(self, rows: Ints) -> None:
        """Count a store that was filled from outside; `rows` are all its living cells."""
        self._whole, self._partial, _, seen = self._contribution(rows)
        self._listed = set(rows[seen].tolist())
        self._counts = self._suspects = None

    def counted(self, rows: Ints) -> npt.NDArray[np.bool_]:
        """Whether each of these cells was seen whole, and most looks found it and it is no smudge cell or artefact."""
        return np.asarray(present(self._cells, rows) & self.countable(rows), np.bool_)

    def countable(self, rows: Ints) -> npt.NDArray[np.bool_]:
        """Whether each of these cells is counted, if it is there."""
        cells = self._cells
        no_cell = _is_among(self._fusion.nameable, NOT_CELLS)[cells.class_index[rows] + 1]
        return np.asarray(~(cells.partial[rows] | no_cell), np.bool_)

    def listed(self) -> dict[str, Ints]:
        """By name of `LISTED` the cells, whole or not; a subclass goes before its class."""
        rows = np.array(sorted(self._listed), np.intp)
        cells = self._cells
        of_class, of_subclass = _if_listed(self._fusion.nameable), _if_listed(self._fusion.subclass_names)
        names = of_subclass[cells.subclass_index[rows] + 1]
        names = np.where(names == "", of_class[cells.class_index[rows] + 1], names)
        names = np.where(cells.kind(rows) == 1, "erythroblast", names)
        return {name: rows[names == name] for name in LISTED if (names == name).any()}

    def suspects(self) -> dict[str, Suspects]:
        """The cells that may be of it, by the name of each flag of the slide."""
        if self._suspects is None:
            rows = np.array(sorted(self._listed), np.intp)
            self._suspects = {flag.name: self._suspects_of(flag, rows) for flag in self._slide_flags}
        return self._suspects

    def _suspects_of(self, flag: SlideFlag, listed: Ints) -> Suspects:
        cells = self._cells
        counts = self._are_suspect(listed, flag)
        rows, others = listed[counts], listed[~counts]
        partial = int(cells.partial[rows].sum())
        return Suspects(
            whole=len(rows) - partial,
            at_edge=partial,
            confirmed=int((cells.reclassified_order[rows] > 0).sum()),
            cell_ids=tuple(rows.tolist()),
            below=tuple(others[self._are_named(others, (flag.name,))].tolist()),
        )

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
        was = self._told(rows)
        yield
        after = self._contribution(rows)
        self._whole = self._whole.changed(before[0], after[0])
        self._partial = self._partial.changed(before[1], after[1])
        changed = (self._told(rows) != was).any(0)
        shown, seen = after[2:]
        self._listed.difference_update(rows[~seen].tolist())
        self._listed.update(rows[seen].tolist())
        self._counts = self._suspects = None
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

    def _told(self, rows: Ints) -> npt.NDArray[np.int16]:
        """What of these cells is published anew when it changes."""
        cells = self._cells
        return np.stack([cells.class_index[rows], cells.subclass_index[rows], cells.partial[rows]])

    def _contribution(self, rows: Ints) -> tuple[_Sums, _Sums, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """What cells add to (those seen whole, those only seen in part), which of them are published, and which are
        listed. Published are white and nucleated red ones: those seen whole and those listed, at the end all."""
        cells = self._cells
        kinds = cells.kind(rows)
        alive = present(cells, rows)
        partial = alive & cells.partial[rows]
        seen = alive & (kinds == 1)
        white = np.nonzero(alive & (kinds == 0))[0]
        if len(white):
            seen[white] = self.are_listed(rows[white])
        published = alive & (kinds <= 1) & (~partial | seen | self.finished)
        return self._sums(rows, kinds, alive & ~partial), self._sums(rows, kinds, partial), published, seen

    def _sums(self, rows: Ints, kinds: Ints, which: npt.NDArray[np.bool_]) -> _Sums:
        white, cells, fusion = which & (kinds == 0), self._cells, self._fusion
        return _Sums(
            np.bincount(kinds[which], minlength=len(KINDS)),
            np.bincount(cells.class_index[rows[white]] + 1, minlength=1 + len(fusion.nameable)),
            np.bincount(cells.subclass_index[rows[white]] + 1, minlength=1 + len(fusion.subclass_names)),
        )

    def were_listed(self, rows: Ints) -> npt.NDArray[np.bool_]:
        """`are_listed`, as of their last `change`, of cells that there are; without looking at each again."""
        return np.array([row in self._listed for row in rows.tolist()], np.bool_)

    def are_listed(self, rows: Ints) -> npt.NDArray[np.bool_]:
        """Whether the classes or subclasses of these cells are, or they count for a flag of the slide."""
        found = self._are_named(rows, LISTED)
        for flag in self._slide_flags:
            found |= self._are_named(rows, (flag.name,)) | self._are_suspect(rows, flag)
        return found

    def _are_suspect(self, rows: Ints, flag: SlideFlag) -> npt.NDArray[np.bool_]:
        """Whether these cells count for a flag: by their looks, or by what a person said. None does that is named as no
        leukocyte."""
        cells = self._cells
        white_rows = cells.white_row[rows]
        by_looks = white_rows >= 0
        found = np.zeros(len(rows), np.bool_)
        found[by_looks] = self._fusion.suspicion(white_rows[by_looks].astype(np.intp), flag) >= np.float32(flag.above)
        by_person = cells.reclassified_order[rows] > 0
        found[by_person] = self._are_named(rows[by_person], (flag.name, *flag.equivalents))
        return np.asarray(found & (cells.kind(rows) == 0) & ~self._are_named(rows, NOT_LEUKOCYTES), np.bool_)

    def _are_named(self, rows: Ints, names: tuple[str, ...]) -> npt.NDArray[np.bool_]:
        """Whether the class or the subclass of these cells is one of some names."""
        cells, fusion = self._cells, self._fusion
        of_class, of_subclass = _is_among(fusion.nameable, names), _is_among(fusion.subclass_names, names)
        return np.asarray(of_class[cells.class_index[rows] + 1] | of_subclass[cells.subclass_index[rows] + 1], np.bool_)


@lru_cache(maxsize=64)
def _is_among(own: tuple[str, ...], names: tuple[str, ...]) -> npt.NDArray[np.bool_]:
    """(1 + n,) for none and then each of its own: whether it is one of some names."""
    return np.array([False, *(name in names for name in own)])


@lru_cache(maxsize=64)
def _if_listed(own: tuple[str, ...]) -> npt.NDArray[np.str_]:
    """(1 + n,) of none and then each of its own: its name, "" unless it is one of `LISTED`."""
    return np.array(["", *(name if name in LISTED else "" for name in own)])


class _Sums(NamedTuple):
    kinds: Ints
    classes: Ints
    """Of white cells; unclassified first, then what the fusion's cells may be called."""
    subclasses: Ints
    """None first, then the fusion's subclasses."""

    @classmethod
    def of_none(cls) -> _Sums:
        return cls(np.zeros(len(KINDS), np.int64), np.zeros(1, np.int64), np.zeros(1, np.int64))

    def changed(self, minus: _Sums, plus: _Sums) -> _Sums:
        """The names are known from the first look on: `plus` may be longer than what was counted before."""
        sums = [one.copy() for one in plus]
        for sum_, before, gone in zip(sums, self, minus, strict=True):
            sum_[: len(before)] += before
            sum_[: len(gone)] -= gone
        return _Sums(*sums)
