"""At which size a slide is read, and where its tiles lie. Pure arithmetic, but for what `read_tile` reads."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from engines.base import UsageError
from streamer.sources.tiles import Corner, serpentine, starts
from streamer.sources.whole_slide.options import DEFAULT_UM_PER_PX, SlideOptions
from streamer.sources.whole_slide.slide_image import Image, SlideError, SlideImage

FIELD_UM = (160.0, 128.0)
"""Across and down, about: the field of a camera on a 60x objective, 640 x 512 px at 0.25 µm/px. It holds some 250 red
cells. Detectors give so many boxes a picture at most, and of a tile twice as wide they lost two white cells in five."""

UNIT_PX = 64
"""Sides of tiles are multiples of it, and ratios of 1/UNIT_PX, so that each UNIT_PX rows of a tile begin with a pixel
of the level."""

_SAME = 0.01
"""Scales that differ by less are one: tiles are taken as they are stored."""

_MOST_AT_ONCE_PX = 24_000_000
"""Read for one tile, 72 MB. More comes band by band."""


@dataclass(frozen=True, slots=True)
class ReadingPlan:
    """From which level tiles are read, and by how much that is shrunk."""

    level: int
    ratio_x: float
    """Pixels of the level per pixel of a tile; at least 1."""
    ratio_y: float
    um_per_px: float
    """Of the tiles."""
    tile_px: tuple[int, int]
    """Width and height."""
    part_px: tuple[int, int]
    """Width and height of what is read for a tile, in pixels of the level."""

    def place_px(self, corner: Corner) -> tuple[float, float]:
        """Where a tile whose first pixel is this one of the level lies on the slide, in pixels of the tiles; exact."""
        return corner[0] / self.ratio_x, corner[1] / self.ratio_y


def plan_reading(slide: SlideImage, options: SlideOptions) -> ReadingPlan:
    """UsageError for a scale that the slide can't be read at, SlideError where it states none and none is given."""
    own = slide.um_per_px
    if own is None:
        if options.um_per_px is None:
            raise SlideError(
                "got a slide that states no scale, expected micrometres per pixel; give those of its full size, as"
                f" wsi:{options.path},mpp=0.25 (usual are 0.5 with 20x, 0.25 with 40x, 0.1 with 100x)"
            )
        own = options.um_per_px, options.um_per_px
    coarser = max(own)
    wanted = options.um_per_px or max(DEFAULT_UM_PER_PX, coarser)
    if wanted < coarser * (1 - _SAME):
        raise UsageError(
            f"wsi: mpp: got {wanted:g}, expected at least the {coarser:.4g} µm/px of {options.path}: nothing finer is"
            " in it; leave mpp out to read it as it is"
        )
    level = max(
        number
        for number, one in enumerate(slide.levels)
        if max(own[0] * one.shrink_x, own[1] * one.shrink_y) <= wanted * (1 + _SAME)
    )
    chosen = slide.levels[level]
    scale_x, scale_y = own[0] * chosen.shrink_x, own[1] * chosen.shrink_y
    ratio_x, ratio_y = _ratio(wanted / scale_x), _ratio(wanted / scale_y)
    um_per_px = scale_x * ratio_x
    tile_px = _tile_side(FIELD_UM[0] / um_per_px), _tile_side(FIELD_UM[1] / um_per_px)
    part_px = round(tile_px[0] * ratio_x), round(tile_px[1] * ratio_y)
    if part_px[0] > chosen.width_px or part_px[1] > chosen.height_px:
        size = f"{chosen.width_px / ratio_x:.0f} x {chosen.height_px / ratio_y:.0f} px"
        raise UsageError(
            f"wsi:{options.path}: got a slide of {size} at {um_per_px:.4g} µm/px, expected at least a tile of"
            f" {tile_px[0]} x {tile_px[1]} px; is its scale right? A single field is given without wsi:"
        )
    return ReadingPlan(level, ratio_x, ratio_y, um_per_px, tile_px, part_px)


def _tile_side(px: float) -> int:
    return max(1, round(px / UNIT_PX)) * UNIT_PX


def _ratio(exact: float) -> float:
    return 1.0 if abs(exact - 1) <= _SAME else max(1.0, round(exact * UNIT_PX) / UNIT_PX)


def all_tiles(slide: SlideImage, plan: ReadingPlan, overlap: float) -> list[Corner]:
    """Corners of the tiles that cover the slide, in pixels of the level, in the order in which they are read."""
    level = slide.levels[plan.level]
    columns = starts(level.width_px, plan.part_px[0], overlap)
    rows = starts(level.height_px, plan.part_px[1], overlap)
    return list(serpentine(columns, rows))


def read_tile(slide: SlideImage, plan: ReadingPlan, corner: Corner) -> Image:
    """(height, width, 3) BGR of `plan.tile_px`, each pixel the mean of the area that it covers."""
    (left, top), (width, height) = corner, plan.part_px
    if plan.ratio_x == plan.ratio_y == 1:
        return slide.read(plan.level, left, top, width, height)
    if width * height <= _MOST_AT_ONCE_PX:
        return _shrunk(slide.read(plan.level, left, top, width, height), plan.tile_px)
    across, down = plan.tile_px
    tile = np.empty((down, across, 3), np.uint8)
    rows = round(UNIT_PX * plan.ratio_y)
    for band in range(down // UNIT_PX):
        part = slide.read(plan.level, left, top + band * rows, width, rows)
        tile[band * UNIT_PX : (band + 1) * UNIT_PX] = _shrunk(part, (across, UNIT_PX))
    return tile


def _shrunk(part: Image, size_px: tuple[int, int]) -> Image:
    return np.asarray(cv2.resize(part, size_px, interpolation=cv2.INTER_AREA), np.uint8)
