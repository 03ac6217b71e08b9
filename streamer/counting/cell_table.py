"""The cells of a slide in arrays, and a grid that finds those of a place without looking at the others.

Rows are never given back: a cell's number is its row, so it stays valid; a cell that turned out to be another one
points to it. About 130 bytes a cell.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.intp]
Boxes = npt.NDArray[np.float64]

KINDS = ("white", "nucleated red", "red", "platelet")
"""The kinds of cells, in the order of the evidence columns."""


class CellStore:
    """Growing columns, one row a cell. Read them as attributes, up to `count`; write only rows that exist."""

    def __init__(self, bucket_px: float) -> None:
        self._bucket_px = bucket_px
        self._buckets: dict[tuple[int, int, int], list[int]] = defaultdict(list)
        self.count = 0
        self.boxes = np.zeros((0, 4))
        """x1, y1, x2, y2 on the slide."""
        self.cut = np.zeros((0, 4), bool)
        """Which of these sides may be the frame's edge, not the cell's; all False once it was seen clear of edges."""
        self.partial = np.zeros(0, bool)
        """Never seen whole."""
        self.alive = np.zeros(0, bool)
        self.joined_to = np.zeros(0, np.int32)
        self.island = np.zeros(0, np.int32)
        self.anchor = np.zeros(0, np.int32)
        self.evidence = np.zeros((0, len(KINDS)), np.float32)
        """Sum of the detection scores for each kind, those of cut boxes counting less."""
        self.looks = np.zeros(0, np.int32)
        self.whole_looks = np.zeros(0, np.int32)
        """Those clear of edges, of which the box is the mean."""
        self.first_frame = np.zeros(0, np.int64)
        self.last_frame = np.zeros(0, np.int64)
        self.white_row = np.zeros(0, np.int32)
        """Row of the probability sums, -1 for a cell that never was white."""
        self.class_index = np.zeros(0, np.int16)
        self.subclass_index = np.zeros(0, np.int16)
        self.said_order = np.zeros(0, np.int32)
        """When a person said what it is, 1 for the first such word on the slide; 0 where nobody did. Such a cell is
        white, of `said_class` and `said_subclass`, whatever its looks say."""
        self.said_class = np.zeros(0, np.int16)
        self.said_subclass = np.zeros(0, np.int16)
        self.told = np.zeros(0, bool)
        """Whether the outside was told of this white cell."""
        self._bucket = np.zeros((0, 3), np.int32)

    @property
    def bytes_used(self) -> int:
        """Of the columns and, roughly, the grid."""
        columns = sum(value.nbytes for value in vars(self).values() if isinstance(value, np.ndarray))
        return columns + 40 * self.count + 250 * len(self._buckets)

    def append(self, boxes: Boxes, cut: npt.NDArray[np.bool_], island: int, anchor: int, frame_id: int) -> Ints:
        """Add cells seen in one frame; returns their numbers. Their evidence and looks are zero yet, but their box is
        that of a first look."""
        rows = np.arange(self.count, self.count + len(boxes))
        self.count += len(boxes)
        if self.count > len(self.boxes):
            self._grow(max(1024, self.count, len(self.boxes) * 3 // 2))
        self.boxes[rows] = boxes
        self.cut[rows] = cut
        self.partial[rows] = cut.any(1)
        self.whole_looks[rows] = ~cut.any(1)
        self.alive[rows] = True
        self.joined_to[rows] = -1
        self.island[rows] = island
        self.anchor[rows] = anchor
        self.first_frame[rows] = self.last_frame[rows] = frame_id
        self.white_row[rows] = self.class_index[rows] = self.subclass_index[rows] = -1
        self._bucket[rows] = self._places(rows)
        for row, place in zip(rows.tolist(), self._bucket[rows].tolist(), strict=True):
            self._buckets[tuple(place)].append(row)
        return rows

    def within(self, island: int, box: npt.NDArray[np.float64]) -> Ints:
        """Living cells whose centres lie in or near a rectangle (x1, y1, x2, y2) of an island, by number."""
        left, top, right, bottom = (int(value // self._bucket_px) for value in box)
        found: list[int] = []
        for column in range(left - 1, right + 2):
            for row in range(top - 1, bottom + 2):
                found += self._buckets.get((island, column, row), ())
        # By number: in what order cells came to their places must not decide which of two alike is matched.
        rows = np.array(sorted(found), np.intp)
        return rows[self.alive[rows]] if len(rows) else rows

    def moved(self, rows: Ints) -> None:
        """File these cells anew after their boxes or island were changed."""
        places = self._places(rows)
        for i in np.nonzero((places != self._bucket[rows]).any(1))[0]:
            row = int(rows[i])
            self._buckets[tuple(self._bucket[row].tolist())].remove(row)
            self._bucket[row] = places[i]
            self._buckets[tuple(places[i].tolist())].append(row)

    def join(self, kept: int, gone: int) -> None:
        """`gone` turned out to be the cell `kept`; all but the class sums is taken over."""
        self.partial[kept] &= self.partial[gone]
        if self.cut[kept].any() and not self.cut[gone].any():
            self.boxes[kept], self.cut[kept] = self.boxes[gone], self.cut[gone]
            self.anchor[kept], self.island[kept] = self.anchor[gone], self.island[gone]
            self.moved(np.array([kept]))
        self.evidence[kept] += self.evidence[gone]
        self.looks[kept] += self.looks[gone]
        self.whole_looks[kept] += self.whole_looks[gone]
        self.first_frame[kept] = min(self.first_frame[kept], self.first_frame[gone])
        self.last_frame[kept] = max(self.last_frame[kept], self.last_frame[gone])
        if self.said_order[gone] > self.said_order[kept]:  # of two words about one cell the later one counts
            for column in (self.said_order, self.said_class, self.said_subclass):
                column[kept] = column[gone]
        self.alive[gone] = False
        self.joined_to[gone] = kept
        self._buckets[tuple(self._bucket[gone].tolist())].remove(gone)

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """All that there is to know, one row a cell; `restore` makes an equal store of it."""
        return {name: value[: self.count] for name, value in vars(self).items() if isinstance(value, np.ndarray)}

    def restore(self, columns: Mapping[str, npt.NDArray[Any]]) -> None:
        """Fill an empty store with another one's columns, which it keeps. ValueError for others."""
        for name, own in vars(self).items():
            if isinstance(own, np.ndarray) and (name not in columns or columns[name].dtype != own.dtype):
                raise ValueError(f"column {name}: got {sorted(columns)}, expected it among them, of {own.dtype}")
        for name, value in columns.items():
            setattr(self, name, value)
        self.count = len(self.boxes)
        for row, (island, column, line) in enumerate(self._bucket.tolist()):
            if self.alive[row]:
                self._buckets[island, column, line].append(row)

    def kind(self, rows: Ints) -> npt.NDArray[np.intp]:
        """(n,) index into KINDS: the kind with most evidence; white where a person said so."""
        return np.where(self.said_order[rows] > 0, 0, self.evidence[rows].argmax(1)).astype(np.intp, copy=False)

    def centres(self, rows: Ints) -> npt.NDArray[np.float64]:
        boxes = self.boxes[rows]
        return (boxes[:, :2] + boxes[:, 2:]) / 2

    def _places(self, rows: Ints) -> npt.NDArray[np.int32]:
        places = np.empty((len(rows), 3), np.int32)
        places[:, 0] = self.island[rows]
        places[:, 1:] = np.floor(self.centres(rows) / self._bucket_px)
        return places

    def _grow(self, size: int) -> None:
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray):
                grown = np.zeros((size, *value.shape[1:]), value.dtype)
                grown[: len(value)] = value
                setattr(self, name, grown)
