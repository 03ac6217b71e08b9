"""At which scale a detector should look: magnifications differ by three between laboratories.

A detector is trained for a range of red-cell diameters in its input (the card's `rbc_diameter_px`). Here the long
side of the input is chosen so that the red cells at hand fall into it, from a diameter that someone knows or from
the red cells themselves. Use it with `detector.with_long_side(...)`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engines.card import DetectorInput
from engines.detector import Detector
from engines.geometry import Image, diameters, suggest_long_side

_FEWEST_RED_CELLS = 5
_NEAR_END = 0.85
"""What is too large or too small for a detector it reports as the largest or smallest that it knows: a median this
near to an end of the range is taken as beyond it."""
_SMALLEST, _LARGEST = 1 / 4, 2
"""Scales, relative to the detector's own, among which red cells are looked for."""


def long_side_for(detector: Detector, width: int, height: int, rbc_diameter_px: float) -> int:
    """The long side for frames of a size in which red cells are `rbc_diameter_px` wide, in full-frame pixels."""
    known = _range(detector)
    if known is None:
        return detector.long_side_px
    return suggest_long_side(rbc_diameter_px * _scale(detector, width, height), known, detector.long_side_px)


def measure_long_side(detector: Detector, frames: Sequence[Image]) -> int | None:
    """The long side at which the red cells of these frames have a size that the detector was trained for.

    A few frames, of one size, with cells in them are enough. Mostly it is the present long side, after one look at
    each frame; else the input is halved or doubled until the cells measured there are clearly within the range.
    None where the card knows no range, the file has a fixed size, or there are too few red cells to tell.
    """
    known = _range(detector)
    if known is None or not frames:
        return None
    low, high = known
    height, width = frames[0].shape[:2]
    factor, last = 1.0, 0.0
    while _SMALLEST <= factor <= _LARGEST:
        scaled = detector.with_long_side(round(detector.long_side_px * factor))
        median = _median_red_diameter(scaled, frames)
        if median is None or median > high * _NEAR_END:
            # Cells far too large are not seen at all: single cells filling small pictures.
            following = factor / 2
        elif median < low / _NEAR_END:
            following = factor * 2
        else:
            return long_side_for(detector, width, height, median / _scale(scaled, width, height))
        if following == last:
            return None
        factor, last = following, factor
    return None


def _median_red_diameter(detector: Detector, frames: Sequence[Image]) -> float | None:
    """In input px, of the red cells that lie wholly inside the frames; None for fewer than five."""
    found = [np.zeros(0, np.float32)]
    for frame, detections in zip(frames, detector.detect(frames), strict=True):
        height, width = frame.shape[:2]
        boxes = detections.boxes_px
        red = np.array([detections.kinds[label] == "red" for label in detections.labels], np.bool_)
        whole = (boxes[:, :2] > 1).all(1) & (boxes[:, 2] < width - 1) & (boxes[:, 3] < height - 1)
        sure = detections.scores >= detector.card.thresholds.operating
        found.append(diameters(boxes[red & whole & sure]) * _scale(detector, width, height))
    pooled = np.concatenate(found)
    return float(np.median(pooled)) if len(pooled) >= _FEWEST_RED_CELLS else None


def _range(detector: Detector) -> tuple[float, float] | None:
    settings = detector.card.input
    if not isinstance(settings, DetectorInput) or detector.fixed_size is not None:
        return None
    return settings.rbc_diameter_px


def _scale(detector: Detector, width: int, height: int) -> float:
    """Input pixels per frame pixel."""
    return max(detector.input_size(width, height)) / max(width, height)
