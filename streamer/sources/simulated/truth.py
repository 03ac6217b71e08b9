"""The ground truth of a frame, for tests and for training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from streamer.sources.simulated.smear import SlideCell

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class VisibleCell:
    """A cell that lies in the frame, at least in part."""

    cell: SlideCell
    box_px: Box
    """x1, y1, x2, y2 in frame pixels, cut at the frame's edge."""
    fraction_visible: float
    """Share of the whole box that lies in the frame: above 0, and 1 for a whole cell."""


@dataclass(frozen=True, slots=True)
class FrameTruth:
    """Where and how a frame was taken, and what it shows."""

    frame_id: int
    x_px: float
    """Slide point = frame point + (x_px, y_px), in the middle of the exposure."""
    y_px: float
    moving: bool
    """Taken while the stage was moving."""
    motion_px: tuple[float, float]
    """Motion of the stage during the exposure: length and direction of the motion blur."""
    defocus_px: float
    """Standard deviation of the Gaussian blur of the lens."""
    cells: tuple[VisibleCell, ...]
    """By cell id; empty if the frame shows none."""

    def white(self) -> tuple[VisibleCell, ...]:
        """The white cells among them, without erythroblasts."""
        return tuple(visible for visible in self.cells if visible.cell.kind == "white")


def cells_in_frame(
    cells: Iterable[SlideCell], x_px: float, y_px: float, width: int, height: int
) -> tuple[VisibleCell, ...]:
    """The cells that a frame with its corner at (x_px, y_px) of the slide shows."""
    visible = []
    for cell in cells:
        x1, y1, x2, y2 = cell.box_px
        left, top = max(x1 - x_px, 0.0), max(y1 - y_px, 0.0)
        right, bottom = min(x2 - x_px, float(width)), min(y2 - y_px, float(height))
        if left < right and top < bottom:
            whole = x1 >= x_px and y1 >= y_px and x2 <= x_px + width and y2 <= y_px + height
            share = 1.0 if whole else (right - left) * (bottom - top) / ((x2 - x1) * (y2 - y1))
            visible.append(VisibleCell(cell, (left, top, right, bottom), share))
    return tuple(visible)
