"""The colours of a field: how much light its plasma and its red cells hold back. A pure function of one frame.

Optical density is the negative natural logarithm of (value + 1) / 256. A lamp's colour and an exposure are an offset in
it, so red cells are given relative to the plasma around them: what is left is the stain.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from engines.base import Detections
from engines.geometry import Image
from streamer.records import Density, FieldColours

LONG_SIDE_PX = 240
"""The frame is reduced to this or less: medians of some thousand pixels do."""
LEAST_PLASMA = 0.01
"""Share of the frame outside all boxes below which the plasma is not measured."""
_INNER = 0.3
"""Of a red cell, the part of its sides on each side of the middle that is measured: its rim shows the plasma too."""


def field_colours(half: Image, detections: Detections, min_score: float) -> FieldColours:
    """The colours of a frame from its half-size image uint8 (H, W, 3) BGR and its boxes, in full-frame pixels.

    Plasma is the brighter half of what no box of `min_score` or more covers, red cells are the middles of their boxes
    where no other kind of cell lies; both are medians.
    """
    factor = math.ceil(max(half.shape[:2]) / LONG_SIDE_PX)
    height, width = half.shape[0] // factor, half.shape[1] // factor
    small = half
    if factor > 1 and height and width:
        whole = half[: height * factor, : width * factor]
        small = np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA))
    sure = detections.scores >= min_score
    red = np.array([kind == "red" for kind in detections.kinds], bool)[detections.labels]
    boxes = detections.boxes_px / (2 * factor)
    covered = np.zeros(small.shape[:2], np.uint8)
    _fill(covered, boxes[sure])
    outside = small[covered == 0]
    plasma = None
    if len(outside) >= LEAST_PLASMA * covered.size:
        green = np.ascontiguousarray(outside[:, 1])
        plasma = _density(outside[green >= _median(green)])
    inner = np.zeros_like(covered)
    chosen = boxes[sure & red]
    middles, sides = (chosen[:, :2] + chosen[:, 2:]) / 2, chosen[:, 2:] - chosen[:, :2]
    _fill(inner, np.concatenate([middles - _INNER * sides, middles + _INNER * sides], 1))
    _fill(inner, boxes[sure & ~red], 0)
    seen = small[inner > 0]
    if plasma is None or not len(seen):
        return FieldColours(plasma, None, 0)
    cells = _density(seen)
    return FieldColours(plasma, tuple(np.subtract(cells, plasma).tolist()), int(np.count_nonzero(sure & red)))


def _fill(mask: npt.NDArray[np.uint8], boxes: npt.NDArray[np.float32], value: int = 1) -> None:
    for left, top, right, bottom in np.rint(boxes).astype(int).clip(0).tolist():
        mask[top : max(bottom, top + 1), left : max(right, left + 1)] = value


def _density(pixels: npt.NDArray[np.uint8]) -> Density:
    b, g, r = (-math.log((_median(pixels[:, channel]) + 1.0) / 256.0) for channel in range(3))
    return b, g, r


def _median(values: npt.NDArray[np.uint8]) -> float:
    """Of at least one byte; counting them is several times faster than sorting."""
    below = np.cumsum(np.bincount(values, minlength=256))
    low, high = np.searchsorted(below, [(len(values) - 1) // 2, len(values) // 2], side="right").tolist()
    return float(low + high) / 2
