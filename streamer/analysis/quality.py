"""The frame gate: whether a frame is good enough for its cells to be counted. A pure function of one image.

All measures are ratios, so that stain, lamp and exposure don't matter. The thresholds accept at least 99 % of the
fields of `chula_wbc`, `bccd`, `txl_pbc` and `bcd`, from several microscopes; what they reject was made from these
fields by blurring and smearing them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from engines.base import LeukostreamError
from streamer.records import FrameQuality

STAGE_MOVING = "stage moving"
"""The reason of a frame whose source says that its stage moved while it was exposed: where its cells lie can't be said,
however sharp they look."""


@dataclass(frozen=True, slots=True)
class QualityConfig:
    long_side: int = 640
    """The image is reduced by a whole number to about this; finer detail is mostly noise."""
    min_focus: float = 0.33
    """Laplacian over gradient, root mean squares. Real fields: 0.35 and more; blurred by 4 px at 640: 0.15 to 0.29.
    It must hold at half the size too, where the noise that can pass for detail is averaged away."""
    max_smear: float = 1.5
    """Strongest over weakest gradient of all directions, rms. Real fields: to 1.5; motion of 3 % of the width: 1.4."""
    min_contrast: float = 0.012
    """Standard deviation without what is wider than cells, over the mean. Real fields: 0.016 and more."""
    max_bright: float = 0.5
    """Share of pixels at the sensor's upper end in all colours."""
    max_dark: float = 0.5
    """Share of pixels at its lower end in all colours."""
    max_cover: float = 0.85
    """Share of the field that cells cover, from which they can't be told apart. Real fields: to 0.74."""


NOISE_ROWS = 48
"""Of each strip in which noise is measured."""
_NOISE_ONLY = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
_LEFT_OF_NOISE = 0.6745 * float(np.linalg.norm(_NOISE_ONLY))
"""Median of the sizes of what it leaves of normally distributed noise, for each grey level of that."""
TILES = 7
"""Along each side, for the smear: an odd number, so that a crosshair touches one row and one column of them."""


def assess(
    image: npt.NDArray[np.uint8], config: QualityConfig | None = None, half: npt.NDArray[np.uint8] | None = None
) -> FrameQuality:
    """Judge a uint8 (H, W, 3) BGR image. `focus` is a ratio, 0.35 to 2 in usable frames; None in a blank one.

    Reasons, in this order: "overexposed", "underexposed", "empty field", "too dense", "motion blur", "out of focus".
    Raises LeukostreamError for another array. `half`: the image at half its size (INTER_AREA), where the caller has
    it; nothing but time depends on it.
    """
    config = config or QualityConfig()
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise LeukostreamError(f"image: got {image.dtype} {image.shape}, expected uint8 (height, width, 3)")
    focus, noise, half, tiny = _survey(image, config.long_side, half)
    reasons = []
    pixels = tiny.shape[0] * tiny.shape[1]
    if cv2.countNonZero(cv2.inRange(tiny, (250, 250, 250), (255, 255, 255))) > config.max_bright * pixels:
        reasons.append("overexposed")
    if cv2.countNonZero(cv2.inRange(tiny, (0, 0, 0), (10, 10, 10))) > config.max_dark * pixels:
        reasons.append("underexposed")
    if _contrast(half) < config.min_contrast:
        reasons.append("empty field")  # all else would be measured on its noise
    else:
        if _cover(tiny) > config.max_cover:
            reasons.append("too dense")
        along_x, along_y, curvature = _derivatives(half)
        coarse_focus = _focus(along_x, along_y, curvature)
        if _smear(along_x, along_y) > config.max_smear:
            reasons.append("motion blur")
        elif focus is None or coarse_focus is None or min(focus, coarse_focus) < config.min_focus:
            reasons.append("out of focus")
    return FrameQuality(focus, not reasons, tuple(reasons), noise)


def _survey(
    image: npt.NDArray[np.uint8], long_side: int, halved: npt.NDArray[np.uint8] | None
) -> tuple[float | None, float, npt.NDArray[Any], npt.NDArray[Any]]:
    """(focus and noise of the reduced image, grey float32 at half its size, BGR uint8 at a quarter of its size)."""
    factor = max(1, round(max(image.shape[:2]) / long_side))
    small = halved if factor == 2 and halved is not None else _shrink(image, factor)
    smaller = halved if factor == 1 and halved is not None else _shrink(small, 2)
    grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY).astype(np.float32)
    band = grey.shape[0] // 8  # one in the upper and one in the lower half stand for all of it
    gradient = curved = 0.0
    for top in (2 * band, 5 * band) if band > 16 else (0,):
        along_x, along_y, curvature = _derivatives(grey[top : top + band] if band > 16 else grey)
        gradient += _power(along_x) + _power(along_y)
        curved += _power(curvature)
    focus = None if gradient < 1e-6 * image.size else float(np.sqrt(curved / gradient))
    return focus, _noise(image) / factor, _shrink(grey, 2), _shrink(smaller, 2)


