"""Known cells of which something is in doubt are looked at again: their class where they lie, by the classifier alone;
whether there is a cell, and where one ends that was only seen cut, by the detector, in the whole frame.

The slide map has their boxes better than any single look. What it knows when a frame is decided on is what the frames
up to `LAG` before it have come to, no more and no less, so that the same frames give the same looks however fast the
models are.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from streamer.looking.plan import NO_DOUBT, NONE_KNOWN, Candidate, CellsInDoubt, KnownCells, in_frame, inside_px
from streamer.stage.placement import Correction

LAG = 3
"""Frames, or batches where the models take several frames of a source at once, that the classifier's looks again lag
behind the count."""
WHOLE_LAG = 6
"""As `LAG`, of whole looks. Frames can't be placed further ahead of the count than that, while one is detected in."""
LEAST_QUALITY = 0.6
"""Of a registration: the boxes lie within a pixel then."""
WHOLE = 0.004
"""Of the frame's longer side: so far from its edges lies the box of a cell that it shows whole, as in a look by the
detector (counting/sight.py). What a classifier sees around it may lie outside, as there."""
CLEAR = 0.02
"""Of the frame's longer side: a cell that lies so far from all edges was shown as well as can be."""
LARGE = 0.157
"""Of the longer side: smaller cells are seen whole wherever coverage says so. That is up to a depth of .105, less a
gain of .3 x .075 that is worth no look, and the .004 that the box of a whole cell keeps from the edge."""


@dataclass(frozen=True, slots=True, eq=False)
class WholeLook:
    """What a frame shows that the detector should see."""

    now: bool = False
    """Whether there is a cell in doubt that it shows whole, whatever the next frame shows."""
    extents_px: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 4)))
    """(n, 4) on the slide: what was seen of cells that no look showed whole, where the frame shows all of that."""


NO_LOOK = WholeLook()


class OwedLooks:
    """The unsure cells of one slide, as of some frames ago: the count writes them, decisions wait for them."""

    def __init__(self, lag: int = LAG, whole_lag: int | None = None) -> None:
        self._lag, self._whole_lag = lag, lag if whole_lag is None else whole_lag
        self._changed = threading.Condition()
        self._counted = 0
        self._given_up = False
        self._owing: dict[int, tuple[int, CellsInDoubt]] = {}
        self._moved_at: float = -math.inf

    def counted(self, island: int, cells: CellsInDoubt) -> None:
        """The next frame was counted; `cells` are those around it, in its island."""
        with self._changed:
            self._owing[self._counted] = island, cells
            self._owing.pop(self._counted - max(self._lag, self._whole_lag) - 1, None)
            self._counted += 1
            self._changed.notify_all()

    @property
    def doubts(self) -> tuple[tuple[int, CellsInDoubt], ...]:
        """What was in doubt once each of the last frames was counted, the newest last; for `go_on_from`."""
        with self._changed:
            return tuple(self._owing[order] for order in sorted(self._owing))[-max(self._lag, self._whole_lag) :]

    def go_on_from(self, doubts: Sequence[tuple[int, CellsInDoubt]]) -> None:
        """As `doubts` were once the last frame before this run was counted."""
        self._owing = {order - len(doubts): one for order, one in enumerate(doubts)}

    def give_up(self) -> None:
        """No more frames will be counted."""
        with self._changed:
            self._given_up = True
            self._changed.notify_all()

    def moved(self, order: int, corrections: Sequence[Correction]) -> None:
        """The frame of this number was placed with these."""
        if corrections:
            self._moved_at = order

    def of(self, order: int, frame: Candidate) -> KnownCells:
        """`ask`, and wait for it."""
        return self.ask(order, frame).wait()

    def ask(self, order: int, frame: Candidate) -> OwedCells:
        """Cells, in the frame of this number, to be looked at again by the classifier; to be waited for later. Asked
        for in the frames' order, before the next one has `moved`."""
        position = frame.placement.position
        is_sure = position is not None and position.quality >= LEAST_QUALITY
        has_moved = self._moved_at > order - self._lag  # the boxes lie as before
        return OwedCells(self, order if is_sure and frame.accepted and not has_moved else -1, frame)

    def whole(self, order: int, frame: Candidate) -> WholeLook:
        """What the frame of this number shows that is in doubt and that the detector could say. Waits until what it
        depends on was counted. A correction of the map since then is passed over: a look too many or too few is all
        that it makes."""
        position = frame.placement.position
        if position is None or not frame.accepted:
            return NO_LOOK
        doubt = self.doubt(order - self._whole_lag, position.island)
        if doubt is NO_DOUBT:
            return NO_LOOK
        there = inside_px(in_frame(doubt.presence.boxes_px, position), frame.size_px)
        ends = inside_px(in_frame(doubt.extent.boxes_px, position), frame.size_px)
        extents, longer = doubt.extent.boxes_px, max(frame.size_px)
        large = (extents[:, 2:] - extents[:, :2]).max(1, initial=0.0) > LARGE * longer
        now, extents = bool((there > CLEAR * longer).any()), extents[large & (ends > 0)]
        return WholeLook(now, extents) if now or len(extents) else NO_LOOK

    def is_counted(self, order: int) -> bool:
        """Whether all was counted that the classifier's cells in a frame of this number depend on, or nothing will
        be."""
        with self._changed:
            return self._is_counted(order - self._lag)

    def classes(self, order: int, island: int) -> KnownCells:
        """On the slide, what the classifier should see again in a frame of this number, wherever that lies; waits."""
        return self.doubt(order - self._lag, island).classes

    def doubt(self, counted: int, island: int) -> CellsInDoubt:
        """What was in doubt once the frame `counted` was counted, which it waits for; nothing before the first one, and
        where that frame lay on another island."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_counted(counted))
            its_island, cells = self._owing.get(counted, (-1, NO_DOUBT))
        return cells if its_island == island else NO_DOUBT

    def _is_counted(self, order: int) -> bool:
        return self._given_up or self._counted > order


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
        position = self._frame.placement.position
        if self._order < 0 or position is None:
            return NONE_KNOWN
        cells = self._of.classes(self._order, position.island)
        if not len(cells):
            return NONE_KNOWN
        cells, size_px = replace(cells, boxes_px=in_frame(cells.boxes_px, position)), self._frame.size_px
        return cells[np.flatnonzero(inside_px(cells.boxes_px, size_px) > WHOLE * max(size_px))]
