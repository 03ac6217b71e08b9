"""A frame to be decided on, and what the models see of it then."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from streamer.records import StagePosition
from streamer.stage.placement import Placement


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A placed frame, as far as decisions need it."""

    placement: Placement
    size_px: tuple[int, int]
    accepted: bool
    sharpness: float
    noise: float = 0.0
    """Of `FrameQuality`."""

    @property
    def counts(self) -> bool:
        """Whether its cells are counted, if it is looked at."""
        return self.accepted and self.placement.position is not None


@dataclass(frozen=True, slots=True, eq=False)
class KnownCells:
    """White cells that the slide map knows, as rows."""

    cell_ids: npt.NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, np.intp))
    """(n,)"""
    boxes_px: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 4)))
    """(n, 4) x1, y1, x2, y2, on the slide or in a frame."""
    labels: npt.NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, np.intp))
    """(n,) of their last detections."""

    def __len__(self) -> int:
        return len(self.cell_ids)

    def __getitem__(self, rows: npt.NDArray[np.generic]) -> KnownCells:
        return KnownCells(self.cell_ids[rows], self.boxes_px[rows], self.labels[rows])


NONE_KNOWN = KnownCells()


@dataclass(frozen=True, slots=True, eq=False)
class CellsInDoubt:
    """What is in doubt of the cells around a frame; boxes on the slide."""

    classes: KnownCells = NONE_KNOWN
    """Which class they have: to be looked at again by the classifier."""
    presence: KnownCells = NONE_KNOWN
    """Whether there is a cell: to be looked at again by the detector, clear of the edges."""
    extent: KnownCells = NONE_KNOWN
    """Where they end: no frame showed them whole. The box is what was seen of them."""


NO_DOUBT = CellsInDoubt()


def in_frame(boxes_px: npt.NDArray[np.float64], position: StagePosition) -> npt.NDArray[np.float64]:
    """(n, 4) boxes on the slide, as boxes of a frame there."""
    return np.asarray(boxes_px - np.array([position.x_px, position.y_px] * 2))


def inside_px(boxes_px: npt.NDArray[np.float64], size_px: tuple[int, int]) -> npt.NDArray[np.float64]:
    """(n,) how far inside a frame (width, height) its boxes lie, from the nearest edge; below 0 where one is cut."""
    beyond = np.asarray(size_px, np.float64) - boxes_px[:, 2:]
    return np.asarray(np.minimum(boxes_px[:, :2], beyond).min(1))


@dataclass(frozen=True, slots=True)
class Plan:
    """What is looked at."""

    whole: bool = True
    """By the detector, and by the classifier where that finds white cells."""
    cells: KnownCells = NONE_KNOWN
    """By the classifier alone, of a frame that is not looked at whole; boxes in the frame."""
    audit: bool = False
    """By the detector all the same, as a proof that is not counted (audit.py)."""
    waiting: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 7)))
    """Frames of which something waits for the next one, once this is decided on: `Coverage.rows`."""

    @property
    def detects(self) -> bool:
        """Whether the detector sees the frame."""
        return self.whole or self.audit


WHOLE = Plan()
