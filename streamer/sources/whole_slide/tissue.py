"""Where on a slide there is something stained.

Looked for on a level at which a red cell is about two pixels wide. The measure is optical density, -ln(value / glass).
Macenko et al., "A method for normalizing histology slides for quantitative analysis" (ISBI 2009), take less than a
decadic 0.15 for glass in sections of tissue. A red cell of a smear has a natural density of 0.33 in green, where it is
darkest (streamer/sources/simulated/painting.py); from half of that on a pixel is stained here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from streamer.sources.whole_slide.slide_image import SlideImage

STAINED_DENSITY = 0.15
"""Natural optical density in green."""

STAINED_UM2 = 30.0
"""A tile with more stained area is read: a red cell covers 44 µm², the smallest white cells as much."""

OVERVIEW_UM_PER_PX = 4.0

_MOST_PX = 32_000_000
"""Of an overview, 32 MB; of a slide that needs more it is coarser."""

_BLOCK_PX = 2048
_GLASS_PERCENTILE = 95.0
_DARKEST = 5
"""Scanners fill what they did not scan with black or with white."""


@dataclass(frozen=True, slots=True, eq=False)
class Tissue:
    """What of a slide is stained."""

    stained: npt.NDArray[np.bool_]
    """(h, w)"""
    px_x: float
    """Pixels of the full size per pixel of `stained`."""
    px_y: float
    um2_per_px: float
    read_level: int
    """On which it was looked for."""

    def area_um2(self, left: float, top: float, right: float, bottom: float) -> float:
        """Stained area of a part of the slide, in pixels of the full size."""
        rows = slice(int(top / self.px_y), math.ceil(bottom / self.px_y))
        columns = slice(int(left / self.px_x), math.ceil(right / self.px_x))
        return float(np.count_nonzero(self.stained[rows, columns])) * self.um2_per_px


def find_tissue(slide: SlideImage, um_per_px: tuple[float, float]) -> Tissue:
    """`um_per_px`: of the full size. Reads one level of the slide, block by block."""
    full = slide.levels[0]
    area_um2 = full.width_px * um_per_px[0] * full.height_px * um_per_px[1]
    wanted = max(OVERVIEW_UM_PER_PX, math.sqrt(area_um2 / _MOST_PX))
    scales = [max(um_per_px[0] * one.shrink_x, um_per_px[1] * one.shrink_y) for one in slide.levels]
    number = max((number for number, scale in enumerate(scales) if scale <= wanted), default=0)
    level = slide.levels[number]
    shrink = max(1, int(wanted / scales[number]))
    green = _overview(slide, number, shrink)
    px_x, px_y = level.shrink_x * shrink, level.shrink_y * shrink
    return Tissue(_stained(green), px_x, px_y, px_x * um_per_px[0] * px_y * um_per_px[1], number)


def _overview(slide: SlideImage, number: int, shrink: int) -> npt.NDArray[np.uint8]:
    """(h, w) of a level's green, shrunk by area; a last row or column may cover less."""
    level = slide.levels[number]
    block = _BLOCK_PX // shrink * shrink or shrink
    green = np.empty((math.ceil(level.height_px / shrink), math.ceil(level.width_px / shrink)), np.uint8)
    for top in range(0, level.height_px, block):
        for left in range(0, level.width_px, block):
            width, height = min(block, level.width_px - left), min(block, level.height_px - top)
            part = np.ascontiguousarray(slide.read(number, left, top, width, height)[..., 1])
            size = math.ceil(width / shrink), math.ceil(height / shrink)
            x, y = left // shrink, top // shrink
            green[y : y + size[1], x : x + size[0]] = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    return green


def _stained(green: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    counts = np.bincount(green.ravel(), minlength=256)
    counts[: _DARKEST + 1] = counts[255] = 0
    total = np.cumsum(counts)
    glass = int(np.searchsorted(total, total[-1] * _GLASS_PERCENTILE / 100)) if total[-1] else 255
    stained: npt.NDArray[np.bool_] = (green > _DARKEST) & (green < glass * math.exp(-STAINED_DENSITY))
    return stained
