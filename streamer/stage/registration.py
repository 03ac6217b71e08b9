"""How far two frames are apart. Pure functions from pictures to a shift in pixels and its confidence.

Frames are prepared first (preparation.py). `register` correlates two of them at every shift at once. They are
zero-padded to twice their size, so that no shift is confused with the one that wraps around. Every sum is divided by
the square root of its overlap, so that a strip of 5 % of the field can win. (Plain phase correlation at the frame's own
size fails from about half a field on.) A peak must stand out by enough standard deviations of its surface. It is then
refined on the finer picture with a second-order Gauss-Newton step (ESM, Benhimane and Malis 2004), which also shows
tile by tile whether the whole overlap moved as one.
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

from streamer.stage.preparation import (
    Floats,
    PreparedFrame,
    RegistrationConfig,
    coarse_shape,
    comparable,
    padded_shape,
    shrink,
    spectrum_of,
)
from streamer.stage.static_mask import has_moved


@dataclass(frozen=True, slots=True)
class Shift:
    """Where the second frame lies from the first: first frame's point = second frame's point + (x_px, y_px)."""

    x_px: float
    y_px: float
    overlap: float
    """Share of the field that both frames show."""
    ncc: float
    """-1 to 1, correlation on the overlap."""
    agreement: float
    """0 to 1, share of the overlap's contrast that moved by the common shift."""
    strength: float
    """How unlikely it is by chance: see `RegistrationConfig.min_strength`."""
    growth: float
    """How much larger things are in the second frame: 0.01 is 1 %. Measured over the tiles."""
    turn_rad: float
    """Rotation of the second frame against the first."""

    def reversed(self) -> Shift:
        """The shift of the first frame from the second."""
        return replace(self, x_px=-self.x_px, y_px=-self.y_px, growth=-self.growth, turn_rad=-self.turn_rad)


def at_rest(a: PreparedFrame, b: PreparedFrame) -> bool:
    """Whether two frames are so alike that the stage moved by hardly more than the width of a cell's edge."""
    if not comparable(a, b):
        return False
    size = cv2.norm(a.fine, cv2.NORM_L1) + cv2.norm(b.fine, cv2.NORM_L1)
    return cv2.norm(a.fine, b.fine, cv2.NORM_L1) < 0.4 * size  # unrelated frames: 0.7 to 0.8


def register(a: PreparedFrame, b: PreparedFrame, config: RegistrationConfig) -> Shift | None:
    """The shift of `b` from `a`, over all shifts with enough overlap; None if there is no match."""
    peak_px = find_peak(a, b, config)
    if peak_px is None:
        return None
    return refine(a, b, peak_px, config)


def register_near(
    a: PreparedFrame, b: PreparedFrame, guess_px: tuple[float, float], within_px: float, config: RegistrationConfig
) -> Shift | None:
    """As `register` if `b` should lie about `guess_px` from `a`; None if it is more than `within_px` from there."""
    shift = refine(a, b, guess_px, config)
    if shift is None:
        shift = register(a, b, config)
        if shift is not None and np.hypot(shift.x_px - guess_px[0], shift.y_px - guess_px[1]) > within_px:
            return None
    return shift


def find_peak(a: PreparedFrame, b: PreparedFrame, config: RegistrationConfig) -> tuple[float, float] | None:
    """The likeliest shift (x, y) in frame pixels, to about half a coarse pixel; None if no peak stands out."""
    if not comparable(a, b):
        return None
    shape = coarse_shape(a.fine)
    padded = padded_shape(shape)
    first, second = spectrum_of(a), spectrum_of(b)
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
    past_y, past_x = _top_of(surface[:, column], row), _top_of(surface[row], column)
    return (shift_x + past_x) * scale, (shift_y + past_y) * scale


def _peak(surface: Floats, weights: Floats, valid: int) -> tuple[float, int, int]:
    """(height in standard deviations, row, column) of a surface's peak; multiplies it by `weights` in place."""
    surface *= weights
    row, column = divmod(int(surface.argmax()), surface.shape[1])
    spread = float(np.sqrt(np.vdot(surface, surface) / valid))
    return float(surface[row, column]) / max(spread, 1e-12), row, column