def _noise(image: npt.NDArray[np.uint8]) -> float:
    """Standard deviation of an image's noise, in steps of a quarter of a grey level.

    By what is left of two strips without their planes and edges (Immerkaer, Fast noise variance estimation, Computer
    Vision and Image Understanding 64, 1996); the median of its sizes, to which cells add little, instead of the mean.
    """
    counts = np.zeros(256)
    for middle in (len(image) // 3, 2 * len(image) // 3):
        strip = image[max(0, middle - NOISE_ROWS // 2) : middle + NOISE_ROWS // 2]
        left = cv2.convertScaleAbs(cv2.filter2D(cv2.cvtColor(strip, cv2.COLOR_BGR2GRAY), cv2.CV_16S, _NOISE_ONLY))
        counts += cv2.calcHist([left], [0], None, [256], [0, 256]).ravel()
    median = int(np.searchsorted(np.cumsum(counts), counts.sum() / 2))
    return median / _LEFT_OF_NOISE


def _contrast(half: npt.NDArray[Any]) -> float:
    coarse = _shrink(half, 2)
    flat = cv2.subtract(coarse, cv2.GaussianBlur(coarse, (0, 0), 3))
    return float(cv2.meanStdDev(flat)[1][0, 0]) / max(float(cv2.mean(coarse)[0]), 1.0)


def _derivatives(image: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """(along x, along y, Laplacian) of the smoothed image, float32: rounded to 8 bits it would never look blurred."""
    smooth = cv2.GaussianBlur(image, (0, 0), 0.8)
    inner = slice(2, -2) if len(smooth) > 8 else slice(None)  # beyond the first and last row is only its mirror image
    along_x = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=1 / 8)[inner]
    along_y = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=1 / 8)[inner]
    return along_x, along_y, cv2.Laplacian(smooth, cv2.CV_32F)[inner]


def _power(values: npt.NDArray[Any]) -> float:
    return float(np.dot(values.ravel(), values.ravel()))


def _focus(along_x: npt.NDArray[Any], along_y: npt.NDArray[Any], curvature: npt.NDArray[Any]) -> float | None:
    gradient = _power(along_x) + _power(along_y)
    return None if gradient < 1e-6 * along_x.size else float(np.sqrt(_power(curvature) / gradient))


def _smear(along_x: npt.NDArray[Any], along_y: npt.NDArray[Any]) -> float:
    """Of the median tile: motion smears all of them alike, a lone cell, a film's edge or a crosshair only its own."""
    rows, columns = along_x.shape[0] // TILES, along_x.shape[1] // TILES
    tiles_x, tiles_y = (
        image[: TILES * rows, : TILES * columns].reshape(TILES, rows, TILES, columns) for image in (along_x, along_y)
    )
    xx, xy, yy = (
        np.einsum("ijkl,ijkl->ik", one, two)
        for one, two in ((tiles_x, tiles_x), (tiles_x, tiles_y), (tiles_y, tiles_y))
    )
    power = np.maximum(xx + yy, 1e-9)
    lean = float(np.hypot(_middle((xx - yy) / power), _middle(2 * xy / power)))
    return float(np.sqrt((1 + lean) / max(1 - lean, 1e-6)))


def _middle(values: npt.NDArray[np.float32]) -> np.float32:
    """The median of an odd number of values; NumPy's takes ten times as long for so few."""
    middle: np.float32 = np.sort(values, axis=None)[values.size // 2]
    return middle


def _cover(image: npt.NDArray[Any]) -> float:
    """Share of the field that is darker, in green, than the ground that shows between the cells."""
    green = cv2.GaussianBlur(image[:, :, 1], (0, 0), 1.0)
    side = max(3, max(green.shape) // 3)
    ground = cv2.blur(cv2.morphologyEx(green, cv2.MORPH_CLOSE, np.ones((side, side), np.uint8)), (side, side))
    level = cv2.divide(green, ground, scale=200)
    _, ground_only = cv2.threshold(level, 0, 255, cv2.THRESH_OTSU)
    return 1.0 - cv2.countNonZero(ground_only) / level.size


def _shrink(image: npt.NDArray[Any], factor: int) -> npt.NDArray[Any]:
    height, width = image.shape[0] // factor, image.shape[1] // factor
    if factor == 1 or not height or not width:
        return image
    whole = image[: height * factor, : width * factor]  # by exactly two, cv2 takes a tenth of the time
    return np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA))
