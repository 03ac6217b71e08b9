"""How far two frames are apart: pictures in, a shift in pixels and how sure it is out. Pure functions.

`prepare` is all that depends on one frame alone, so that worker threads can do it side by side. The frame is reduced
to grey (objectives magnify red, green and blue differently, up to 1 % in real frames: one channel would set a scale of
its own), taken to its logarithm, so that light and exposure are addends, and freed of everything wider than a cell
edge, so that the lamp's vignette is gone. `register` then
correlates two frames at every shift at once, zero-padded to twice their size: no shift is confused with the one
that wraps around, and every sum is divided by the square root of the overlap it was taken over, so that a strip of 5 %
of the field can win. (Plain phase correlation at the frame's own size fails from about half a field on.) The peak's
height in standard deviations of its own surface is the gate. What passes is refined on the finer picture with a
second-order Gauss-Newton step (ESM, Benhimane and Malis 2004), which tile by tile also shows whether the whole overlap
moved as one.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    """Lengths are pixels of the reduced picture that they name; the defaults were measured on 388 real frames."""

    long_side: int = 360
    """The fine picture's longer side is about this; the coarse one's half of it."""
    flat_sigma: float = 3.0
    """Width of the blur that is taken as the light, in fine pixels."""
    smooth_sigma: float = 1.0
    """Width of the blur against noise, in fine pixels; without it gradients are taken too small and steps too large."""
    clip: float = 3.0
    """Contrast beyond so many standard deviations is cut off, so that a white cell does not outvote the field."""
    min_overlap: float = 0.03
    """Shifts that leave less of the field in common are not looked at."""
    min_peak: float = 9.0
    """Standard deviations of its own surface; true peaks reach 16 and more, most wrong ones 6, some 20."""
    min_low_peak: float = 7.0
    """The same for the lower half of the frequencies, which is tried first at a quarter of the cost: true peaks reach 9
    and more, nine in ten wrong ones less than 7."""
    min_ncc: float = 0.2
    """Correlation on the fine overlap; true ones 0.7 and more, with the focus changed 0.35."""
    min_strength: float = 38.0
    """Of a match: its correlation, times the square root of the overlap's fine pixels, times the share of the overlap's
    contrast that moved as one. True ones reach 46 at 4 % overlap and 60 to 300 from 8 % on; of 243 000 pairs of fields
    without anything in common the strongest was 46."""
    tile: int = 36
    """Side of a tile of the overlap in fine pixels."""
    max_refinement: float = 4.0
    """Fine pixels that refinement may move what it starts from."""


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
    """Of the coarse picture, half the fine one, zero-padded to twice its size; None where it was not needed yet, or was
    dropped."""
    contrast: float
    """Root mean square of the flat-fielded logarithm; falls with blur, 0 for a blank frame."""
    coherence: float
    """Correlation of neighbouring pixels before smoothing: about 0 for pure noise, 0.5 and more for cells."""
    smear: float
    """Strongest over weakest gradient of all directions, rms: 1.0 to 1.13 in fields at rest, 1.2 and more when the
    stage went further than about 1 % of the field during the exposure."""


@dataclass(frozen=True, slots=True)
class Shift:
    """Where the second frame lies from the first: first frame's point = second frame's point + (x_px, y_px)."""

    x_px: float
    y_px: float
    overlap: float
    """Share of the field that both see."""
    ncc: float
    """-1 to 1, correlation on the overlap."""
    agreement: float
    """0 to 1, share of the overlap's contrast that moved as the whole did."""
    strength: float
    """How unlikely it is by chance: see `RegistrationConfig.min_strength`."""
    growth: float
    """How much larger the second frame shows things, as a share: 0.01 is 1 %; measured over the tiles."""
    turn_rad: float
    """How far the second frame is turned against the first one."""

    def reversed(self) -> Shift:
        """Where the first frame lies from the second one."""
        return replace(self, x_px=-self.x_px, y_px=-self.y_px, growth=-self.growth, turn_rad=-self.turn_rad)


