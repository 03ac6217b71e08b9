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

from streamer.counting.growable import Column, GrowableTable
from streamer.counting.matching import Ints, SlideBoxes

KINDS = ("white", "nucleated red", "red", "platelet")
"""The kinds of cells, in the order of the evidence columns."""

AS_DETECTED = -2
"""`reclassified_class` of a cell that a person called right as it is, where no look but the detector named it."""


SCHEMA = (
    Column("boxes", np.float64, 4),
    Column("cut", np.bool_, 4),
    Column("partial", np.bool_),
    Column("alive", np.bool_),
    Column("joined_to", np.int32),
    Column("island", np.int32),
    Column("anchor", np.int32),
    Column("evidence", np.float32, len(KINDS)),
    Column("looks", np.int32),
    Column("whole_looks", np.int32),
    Column("first_frame", np.int64),
    Column("last_frame", np.int64),
    Column("white_row", np.int32),
    Column("class_index", np.int16),
    Column("subclass_index", np.int16),
    Column("reclassified_order", np.int32, stored_as="said_order"),
    Column("reclassified_class", np.int16, stored_as="said_class"),
    Column("reclassified_subclass", np.int16, stored_as="said_subclass"),
    Column("published", np.bool_, stored_as="told"),
    Column("bucket", np.int32, 3, stored_as="_bucket"),
    Column("label", np.int16),
    Column("score", np.float32),
    Column("missed", np.int32),
    Column("was_new", np.int8),
)


_NO_ROWS: Ints = np.zeros(0, np.intp)

MOST_PX = 1e8
"""No slide reaches so far."""


