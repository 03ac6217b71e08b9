"""Outlines and filled shapes as signed distances in pixels, positive inside, which makes antialiasing easy.

Distances are in the unit of the coordinates given; angles are in radians, from x (right) towards y (down).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

OUTLINE_SAMPLES = 256
_ANGLES = (np.arange(OUTLINE_SAMPLES) * (2 * np.pi / OUTLINE_SAMPLES)).astype(np.float32)


@dataclass(frozen=True)
class Outline:
    """The closed outline of a cell around its centre, as a radius for each of OUTLINE_SAMPLES angles.

    radius_px: float32 (OUTLINE_SAMPLES,), pixels.
    """

    radius_px: Floats

    def extent_px(self) -> tuple[float, float, float, float]:
        """x1, y1, x2, y2 of the outline around its centre."""
        x, y = self.radius_px * np.cos(_ANGLES), self.radius_px * np.sin(_ANGLES)
        return float(x.min()), float(y.min()), float(x.max()), float(y.max())

    def depth_px(self, x: Floats, y: Floats) -> Floats:
        """How far each point lies inside the outline along its radius, pixels; negative outside. Shape of x."""
        turn = np.arctan2(y, x) * (OUTLINE_SAMPLES / (2 * np.pi))
        low = np.floor(turn)
        share = turn - low
        first = low.astype(np.int32) % OUTLINE_SAMPLES
        radius = self.radius_px[first] * (1 - share) + self.radius_px[(first + 1) % OUTLINE_SAMPLES] * share
        return np.asarray(radius - np.hypot(x, y), dtype=np.float32)


def turned_extents_px(radii_px: Floats, angles: Doubles, scales: Doubles) -> Doubles:
    """float64 (n, 4), x1, y1, x2, y2 of n outlines (n, OUTLINE_SAMPLES), each turned and then enlarged."""
    directions = _ANGLES + angles[:, None]
    x, y = radii_px * np.cos(directions), radii_px * np.sin(directions)
    extents = np.stack([x.min(1, initial=0), y.min(1, initial=0), x.max(1, initial=0), y.max(1, initial=0)], axis=1)
    return np.asarray(extents * scales[:, None], dtype=np.float64)


def make_outline(
    rng: np.random.Generator,
    radius_px: float,
    *,
    stretch: float = 0.05,
    lobing: float = 0.02,
    fuzz: float = 0.0,
) -> Outline:
    """A random outline of mean radius `radius_px`.

    stretch, lobing, fuzz: usual size of the elliptical, the low-order and the fine deviation, as shares of the radius.
    """
    radius = np.ones(OUTLINE_SAMPLES, dtype=np.float32)
    for order in range(2, 7):
        size = stretch if order == 2 else lobing * 2.5 / order
        amount = abs(rng.normal(0, size)) if order == 2 else rng.normal(0, size)
        radius += np.float32(np.clip(amount, -2.2 * size, 2.2 * size)) * np.cos(
            order * (_ANGLES + rng.uniform(0, 2 * np.pi))
        )
    if fuzz > 0:
        spectrum = np.zeros(OUTLINE_SAMPLES // 2 + 1, dtype=np.complex64)
        band = slice(10, 70)
        spectrum[band] = rng.normal(size=60) + 1j * rng.normal(size=60)
        fine = np.fft.irfft(spectrum, OUTLINE_SAMPLES)
        radius += (fuzz * fine / max(float(fine.std()), 1e-9)).astype(np.float32)
    return Outline(np.asarray(radius * radius_px, dtype=np.float32))


def ellipse(x: Floats, y: Floats, cx: float, cy: float, a: float, b: float, angle: float) -> Floats:
    """Approximate signed distance to an ellipse with semi-axes a, b; `angle` turns a away from x."""
    cos, sin = np.cos(angle), np.sin(angle)
    u = ((x - cx) * cos + (y - cy) * sin) / a
    v = ((y - cy) * cos - (x - cx) * sin) / b
    return np.asarray((1 - np.hypot(u, v)) * min(a, b), dtype=np.float32)


def capsule(x: Floats, y: Floats, start: tuple[float, float], end: tuple[float, float], radius: float) -> Floats:
    """Signed distance to the thick line from `start` to `end`."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    length2 = max(dx * dx + dy * dy, 1e-9)
    along = np.clip(((x - start[0]) * dx + (y - start[1]) * dy) / length2, 0, 1)
    return np.asarray(radius - np.hypot(x - start[0] - along * dx, y - start[1] - along * dy), dtype=np.float32)


def union(parts: list[Floats], blend: float = 0.0) -> Floats:
    """Signed distance of the union; `blend` (same unit) rounds the inner corners where parts meet."""
    whole = parts[0]
    for part in parts[1:]:
        if blend <= 0:
            whole = np.asarray(np.maximum(whole, part), dtype=np.float32)
            continue
        overlap = np.maximum(blend - np.abs(whole - part), 0) / blend
        whole = np.asarray(np.maximum(whole, part) + overlap * overlap * (blend / 4), dtype=np.float32)
    return whole


def cover(depth_px: Floats, softness_px: float = 1.0) -> Floats:
    """Share of each pixel that lies inside, 0..1, for a signed distance in pixels."""
    return np.asarray(np.clip(depth_px / softness_px + 0.5, 0, 1), dtype=np.float32)


def grain(rng: np.random.Generator, shape: tuple[int, int], size_px: float) -> Floats:
    """Smooth random texture of mean 0 and deviation 1; `size_px` is the deviation of its blur. float32 `shape`."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    if size_px > 0.2:
        noise[...] = cv2.GaussianBlur(noise, (0, 0), size_px, borderType=cv2.BORDER_REFLECT)
    return np.asarray((noise - noise.mean()) / max(float(noise.std()), 1e-6), dtype=np.float32)


def specks(rng: np.random.Generator, shape: tuple[int, int], share: float, radius_px: float) -> Floats:
    """Round granules of about `radius_px`, 0..1 each, that would cover about `share` of the area. float32 `shape`."""
    count = max(int(share * shape[0] * shape[1] / (np.pi * radius_px * radius_px)), 1)
    points = np.zeros(shape, dtype=np.float32)
    rows = rng.integers(0, shape[0], count)
    columns = rng.integers(0, shape[1], count)
    sigma = max(radius_px * 0.6, 0.4)
    np.add.at(points, (rows, columns), rng.uniform(0.6, 1.2, count).astype(np.float32))
    soft = cv2.GaussianBlur(points, (0, 0), sigma, borderType=cv2.BORDER_REFLECT) * np.float32(2 * np.pi * sigma**2)
    return np.asarray(np.clip((soft - 0.25) * 2.0, 0, 1), dtype=np.float32)
