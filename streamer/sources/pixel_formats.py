"""Images as cameras send them to (H, W, 3) BGR, by the names of GenICam's Pixel Format Naming Convention (PFNC 2.4).

The older names of GigE Vision 1.x (`RGB8Packed`, `YUV422Packed`) mean the same as the new ones, but for `Mono12Packed`
and its like, whose bits lie otherwise than those of `Mono12p`. More than 8 bits are cut to the upper 8 of the format,
never stretched: the same brightness is the same value in each frame.
"""

from __future__ import annotations

import re

import cv2
import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

_MONO = re.compile(r"Mono(8|10|12|14|16|9|11|13|15)(p|Packed)?")
_BAYER = re.compile(r"Bayer(RG|GR|GB|BG)(8|10|12|14|16)(p|Packed)?")
_RGB = re.compile(r"(RGB|BGR)(a|A)?(8|10|12|14|16)(?:Packed)?")
_YUV = {
    "YUV422_8": ("YUV", "YUYV"),
    "YUV422_YUYV_Packed": ("YUV", "YUYV"),
    "YUV422_8_UYVY": ("YUV", "UYVY"),
    "YUV422Packed": ("YUV", "UYVY"),
    "YCbCr422_8": ("YCbCr", "YUYV"),
    "YCbCr422_8_CbYCrY": ("YCbCr", "UYVY"),
    "YCbCr601_422_8": ("YCbCr601", "YUYV"),
    "YCbCr601_422_8_CbYCrY": ("YCbCr601", "UYVY"),
}
"""By name: the colour space, and in which order two pixels lie."""

_DEMOSAIC = {
    # Named by the upper left two by two pixels, as PFNC does. OpenCV's short names begin one row and column further on.
    "RG": cv2.COLOR_BayerRGGB2BGR,
    "GR": cv2.COLOR_BayerGRBG2BGR,
    "GB": cv2.COLOR_BayerGBRG2BGR,
    "BG": cv2.COLOR_BayerBGGR2BGR,
}

PREFERRED = (
    *("BGR8", "RGB8", "BGR8Packed", "RGB8Packed", "BayerRG8", "BayerGR8", "BayerGB8", "BayerBG8"),
    *("YCbCr422_8", "YUV422_8", "YUV422_8_UYVY", "YUV422Packed", "Mono8"),
)
"""What may be asked of a camera, for messages: those with colour first, since stains are told apart by it."""


def is_known(pixel_format: str) -> bool:
    return pixel_format in _YUV or any(pattern.fullmatch(pixel_format) is not None for pattern in (_MONO, _BAYER, _RGB))


def size_bytes(width: int, height: int, pixel_format: str) -> int:
    """Of an image without padding. ValueError for a format that is not known."""
    pixels = width * height
    if pixel_format in _YUV:
        return 2 * pixels
    if found := _RGB.fullmatch(pixel_format):
        return pixels * (4 if found[2] else 3) * (1 if found[3] == "8" else 2)
    _, bits, packing = _mosaic(pixel_format)
    if packing == "p":
        return (pixels * bits + 7) // 8
    if packing == "Packed":
        return (pixels * 3 + 1) // 2
    return pixels * (1 if bits == 8 else 2)


def to_bgr(data: Bytes, width: int, height: int, pixel_format: str) -> Bytes:
    """(H, W, 3) BGR, its own memory, of an image's bytes (N,) without padding.

    ValueError for a format that is not known, and for fewer bytes than it takes.
    """
    needed = size_bytes(width, height, pixel_format)
    if data.size < needed:
        raise ValueError(f"got {data.size} bytes of {width} x {height} {pixel_format}, expected {needed}")
    data = data[:needed]
    if pixel_format in _YUV:
        return _yuv(data.reshape(height, width, 2), *_YUV[pixel_format])
    if found := _RGB.fullmatch(pixel_format):
        samples = _unpacked(data, int(found[3]), None)
        return _colours(samples.reshape(height, width, -1), found[1])
    order, bits, packing = _mosaic(pixel_format)
    grey = _unpacked(data, bits, packing)[: width * height].reshape(height, width)
    code = _DEMOSAIC[order] if order else cv2.COLOR_GRAY2BGR
    return np.asarray(cv2.cvtColor(grey, code), np.uint8)


