"""Known cells where a frame lies, which show what it shows though nobody looked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import repeat

import numpy as np
import numpy.typing as npt

from streamer.counting.cell_table import KINDS, CellTable
from streamer.counting.matching import MAYBE_CUT_SHARE, Field, cut_sides
from streamer.counting.presence import present
from streamer.counting.sight import Sight
from streamer.counting.tallies import Tallies
from streamer.records import Detections, Observation

FrameBoxes = npt.NDArray[np.float32]

LEAST_SHOWN = 0.25
"""Share of a cell's box below which a frame is not said to show it: detectors don't find less."""


@dataclass(frozen=True, slots=True, eq=False)
class CarriedCells:
    """Cells as boxes of a frame, best score first."""

    boxes_px: npt.NDArray[np.float32]
    """(n, 4) in the frame, clipped to it."""
    scores: npt.NDArray[np.float32]
    """(n,) of their last detections."""
    labels: npt.NDArray[np.intp]
    """(n,) likewise; -1 where it is not known."""
    kinds: npt.NDArray[np.intp]
    """(n,) into KINDS."""
    observations: tuple[Observation, ...]

    def detections(self, like: Detections) -> Detections:
        """As those of a frame, with the labels of the detector that `like` is of."""
        firsts = np.array([like.kinds.index(kind) if kind in like.kinds else 0 for kind in KINDS], np.intp)
        labels = np.where(self.labels < 0, firsts[self.kinds], self.labels)
        return replace(like, boxes_px=self.boxes_px, scores=self.scores, labels=labels, class_scores=None)


NO_CELLS = CarriedCells(
    np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.intp), np.zeros(0, np.intp), ()
)


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """White and nucleated red cells of a frame, as (n, 4) boxes in it."""

    found: FrameBoxes
    """By a look at it."""
    known: FrameBoxes
    """By earlier ones."""
    whole_found: FrameBoxes
    """Those of `found` that it shows whole."""
    whole_known: FrameBoxes
    """Those of `known` that were seen whole and lie clear of its edges."""


def compared(detections: Detections, sight: Sight, carried: CarriedCells, size_px: tuple[int, int]) -> Compared:
    """What a frame (width, height) shows by a look, and by what is known."""
    kinds = np.array([KINDS.index(kind) if kind in KINDS else len(KINDS) for kind in detections.kinds], np.intp)
    found = sight.shown & (kinds[detections.labels] <= 1)
    known = carried.kinds <= 1
    counted = known & np.array([seen.counted for seen in carried.observations], bool)
    clear = ~cut_sides(carried.boxes_px, *size_px, MAYBE_CUT_SHARE * max(size_px)).any(1)
    return Compared(
        found=sight.boxes_px[found],
        known=carried.boxes_px[known],
        whole_found=sight.boxes_px[found & sight.whole & ~sight.cut.any(1)],
        whole_known=carried.boxes_px[counted & clear],
    )


def carried_cells(cells: CellTable, tallies: Tallies, field: Field, *, doubted: bool = False) -> CarriedCells:
    """Those that lie in a field. `doubted`: those among them that most looks miss."""
    rows = cells.within(field.island, np.concatenate([field.corner, field.corner + field.size]))
    boxes = cells.boxes[rows]
    shown = field.seen(boxes)
    is_shown = _areas(shown) / np.maximum(_areas(boxes), 1e-9) >= LEAST_SHOWN
    rows, shown = rows[is_shown], shown[is_shown]  # first, as it leaves a fifth
    there = present(cells, rows)
    counted = there & tallies.countable(rows)
    order = np.argsort(-cells.score[rows], kind="stable")
    order = order[(cells.exist(rows) if doubted else there)[order]]
    rows, counted = rows[order], counted[order]
    return CarriedCells(
        boxes_px=(shown[order] - np.concatenate([field.corner, field.corner])).astype(np.float32),
        scores=cells.score[rows],
        labels=cells.label[rows].astype(np.intp),
        kinds=cells.kind(rows),
        observations=tuple(map(Observation, rows.tolist(), repeat(False), counted.tolist())),
    )


def _areas(boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    return np.asarray(sides[:, 0] * sides[:, 1])
