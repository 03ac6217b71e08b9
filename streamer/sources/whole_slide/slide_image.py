"""What a whole-slide image is to the rest: one picture, stored at several sizes, of which parts can be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from engines.base import LeukostreamError

Image = npt.NDArray[np.uint8]

STATED_UM_PER_PX = (0.02, 20.0)
"""Scales of microscopes. A TIFF's resolution is often that of a printer, 72 per inch: it states no scale."""

_ROUNDED_PX = 1
"""A level's sides may be rounded up or down by so much when they were divided."""


class SlideError(LeukostreamError):
    """Why a file is no slide that can be read: what was got and what was expected."""


@dataclass(frozen=True, slots=True)
class Level:
    """One of the sizes."""

    width_px: int
    height_px: int
    shrink_x: float
    """Pixels of the full size per pixel of this one; at least 1."""
    shrink_y: float


class SlideImage(Protocol):
    """Read by one thread. What its methods raise, beyond what is said, is the library's own."""

    @property
    def format(self) -> str:
        """For people: "aperio", "OME-TIFF"."""

    @property
    def levels(self) -> Sequence[Level]:
        """The full size first, then smaller ones."""

    @property
    def um_per_px(self) -> tuple[float, float] | None:
        """Across and down, of the full size; None: the file does not state it."""

    def read(self, level: int, left: int, top: int, width: int, height: int) -> Image:
        """(height, width, 3) BGR, a part that lies within a level, in its pixels; the caller owns it. White where the
        file has no picture."""

    def close(self) -> None:
        """Harmless when called twice."""


def levels_of(sizes: Sequence[tuple[int, int]]) -> tuple[Level, ...]:
    """From (width, height), the full size first. A ratio of the sides that is a whole number but for the rounding of
    the sides is that number, so that places on a small level are exact on the full size. SlideError for one without
    area, and for one larger than the full size."""
    width, height = sizes[0]
    levels = []
    for number, (across, down) in enumerate(sizes):
        if min(across, down) <= 0:
            raise SlideError(f"got {across} x {down} px at level {number}, expected pixels")
        if across > width or down > height:
            raise SlideError(
                f"got {across} x {down} px at level {number}, expected at most the {width} x {height} px of level 0"
            )
        levels.append(Level(across, down, _ratio(width, across), _ratio(height, down)))
    return tuple(levels)


def _ratio(whole: int, part: int) -> float:
    nearest = round(whole / part)
    return float(nearest) if abs(whole / nearest - part) <= _ROUNDED_PX else whole / part


def stated(um_x: float | None, um_y: float | None) -> tuple[float, float] | None:
    """A scale that a file states, where it can be one of a microscope."""
    low, high = STATED_UM_PER_PX
    if um_x is None or um_y is None or not (low <= um_x <= high and low <= um_y <= high):
        return None
    return um_x, um_y


def to_bgr(samples: npt.NDArray[Any]) -> Image:
    """(h, w), (h, w, 1), (h, w, 3) or (h, w, 4) of 8 bits, RGB or RGBA, to BGR on white. SlideError for any other."""
    if samples.dtype != np.uint8:
        raise SlideError(f"got samples of {samples.dtype}, expected 8 bits; convert the file")
    if samples.ndim == 2:
        samples = samples[..., None]
    channels = samples.shape[2]
    if channels == 1:
        return np.repeat(samples, 3, axis=2)
    if channels not in (3, 4):
        raise SlideError(f"got {channels} channels, expected grey, RGB or RGBA: a stained slide in transmitted light")
    colours = np.ascontiguousarray(samples[..., 2::-1])
    if channels == 4 and samples[..., 3].min() < 255:
        opacity = samples[..., 3:].astype(np.uint16)
        colours = ((colours * opacity + 255 * (255 - opacity) + 127) // 255).astype(np.uint8)
    return colours