def prepare(
    image: npt.NDArray[np.uint8], config: RegistrationConfig, half: npt.NDArray[np.uint8] | None = None
) -> PreparedFrame:
    """Reduce a uint8 (H, W, 3) BGR image to what registration needs. Raises LeukostreamError for another array.

    `half`: the image at half its size (INTER_AREA), where the caller has it; nothing but time depends on it.
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
    contrast = float(np.sqrt(np.vdot(fine, fine) / fine.size))
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
    return replace(frame, spectrum=_spectrum_of(frame)) if frame.fine.size else frame


def _spectrum_of(frame: PreparedFrame) -> npt.NDArray[np.complex64]:
    return _spectrum(frame.fine.astype(np.float32)) if frame.spectrum is None else frame.spectrum


def without_spectrum(frame: PreparedFrame) -> PreparedFrame:
    """The frame at a fifth of its memory."""
    return replace(frame, spectrum=None)


def forgotten(frame: PreparedFrame) -> PreparedFrame:
    """The frame without its picture: it matches nothing any more."""
    return replace(frame, fine=np.zeros((0, 0), np.int8), spectrum=None)


def at_rest(a: PreparedFrame, b: PreparedFrame) -> bool:
    """Whether two frames look so alike that the stage can have gone hardly further than a cell's edge is wide."""
    if not comparable(a, b):
        return False
    size = cv2.norm(a.fine, cv2.NORM_L1) + cv2.norm(b.fine, cv2.NORM_L1)
    return cv2.norm(a.fine, b.fine, cv2.NORM_L1) < 0.4 * size  # what has nothing in common: 0.7 to 0.8


def comparable(a: PreparedFrame, b: PreparedFrame) -> bool:
    """Whether two frames can be compared: of the same size, and neither one forgotten."""
    return (a.height, a.width) == (b.height, b.width) and min(a.fine.size, b.fine.size) > 0


def register(a: PreparedFrame, b: PreparedFrame, config: RegistrationConfig) -> Shift | None:
    """Where `b` lies from `a`, at any shift that leaves enough in common; None when there is no such shift."""
    found = find_peak(a, b, config)
    if found is None:
        return None
    return refine(a, b, found, config)