def _top_of(line: Floats, peak: int) -> float:
    """How far the top of a parabola lies from the highest value of a line that is a circle, -0.5 to 0.5."""
    before, at, after = (float(line[(peak + step) % len(line)]) for step in (-1, 0, 1))
    return (after - before) / max(2 * (2 * at - before - after), 1e-12) if at > max(before, after) else 0.0


def refine(
    a: PreparedFrame, b: PreparedFrame, guess_px: tuple[float, float], config: RegistrationConfig
) -> Shift | None:
    """Sub-pixel shift near `guess_px` (within some ten frame pixels); None if the overlap does not confirm it, or if
    only a few places do that show the same in both frames, as what is burnt in does."""
    if not comparable(a, b):
        return None
    start = np.array(guess_px) / a.factor
    shift = start
    fraction = start - np.rint(start)
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
            fraction = np.clip(shift - np.rint(shift), -0.5, 0.5)  # once more, without the fraction of a pixel
        else:
            fraction = np.zeros(2)
    else:
        return None
    tiles.correlate()
    agreement = tiles.agreement(step)
    strength = tiles.ncc * float(np.sqrt(tiles.pixels)) * agreement
    if tiles.ncc < config.min_ncc or strength < config.min_strength:
        return None
    if np.abs(shift).max() < 1.0 and has_moved(a, b):
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

    def __init__(self, first: Floats, second: Floats, tile: int) -> None:
        """The overlap in both frames."""
        height, width = first.shape
        self.pixels = height * width
        self._first, self._second = first, second
        self._shape = max(1, round(height / tile)), max(1, round(width / tile))
        both, gap = first + second, second - first
        along_x = cv2.Sobel(both, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 16)
        along_y = cv2.Sobel(both, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 16)
        self._normal = self._sums(
            (along_x, along_x), (along_x, along_y), (along_y, along_y), (along_x, gap), (along_y, gap)
        )  # xx, xy, yy, x gap, y gap
        # The ridge keeps the step near zero in a direction in which a tile has no edge.
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
        """At the shift `base` + `fraction` (x, y); None if the overlap is too small."""
        height, width = a.shape
        x, y = base.tolist()
        left, right = max(0, -x), min(width, width - x)
        top, bottom = max(0, -y), min(height, height - y)
        if right - left < 8 or bottom - top < 8 or (right - left) * (bottom - top) < config.min_overlap * a.size / 2:
            return None
        first = a[top + y : bottom + y, left + x : right + x].astype(np.float32)
        second = b[top:bottom, left:right].astype(np.float32)
        if fraction.any():  # half each, so that interpolation blurs both alike
            first, second = _moved(first, fraction / 2), _moved(second, -fraction / 2)
        return cls(first, second, config.tile)

    def _sums(self, *factors: tuple[npt.NDArray[Any], npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
        """(len(factors), tiles): the sum of each product over each tile.

        Products with matrices of 0 and 1 would take twice as long, and where BLAS shares them out to its own threads
        (from about 320 x 240 on) up to 20 times the processor time.
        """
        height, width = self._first.shape
        tops, lefts = _starts(height, self._shape[0]), _starts(width, self._shape[1])
        strips = np.empty((len(factors), len(tops), width), np.float32)
        for strip, (one, two) in zip(strips, factors, strict=True):
            product = cv2.multiply(one, two)
            for row, top, bottom in zip(strip, tops, (*tops[1:], height), strict=True):
                row[:] = cv2.reduce(product[top:bottom], 0, cv2.REDUCE_SUM)
        return np.add.reduceat(strips, lefts, axis=2).reshape(len(factors), -1).astype(np.float64)

    def correlate(self) -> None:
        """Set `ncc` and what `agreement` and `distortion` need. Only the last tiles of a refinement call it."""
        first, second = self._first, self._second
        ab, aa, bb = self._sums((first, second), (first, first), (second, second))
        self._power = np.sqrt(aa * bb)
        self._ncc = ab / np.maximum(self._power, 1e-6)
        self.ncc = float(ab.sum() / max(float(np.sqrt(aa.sum() * bb.sum())), 1e-6))

    def common_step(self) -> npt.NDArray[np.float64]:
        """The step (x, y) in fine pixels that most tiles agree on; tiles far from it get little weight."""
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
        """(growth, turn in radians) from the steps of single tiles; zeros if the overlap is too small."""
        if len(self._steps) < 9:
            return 0.0, 0.0
        weights = self._power * np.maximum(self._ncc, 0.0)
        weights /= max(float(weights.sum()), 1e-9)
        centres = _centres(self._first.shape, self._shape)
        places = centres - weights @ centres
        steps = self._steps - weights @ self._steps
        inertia = float(weights @ (places**2).sum(1))
        grown = float(weights @ (places * steps).sum(1)) / inertia
        turned = float(weights @ (places[:, 0] * steps[:, 1] - places[:, 1] * steps[:, 0])) / inertia
        return -grown, -turned


def find_similarity(a: PreparedFrame, b: PreparedFrame, config: RegistrationConfig) -> tuple[float, float] | None:
    """(growth, turn in radians) of `b` against `a`, by features (ORB); None if they don't match.

    Some 4 ms, for frames that `register` can't place. A handful of features may match by chance, so the result counts
    only if `b`, turned and scaled back by it, correlates with `a` like one field with itself.
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
    cv2.setRNGSeed(0)  # the same frames give the same result
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
    """The shift of `b` from `a` once `matrix` (fine pixels of a to those of b) is undone; None if they don't match over
    a third of the field."""
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
    """Key points of the fine picture at half its size, and their descriptors."""
    picture = (frame.fine.astype(np.int16) + 128).astype(np.uint8)
    points, described = cv2.ORB.create(300).detectAndCompute(shrink(picture, 2), None)
    # OpenCV gives None for a picture without any.
    return points, np.zeros((0, 32), np.uint8) if described is None else np.asarray(described, np.uint8)


def _solved(normal: npt.NDArray[np.float64], ridge: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(x, y) of the 2 x 2 equations whose coefficients xx, xy, yy and right sides x, y are the rows of `normal`."""
    xx, xy, yy, right_x, right_y = normal
    xx, yy = xx + ridge, yy + ridge
    determinant = xx * yy - xy * xy
    return (yy * right_x - xy * right_y) / determinant, (xx * right_y - xy * right_x) / determinant


def _moved(image: Floats, by: npt.NDArray[np.float64]) -> Floats:
    """The image shifted by `by` (x, y; within half a pixel), by quadratic interpolation."""
    taps = [np.array([s * (s - 1) / 2, 1 - s * s, s * (s + 1) / 2]) for s in by.tolist()]
    return np.asarray(cv2.sepFilter2D(image, cv2.CV_32F, taps[0], taps[1], borderType=cv2.BORDER_REPLICATE))


@lru_cache(maxsize=256)
def _starts(size: int, groups: int) -> tuple[int, ...]:
    """The first of each of `groups` groups of neighbours, of nearly equal size, that `size` make."""
    return tuple(-(-group * size // groups) for group in range(groups))


@lru_cache(maxsize=256)
def _centres(size: tuple[int, int], tiles: tuple[int, int]) -> Floats:
    """(tiles, 2) x, y in fine pixels of the overlap of a size (h, w)."""
    y, x = ((np.arange(count) + 0.5) * side / count for side, count in zip(size, tiles, strict=True))
    return np.stack(np.meshgrid(x, y), -1).reshape(-1, 2).astype(np.float32)


@lru_cache(maxsize=16)
def _overlap_weights(shape: tuple[int, int], min_overlap: float) -> tuple[Floats, int]:
    """1 / sqrt(overlapping pixels) of every shift, 0 where there are too few, and the number of shifts."""
    counts = []
    for size, padded in zip(shape, padded_shape(shape), strict=True):
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
