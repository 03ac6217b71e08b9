"""The light of the microscope, estimated from the frames themselves, and taken out of them.

The ground between the cells is blank glass, and as bright as the lamp there. In each frame it is what a closing leaves
(a maximum, then a minimum, over windows wider than a cell); where no ground shows, other frames have some, and the
median over them finds it. The lamp and its vignette are smooth, so a polynomial of fourth order in the logarithm, one a
colour, is all of it, and noise and cells that are left have no say. Exposure and white balance are one factor a colour
and frame. A closing takes the last stretch before the field's edge for as bright as what is further in; so the light is
estimated again from frames that it was taken out of, until nothing is left of that.
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
import numpy.typing as npt

from engines.geometry import Image

Floats = npt.NDArray[np.float32]

LONG_SIDE = 96
"""Frames are reduced to this to look at their light."""
WINDOW = 0.22
"""Of the shorter side: the closing's window. Ground shows in one of this size, in all but the densest fields."""
GROUND = 236.0
"""What ground becomes, in every colour."""
GAIN_MAX = 4.0
"""A place darker than this is not ground, whatever was made of it."""
ORDER = 4
PASSES = 8


class Light:
    """How bright the lamp is over the field, relative to its mean."""

    def __init__(self, coefficients: npt.NDArray[np.float64]) -> None:
        """(terms, 3): per colour, of the products of Legendre polynomials that are its logarithm."""
        self._coefficients = coefficients
        self._inverse: Floats = np.ones((0, 0, 3), np.float32)

    def over(self, height: int, width: int) -> Floats:
        """(height, width, 3) logarithm, of mean about 0."""
        return _evaluated(self._coefficients, height, width)

    def corrected(self, image: Image, small: Floats) -> Floats:
        """(H, W, 3) float32, 0 to 255 with its light taken out. `small` is the frame as `reduced` makes it."""
        level = np.median(_ground(small - self.over(*small.shape[:2])).reshape(-1, 3), axis=0)
        if self._inverse.shape != image.shape:
            self._inverse = np.minimum(np.exp(-self.over(*image.shape[:2])), np.float32(GAIN_MAX))
        gain = np.clip(GROUND / np.exp(level), 1 / GAIN_MAX, GAIN_MAX).astype(np.float32)
        bright: Floats = image * self._inverse
        bright *= gain
        np.minimum(bright, np.float32(255), out=bright)
        return bright


def reduced(image: Image) -> Floats:
    """(h, w, 3) logarithm of a uint8 (H, W, 3) frame, much reduced."""
    height, width = image.shape[:2]
    scale = min(1.0, LONG_SIDE / max(height, width))
    size = max(8, round(width * scale)), max(8, round(height * scale))
    small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.float32)
    logarithm: Floats = np.log(np.maximum(small, 1))
    return logarithm


def estimate(frames: Iterable[Floats]) -> Light:
    """The light that frames of one size have in common, at least one; `frames` as `reduced` makes them."""
    stack = [frame - np.median(frame.reshape(-1, 3), axis=0).astype(np.float32) for frame in frames]
    height, width = stack[0].shape[:2]
    powers = _powers(height, width)
    coefficients = np.zeros((powers.shape[1], 3))
    for _ in range(PASSES):
        light = _evaluated(coefficients, height, width)
        grounds = [_ground(frame - light) for frame in stack]
        typical = np.median([ground - np.median(ground.reshape(-1, 3), axis=0) for ground in grounds], axis=0)
        coefficients += _fitted(powers, typical.reshape(-1, 3).astype(np.float64))
    coefficients[0] -= (powers @ coefficients).mean(axis=0)  # the first power is 1
    return Light(coefficients)


def _ground(logarithm: Floats) -> Floats:
    """How bright the ground is: the same without what is darker and narrower than WINDOW."""
    side = max(3, round(WINDOW * min(logarithm.shape[:2])) | 1)
    return np.asarray(cv2.morphologyEx(logarithm, cv2.MORPH_CLOSE, np.ones((side, side), np.uint8)), np.float32)


def _fitted(powers: npt.NDArray[np.float64], values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(terms, 3) coefficients that (pixels, 3) values have, but for what is far off."""
    weights = np.ones((len(values), 1))
    for _ in range(5):
        coefficients, *_ = np.linalg.lstsq(powers * weights, values * weights, rcond=None)
        off = np.abs(values - powers @ coefficients)
        spread = np.maximum(1.5 * np.median(off, axis=0), 0.004)
        weights = np.minimum(1.0, spread / np.maximum(off, 1e-9)).min(axis=1, keepdims=True)
    return coefficients.astype(np.float64)


def _powers(height: int, width: int) -> npt.NDArray[np.float64]:
    """(height * width, terms): products of Legendre polynomials over -1 to 1."""
    x, y = (np.polynomial.legendre.legvander(_axis(size), ORDER) for size in (width, height))
    terms = [np.outer(y[:, j], x[:, i]).ravel() for j in range(ORDER + 1) for i in range(ORDER + 1) if i + j <= ORDER]
    return np.stack(terms, axis=1)


def _evaluated(coefficients: npt.NDArray[np.float64], height: int, width: int) -> Floats:
    x, y = (np.polynomial.legendre.legvander(_axis(size), ORDER) for size in (width, height))
    square = np.zeros((ORDER + 1, ORDER + 1, 3))
    term = 0
    for j in range(ORDER + 1):
        for i in range(ORDER + 1 - j):
            square[j, i] = coefficients[term]
            term += 1
    return np.stack([y @ square[..., colour] @ x.T for colour in range(3)], axis=-1).astype(np.float32)


def _axis(size: int) -> npt.NDArray[np.float64]:
    """Centres of the pixels over -1 to 1."""
    return (np.arange(size) + 0.5) * 2 / size - 1
