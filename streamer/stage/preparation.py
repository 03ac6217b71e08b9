"""The part of registration that depends on one frame alone, so that any thread can do it.

The frame is reduced to grey: objectives magnify red, green and blue differently, by up to 1 % in real frames. Its
logarithm turns light and exposure into addends. Everything wider than a cell edge is removed, and with it the lamp's
vignette.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import scipy.fft

from engines.base import LeukostreamError

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class RegistrationConfig:
    """Lengths are pixels of the named reduced picture. The defaults were measured on 388 real frames."""

    long_side: int = 360
    """Longer side of the fine picture, about; the coarse one has half of it."""
    flat_sigma: float = 3.0
    """Width of the blur that estimates the light, in fine pixels."""
    smooth_sigma: float = 1.0
    """Width of the blur against noise, in fine pixels. Without it gradients come out too small and steps too large."""
    clip: float = 3.0
    """Contrast is clipped at this many standard deviations, so that a white cell does not outvote the field."""
    min_overlap: float = 0.03
    """Shifts with less overlap, as a share of the field, are ignored."""
    min_peak: float = 9.0
    """Standard deviations of its own surface; true peaks reach 16 and more, most wrong ones 6, some 20."""
    min_low_peak: float = 7.0
    """The same for the lower half of the frequencies, tried first at a quarter of the cost: true peaks reach 9 or more,
    nine in ten wrong ones less than 7."""
    min_ncc: float = 0.2
    """Correlation on the fine overlap; true ones 0.7 and more, with the focus changed 0.35."""
    min_strength: float = 38.0
    """Of a match: its correlation, times the square root of the overlap's fine pixels, times the share of the overlap's
    contrast that moved as one. True ones reach 46 at 4 % overlap and 60 to 300 from 8 % on; of 243 000 pairs of fields
    without anything in common the strongest was 46."""
    tile: int = 36
    """Side of a tile of the overlap in fine pixels."""
    max_refinement: float = 4.0
    """Fine pixels that refinement may move from its start."""


@dataclass(frozen=True, slots=True, eq=False)
class PreparedFrame:
    """What registration keeps of a frame; about 0.5 MB."""

    height: int
    """Of the frame, as is `width`."""
    width: int
    factor: int
    """Frame pixels per fine pixel."""
    fine: npt.NDArray[np.int8]
    """(h, w) flat-fielded log contrast, 1/32 of its standard deviation."""
    spectrum: npt.NDArray[np.complex64] | None
    """Of the coarse picture, half the fine one, zero-padded to twice its size; None: not needed yet, or
    dropped."""
    contrast: float
    """Root mean square of the flat-fielded logarithm, outliers apart; falls with blur, 0 for a blank frame."""
    coherence: float
    """Correlation of neighbouring pixels before smoothing: about 0 for pure noise, 0.5 and more for cells."""
    smear: float
    """Ratio of the strongest to the weakest rms gradient over all directions: 1.0 to 1.13 at rest, 1.2 and more if the
    stage moved by more than about 1 % of the field during the exposure."""


def prepare(
    image: npt.NDArray[np.uint8], config: RegistrationConfig, half: npt.NDArray[np.uint8] | None = None
) -> PreparedFrame:
    """Reduce a uint8 (H, W, 3) BGR image to what registration needs. Raises LeukostreamError for another array.

    `half`: the image at half its size (INTER_AREA) if the caller has it; it saves time and changes nothing else.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise LeukostreamError(f"image: got {image.dtype} {image.shape}, expected uint8 (height, width, 3)")
    height, width = image.shape[:2]
    factor = max(1, round(max(height, width) / config.long_side))
    if min(height, width) < 16 * factor:
        raise LeukostreamError(f"image: got {width}x{height} pixels, too narrow to register; expected 1:20 at most")
    logarithm = cv2.log(_reduce(image, factor, half).astype(np.float32) + 4)  # the addend keeps black finite
    light = _light(logarithm, config.flat_sigma)
    raw = logarithm - light
    fine = cv2.GaussianBlur(logarithm, (0, 0), config.smooth_sigma) - light
    contrast = _spread(fine, config.clip)
    fine *= 32 / max(contrast, 1e-6)
    np.clip(fine, -32 * config.clip, 32 * config.clip, out=fine)
    np.rint(fine, out=fine)
    return PreparedFrame(
        height=height,
        width=width,
        factor=factor,
        fine=fine.astype(np.int8),
        spectrum=None,
        contrast=contrast,
        coherence=_neighbour_correlation(raw),
        smear=_smear(fine),
    )


def restored(frame: PreparedFrame) -> PreparedFrame:
    """The frame with its spectrum, computed where there is none."""
    return replace(frame, spectrum=spectrum_of(frame)) if frame.fine.size else frame