def find_peak(a: PreparedFrame, b: PreparedFrame, config: RegistrationConfig) -> tuple[float, float] | None:
    """The likeliest shift (x, y) in frame pixels, to about one coarse pixel; None when no peak stands out."""
    if not comparable(a, b):
        return None
    shape = _coarse_shape(a.fine)
    padded = _padded(shape)
    first, second = _spectrum_of(a), _spectrum_of(b)
    height, width = (size // 4 * 2 for size in padded)
    low = np.empty((height, width // 2 + 1), np.complex64)
    for rows, out in ((slice(height // 2), low[: height // 2]), (slice(-(height // 2), None), low[height // 2 :])):
        np.multiply(first[rows, : width // 2 + 1], second[rows, : width // 2 + 1].conj(), out=out)
    surface = scipy.fft.irfft2(low, (height, width), overwrite_x=True)
    if _peak(surface, *_low_weights(shape, config.min_overlap))[0] < config.min_low_peak:
        return None
    surface = scipy.fft.irfft2(first * second.conj(), padded, overwrite_x=True)
    peak, row, column = _peak(surface, *_overlap_weights(shape, config.min_overlap))
    if peak < config.min_peak:
        return None
    shift_y = row if row < shape[0] else row - padded[0]
    shift_x = column if column < shape[1] else column - padded[1]
    scale = 2 * a.factor
    return float(shift_x * scale), float(shift_y * scale)


def _peak(surface: Floats, weights: Floats, valid: int) -> tuple[float, int, int]:
    """(height in standard deviations, row, column) of the peak of a surface, which is weighted in place."""
    surface *= weights
    row, column = divmod(int(surface.argmax()), surface.shape[1])
    spread = float(np.sqrt(np.vdot(surface, surface) / valid))
    return float(surface[row, column]) / max(spread, 1e-12), row, column


def refine(
    a: PreparedFrame, b: PreparedFrame, guess_px: tuple[float, float], config: RegistrationConfig
) -> Shift | None:
    """Sub-pixel shift near `guess_px` (within some ten frame pixels); None when the overlap does not agree with it."""
    if not comparable(a, b):
        return None
    start = np.array(guess_px) / a.factor
    shift = start
    fraction = np.zeros(2)
    for _ in range(6):
        base = np.rint(shift).astype(int)
        tiles = _Tiles.measure(a.fine, b.fine, base, fraction, config)
        if tiles is None:
            return None
        step = tiles.common_step()
        shift = base + fraction + np.clip(step, -1.5, 1.5)
        if np.abs(shift - start).max() > config.max_refinement:
            return None
        if np.abs(step).max() <= (0.75 if not fraction.any() else 0.25):
            if fraction.any() or np.abs(step).max() < 0.1:
                break
            fraction = np.clip(shift - np.rint(shift), -0.5, 0.5)  # once more, with what is left of a pixel taken out
        else:
            fraction = np.zeros(2)
    else:
        return None
    tiles.correlate()
    agreement = tiles.agreement(step)
    strength = tiles.ncc * float(np.sqrt(tiles.pixels)) * agreement
    if tiles.ncc < config.min_ncc or strength < config.min_strength:
        return None
    growth, turn = tiles.distortion()
    return Shift(
        x_px=float(shift[0]) * a.factor,
        y_px=float(shift[1]) * a.factor,
        overlap=tiles.pixels / a.fine.size,
        ncc=tiles.ncc,
        agreement=agreement,
        strength=strength,
        growth=growth,
        turn_rad=turn,
    )


class _Tiles:
    """The normal equations of a translation, tile by tile of the overlap, at an integer shift."""

    def __init__(self, first: Floats, second: Floats, corner: tuple[int, int], tile: int) -> None:
        """The overlap as both see it, and where it begins in `b`, x and y in fine pixels."""
        height, width = first.shape
        self.pixels = height * width
        self._first, self._second, self._corner = first, second, corner
        self._shape = max(1, round(height / tile)), max(1, round(width / tile))
        both, gap = first + second, second - first
        along_x = cv2.Sobel(both, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 16)
        along_y = cv2.Sobel(both, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 16)
        self._normal = self._sums(
            (along_x, along_x), (along_x, along_y), (along_y, along_y), (along_x, gap), (along_y, gap)
        )  # xx, xy, yy, x gap, y gap
        # A tile without an edge in one direction still has a step: the ridge keeps it near zero there.
        ridge = 0.05 * float((self._normal[0] + self._normal[2]).mean()) + 1e-6
        self._steps = np.stack(_solved(self._normal, ridge), axis=-1)

    @classmethod
    def measure(
        cls,
        a: npt.NDArray[np.int8],
        b: npt.NDArray[np.int8],
        base: npt.NDArray[np.int_],
        fraction: npt.NDArray[np.float64],
        config: RegistrationConfig,
    ) -> _Tiles | None:
        """At the shift `base` + `fraction` (x, y); None where too little is left in common."""
        height, width = a.shape
        x, y = base.tolist()
        left, right = max(0, -x), min(width, width - x)
        top, bottom = max(0, -y), min(height, height - y)
        if right - left < 8 or bottom - top < 8 or (right - left) * (bottom - top) < config.min_overlap * a.size / 2:
            return None
        first = a[top + y : bottom + y, left + x : right + x].astype(np.float32)
        second = b[top:bottom, left:right].astype(np.float32)
        if fraction.any():  # half of it each, so that both are blurred alike by the interpolation
            first, second = _moved(first, fraction / 2), _moved(second, -fraction / 2)
        return cls(first, second, (left, top), config.tile)

    def _sums(self, *factors: tuple[npt.NDArray[Any], npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
        """(len(factors), tiles): the sum of each product over each tile."""
        height, width = self._first.shape
        per_row, per_column = _bins(height, self._shape[0]), _bins(width, self._shape[1]).T
        return np.array([(per_row @ cv2.multiply(one, two) @ per_column).ravel() for one, two in factors], np.float64)

    def correlate(self) -> None:
        """Set `ncc` and what `agreement` and `distortion` need: only the last tiles of a refinement are asked."""
        first, second = self._first, self._second
        ab, aa, bb = self._sums((first, second), (first, first), (second, second))
        self._power = np.sqrt(aa * bb)
        self._ncc = ab / np.maximum(self._power, 1e-6)
        self.ncc = float(ab.sum() / max(float(np.sqrt(aa.sum() * bb.sum())), 1e-6))

    def common_step(self) -> npt.NDArray[np.float64]:
        """The step (x, y) in fine pixels that all tiles agree on, tiles far from it having little to say."""
        weights = np.ones(len(self._steps))
        for _ in range(3):
            step = np.array(_solved(self._normal @ weights, 1e-6))
            away = self._steps - step
            weights = 1 / np.maximum(1.0, np.sqrt((away * away).sum(1)) / 0.5)
        return step

    def agreement(self, step: npt.NDArray[np.float64]) -> float:
        """Share of the tiles, by contrast, that correlate and moved by `step` to within a fine pixel."""
        near = np.linalg.norm(self._steps - step, axis=1) < 1.0
        return float(self._power[near & (self._ncc > 0.3)].sum() / max(float(self._power.sum()), 1e-6))

    def distortion(self) -> tuple[float, float]:
        """(growth, turn in radians) that the tiles' own steps show; zeros where the overlap is too small to tell."""
        if len(self._steps) < 9:
            return 0.0, 0.0
        weights = self._power * np.maximum(self._ncc, 0.0)
        weights /= max(float(weights.sum()), 1e-9)
        centres = self._centres()
        places = centres - weights @ centres
        steps = self._steps - weights @ self._steps
        inertia = float(weights @ (places**2).sum(1))
        grown = float(weights @ (places * steps).sum(1)) / inertia
        turned = float(weights @ (places[:, 0] * steps[:, 1] - places[:, 1] * steps[:, 0])) / inertia
        return -grown, -turned

    def _centres(self) -> Floats:
        """(tiles, 2) x, y in fine pixels of `b`."""
        (left, top), (height, width), (rows, columns) = self._corner, self._first.shape, self._shape
        x = left + (np.arange(columns, dtype=np.float32) + 0.5) * width / columns
        y = top + (np.arange(rows, dtype=np.float32) + 0.5) * height / rows
        return np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)


def find_similarity(a: PreparedFrame, b: PreparedFrame, config: RegistrationConfig) -> tuple[float, float] | None:
    """(growth, turn in radians) of what `b` shows against `a`, by features (ORB); None where they don't match.

    Some 4 ms, for frames that `register` can't place. What the features say is believed when `b`, turned back and
    rescaled by it, correlates with `a` like one field with itself: in a handful of features chance finds a turn too.
    """
    points_a, described_a = _features(a)
    points_b, described_b = _features(b)
    if len(points_a) < 10 or len(points_b) < 10:
        return None
    matches = cv2.BFMatcher(cv2.NORM_HAMMING).knnMatch(described_a, described_b, k=2)
    good = [pair[0] for pair in matches if len(pair) == 2 and pair[0].distance < 0.75 * pair[1].distance]
    if len(good) < 10:
        return None
    from_a = np.array([points_a[match.queryIdx].pt for match in good], np.float32) * 2
    from_b = np.array([points_b[match.trainIdx].pt for match in good], np.float32) * 2
    cv2.setRNGSeed(0)  # so that the same frames give the same answer
    matrix, inliers = cv2.estimateAffinePartial2D(from_a, from_b, ransacReprojThreshold=4.0)
    if matrix is None or int(inliers.sum()) < max(10, 0.3 * len(good)):
        return None
    growth, turn_rad = float(np.hypot(matrix[0, 0], matrix[1, 0])) - 1, float(np.arctan2(matrix[1, 0], matrix[0, 0]))
    proof = _proof(a, b, np.asarray(matrix, np.float64), config)
    if proof is None:
        return None
    return (1 + growth) * (1 + proof.growth) * b.factor / a.factor - 1, turn_rad + proof.turn_rad


def _proof(
    a: PreparedFrame, b: PreparedFrame, matrix: npt.NDArray[np.float64], config: RegistrationConfig
) -> Shift | None:
    """How `b`, brought to where `a` is by `matrix` (fine pixels of a to those of b), lies from it; None when it does
    not match there over a third of the field."""
    size = (a.fine.shape[1], a.fine.shape[0])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    back = np.asarray(cv2.warpAffine(b.fine.astype(np.float32), matrix, size, flags=flags))
    seen = np.asarray(cv2.warpAffine(np.ones(b.fine.shape, np.uint8), matrix, size, flags=flags))
    if seen.mean() < 0.33:
        return None
    first = replace(a, fine=a.fine * seen.astype(np.int8))
    second = replace(a, fine=np.rint(back * seen).astype(np.int8))
    shift = refine(first, second, (0.0, 0.0), config)
    return shift if shift is not None and shift.strength >= 2 * config.min_strength else None


def _features(frame: PreparedFrame) -> tuple[Sequence[cv2.KeyPoint], npt.NDArray[np.uint8]]:
    """Points of the fine picture at half its size, and what describes them."""
    picture = (frame.fine.astype(np.int16) + 128).astype(np.uint8)
    points, described = cv2.ORB.create(500).detectAndCompute(_shrink(picture, 2), None)
    return points, np.asarray(described, np.uint8)


def _reduce(image: npt.NDArray[np.uint8], factor: int, half: npt.NDArray[np.uint8] | None) -> npt.NDArray[np.uint8]:
    """Grey (h, w) means of factor x factor blocks; what fills no block, or would not on halving, is cut off."""
    unit = 2 * factor
    height, width = image.shape[0] // unit * unit, image.shape[1] // unit * unit
    image = image[:height, :width]
    if factor % 2 == 0:  # colour only on a quarter of the pixels
        image = _shrink(image, 2) if half is None else half[: height // 2, : width // 2]
        factor //= 2
    grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.uint8)
    while factor % 2 == 0:  # halving twice costs a third of quartering once
        grey, factor = _shrink(grey, 2), factor // 2
    return _shrink(grey, factor) if factor > 1 else grey


def _shrink(image: npt.NDArray[Any], factor: int) -> npt.NDArray[Any]:
    size = (image.shape[1] // factor, image.shape[0] // factor)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))


def _light(image: npt.NDArray[Any], sigma: float) -> Floats:
    """A Gaussian blur at half the size, a third of the cost: what is so wide is not sharper than that."""
    # The two resizings blur by a variance of about 1/2 and 1/2 pixel themselves.
    half = cv2.GaussianBlur(_shrink(image, 2), (0, 0), float(np.sqrt(sigma**2 - 0.6)) / 2)
    return np.asarray(cv2.resize(half, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR), np.float32)


def _coarse_shape(fine: npt.NDArray[np.generic]) -> tuple[int, int]:
    return fine.shape[0] // 2, fine.shape[1] // 2


def _spectrum(fine: Floats) -> npt.NDArray[np.complex64]:
    coarse = _shrink(fine, 2)
    coarse -= coarse.mean()
    spectrum: npt.NDArray[np.complex64] = scipy.fft.rfft2(coarse, _padded(_coarse_shape(fine)))
    return spectrum


def _neighbour_correlation(image: Floats) -> float:
    """The weaker one of the correlations along x and along y; 0 for a blank image."""
    power = float(np.vdot(image, image)) / image.size
    if power < 1e-12:
        return 0.0
    along_x = float((image[:, 1:] * image[:, :-1]).mean())
    along_y = float((image[1:] * image[:-1]).mean())
    return max(0.0, min(along_x, along_y) / power)


def _solved(normal: npt.NDArray[np.float64], ridge: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(x, y) of the 2 x 2 equations whose coefficients xx, xy, yy and right sides x, y are the rows of `normal`."""
    xx, xy, yy, right_x, right_y = normal
    xx, yy = xx + ridge, yy + ridge
    determinant = xx * yy - xy * xy
    return (yy * right_x - xy * right_y) / determinant, (xx * right_y - xy * right_x) / determinant


def _moved(image: Floats, by: npt.NDArray[np.float64]) -> Floats:
    """The image as it would look from `by` (x, y; within half a pixel) further on: quadratic interpolation."""
    taps = [np.array([s * (s - 1) / 2, 1 - s * s, s * (s + 1) / 2]) for s in by.tolist()]
    return np.asarray(cv2.sepFilter2D(image, cv2.CV_32F, taps[0], taps[1], borderType=cv2.BORDER_REPLICATE))


def _smear(image: Floats) -> float:
    along_x = cv2.Sobel(image, cv2.CV_32F, 1, 0).ravel()
    along_y = cv2.Sobel(image, cv2.CV_32F, 0, 1).ravel()
    xx, xy, yy = (float(np.dot(a, b)) for a, b in ((along_x, along_x), (along_x, along_y), (along_y, along_y)))
    spread = float(np.hypot(xx - yy, 2 * xy))
    return float(np.sqrt((xx + yy + spread) / max(xx + yy - spread, 1e-6 * (xx + yy), 1e-12)))


@lru_cache(maxsize=256)
def _bins(size: int, bins: int) -> Floats:
    """(bins, size) of 0 and 1: sums `size` neighbours into `bins` groups as equal as they come."""
    members: Floats = (np.arange(size) * bins // size == np.arange(bins)[:, None]).astype(np.float32)
    return members


@lru_cache(maxsize=16)
def _padded(shape: tuple[int, int]) -> tuple[int, int]:
    return scipy.fft.next_fast_len(2 * shape[0], real=True), scipy.fft.next_fast_len(2 * shape[1], real=True)


@lru_cache(maxsize=16)
def _overlap_weights(shape: tuple[int, int], min_overlap: float) -> tuple[Floats, int]:
    """1 / sqrt(pixels in common) of every shift, 0 where there are too few, and how many shifts there are."""
    counts = []
    for size, padded in zip(shape, _padded(shape), strict=True):
        shifts = np.arange(padded)
        shifts = np.where(shifts >= size, padded - shifts, shifts)
        counts.append(np.clip(size - shifts, 0, None))
    pixels = np.outer(*counts)
    enough = pixels >= min_overlap * shape[0] * shape[1]
    weights = np.where(enough, 1 / np.sqrt(np.maximum(pixels, 1)), 0).astype(np.float32)
    return weights, int(enough.sum())


@lru_cache(maxsize=16)
def _low_weights(shape: tuple[int, int], min_overlap: float) -> tuple[Floats, int]:
    """The same for the shifts of the surface at half the resolution."""
    weights, _ = _overlap_weights(shape, min_overlap)
    rows, columns = (np.rint(np.arange(n // 4 * 2) * n / (n // 4 * 2)).astype(int) for n in weights.shape)
    low = weights[np.ix_(rows, columns)]
    return low, int(np.count_nonzero(low))
