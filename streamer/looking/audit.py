"""A running proof that nothing is lost: some frames of which all is known are looked at whole all the same.

What such a look finds is compared with what the slide map has there and then forgotten, so that the count is the same
with any share of them. A white cell that the look shows whole and the map does not have is missed; one that the map has
and the look does not show is added. Both have the detector's own changes of mind in them: it does not find every cell
in every frame.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engines.geometry import iou_matrix
from streamer.intervals import clopper_pearson

AUDIT_PERCENT = 2.0
"""Of the settled frames, where nobody says how many."""
SAME = 0.3
"""Intersection over union from which on a box is a cell of the map."""
MOST_MISSED = 0.02
"""Share of the cells that may be missed."""
BOTH_SIDES = 0.9
"""Confidence of two limits of which each is one of 95 %."""

FrameBoxes = npt.NDArray[np.floating]


def is_audited(source: str, frame_id: int, percent: float) -> bool:
    """Whether a frame is among those looked at as a proof: at random, the same for the same source and frame, so that
    a film comes to the same each time."""
    digest = hashlib.blake2b(f"{source} {frame_id}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") < percent / 100 * 2**32


@dataclass(slots=True)
class Audit:
    """What the proofs of one slide have come to."""

    frames: int = 0
    cells: int = 0
    """White cells that these looks showed whole."""
    missed: int = 0
    """Of these, not on the map."""
    added: int = 0
    """White cells on the map, within these frames, that the looks did not show."""

    def add(self, found: FrameBoxes, known: FrameBoxes, whole_found: FrameBoxes, whole_known: FrameBoxes) -> None:
        """A frame: (n, 4) boxes of white cells that the look found and that the map has; of both those seen whole."""
        self.frames += 1
        self.cells += len(whole_found)
        self.missed += int((~_are_among(whole_found, known)).sum())
        self.added += int((~_are_among(whole_known, found)).sum())

    @property
    def bound(self) -> float | None:
        """Upper 95 % limit (Clopper-Pearson, one side) of the share of the cells that the map lacks; None: no cell was
        seen yet. The same cell may be seen in several proofs, so that it is of looks and not of cells."""
        return self._limits[1] if self.cells else None

    @property
    def fails(self) -> bool:
        """Whether more are missed than may be, beyond chance."""
        return bool(self.missed) and self._limits[0] > MOST_MISSED

    @property
    def _limits(self) -> tuple[float, float]:
        """Each is passed by chance in one of 20."""
        return clopper_pearson(self.missed, self.cells, BOTH_SIDES)


def _are_among(boxes: FrameBoxes, others: FrameBoxes) -> npt.NDArray[np.bool_]:
    """(n,) whether each box is one of the others, as far as overlap says."""
    return np.asarray((iou_matrix(boxes, others) >= SAME).any(1))
