"""Whether a white cell is there: the looks that found it, against those that showed its place and did not.

Detectors see a white cell now and then in what is none, in one look of five or six; what is one they find in nearly
all. (Of the cells that every frame counted on films of `tools.bench area --parts counts`, seeds 1, 2, 3 and 6, seeds 1
and 6 at three times the noise, and slide B-56, six were found in .4 of the looks at their place or fewer, all others in
.75 or more.) So what looks deny is not counted, and the count does not grow with the number of frames of a place.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streamer.counting.cell_table import CellTable
from streamer.counting.matching import Field, Ints, SlideBoxes
from streamer.counting.sight import SightConfig, veiled_by
from streamer.counting.visits import Visits
from streamer.stage.hidden import HiddenParts

Flags = npt.NDArray[np.bool_]

SURE_SCORE = 0.7
"""Of a box: on those films the cells have .73 or more in their best look, what looks deny .58 at most."""
MAJORITY = 2
"""Looks by which one side has to lead."""
MOST_LOOKS = 9
"""More are not spent on one cell."""


def present(cells: CellTable, rows: Ints) -> Flags:
    """Which of these cells exist, and are no white ones that looks deny: more looks at their place than found them did
    not show them, or as many where the score is low. What a person named is there."""
    there = cells.exist(rows)
    once_missed = np.flatnonzero(cells.missed[rows])  # few are
    if len(once_missed):
        there[once_missed] &= ~_are_denied(cells, rows[once_missed])
    return there


def _are_denied(cells: CellTable, rows: Ints) -> Flags:
    """Of cells that a look missed."""
    missed, found = cells.missed[rows], cells.whole_looks[rows]
    denied = (missed > found) | ((missed == found) & (cells.score[rows] < SURE_SCORE))
    return np.asarray(denied & (cells.reclassified_order[rows] == 0) & (cells.kind(rows) <= 1))


def missing(cells: CellTable, field: Field, found: Ints, hidden: HiddenParts | None, config: SightConfig) -> Ints:
    """The white and nucleated red cells, seen whole, that a look at `field` should have found and that are not among
    `found`."""
    rows = cells.within(field.island, np.concatenate([field.corner, field.corner + field.size]))
    rows = rows[~cells.partial[rows] & ~cells.cut[rows].any(1)]
    rows = rows[(cells.kind(rows) <= 1) & cells.exist(rows)]
    rows = rows[~np.isin(rows, found)]
    if len(rows):
        rows = rows[_clear(cells.boxes[rows] - np.tile(field.corner, 2), field.size, hidden, config)]
    return rows


def missed_before(
    visits: Visits, boxes: SlideBoxes, field: Field, hidden: HiddenParts | None, config: SightConfig
) -> npt.NDArray[np.int32]:
    """(n,) how many of the looks before this one, at the places that are remembered, should have found cells of these
    boxes on the slide."""
    own = visits.rows[:, 1] == field.island
    corners, looks = visits.rows[own, 3:], visits.looks[own]
    if not len(boxes) or not len(corners):
        return np.zeros(len(boxes), np.int32)
    in_frames = (boxes[:, None] - np.tile(corners, 2)).reshape(-1, 4)
    clear = _clear(in_frames, field.size, hidden, config).reshape(len(boxes), len(corners))
    return np.asarray((clear * looks).sum(1), np.int32)


def is_doubted(cells: CellTable, rows: Ints) -> Flags:
    """Of white cells seen whole: whether it is in doubt that they are there, and more looks would say it: those found
    once, with a low score, and those missed about as often as found."""
    found, missed = np.maximum(cells.whole_looks[rows], 1), cells.missed[rows]
    once = (missed == 0) & (found == 1) & (cells.score[rows] < SURE_SCORE)
    split = (missed > 0) & (np.abs(found - missed) < MAJORITY) & (found + missed < MOST_LOOKS)
    return np.asarray(once | split)


def _clear(
    boxes_px: SlideBoxes, size_px: npt.NDArray[np.float64], hidden: HiddenParts | None, config: SightConfig
) -> Flags:
    """Which boxes of a frame lie clear of its edges and of what is hidden."""
    longer = int(size_px.max())
    edge_px = config.maybe_cut_share * longer
    clear = np.asarray((boxes_px[:, :2] > edge_px).all(1) & (boxes_px[:, 2:] < size_px - edge_px).all(1))
    if hidden is not None and clear.any():
        clear[clear] = ~veiled_by(hidden, boxes_px[clear].astype(np.float32), longer, config)[0]
    return clear
