"""Known cells whose class is unsure are looked at again where they lie, without the detector.

The slide map has their boxes better than any single look. What it knows when a frame is decided on is what the frames
up to `LAG` before it have come to, no more and no less, so that the same frames give the same looks however fast the
models are.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streamer.looking.plan import NONE_KNOWN, Candidate, KnownCells
from streamer.stage.placement import Correction

LAG = 2
"""Frames, or batches where the models take several frames of a source at once."""
AROUND = 1.35
"""Of a cell's longer side, what has to lie in the frame: what a classifier looks at."""
LEAST_QUALITY = 0.6
"""Of a registration: the boxes lie within a pixel then."""


class OwedLooks:
    """The unsure cells of one slide, as of some frames ago: the count writes them, decisions wait for them."""

    def __init__(self, lag: int = LAG) -> None:
        self._lag = lag
        self._changed = threading.Condition()
        self._counted = 0
        self._given_up = False
        self._owing: dict[int, tuple[int, KnownCells]] = {}
        self._moved_at = -1

    def counted(self, island: int, cells: KnownCells) -> None:
        """The next frame was counted; `cells` are those around it that owe looks, on the slide, in its island."""
        with self._changed:
            self._owing[self._counted] = island, cells
            self._owing.pop(self._counted - self._lag - 1, None)
            self._counted += 1
            self._changed.notify_all()

    def give_up(self) -> None:
        """No more frames will be counted."""
        with self._changed:
            self._given_up = True
            self._changed.notify_all()

    def moved(self, order: int, corrections: Sequence[Correction]) -> None:
        """The frame of this number, from 0, was placed with these."""
        if corrections:
            self._moved_at = order

    def of(self, order: int, frame: Candidate) -> KnownCells:
        """Cells, in the frame of this number, to be looked at again. Waits until what it depends on was counted."""
        return self.ask(order, frame).wait()

    def ask(self, order: int, frame: Candidate) -> OwedCells:
        """As `of`, to be waited for later. Asked for in the frames' order, before the next one has `moved`."""
        position = frame.placement.position
        if order < self._lag or position is None or not frame.accepted or position.quality < LEAST_QUALITY:
            return OwedCells(self, -1, frame)
        return OwedCells(self, -1 if self._moved_at > order - self._lag else order, frame)

    def is_counted(self, order: int) -> bool:
        """Whether all was counted that the cells of a frame of this number depend on, or nothing will be."""
        with self._changed:
            return self._is_counted(order)

    def wait_for(self, order: int) -> tuple[int, KnownCells]:
        """(island, cells) that owed looks when the frames up to `lag` before this one had been counted."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_counted(order))
            return self._owing.get(order - self._lag, (-1, NONE_KNOWN))

    def _is_counted(self, order: int) -> bool:
        return self._given_up or self._counted > order - self._lag


@dataclass(frozen=True, slots=True, eq=False)
class OwedCells:
    """Cells to be looked at again in one frame, which are known once the frames that they depend on were counted."""

    _of: OwedLooks
    _order: int
    """-1: there are none, whatever is counted."""
    _frame: Candidate

    @property
    def known(self) -> bool:
        """Whether `wait` need not wait."""
        return self._order < 0 or self._of.is_counted(self._order)

    def wait(self) -> KnownCells:
        """Once they are known; before the frame itself is counted, as they are forgotten then."""
        if self._order < 0:
            return NONE_KNOWN
        island, cells = self._of.wait_for(self._order)
        position = self._frame.placement.position
        if position is None or island != position.island or not len(cells):
            return NONE_KNOWN
        boxes = cells.boxes_px - np.array([position.x_px, position.y_px] * 2)
        middles, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).max(1, keepdims=True)
        low, high = middles - AROUND / 2 * sides, middles + AROUND / 2 * sides
        inside = (low >= 0).all(1) & (high <= np.array(self._frame.size_px)).all(1)
        return KnownCells(cells.cell_ids, boxes, cells.labels)[np.flatnonzero(inside)]
