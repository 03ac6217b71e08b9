"""A made slide to move a made camera over: discs of all sizes, so that every place looks different."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

WIDTH, HEIGHT = 480, 320
SLIDE_WIDTH, SLIDE_HEIGHT = 1500, 1100

Image = npt.NDArray[np.uint8]


@lru_cache(maxsize=4)
def slide(seed: int = 1, scale: int = 1) -> Image:
    """(SLIDE_HEIGHT, SLIDE_WIDTH, 3) times `scale`: pale ground with some thousand discs of cell size."""
    rng = np.random.default_rng(seed)
    picture = np.full((SLIDE_HEIGHT * scale, SLIDE_WIDTH * scale, 3), 220, np.float32)
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
    for _ in range(1400):
        cx, cy = rng.uniform(0, SLIDE_WIDTH) * scale, rng.uniform(0, SLIDE_HEIGHT) * scale
        rx, ry = rng.uniform(8, 16, 2) * scale
        part = np.s_[
            max(0, int(cy - ry - 1)) : int(cy + ry + 2),
            max(0, int(cx - rx - 1)) : int(cx + rx + 2),
        ]
        inside = ((x[part] - cx) / rx) ** 2 + ((y[part] - cy) / ry) ** 2 < 1
        picture[part][inside] -= rng.uniform(15, 70, 3).astype(np.float32)
    return picture.clip(0, 255).astype(np.uint8)


def view(x: int, y: int, *, seed: int = 1, noise: float = 2.0, gain: float = 1.0) -> Image:
    """The frame at (x, y), with its own noise: never twice the same picture."""
    part = slide(seed)[y : y + HEIGHT, x : x + WIDTH].astype(np.float32) * gain
    rng = np.random.default_rng([seed, x, y])
    return (part + rng.normal(0, noise, part.shape)).clip(0, 255).astype(np.uint8)


def smeared(x: int, y: int, length: int, *, seed: int = 1) -> Image:
    """The frame in whose middle the stage was at (x, y), going `length` px to the right while it was exposed."""
    steps = np.arange(length) - length // 2
    parts = [slide(seed)[y : y + HEIGHT, x + step : x + step + WIDTH].astype(np.float32) for step in steps]
    noise = np.random.default_rng([seed, x, y]).normal(0, 2, parts[0].shape)
    return (np.mean(parts, axis=0) + noise).clip(0, 255).astype(np.uint8)


def vignette(image: Image, strength: float = 0.6) -> Image:
    """The image under a lamp that lights its edges less, and with dust on the sensor."""
    height, width = image.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    lit = image * (1 - strength * (x * x + y * y) / 2)[:, :, None]
    for cx, cy in ((0.3, 0.4), (0.7, 0.2), (0.55, 0.8)):
        lit[int(cy * height) : int(cy * height) + 5, int(cx * width) : int(cx * width) + 5] *= 0.6
    return lit.clip(0, 255).astype(np.uint8)
