"""Lamp, lens and sensor: from the slide's transmitted light to a camera frame.

Everything here works on pixel values. A camera's gamma maps products to products, so that transmitted light times lamp
light is exact there too. Only the blur is an approximation.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from streamer.sources.simulated.parameters import SlideParameters

Image = NDArray[np.uint8]

_LAMP, _DUST, _GRAIN, _FRAME = 31, 32, 33, 34
_NOISE_WINDOW = 160
"""How far the window into the noise field may move, along either axis."""
SHARPEST_PX = 0.55
"""Blur in focus (standard deviation of a Gaussian), for red cells of 44 px."""
BLUR_PX_PER_UM = 0.75


class Optics:
    """The fixed parts of a microscope camera, made once; `expose` then costs a few operations on uint8 images."""

    def __init__(self, parameters: SlideParameters) -> None:
        self._parameters = parameters
        self.width_px = parameters.width
        self.height_px = parameters.height
        self._light = _lamp_light(parameters)
        rng = np.random.default_rng([parameters.seed, _GRAIN])
        shape = (self.height_px + _NOISE_WINDOW, self.width_px + _NOISE_WINDOW, 3)
        self._additive = _noise_field(rng, shape, 1.6 * parameters.noise)
        self._multiplied = _noise_field(rng, shape, 128 * 0.009 * parameters.noise)

    def defocus_px(self, focus_um: float) -> float:
        """Standard deviation of the blur at a distance from focus."""
        size = self._parameters.red / 44.0
        drift = BLUR_PX_PER_UM * focus_um * self._parameters.blur
        return float(np.hypot(SHARPEST_PX, drift) * size)

    def margin_px(self, motion_px: tuple[float, float], defocus_px: float) -> int:
        """How far beyond the frame `expose` needs the view on every side."""
        return int(np.ceil(max(abs(motion_px[0]), abs(motion_px[1])) / 2 + 3 * defocus_px)) + 4

    def expose(
        self,
        view: Image,
        frame_id: int,
        margin_px: int,
        shift_px: tuple[float, float],
        motion_px: tuple[float, float],
        defocus_px: float,
    ) -> Image:
        """The frame that the camera gives.

        view: (height + 2 margin, width + 2 margin, 3), transmitted light. shift_px: 0..1, how far the frame's corner
        lies right of and below view[margin, margin]. motion_px: path of the stage during the exposure.
        """
        height, width = self.height_px, self.width_px
        view, centre = _smear_along(view, motion_px)
        reach = max(int(np.ceil(3 * defocus_px)), 1) + 1
        kernels, firsts = [], []
        for shift, moved in zip(shift_px, centre, strict=True):
            start = margin_px + shift - moved
            firsts.append(int(np.floor(start)) - reach)
            kernels.append(_gaussian(defocus_px, start - np.floor(start), reach))
        inner = view[firsts[1] : firsts[1] + height + 2 * reach, firsts[0] : firsts[0] + width + 2 * reach]
        image = cv2.sepFilter2D(inner, -1, kernels[0], kernels[1])[reach : reach + height, reach : reach + width]
        rng = np.random.default_rng([self._parameters.seed, _FRAME, frame_id])
        x1, y1, x2, y2 = (int(place) for place in rng.integers(0, _NOISE_WINDOW, 4))
        flicker = 1 + 0.004 * float(np.clip(rng.normal(), -2.5, 2.5))
        image = cv2.multiply(image, self._light, scale=flicker / 255)
        if self._parameters.noise > 0:
            image = cv2.multiply(image, self._multiplied[y1 : y1 + height, x1 : x1 + width], scale=1 / 128)
            image = cv2.addWeighted(image, 1.0, self._additive[y2 : y2 + height, x2 : x2 + width], 1.0, -128.0)
        return np.asarray(image, dtype=np.uint8)


def _smear_along(view: Image, motion_px: tuple[float, float]) -> tuple[Image, tuple[float, float]]:
    """Mean of the view along a straight path, and its centre: (x, y) of the view becomes (x - cx, y - cy).

    A mean of 2^k steps is k means of two, each over half the distance of the one before. So a long exposure costs
    hardly more than a short one.
    """
    ways = [abs(way) for way in motion_px]
    if max(ways) < 0.75:
        return view, (0.0, 0.0)
    same_sign = motion_px[0] * motion_px[1] >= 0
    total_x = total_y = 0
    for step in range(1, int(np.ceil(np.log2(max(ways)))) + 2):
        # Rounding the sums, not the steps, keeps the whole path exact to half a pixel.
        dx = round(ways[0] * (1 - 0.5**step)) - total_x
        dy = round(ways[1] * (1 - 0.5**step)) - total_y
        if dx == 0 and dy == 0:
            continue
        height, width = view.shape[0] - dy, view.shape[1] - dx
        first, second = (0, dy) if same_sign else (dy, 0)
        view = np.asarray(
            cv2.addWeighted(
                view[first : first + height, :width], 0.5, view[second : second + height, dx : dx + width], 0.5, 0.0
            ),
            dtype=np.uint8,
        )
        total_x, total_y = total_x + dx, total_y + dy
    return view, (total_x / 2, total_y / 2)


def _gaussian(deviation_px: float, centre: float, reach: int) -> NDArray[np.float32]:
    """Weights at -reach..reach of a Gaussian around `centre`; sum 1."""
    places = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * ((places - centre) / deviation_px) ** 2)
    return np.asarray(weights / weights.sum(), dtype=np.float32)


def _lamp_light(parameters: SlideParameters) -> Image:
    """The image of clear glass, uint8 (height, width, 3): lamp colour, fall-off to the edges, tilt, dust."""
    height, width = parameters.height, parameters.width
    rng = np.random.default_rng([parameters.seed, _LAMP])
    # Mostly from cold to warm, as the colours of lamps, and a little from green to magenta.
    warmth, tint = float(np.clip(rng.normal(1, 0.3), 0.3, 1.6)), float(np.clip(rng.normal(0, 0.012), -0.03, 0.03))
    colour = warmth * np.array([-0.115, 0.005, 0.10]) + tint * np.array([0.5, -1.0, 0.5])
    white = 227.0 * np.exp(parameters.cast * colour) * rng.uniform(0.96, 1.0)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    half = np.hypot(width, height) / 2
    x, y = (x - width / 2) / half, (y - height / 2) / half
    centre = rng.normal(0, 0.08, 2)
    direction = rng.uniform(0, 2 * np.pi)
    radius2 = (x - centre[0]) ** 2 + (y - centre[1]) ** 2
    slope = x * np.cos(direction) + y * np.sin(direction)
    # Blue and green fall off faster than red: the edge of a field is pinker than its centre.
    fall_off = np.array([0.17, 0.17, 0.11]) * parameters.vignette
    tilt = np.array([0.04, 0.035, 0.03]) * parameters.vignette
    light = np.exp(-radius2[..., None] * fall_off - slope[..., None] * tilt).astype(np.float32)
    dust = np.random.default_rng([parameters.seed, _DUST])
    for _ in range(4):
        dx, dy = dust.uniform(-0.7, 0.7), dust.uniform(-0.5, 0.5)
        size = dust.uniform(0.008, 0.02)
        shade = 0.03 * parameters.vignette * np.exp(-((x - dx) ** 2 + (y - dy) ** 2) / (2 * size * size))
        light *= (1 - shade)[..., None].astype(np.float32)
    return np.asarray(np.clip(light * white.astype(np.float32) + 0.5, 0, 255), dtype=np.uint8)


def _noise_field(rng: np.random.Generator, shape: tuple[int, int, int], deviation: float) -> Image:
    """Noise around 128, uint8. Neighbours correlate, as after the interpolation of a colour filter array."""
    noise = cv2.GaussianBlur(rng.standard_normal(shape, dtype=np.float32), (0, 0), 0.6)
    scale = deviation / max(float(noise.std()), 1e-6)
    return np.asarray(np.clip(np.rint(noise * scale + 128), 0, 255), dtype=np.uint8)