def _mosaic(pixel_format: str) -> tuple[str, int, str | None]:
    """(Bayer's order or "", bits, how they are packed)."""
    if found := _BAYER.fullmatch(pixel_format):
        return found[1], int(found[2]), found[3]
    if found := _MONO.fullmatch(pixel_format):
        return "", int(found[1]), found[2]
    raise ValueError(f"got the pixel format {pixel_format!r}, expected one such as {', '.join(PREFERRED)}")


def _unpacked(data: Bytes, bits: int, packing: str | None) -> Bytes:
    """The upper 8 of the bits of each sample, (N,)."""
    if packing == "p":
        return _lsb_packed(data, bits)
    if packing == "Packed":
        return _gige_packed(data)
    if bits == 8:
        return data
    return np.asarray(np.right_shift(data.view("<u2"), bits - 8), np.uint8)


def _lsb_packed(data: Bytes, bits: int) -> Bytes:
    """Samples one after the other from the lowest bit on: 2 of 12 bits in 3 bytes, 4 of 10 bits in 5."""
    if bits == 8:
        return data
    group, samples = {10: (5, 4), 12: (3, 2), 14: (7, 4)}[bits]
    whole = np.zeros(-(-data.size // group) * group, np.uint16)
    whole[: data.size] = data
    parts = whole.reshape(-1, group)
    out = np.empty((len(parts), samples), np.uint8)
    for sample in range(samples):
        byte, bit = divmod(sample * bits + bits - 8, 8)
        upper = parts[:, byte + 1] << (8 - bit) if bit else 0
        out[:, sample] = ((parts[:, byte] >> bit) | upper) & 0xFF
    return out.reshape(-1)


def _gige_packed(data: Bytes) -> Bytes:
    """GigE Vision 1.x: the upper 8 bits of two samples in the first and third byte, the rest of both between them."""
    whole = np.zeros(-(-data.size // 3) * 3, np.uint8)
    whole[: data.size] = data
    return whole.reshape(-1, 3)[:, (0, 2)].reshape(-1)


def _colours(samples: Bytes, order: str) -> Bytes:
    if samples.shape[2] == 4:  # opacity of a camera says nothing
        return np.asarray(cv2.cvtColor(samples, cv2.COLOR_RGBA2BGR if order == "RGB" else cv2.COLOR_BGRA2BGR), np.uint8)
    if order == "RGB":
        return np.asarray(cv2.cvtColor(samples, cv2.COLOR_RGB2BGR), np.uint8)
    return samples.copy()


def _yuv(pairs: Bytes, space: str, order: str) -> Bytes:
    """(H, W, 2), luma and in turns the one and the other chroma. PFNC's YUV and YCbCr have 256 levels of luma, with
    different factors of chroma; YCbCr601 has 16 to 235, which is what OpenCV's conversions of video take."""
    if space == "YCbCr601":
        code = cv2.COLOR_YUV2BGR_YUYV if order == "YUYV" else cv2.COLOR_YUV2BGR_UYVY
        return np.asarray(cv2.cvtColor(pairs, code), np.uint8)
    luma, chroma = (0, 1) if order == "YUYV" else (1, 0)
    full = np.empty((*pairs.shape[:2], 3), np.uint8)
    full[..., 0] = pairs[..., luma]
    blue = np.repeat(pairs[:, 0::2, chroma], 2, axis=1)[:, : full.shape[1]]
    red = np.repeat(pairs[:, 1::2, chroma], 2, axis=1)[:, : full.shape[1]]
    if space == "YCbCr":
        full[..., 1], full[..., 2] = red, blue
        return np.asarray(cv2.cvtColor(full, cv2.COLOR_YCrCb2BGR), np.uint8)
    full[..., 1], full[..., 2] = blue, red
    return np.asarray(cv2.cvtColor(full, cv2.COLOR_YUV2BGR), np.uint8)
