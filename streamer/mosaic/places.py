"""Where the frames of a session lie on the slide, and which of them a picture of it needs. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from streamer.journal import SeenFrame
from streamer.stage.placement import Correction

LOOKS_AT_A_PLACE = 3
"""Frames that may show the same place; more add nothing but blur."""

_GRID_CELLS = 12
"""Along the shorter side of a frame: how fine it is looked what is covered."""


@dataclass(frozen=True, slots=True)
class PlacedFrame:
    """A frame and its place: slide point = frame point + (x_px, y_px)."""

    frame_id: int
    island: int
    x_px: float
    y_px: float
    width: int
    height: int
    file: str | None
    accepted: bool
    focus: float
    """0 where it was not measured."""


@dataclass(frozen=True, slots=True)
class Extent:
    """A part of the slide, in slide pixels."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top


class FinalPlaces:
    """Takes the frames of a session in order, and gives their places as they are after all corrections."""

    def __init__(self) -> None:
        self._frames: list[tuple[PlacedFrame, int | None]] = []
        self._moved: dict[int, tuple[float, float, int]] = {}
        """By anchor: how far it has moved since the beginning, and its island now."""

    def add(self, seen: SeenFrame) -> None:
        """A frame; one that has no place only moves others."""
        self.correct(seen.placement.corrections)
        position, anchor = seen.placement.position, seen.placement.anchor
        if position is None:
            return
        dx, dy, _ = self._moved.get(-1 if anchor is None else anchor, (0.0, 0.0, 0))
        frame = PlacedFrame(
            seen.frame_id,
            position.island,
            position.x_px - dx,
            position.y_px - dy,
            seen.width,
            seen.height,
            seen.file,
            seen.accepted,
            seen.focus or 0.0,
        )
        self._frames.append((frame, anchor))

    def correct(self, corrections: Iterable[Correction]) -> None:
        for one in corrections:
            dx, dy, _ = self._moved.get(one.anchor, (0.0, 0.0, 0))
            self._moved[one.anchor] = dx + one.dx_px, dy + one.dy_px, one.island

    def frames(self) -> list[PlacedFrame]:
        """In their order."""
        placed = []
        for frame, anchor in self._frames:
            moved = None if anchor is None else self._moved.get(anchor)
            if moved is not None:
                dx, dy, island = moved
                frame = replace(frame, x_px=frame.x_px + dx, y_px=frame.y_px + dy, island=island)
            placed.append(frame)
        return placed


def extent_of(frames: Sequence[PlacedFrame]) -> Extent:
    return Extent(
        min(frame.x_px for frame in frames),
        min(frame.y_px for frame in frames),
        max(frame.x_px + frame.width for frame in frames),
        max(frame.y_px + frame.height for frame in frames),
    )


def needed(frames: Sequence[PlacedFrame]) -> list[PlacedFrame]:
    """Of one island's frames those that show a place of it best, sharpest first, `LOOKS_AT_A_PLACE` at most; rejected
    ones only where no other has been."""
    extent = extent_of(frames)
    step = max(1.0, min(min(frame.width, frame.height) for frame in frames) / _GRID_CELLS)
    looks = np.zeros((int(extent.height / step) + 2, int(extent.width / step) + 2), np.uint8)
    chosen = []
    for frame in sorted(frames, key=lambda frame: (not frame.accepted, -frame.focus, frame.frame_id)):
        covered = looks[_cells(frame, extent, step)]
        if covered.size and covered.min() < (LOOKS_AT_A_PLACE if frame.accepted else 1):
            covered += 1
            chosen.append(frame)
    return chosen


def _cells(frame: PlacedFrame, extent: Extent, step: float) -> tuple[slice, slice]:
    left, top = (frame.x_px - extent.left) / step, (frame.y_px - extent.top) / step
    return (
        slice(round(top), max(round(top) + 1, round(top + frame.height / step))),
        slice(round(left), max(round(left) + 1, round(left + frame.width / step))),
    )


def some(frames: Sequence[PlacedFrame], most: int) -> list[PlacedFrame]:
    """Evenly chosen ones, `most` at most."""
    places: npt.NDArray[np.intp] = np.unique(np.linspace(0, len(frames) - 1, min(most, len(frames))).astype(np.intp))
    return [frames[place] for place in places]
