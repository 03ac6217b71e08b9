"""One image file to the pixels of a frame: `read_image`, the only place where image files are decoded.

Decisions
* Pixels stay as they are stored: the EXIF orientation is ignored, since boxes are given in the file's own pixels.
* 16 bits a sample become 8 by the range of the sensor, never by stretching each image: the range is the smallest of
  8, 10, 12, 14 and 16 bits that holds the image's largest sample. The field of a bright-field microscope is near the
  top of its range, so a 12-bit camera's file looks as its 8-bit file would, and the same in each frame. Whoever reads a
  series passes the depth found so far as `at_least_bits`, so that one dark frame among others is not brightened.
* Opacity is laid on white, the colour of an empty bright field; opacity that is 0 everywhere is an unused channel.
* A file with several full-size pages is refused rather than read in part; a source gives its pages one by one
  (tiff_stack.py).
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from streamer.sources.imageheader import FORMATS, ImageHeader, read_header

if "OPENCV_LOG_LEVEL" not in os.environ:
    # OpenCV writes its own lines to standard error for files that are reported here, in one line, anyway.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

_DEPTHS = (8, 10, 12, 14, 16)
_BYTES_PER_PIXEL = 8
_METADATA_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What is taken as a frame; decided from the header, before decoding."""

    max_megapixels: float = 100.0
    min_side_px: int = 32
    """A red cell at the lowest useful magnification is about 10 px wide: nothing can be seen in less than this."""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """An image file as a frame's pixels."""

    pixels: npt.NDArray[np.uint8]
    """(H, W, 3) BGR, owned by the caller."""
    bits: int
    """Significant bits of a sample as stored: 8, 10, 12, 14 or 16."""
    data: bytes
    """The file."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Why a file is no frame."""

    reason: str
    """Short and countable: "not an image", "unreadable", "truncated", "too large", "too small", "several pages",
    "unsupported"."""
    detail: str
    """One line for people: what was got and what was expected."""


def read_image(path: Path, limits: ImageLimits | None = None, *, at_least_bits: int = 8) -> Picture | Unreadable:
    """Read one image file; never raises for what the file holds or that it can't be read."""
    limits = limits or ImageLimits()
    try:
        with path.open("rb") as file:
            header = read_header(file)
            fault = _unfit(header, limits) or _too_long(os.fstat(file.fileno()).st_size, limits)
            if fault is not None or header is None:
                return fault or Unreadable("not an image", f"got no image, expected {FORMATS}")
            file.seek(0)
            data = file.read()
    except OSError as error:
        return Unreadable("unreadable", f"got {error.strerror or error}, expected a readable file")
    if not header.is_whole(data):
        return Unreadable(
            "truncated", f"got a {header.format} file cut off after {len(data)} bytes, expected all of it"
        )
    return decode(data, header, at_least_bits)


def read_image_bytes(data: bytes, limits: ImageLimits | None = None) -> Picture | Unreadable:
    """The same of a file's bytes that came another way."""
    header = read_header(io.BytesIO(data))
    fault = _unfit(header, limits or ImageLimits())
    if fault is not None or header is None:
        return fault or Unreadable("not an image", f"got no image, expected {FORMATS}")
    if not header.is_whole(data):
        return Unreadable("truncated", f"got a {header.format} cut off after {len(data)} bytes, expected all of it")
    return decode(data, header)


def decode(data: bytes, header: ImageHeader, at_least_bits: int = 8) -> Picture | Unreadable:
    """Decode a whole image file; Unreadable "unreadable" or "unsupported" where that can't be done."""
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED if header.alpha else flags)
    except (cv2.error, MemoryError) as error:
        reason = str(error).strip().splitlines()[-1:] or ["nothing"]
        return Unreadable("unreadable", f"got {reason[0]} while decoding, expected a sound {header.format} file")
    if stored is None:
        return Unreadable("unreadable", f"got a damaged {header.format} file, expected one that decodes")
    if stored.dtype not in (np.uint8, np.uint16):
        return Unreadable("unsupported", f"got samples of {stored.dtype}, expected 8 or 16 bits")
    inverted = header.inverted and stored.dtype == np.uint16  # OpenCV does this for 8 bits only
    return Picture(*to_eight_bits(stored, at_least_bits, inverted), data)


def to_eight_bits(
    stored: npt.NDArray[Any], at_least_bits: int, inverted: bool = False
) -> tuple[npt.NDArray[np.uint8], int]:
    """(H, W), (H, W, 3) or (H, W, 4) in BGR, of uint8 or uint16, to ((H, W, 3) uint8, significant bits as stored)."""
    bits = 8
    if stored.dtype == np.uint16:
        colours = stored[..., :3] if stored.ndim == 3 else stored
        largest = max(int(colours.max()).bit_length(), at_least_bits)
        bits = next(depth for depth in _DEPTHS if depth >= largest)
    if inverted:
        stored = ((1 << bits) - 1) - stored
    return _to_bgr(stored, bits), bits


def _to_bgr(stored: npt.NDArray[Any], bits: int) -> npt.NDArray[np.uint8]:
    opacity = None
    if stored.ndim == 2:
        stored = np.repeat(stored[..., None], 3, axis=2)
    elif stored.shape[2] == 4:
        opacity = stored[..., 3] >> (8 * (stored.itemsize - 1))
        stored = stored[..., :3]
    pixels = np.ascontiguousarray(stored >> (bits - 8) if bits > 8 else stored, dtype=np.uint8)
    if opacity is None or opacity.min() == 255 or opacity.max() == 0:
        return pixels
    weight = opacity[..., None].astype(np.uint16)
    return ((pixels * weight + 255 * (255 - weight) + 127) // 255).astype(np.uint8)


def _unfit(header: ImageHeader | None, limits: ImageLimits) -> Unreadable | None:
    if header is None:
        return None
    size = f"{header.width} x {header.height} px"
    if header.width == header.height == 0:
        return Unreadable("truncated", f"got a {header.format} file cut off in its header, expected all of it")
    if header.megapixels > limits.max_megapixels:
        slide = "; a slide is given as wsi:FILE" if header.format == "tiff" else ""
        return Unreadable("too large", f"got {size}, expected at most {limits.max_megapixels:g} megapixels{slide}")
    if min(header.width, header.height) < limits.min_side_px:
        return Unreadable("too small", f"got {size}, expected at least {limits.min_side_px} px on each side")
    if header.pages > 1:
        return Unreadable("several pages", f"got several images in one {header.format} file, expected one; split it")
    return None


def _too_long(size_bytes: int, limits: ImageLimits) -> Unreadable | None:
    most = int(limits.max_megapixels * 1e6 * _BYTES_PER_PIXEL) + _METADATA_BYTES
    if size_bytes <= most:
        return None
    return Unreadable("too large", f"got a file of {size_bytes} bytes, expected at most {most}")
