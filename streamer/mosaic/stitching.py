"""The frames of one island to one picture, with the light taken out, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np

from engines.geometry import Image
from streamer.mosaic.light import Floats, Light, reduced
from streamer.mosaic.pictures import Pictures
from streamer.mosaic.places import Extent, PlacedFrame

BAND_PIXELS = 4_000_000
"""Of the canvas that are added up at once, 16 bytes each."""

NOWHERE = 255
"""What is where the stage has not been: paper."""

_CENTRE = 3
"""Power of a frame's weight over its distance to its edge: its middle is the sharpest, and its light the best known."""


def stitched(frames: Sequence[PlacedFrame], extent: Extent, scale: float, light: Light, pictures: Pictures) -> Image:
    """(H, W, 3) of `extent`, `scale` of its size. `light` is that of all frames."""
    width, height = size_of(extent, scale)
    canvas = np.full((height, width, 3), NOWHERE, np.uint8)
    stitch(canvas, frames, extent, scale, light, pictures)
    return canvas


def size_of(extent: Extent, scale: float) -> tuple[int, int]:
    """(width, height) of the picture of `extent`."""
    return max(1, round(extent.width * scale)), max(1, round(extent.height * scale))


def stitch(
    canvas: Image, frames: Sequence[PlacedFrame], extent: Extent, scale: float, light: Light, pictures: Pictures
) -> None:
    """Draw `extent` into a canvas of `size_of` it."""
    height, width = canvas.shape[:2]
    rows = max(1, BAND_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        inside = [
            frame
            for frame in frames
            if (frame.y_px - extent.top) * scale < bottom and (frame.y_px + frame.height - extent.top) * scale + 1 > top
        ]
        if inside:
            canvas[top:bottom] = _band(inside, extent, scale, light, pictures, top, (bottom - top, width))


def _band(
    frames: Sequence[PlacedFrame],
    extent: Extent,
    scale: float,
    light: Light,
    pictures: Pictures,
    top: int,
    shape: tuple[int, int],
) -> Image:
    total = np.zeros((*shape, 3), np.float32)
    weight = np.zeros(shape, np.float32)
    for frame, image in pictures.of(frames):
        small = reduced(image)
        size = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
        if scale < 1:
            image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        x, y = (frame.x_px - extent.left) * scale, (frame.y_px - extent.top) * scale - top
        left, upper = int(np.floor(x)), int(np.floor(y))
        move = np.array([[1, 0, x - left], [0, 1, y - upper]], np.float32)
        moved = (size[0] + 1, size[1] + 1)
        pixels = cv2.warpAffine(light.corrected(image, small), move, moved, borderMode=cv2.BORDER_REPLICATE)
        counts = cv2.warpAffine(_weights(*size), move, moved)
        to_y, of_y = _common(upper, moved[1], shape[0])
        to_x, of_x = _common(left, moved[0], shape[1])
        counts = counts[of_y, of_x] * np.float32((frame.focus or 1.0) ** 2)
        total[to_y, to_x] += pixels[of_y, of_x] * counts[..., None]
        weight[to_y, to_x] += counts
    total /= np.maximum(weight, 1e-12)[..., None]
    np.rint(total, out=total)
    total[weight == 0] = NOWHERE
    return total.astype(np.uint8)


def _common(start: int, length: int, limit: int) -> tuple[slice, slice]:
    """Where a stretch lies on the canvas, and which part of it that is."""
    begin, end = max(0, start), max(0, min(limit, start + length))
    return slice(begin, max(begin, end)), slice(begin - start, max(begin, end) - start)


@lru_cache(maxsize=4)
def _weights(width: int, height: int) -> Floats:
    """(height, width): 1 in the middle, falling towards the edges, above 0."""
    across, down = (1 - np.abs((np.arange(size) + 0.5) * 2 / size - 1) for size in (width, height))
    weights: Floats = np.minimum.outer(down, across).astype(np.float32) ** _CENTRE + np.float32(1e-5)
    return weights