class CellTable(GrowableTable):
    """One row a cell, and a grid over their places."""

    boxes: SlideBoxes
    """(n, 4) x1, y1, x2, y2 on the slide."""
    cut: npt.NDArray[np.bool_]
    """(n, 4) which of these sides may be the frame's edge, not the cell's; all False once it was seen clear of them."""
    partial: npt.NDArray[np.bool_]
    """Never seen whole."""
    alive: npt.NDArray[np.bool_]
    joined_to: npt.NDArray[np.int32]
    island: npt.NDArray[np.int32]
    anchor: npt.NDArray[np.int32]
    evidence: npt.NDArray[np.float32]
    """(n, kinds) sum of the detection scores for each kind, those of cut boxes counting less."""
    looks: npt.NDArray[np.int32]
    whole_looks: npt.NDArray[np.int32]
    """Those clear of edges, of which the box is the mean."""
    first_frame: npt.NDArray[np.int64]
    last_frame: npt.NDArray[np.int64]
    white_row: npt.NDArray[np.int32]
    """Row of the probability sums, -1 for a cell that never was white."""
    class_index: npt.NDArray[np.int16]
    subclass_index: npt.NDArray[np.int16]
    reclassified_order: npt.NDArray[np.int32]
    """When a person reclassified or confirmed it, 1 for the first time on the slide; 0 where nobody did. Such a cell is
    white, of `reclassified_class` and `reclassified_subclass`, whatever its looks say, but for `AS_DETECTED`."""
    reclassified_class: npt.NDArray[np.int16]
    reclassified_subclass: npt.NDArray[np.int16]
    published: npt.NDArray[np.bool_]
    """Whether this white cell was published as counted, and not taken back."""
    bucket: npt.NDArray[np.int32]
    """(n, 3) island, column and line of the grid's square that it is filed under."""
    label: npt.NDArray[np.int16]
    """That of its last detection, into the names of the detector; -1: of a journal of before it was kept."""
    score: npt.NDArray[np.float32]
    """That of its last detection; 0 likewise."""
    missed: npt.NDArray[np.int32]
    """Looks that showed its place clear of the edges and did not find it (presence.py); 0 likewise."""
    was_new: npt.NDArray[np.int8]
    """1: a frame was the first to count it. One that looks deny and others find again is not new again."""

    def __init__(self, bucket_px: float) -> None:
        super().__init__(SCHEMA, least_rows=1024)
        self._bucket_px = bucket_px
        self._buckets: dict[tuple[int, int, int], Ints] = {}
        """The living cells of each square, as arrays: a frame asks for dozens of squares, and few change."""

    @property
    def bytes_used(self) -> int:
        """Of the columns and, roughly, the grid."""
        return super().bytes_used + 40 * self.count + 250 * len(self._buckets)

    def append(self, boxes: SlideBoxes, cut: npt.NDArray[np.bool_], island: int, anchor: int, frame_id: int) -> Ints:
        """Add cells seen in one frame; returns their numbers. Their evidence and looks are zero yet, but their box is
        that of a first look."""
        rows = self.add_rows(len(boxes))
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
        self.bucket[rows] = self._places(rows)
        self._file(rows)
        return rows

    def within(self, island: int, box: npt.NDArray[np.float64]) -> Ints:
        """Living cells whose centres lie in or near a rectangle (x1, y1, x2, y2) of an island, by number."""
        left, top, right, bottom = (int(value // self._bucket_px) for value in box)
        squares = [
            self._buckets.get((island, column, row), _NO_ROWS)
            for column in range(left - 1, right + 2)
            for row in range(top - 1, bottom + 2)
        ]
        rows = np.concatenate(squares)
        rows.sort()  # in what order cells came to their places must not decide which of two alike is matched
        return np.asarray(rows[self.alive[rows]])

    def moved(self, rows: Ints) -> None:
        """File these cells anew after their boxes or island were changed."""
        places = self._places(rows)
        elsewhere = np.nonzero((places != self.bucket[rows]).any(1))[0]
        for row in rows[elsewhere].tolist():
            self._unfile(row)
        self.bucket[rows[elsewhere]] = places[elsewhere]
        self._file(rows[elsewhere])

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
        self.was_new[kept] = max(self.was_new[kept], self.was_new[gone])
        self.missed[kept] = min(self.missed[kept], self.missed[gone])  # a look may have found the other one
        self.first_frame[kept] = min(self.first_frame[kept], self.first_frame[gone])
        self.last_frame[kept] = max(self.last_frame[kept], self.last_frame[gone])
        # Of two words about one cell the later one counts.
        if self.reclassified_order[gone] > self.reclassified_order[kept]:
            for column in (self.reclassified_order, self.reclassified_class, self.reclassified_subclass):
                column[kept] = column[gone]
        self.alive[gone] = False
        self.joined_to[gone] = kept
        self._unfile(gone)

    def drop(self, row: int) -> None:
        """It turned out to be no part of the slide."""
        self.alive[row] = False
        self._unfile(row)

    def restore(self, columns: Mapping[str, npt.NDArray[Any]]) -> None:
        """Only of a table that is empty yet. ValueError for cells that are joined to none, or in a circle."""
        count = len(columns.get("boxes", ()))
        earlier: dict[str, npt.NDArray[Any]] = {
            "label": np.full(count, -1, np.int16),
            "score": np.zeros(count, np.float32),
            "missed": np.zeros(count, np.int32),
            "was_new": np.asarray(~np.asarray(columns["partial"], bool), np.int8),
        }
        super().restore({**earlier, **columns})
        ends = self.joined_to.copy()
        if ((ends < -1) | (ends >= self.count) | ((ends >= 0) & self.alive)).any():
            raise ValueError(f"joined_to: got cells joined to none of {self.count}, or joined and alive")
        for _ in range(self.count.bit_length()):
            ends = np.where(ends >= 0, ends[ends], ends)
        if (ends >= 0).any():
            raise ValueError("joined_to: got cells that are joined in a circle")
        if not (np.abs(self.boxes) < MOST_PX).all():
            raise ValueError(f"boxes: got a place beyond {MOST_PX:g} px")
        self._file(self.living())

    def kind(self, rows: Ints) -> npt.NDArray[np.intp]:
        """(n,) index into KINDS: the kind with most evidence; white where a person said so."""
        kinds: Ints = self.evidence[rows].argmax(1)
        told = self.reclassified_order[rows] > 0
        if told.any():
            kinds[told & (self.reclassified_class[rows] != AS_DETECTED)] = 0
        return kinds

    def row_of(self, cell_id: int) -> int:
        """The number of a cell, or of the one that it turned out to be."""
        while self.joined_to[cell_id] >= 0:
            cell_id = int(self.joined_to[cell_id])
        return cell_id

    def rows_of(self, cell_ids: Ints) -> Ints:
        """(n,) the same of several cells."""
        rows = cell_ids
        while len(joined := np.nonzero(self.joined_to[rows] >= 0)[0]):
            rows = rows.copy()
            rows[joined] = self.joined_to[rows[joined]]
        return rows

    def living(self) -> Ints:
        """The cells that are no part of another one, and were not dropped."""
        return np.nonzero(self.alive[: self.count])[0]

    def published_rows(self) -> Ints:
        """The cells that were published, and not taken back."""
        return np.nonzero(self.published[: self.count])[0]

    def exist(self, rows: Ints) -> npt.NDArray[np.bool_]:
        """Which of these were looked at, or said to be there by a person, and are no part of another cell."""
        return self.alive[rows] & ((self.looks[rows] > 0) | (self.reclassified_order[rows] > 0))

    def centres(self, rows: Ints) -> npt.NDArray[np.float64]:
        boxes = self.boxes[rows]
        return (boxes[:, :2] + boxes[:, 2:]) / 2

    def _file(self, rows: Ints) -> None:
        """Note cells under their squares of the grid."""
        squares: dict[tuple[int, int, int], list[int]] = defaultdict(list)
        for row, (island, column, line) in zip(rows.tolist(), self.bucket[rows].tolist(), strict=True):
            squares[island, column, line].append(row)
        for square, own in squares.items():
            self._buckets[square] = np.append(self._buckets.get(square, _NO_ROWS), own)

    def _unfile(self, row: int) -> None:
        """Note it no more."""
        square = tuple(self.bucket[row].tolist())
        own = self._buckets[square]
        self._buckets[square] = own[own != row]

    def _places(self, rows: Ints) -> npt.NDArray[np.int32]:
        places = np.empty((len(rows), 3), np.int32)
        places[:, 0] = self.island[rows]
        places[:, 1:] = np.floor(self.centres(rows) / self._bucket_px)
        return places
