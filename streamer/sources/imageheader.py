"""What an image file says of itself before it is decoded: size, channels, and whether the file is whole.

OpenCV decodes a file before anything is known of it, which a 30 000 x 30 000 image in a 100 kB file abuses. Formats:
JPEG (ITU T.81), PNG (W3C), TIFF 6.0 and BigTIFF, BMP, WebP (RFC 9649).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

FORMATS = "JPEG, PNG, TIFF, BMP or WebP"

_JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
_TIFF_TYPES = {1: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_MAX_DIRECTORIES = 64
_MAX_VALUES = 1 << 20


@dataclass(frozen=True, slots=True)
class ImageHeader:
    format: str
    """ "jpeg", "png", "tiff", "bmp" or "webp"."""
    width: int
    """0, as `height`, where the file is cut off before it says."""
    height: int
    alpha: bool = False
    """A channel of opacity beside the colours."""
    inverted: bool = False
    """Grey where 0 is white."""
    pages: int = 1
    """Full-size images in the file; 2 means "more than one"."""
    end_byte: int = 0
    """How long the file must be to hold all its pixels; 0 where the format does not say."""
    end_marker: bytes = b""
    """What must come after `data_byte` in a whole file; empty where the format has no such mark."""
    data_byte: int = 0

    @property
    def megapixels(self) -> float:
        return self.width * self.height / 1e6

    def is_whole(self, data: bytes) -> bool:
        """Whether `data`, the whole file, holds all of the image."""
        if len(data) < self.end_byte:
            return False
        return not self.end_marker or data.rfind(self.end_marker, self.data_byte) >= 0


def read_header(file: BinaryIO) -> ImageHeader | None:
    """The header of an image file, of which only some kilobytes are read; None where it is none of FORMATS."""
    start = _at(file, 0, 32)
    for kind, is_kind, read in _READERS:
        if is_kind(start):
            try:
                return read(file, start)
            except struct.error:
                return ImageHeader(kind, 0, 0)
            except (ValueError, KeyError, OverflowError):
                return None
    return None


def _at(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _jpeg(file: BinaryIO, _: bytes) -> ImageHeader | None:
    offset = 2
    size: tuple[int, int] | None = None
    while True:
        lead, marker = struct.unpack(">BB", _at(file, offset, 2))
        if lead != 0xFF:
            return None
        if marker == 0xFF:  # fill byte
            offset += 1
            continue
        if marker in _JPEG_BARE:
            offset += 2
            continue
        if marker == 0xD9:
            return None
        (length,) = struct.unpack(">H", _at(file, offset + 2, 2))
        if marker in _JPEG_SIZES:
            height, width = struct.unpack(">HH", _at(file, offset + 5, 4))
            size = (width, height)
        offset += 2 + length
        if marker == 0xDA:
            # In entropy-coded data a byte FF is always followed by 00 or a restart, so D9 after it is the end. An
            # embedded preview ends before `offset`; junk after the end, which some cameras write, does no harm.
            if size is None:
                return None
            return ImageHeader("jpeg", *size, end_marker=b"\xff\xd9", data_byte=offset)


def _png(file: BinaryIO, _: bytes) -> ImageHeader | None:
    width, height, _depth, colour = struct.unpack(">IIBB", _at(file, 16, 10))
    offset, alpha = 8, colour in (4, 6)
    while True:
        length, kind = struct.unpack(">I4s", _at(file, offset, 8))
        if kind in (b"IDAT", b"IEND"):
            return ImageHeader("png", width, height, alpha, end_marker=b"IEND", data_byte=offset)
        alpha = alpha or kind == b"tRNS"
        offset += 12 + length


def _bmp(_: BinaryIO, start: bytes) -> ImageHeader | None:
    pixels_at, header_size = struct.unpack("<II", start[10:18])
    if header_size == 12:
        width, height, _planes, bits = struct.unpack("<HHHH", start[18:26])
        compression = 0
    else:
        width, height, _planes, bits = struct.unpack("<iiHH", start[18:30])
        compression = 1 if len(start) < 32 else struct.unpack("<H", start[30:32])[0]
    if width <= 0 or height == 0 or bits not in (1, 4, 8, 16, 24, 32):
        return None
    height = abs(height)  # negative: stored from the top
    row_bytes = (width * bits + 31) // 32 * 4
    whole = pixels_at + row_bytes * height if compression in (0, 3) else 0
    return ImageHeader("bmp", width, height, alpha=bits == 32, end_byte=whole)


def _webp(_: BinaryIO, start: bytes) -> ImageHeader | None:
    (riff_bytes,) = struct.unpack("<I", start[4:8])
    kind, body = start[12:16], start[20:]
    alpha, pages = False, 1
    if kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack("<HH", body[6:10]))
    elif kind == b"VP8L":
        (bits,) = struct.unpack("<I", body[1:5])
        width, height, alpha = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1)
    elif kind == b"VP8X":
        width = int.from_bytes(body[4:7], "little") + 1
        height = int.from_bytes(body[7:10], "little") + 1
        alpha, pages = bool(body[0] & 0x10), 2 if body[0] & 0x02 else 1
    else:
        return None
    return ImageHeader("webp", width, height, alpha, pages=pages, end_byte=8 + riff_bytes)


def _tiff(file: BinaryIO, start: bytes) -> ImageHeader | None:
    order = "<" if start[:1] == b"I" else ">"
    big = start[2:4] in (b"+\0", b"\0+")
    (offset,) = struct.unpack(order + ("Q" if big else "I"), start[8:16] if big else start[4:8])
    first: ImageHeader | None = None
    for _ in range(_MAX_DIRECTORIES):
        if offset == 0:
            break
        tags, offset = _tiff_directory(file, order, big, offset)
        if tags.get(254, (0,))[0] & 1:  # a reduced copy of another page
            continue
        if first is not None:
            return ImageHeader(
                "tiff", first.width, first.height, first.alpha, first.inverted, pages=2, end_byte=first.end_byte
            )
        places, sizes = tags.get(273) or tags.get(324) or (), tags.get(279) or tags.get(325) or ()
        samples, photometric = tags.get(277, (1,))[0], tags.get(262, (1,))[0]
        colours = 3 if photometric in (2, 6, 8) else 4 if photometric == 5 else 1
        first = ImageHeader(
            "tiff",
            width=tags[256][0],
            height=tags[257][0],
            alpha=samples > colours,
            inverted=photometric == 0,
            end_byte=max((place + size for place, size in zip(places, sizes, strict=False)), default=0),
        )
    return first


def _tiff_directory(file: BinaryIO, order: str, big: bool, offset: int) -> tuple[dict[int, tuple[int, ...]], int]:
    """The whole-number tags of one directory and the place of the next; 0 for none."""
    count_format, entry_format, place_format = ("Q", "HHQ", "Q") if big else ("H", "HHI", "I")
    count_bytes, entry_bytes, place_bytes = (8, 20, 8) if big else (2, 12, 4)
    (count,) = struct.unpack(order + count_format, _at(file, offset, count_bytes))
    if count > 4096:
        raise ValueError("no directory")
    body = _at(file, offset + count_bytes, count * entry_bytes + place_bytes)
    tags: dict[int, tuple[int, ...]] = {}
    for index in range(count):
        entry = body[index * entry_bytes : (index + 1) * entry_bytes]
        tag, kind, number = struct.unpack(order + entry_format, entry[:-place_bytes])
        if kind not in _TIFF_TYPES or not 0 < number <= _MAX_VALUES:
            continue
        value_format = f"{order}{number}{_TIFF_TYPES[kind]}"
        size = struct.calcsize(value_format)
        values = entry[-place_bytes:]
        if size > place_bytes:
            values = _at(file, struct.unpack(order + place_format, values)[0], size)
        tags[tag] = struct.unpack(value_format, values[:size])
    (following,) = struct.unpack(order + place_format, body[count * entry_bytes :])
    return tags, following


_READERS: tuple[tuple[str, Callable[[bytes], bool], Callable[[BinaryIO, bytes], ImageHeader | None]], ...] = (
    ("jpeg", lambda start: start.startswith(b"\xff\xd8\xff"), _jpeg),
    ("png", lambda start: start.startswith(b"\x89PNG\r\n\x1a\n"), _png),
    ("tiff", lambda start: start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), _tiff),
    ("bmp", lambda start: start.startswith(b"BM"), _bmp),
    ("webp", lambda start: start.startswith(b"RIFF") and start[8:12] == b"WEBP", _webp),
)
