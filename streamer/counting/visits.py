"""Where the last frames were taken, so that cells can be taken back that turn out to have been no part of the slide.

What a camera burns into its frames is only known once the stage was seen to move (streamer/stage/static_mask.py). Until
then a detector may see cells in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from streamer.counting.cell_table import CellTable
from streamer.counting.matching import Ints
from streamer.stage.hidden import FramePx
from streamer.stage.placement import Correction, Placement

KEPT = 256
"""Places that are remembered."""

SAME_PX = 2.0
"""Frames in a row that lie no further apart were taken at one place."""


class Visits:
    """The places of the last frames, oldest first."""

    def __init__(self) -> None:
        self.rows = np.zeros((0, 5))
        """(n, 5) first frame at a place, its island, its anchor, x and y in pixels."""
        self.looks = np.zeros(0, np.int32)
        """(n,) how many frames were looked at there."""

    def add(self, placement: Placement, frame_id: int) -> None:
        """Note where a frame was taken that is counted."""
        position = placement.position
        if position is None:
            return
        place = float(position.island), float(placement.anchor or 0), position.x_px, position.y_px
        if len(self.rows) and self.rows[-1, 1] == place[0] and np.abs(self.rows[-1, 3:] - place[2:]).max() < SAME_PX:
            self.looks[-1] += 1
            return
        self.rows = np.concatenate([self.rows, [(frame_id, *place)]])[-KEPT:]
        self.looks = np.concatenate([self.looks, np.ones(1, np.int32)])[-KEPT:]

    def correct(self, corrections: Sequence[Correction]) -> None:
        """Move with the stage map."""
        for correction in corrections:
            moved = self.rows[:, 2] == correction.anchor
            self.rows[moved, 1] = correction.island
            self.rows[moved, 3:] += correction.dx_px, correction.dy_px

    def known(self, cells: CellTable, rows: Ints) -> Ints:
        """Those of the cells `rows` that were seen at remembered places only."""
        return rows[cells.first_frame[rows] >= self.rows[0, 0]] if len(self.rows) else rows[:0]

    def views(self, cells: CellTable, rows: Ints) -> Iterator[tuple[Ints, FramePx]]:
        """Place by place from the first to the last frame that showed them: which of the known cells `rows` that is, as
        indices, and where in the frame they lay there."""
        first, last = (
            np.searchsorted(self.rows[:, 0], frames[rows], side="right") - 1
            for frames in (cells.first_frame, cells.last_frame)
        )
        for visit, (_, island, _, x, y) in enumerate(self.rows.tolist()):
            seen = np.nonzero((first <= visit) & (visit <= last) & (cells.island[rows] == island))[0]
            if len(seen):
                yield seen, cells.boxes[rows[seen]] - np.array([x, y, x, y])
