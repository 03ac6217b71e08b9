"""Parts of the arrays that TIFF and Zarr files are, whatever the order of their axes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from streamer.sources.whole_slide.slide_image import SlideError


def size_of(shape: tuple[int, ...], axes: str) -> tuple[int, int]:
    """(width, height). SlideError for an array without them."""
    if len(shape) != len(axes) or "x" not in axes or "y" not in axes:
        raise SlideError(f"got an array of {shape} with the axes {axes!r}, expected a picture")
    return shape[axes.index("x")], shape[axes.index("y")]


def part_of(array: Any, axes: str, left: int, top: int, width: int, height: int) -> npt.NDArray[Any]:
    """(height, width) or (height, width, channels) of an array that is read when it is sliced.

    axes: one letter a dimension: x, y; s or c for samples or channels; of any other the middle is taken.
    """
    parts = {"x": slice(left, left + width), "y": slice(top, top + height), "s": slice(None), "c": slice(None)}
    chosen = tuple(parts.get(axis, size // 2) for axis, size in zip(axes, array.shape, strict=True))
    kept = [axis for axis in axes if axis in parts]
    channels = [axis for axis in kept if axis in "sc"]
    part = np.asarray(array[chosen])
    part = part.transpose([kept.index(axis) for axis in ("y", "x", *channels)])
    return part.reshape(*part.shape[:2], -1) if channels else part