def spectrum_of(frame: PreparedFrame) -> npt.NDArray[np.complex64]:
    return _spectrum(frame.fine.astype(np.float32)) if frame.spectrum is None else frame.spectrum


def without_spectrum(frame: PreparedFrame) -> PreparedFrame:
    """The frame at a fifth of its memory."""
    return replace(frame, spectrum=None)


def forgotten(frame: PreparedFrame) -> PreparedFrame:
    """The frame without its picture; it no longer matches anything."""
    return replace(frame, fine=np.zeros((0, 0), np.int8), spectrum=None)


def comparable(a: PreparedFrame, b: PreparedFrame) -> bool:
    """Whether two frames can be compared: of the same size, and neither one forgotten."""
    return (a.height, a.width) == (b.height, b.width) and min(a.fine.size, b.fine.size) > 0


def _reduce(image: npt.NDArray[np.uint8], factor: int, half: npt.NDArray[np.uint8] | None) -> npt.NDArray[np.uint8]:
    """Grey (h, w) means of factor x factor blocks. Edges that fill no block of twice the factor are cut off."""
    unit = 2 * factor
    height, width = image.shape[0] // unit * unit, image.shape[1] // unit * unit
    image = image[:height, :width]
    if factor % 2 == 0:  # colour only on a quarter of the pixels
        image = shrink(image, 2) if half is None else half[: height // 2, : width // 2]
        factor //= 2
    grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.uint8)
    while factor % 2 == 0:  # halving twice costs a third of quartering once
        grey, factor = shrink(grey, 2), factor // 2
    return shrink(grey, factor) if factor > 1 else grey


def shrink(image: npt.NDArray[Any], factor: int) -> npt.NDArray[Any]:
    size = (image.shape[1] // factor, image.shape[0] // factor)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))


def _light(image: npt.NDArray[Any], sigma: float) -> Floats:
    """A Gaussian blur, made at half the size for a third of the cost: a wide blur has no finer detail."""
    # The two resizings blur by a variance of about 1/2 and 1/2 pixel themselves.
    half = cv2.GaussianBlur(shrink(image, 2), (0, 0), float(np.sqrt(sigma**2 - 0.6)) / 2)
    return np.asarray(cv2.resize(half, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR), np.float32)


def smear_of(fine: npt.NDArray[np.int8]) -> float:
    """`PreparedFrame.smear` of a fine picture."""
    return _smear(fine.astype(np.float32))


def coarse_shape(fine: npt.NDArray[np.generic]) -> tuple[int, int]:
    return fine.shape[0] // 2, fine.shape[1] // 2


def _spectrum(fine: Floats) -> npt.NDArray[np.complex64]:
    coarse = shrink(fine, 2)
    coarse -= coarse.mean()
    spectrum: npt.NDArray[np.complex64] = scipy.fft.rfft2(coarse, padded_shape(coarse_shape(fine)))
    return spectrum


def _spread(image: Floats, clip: float) -> float:
    """Root mean square; of what is left of it beyond `clip` times that where a few pixels make most of it, as a clock
    burnt in does. (Real fields lose 15 % by one clipping, with a white clock on black 40 to 65 %.)"""
    spread = _rms(image)
    while (clipped := _rms(np.clip(image, -clip * spread, clip * spread))) < 0.8 * spread:
        spread = clipped
    return spread


def _rms(image: Floats) -> float:
    return float(np.sqrt(np.vdot(image, image) / image.size))


def _neighbour_correlation(image: Floats) -> float:
    """The weaker of the correlations along x and y; 0 for a blank image."""
    power = float(np.vdot(image, image)) / image.size
    if power < 1e-12:
        return 0.0
    along_x = float(np.einsum("ij,ij", image[:, 1:], image[:, :-1])) / image[:, 1:].size
    along_y = float(np.vdot(image[1:], image[:-1])) / image[1:].size
    return max(0.0, min(along_x, along_y) / power)


def _smear(image: Floats) -> float:
    along_x = cv2.Sobel(image, cv2.CV_32F, 1, 0).ravel()
    along_y = cv2.Sobel(image, cv2.CV_32F, 0, 1).ravel()
    xx, xy, yy = (float(np.dot(a, b)) for a, b in ((along_x, along_x), (along_x, along_y), (along_y, along_y)))
    spread = float(np.hypot(xx - yy, 2 * xy))
    return float(np.sqrt((xx + yy + spread) / max(xx + yy - spread, 1e-6 * (xx + yy), 1e-12)))


@lru_cache(maxsize=16)
def padded_shape(shape: tuple[int, int]) -> tuple[int, int]:
    return scipy.fft.next_fast_len(2 * shape[0], real=True), scipy.fft.next_fast_len(2 * shape[1], real=True)
