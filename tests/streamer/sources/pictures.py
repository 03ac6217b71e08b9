"""Small image files of every kind, made by the tests themselves."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def field(height: int = 40, width: int = 60) -> npt.NDArray[np.uint8]:
    """(H, W, 3) BGR: a pale field with a gradient and one dark disc, which every format stores well."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([200 + x % 40, 190 + y % 40, 210 + (x + y) % 40], axis=-1).astype(np.uint8)
    cv2.circle(image, (width // 2, height // 2), 8, (120, 40, 90), -1)
    return image


def encoded(image: Array, extension: str = ".png") -> bytes:
    done, data = cv2.imencode(extension, image)
    assert done
    return data.tobytes()


def png(header: tuple[int, int, int, int], rows: bytes = b"", palette: bytes = b"", opacity: bytes = b"") -> bytes:
    """A PNG from (width, height, bits, colour type) and raw rows, each with its filter byte in front."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", *header, 0, 0, 0))
    data += chunk(b"PLTE", palette) if palette else b""
    data += chunk(b"tRNS", opacity) if opacity else b""
    return data + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(samples: Array, photometric: int, *, order: str = "<", size: tuple[int, int] | None = None) -> bytes:
    """A one-strip TIFF of (H, W) or (H, W, C) samples, its directory behind the pixels; `size` as (W, H) may lie."""
    height, width = samples.shape[:2]
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    body = samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    shown = size or (width, height)
    entries = [
        (256, shown[0]), (257, shown[1]), (258, 8 * samples.itemsize), (259, 1), (262, photometric), (273, 8),
        (277, channels), (278, shown[1]), (279, len(body)),
    ]  # fmt: skip
    directory = struct.pack(order + "H", len(entries))
    directory += b"".join(struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in entries)
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(order + "I", 8 + len(body)) + body + directory + struct.pack(order + "I", 0)


def webp_header(width: int, height: int) -> bytes:
    """The start of an extended WebP file, which says its size and holds no pixels."""
    body = b"VP8X" + struct.pack("<I", 10) + bytes(4) + (width - 1).to_bytes(3, "little")
    body += (height - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body
