"""The frame gate: whether a frame is good enough for its cells to be counted. A pure function of one image.

All measures are ratios, so that stain, lamp and exposure don't matter. The thresholds are those that accept at least
99 % of the fields of `chula_wbc`, `bccd`, `txl_pbc` and `bcd`, from seven microscopes; what they reject was made from
these fields by blurring, smearing and washing them out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from engines.base import LeukostreamError
from streamer.records import FrameQuality


@dataclass(frozen=True, slots=True)
class QualityConfig:
    long_side: int = 640
    """The image is reduced by a whole number to about this; finer detail is mostly noise."""
    min_focus: float = 0.33
    """Laplacian over gradient, root mean squares. Real fields: 0.35 and more; blurred by 4 px at 640: 0.15 to 0.29.
    It must hold at half the size too, where the noise that can pass for detail is averaged away."""
    max_smear: float = 1.6
    """Strongest over weakest gradient of all directions, rms. Real fields: to 1.5; motion of 40 px: 1.5 to 3."""
    smear_focus: float = 0.9
    """Above this focus a direction is no motion but the picture: interlace lines, the edge of the smear."""
    min_contrast: float = 0.012
    """Standard deviation without what is wider than cells, over the mean. Real fields: 0.016 and more."""
    max_bright: float = 0.5
    """Share of pixels at the sensor's upper end in all colours."""
    max_dark: float = 0.5
    """Share of pixels at its lower end in all colours."""
    max_cover: float = 0.85
    """Share of the field that cells cover, from which they can't be told apart. Real fields: to 0.74."""


def assess(image: npt.NDArray[np.uint8], config: QualityConfig | None = None) -> FrameQuality:
    """Judge a uint8 (H, W, 3) BGR image. `focus` is a ratio, 0.35 to 2 in usable frames; None in a blank one.

    Reasons, in this order: "overexposed", "underexposed", "empty field", "too dense", "motion blur", "out of focus".
    Raises LeukostreamError for another array.
    """
    config = config or QualityConfig()
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise LeukostreamError(f"image: got {image.dtype} {image.shape}, expected uint8 (height, width, 3)")
    fine, half, tiny = _survey(image, config.long_side)
    reasons = []
    pixels = tiny.shape[0] * tiny.shape[1]
    if cv2.countNonZero(cv2.inRange(tiny, (250, 250, 250), (255, 255, 255))) > config.max_bright * pixels:
        reasons.append("overexposed")
    if cv2.countNonZero(cv2.inRange(tiny, (0, 0, 0), (10, 10, 10))) > config.max_dark * pixels:
        reasons.append("underexposed")
    focus, coarse_focus, smear, contrast = _sharpness(fine, half)
    if contrast < config.min_contrast:
        reasons.append("empty field")
    elif _cover(_shrink(tiny, 2)) > config.max_cover:
        reasons.append("too dense")
    if focus is None:
        return FrameQuality(None, False, tuple(reasons))
    if contrast >= config.min_contrast:  # of an empty field only the noise could be out of focus
        if smear > config.max_smear and focus < config.smear_focus:
            reasons.append("motion blur")
        elif min(focus, coarse_focus) < config.min_focus:
            reasons.append("out of focus")
    return FrameQuality(focus, not reasons, tuple(reasons))


def _survey(
    image: npt.NDArray[np.uint8], long_side: int
) -> tuple[tuple[float, float, float, float], npt.NDArray[Any], npt.NDArray[Any]]:
    """(derivatives of the reduced image, grey float32 at half its size, BGR uint8 at half its size).

    Band by band: buffers of a full image's size would be given back to the system and asked for again with every
    frame, which costs more than all the arithmetic.
    """
    factor = max(1, round(max(image.shape[:2]) / long_side))
    band = 64 * factor
    sums, halves, tinies, rows = np.zeros(4), [], [], 0
    for top in range(0, max(1, image.shape[0] - band // 2), band):
        bottom = image.shape[0] if image.shape[0] - top < 1.5 * band else top + band
        small = _shrink(image[top:bottom], factor)
        grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY).astype(np.float32)
        sample = grey[: (len(grey) + 1) // 2]  # every other strip of the field stands for all of it
        sums += np.array(_derivatives(sample)) * len(sample)
        rows += len(sample)
        halves.append(_shrink(grey, 2))
        tinies.append(_shrink(small, 2))
    xx, xy, yy, bend = (sums / rows).tolist()
    return (xx, xy, yy, bend), np.concatenate(halves), np.concatenate(tinies)


def _sharpness(
    fine: tuple[float, float, float, float], half: npt.NDArray[Any]
) -> tuple[float | None, float, float, float]:
    """(focus, focus at half the size, smear, contrast); focus None where there is no gradient at all."""
    coarse = _shrink(half, 2)
    flat = coarse - cv2.GaussianBlur(coarse, (0, 0), 3)
    contrast = float(flat.std() / max(float(coarse.mean()), 1.0))
    xx, xy, yy, curvature = fine
    if xx + yy < 1e-6:
        return None, 0.0, 1.0, contrast
    spread = float(np.hypot(xx - yy, 2 * xy))
    smear = float(np.sqrt((xx + yy + spread) / max(xx + yy - spread, 1e-6 * (xx + yy))))
    half_xx, _, half_yy, half_curvature = _derivatives(half)
    coarse_focus = float(np.sqrt(half_curvature / max(half_xx + half_yy, 1e-6)))
    return float(np.sqrt(curvature / (xx + yy))), coarse_focus, smear, contrast


def _derivatives(image: npt.NDArray[Any]) -> tuple[float, float, float, float]:
    """Mean squares of the slightly smoothed image's gradient (xx, xy, yy) and of its Laplacian."""
    smooth = cv2.GaussianBlur(image, (0, 0), 0.8)  # rounded to 8 bits it would never look blurred
    along_x = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=1 / 8).ravel()
    along_y = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=1 / 8).ravel()
    curvature = cv2.Laplacian(smooth, cv2.CV_32F).ravel()
    pairs = ((along_x, along_x), (along_x, along_y), (along_y, along_y), (curvature, curvature))
    xx, xy, yy, bend = (float(np.dot(a, b)) / smooth.size for a, b in pairs)
    return xx, xy, yy, bend


def _cover(image: npt.NDArray[Any]) -> float:
    """Share of the field that is darker, in green, than the ground that shows between the cells."""
    green = cv2.GaussianBlur(image[:, :, 1], (0, 0), 1.0)
    side = max(3, max(green.shape) // 8)
    ground = cv2.blur(cv2.morphologyEx(green, cv2.MORPH_CLOSE, np.ones((side, side), np.uint8)), (side, side))
    level = cv2.divide(green, ground, scale=200)
    threshold, _ = cv2.threshold(level, 0, 255, cv2.THRESH_OTSU)
    return float((level <= threshold).mean())


def _shrink(image: npt.NDArray[Any], factor: int) -> npt.NDArray[Any]:
    if factor == 1:
        return image
    size = (max(1, image.shape[1] // factor), max(1, image.shape[0] // factor))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
