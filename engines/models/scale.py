"""At which scale a detector should look: magnifications differ by three between laboratories.

A detector is trained for a range of red-cell diameters in its input (the card's `rbc_diameter_px`). Here the long
side of the input is chosen so that the red cells at hand fall into it, from a diameter that someone knows or from
the red cells themselves. Use it with `detector.with_long_side(...)`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engines.base import Detections
from engines.geometry import Image, diameters, suggest_long_side
from engines.models.detector import Detector
from engines.zoo.card import DetectorInput

_FEWEST_RED_CELLS = 5
_NEAR_END = 0.85
"""What is too large or too small for a detector it reports as the largest or smallest that it knows: a median this
near to an end of the range is taken as beyond it."""
_SMALLEST, _LARGEST = 1 / 4, 4
"""Scales, relative to the detector's own, among which red cells are looked for and inputs are chosen."""


def trained_range(detector: Detector) -> tuple[float, float] | None:
    """Diameters of red cells, in input px, that the card names; None where it names none."""
    settings = detector.card.input
    return settings.rbc_diameter_px if isinstance(settings, DetectorInput) else None


def in_input(detector: Detector, width: int, height: int, rbc_diameter_px: float) -> float:
    """A diameter in full-frame pixels of frames of a size, in input px."""
    return rbc_diameter_px * _scale(detector, width, height)


def is_trained_for(detector: Detector, width: int, height: int, rbc_diameter_px: float) -> bool:
    """Whether red cells so wide, in full-frame pixels, are within the card's range; True where it names none."""
    known = trained_range(detector)
    return known is None or known[0] <= in_input(detector, width, height, rbc_diameter_px) <= known[1]


def long_side_for(detector: Detector, width: int, height: int, rbc_diameter_px: float) -> int | None:
    """The long side for frames of a size in which red cells are `rbc_diameter_px` wide, in full-frame pixels.

    The present one where they are within the card's range. None where no input from a quarter to four times the present
    one brings them there, or the file has a fixed size.
    """
    known = trained_range(detector)
    if known is None or is_trained_for(detector, width, height, rbc_diameter_px):
        return detector.long_side_px
    if detector.fixed_size is not None:
        return None
    chosen = suggest_long_side(in_input(detector, width, height, rbc_diameter_px), known, detector.long_side_px)
    return chosen if _SMALLEST <= chosen / detector.long_side_px <= _LARGEST else None


def measure_rbc_diameter(detector: Detector, frames: Sequence[Image]) -> float | None:
    """The usual diameter of the red cells of these frames, in full-frame pixels.

    A few frames, of one size, with cells in them are enough. Mostly it takes one look at each; where the cells are not
    clearly within the card's range, the input is halved or doubled until they are; where none are seen, smaller inputs
    are tried, then larger ones that the frames have pixels for. Where the cells stay beyond the range at a quarter or
    at four times the present input, the diameter is that of the last look. None where the card knows no range or there
    are too few red cells to tell.
    """
    known = trained_range(detector)
    if known is None or not frames:
        return None
    low, high = known
    height, width = frames[0].shape[:2]
    factor, tried = 1.0, [1.0]
    while True:
        scaled = detector.with_long_side(round(detector.long_side_px * factor))
        median = _median_red_diameter(scaled, frames)
        measured = None if median is None else median / _scale(scaled, width, height)
        if detector.fixed_size is not None:
            return measured
        if median is None:
            largest = max(width, height) / detector.long_side_px
            unseen = [f for f in (1 / 2, 1 / 4, 2.0, 4.0) if f not in tried and f <= max(1.0, largest)]
            if not unseen:
                return None
            factor = unseen[0]
        elif median > high * _NEAR_END:
            factor /= 2
        elif median < low / _NEAR_END:
            factor *= 2
        else:
            return measured
        if factor in tried:
            return None
        if not _SMALLEST <= factor <= _LARGEST:
            return measured
        tried.append(factor)


def rbc_diameter_seen(
    detector: Detector, found: Sequence[Detections], sizes: Sequence[tuple[int, int]]
) -> float | None:
    """The usual diameter of the red cells that were found in pictures of `sizes` (width, height), in px of the
    pictures; None where fewer than five lie wholly inside them."""
    widths = [np.zeros(0, np.float32)]
    for detections, (width, height) in zip(found, sizes, strict=True):
        boxes = detections.boxes_px
        red = np.array([detections.kinds[label] == "red" for label in detections.labels], np.bool_)
        whole = (boxes[:, :2] > 1).all(1) & (boxes[:, 2] < width - 1) & (boxes[:, 3] < height - 1)
        sure = detections.scores >= detector.card.thresholds.operating
        widths.append(diameters(boxes[red & whole & sure]))
    pooled = np.concatenate(widths)
    return float(np.median(pooled)) if len(pooled) >= _FEWEST_RED_CELLS else None


def _median_red_diameter(detector: Detector, frames: Sequence[Image]) -> float | None:
    """In input px, of frames of one size; None for fewer than five red cells."""
    height, width = frames[0].shape[:2]
    seen = rbc_diameter_seen(detector, detector.detect(frames), [(width, height)] * len(frames))
    return None if seen is None else seen * _scale(detector, width, height)


def _scale(detector: Detector, width: int, height: int) -> float:
    """Input pixels per frame pixel."""
    return max(detector.input_size(width, height)) / max(width, height)
