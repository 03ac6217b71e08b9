"""Masks -> measures of a cell: areas, nucleus-to-cytoplasm ratio, nuclear lobes, circularity. Pure functions.

A measure is None where nothing was segmented that it could be taken on: never 0 for what was not measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

BACKGROUND, CYTOPLASM, NUCLEUS = range(3)
"""The labels of a mask."""

Mask = npt.NDArray[np.uint8]
Bits = npt.NDArray[np.bool_]

LEAST_CELL = 0.02
"""Share of a mask below which what was segmented is taken for noise, not for a cell."""
BOX_SLACK = 1.15
"""Sides of what may belong to a cell, over those of its box: boxes are a little tight now and then."""
LEAST_PART = 0.04
"""Share of a nucleus below which a piece of it is taken for a granule or noise, not for a lobe."""
NECK = 0.7
"""Two parts of a nucleus are lobes of it where the neck between them is narrower than this share of the narrower one:
nuclei of bands and monocytes narrow too, but less."""
LEVELS = 32
"""Widths that are looked at for necks."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What was measured on one look at a cell."""

    nucleus_area_px: float | None
    """In pixels of the full frame, as all areas; None: no nucleus was segmented."""
    cytoplasm_area_px: float | None
    """Without the nucleus; None: no cytoplasm was segmented."""
    nuclear_lobes: int | None
    nucleus_circularity: float | None
    """4 pi area / perimeter², 1 for a disc; of a nucleus in several pieces, of all their area and perimeter."""

    @property
    def nucleus_to_cytoplasm_ratio(self) -> float | None:
        """Area over area; None where either was not segmented."""
        if self.nucleus_area_px is None or self.cytoplasm_area_px is None:
            return None
        return self.nucleus_area_px / self.cytoplasm_area_px


def measure(labels: Mask, side_px: float, margins: tuple[float, float]) -> Shape:
    """Measures of the cell in the middle of a mask (h, w) of a square crop.

    `side_px` is the crop's side in pixels of the full frame; `margins` that side over the width and over the height of
    the cell's box. Of several cells in the crop, the one that has most of the box is meant; what lies well outside the
    box is none of it, be it that two cells touch.
    """
    cell = _middle_cell(labels, margins)
    if cell is None:
        return Shape(None, None, None, None)
    scale = side_px * side_px / labels.size
    nucleus = _without_crumbs(cell & (labels == NUCLEUS))
    cytoplasm = int((cell & (labels == CYTOPLASM)).sum())
    nuclear = int(nucleus.sum())
    return Shape(
        nucleus_area_px=nuclear * scale if nuclear else None,
        cytoplasm_area_px=cytoplasm * scale if cytoplasm else None,
        nuclear_lobes=count_lobes(nucleus) if nuclear else None,
        nucleus_circularity=circularity(nucleus) if nuclear else None,
    )


def circularity(bits: Bits) -> float:
    """4 pi area / perimeter² of all that is set in (h, w), at most 1. ValueError where nothing is."""
    area = int(bits.sum())
    if not area:
        raise ValueError("circularity: got an empty mask, expected something set in it")
    return min(1.0, 4 * math.pi * area / perimeter(bits) ** 2)


def perimeter(bits: Bits) -> float:
    """Length of all edges of what is set in (h, w), in pixels, holes among them.

    Crofton's formula in four directions: how often parallel lines cross the edge. Within 3 % for discs, 6 % too short
    for upright rectangles, which nuclei are not.
    """
    padded = np.pad(bits, 1)
    straight = np.count_nonzero(padded[:, 1:] != padded[:, :-1]) + np.count_nonzero(padded[1:] != padded[:-1])
    falling, rising = padded[1:, 1:] != padded[:-1, :-1], padded[1:, :-1] != padded[:-1, 1:]
    slanted = np.count_nonzero(falling) + np.count_nonzero(rising)
    return float(math.pi / 8 * (straight + slanted / math.sqrt(2)))


def count_lobes(nucleus: Bits) -> int:
    """Lobes of what is set in (h, w): pieces, and parts joined by necks only. 0 where nothing is set.

    The distance to the edge has a peak in every part. From the largest distance downwards parts appear, and where two
    of them join, the distance there is half the neck's width: both are lobes where it is below NECK of the lower peak,
    else the lower one belongs to the higher. Peaks lower than a fifth of the highest are no lobes.
    """
    depth = cv2.distanceTransform(np.pad(nucleus, 1).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    highest = float(depth.max())
    if highest <= 0:
        return 0
    apart = 0
    peaks: list[tuple[float, tuple[int, int]]] = []
    for level in np.linspace(highest, highest / LEVELS, LEVELS).tolist():
        count, parts = cv2.connectedComponents((depth >= level).astype(np.uint8), connectivity=8)
        inside: dict[int, list[tuple[float, tuple[int, int]]]] = {}
        for peak in peaks:
            inside.setdefault(int(parts[peak[1]]), []).append(peak)
        peaks = []
        for part in range(1, count):
            known = sorted(inside.get(part, ()), reverse=True)
            if not known:
                if level >= highest / 5:
                    place = np.unravel_index(int(np.where(parts == part, depth, 0).argmax()), depth.shape)
                    peaks.append((float(depth[place]), (int(place[0]), int(place[1]))))
                continue
            peaks.append(known[0])
            apart += sum(level < NECK * height for height, _ in known[1:])
    return apart + len(peaks)


def _middle_cell(labels: Mask, margins: tuple[float, float]) -> Bits | None:
    """Of what is no background, in the box or a little beside it, the connected piece that has most of the box in the
    middle; None: there is none."""
    height, width = labels.shape

    def part(share: float) -> tuple[slice, slice]:
        top, left = (
            round(max(0.0, n * (1 - share / m) / 2)) for n, m in zip((height, width), margins[::-1], strict=True)
        )
        return slice(top, height - top), slice(left, width - left)

    kept = np.zeros(labels.shape, np.uint8)
    kept[part(BOX_SLACK)] = labels[part(BOX_SLACK)] != BACKGROUND
    count, pieces = cv2.connectedComponents(kept, connectivity=4)
    if count < 2:
        return None
    middle = pieces[part(1.0)]
    sizes = np.bincount(middle.ravel(), minlength=count)[1:]
    chosen = int(sizes.argmax()) + 1
    cell: Bits = pieces == chosen
    return cell if sizes[chosen - 1] and cell.sum() >= LEAST_CELL * labels.size else None


def _without_crumbs(nucleus: Bits) -> Bits:
    """The nucleus without pieces below LEAST_PART of it."""
    count, pieces = cv2.connectedComponents(nucleus.astype(np.uint8), connectivity=8)
    sizes = np.bincount(pieces.ravel(), minlength=count)
    sizes[0] = 0
    kept: Bits = (sizes >= LEAST_PART * max(1, nucleus.sum())) & (sizes > 0)
    big: Bits = kept[pieces]
    return big
