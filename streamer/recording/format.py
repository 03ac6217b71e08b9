"""The layout of a recording: a file header, then records, each a header of fixed size and a body.

All numbers are little-endian. Header and body have separate checksums, so that a walk over the headers alone can trust
their lengths.

    file header   "LEUKOREC", version u2, 0 u2, CRC-32 of these u4
    record        mark u4, kind u1, encoding u1, source u2, number i8, time_ns i8, head length u4, body length u4,
                  CRC-32 of the body u4, CRC-32 of the header before it u4; then the body: a JSON head, then data
"""

from __future__ import annotations

import enum
import struct
import zlib
from dataclasses import dataclass

import msgspec

from engines.base import LeukostreamError
from streamer.config import Keep
from streamer.records import Mode, StagePoint

MAGIC = b"LEUKOREC"
FORMAT_VERSION = 1
"""A program reads only the format that it writes."""

MARK = 0x43455220
_FILE = struct.Struct("<8sHHI")
_RECORD = struct.Struct("<IBBHqqIIII")
FILE_HEADER_BYTES = _FILE.size
RECORD_HEADER_BYTES = _RECORD.size


class RecordingError(LeukostreamError):
    """A recording that can't be written, read or played."""


class Kind(enum.IntEnum):
    RUN = 1
    """A process begins to write. The head is a RunHead."""
    FRAME = 2
    """`number` is the frame_id, `time_ns` its captured_ns; a FrameHead, then the pixels."""
    MESSAGE = 3
    """`number` is the session_seq, `time_ns` its published_ns; the head is the message as published, the data its
    payload."""
    END = 4
    """The process has ended the recording. The head is an EndHead; without one the recording was cut off."""


class FrameEncoding(enum.IntEnum):
    NONE = 0
    """No frame."""
    FILE = 1
    """The bytes of the image file that the source read."""
    PNG = 2
    RAW = 3
    """Rows of BGR."""
    JPEG = 4
    """Encoded by the recorder, with loss."""


class RunSource(msgspec.Struct, frozen=True, kw_only=True):
    """A source of a run; records refer to it by its index in the list."""

    name: str
    address: str
    mode: Mode


class RunHead(msgspec.Struct, frozen=True, kw_only=True):
    program: str
    """Version of leukostream."""
    run_id: str
    keep: Keep
    utc_offset_ns: int
    """UTC minus monotonic time, both in nanoseconds."""
    sources: tuple[RunSource, ...]


class FrameHead(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    width: int
    height: int
    file: str | None = None
    """Base name, of image files."""
    bits: int = 8
    """Of a sample in the image file."""
    pixels_crc: int | None = None
    """Of every 16th decoded row, for image files: another decoder may give other pixels."""
    stage_um: StagePoint | None = None
    """This and the next four: as of Frame; `exposed_ns` less its `captured_ns`."""
    stage_error_um: float | None = None
    is_tile: bool = False
    um_per_px: float | None = None
    exposed_after_ns: int | None = None
    moving: bool | None = None
    """As of Frame."""


class EndHead(msgspec.Struct, frozen=True, kw_only=True):
    frames_lost: dict[str, dict[str, int]]
    """By source and reason."""
    messages_lost: dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True)
class RecordHeader:
    kind: Kind
    encoding: FrameEncoding
    source: int
    number: int
    time_ns: int
    head_bytes: int
    body_bytes: int
    body_crc: int

    @property
    def record_bytes(self) -> int:
        return RECORD_HEADER_BYTES + self.body_bytes


def file_header() -> bytes:
    start = _FILE.pack(MAGIC, FORMAT_VERSION, 0, 0)[:-4]
    return start + zlib.crc32(start).to_bytes(4, "little")


def version_of(start: bytes) -> int | None:
    """The version in a file header; None for anything else."""
    if len(start) < FILE_HEADER_BYTES or not start.startswith(MAGIC):
        return None
    _, version, _, crc = _FILE.unpack(start[:FILE_HEADER_BYTES])
    return int(version) if crc == zlib.crc32(start[: FILE_HEADER_BYTES - 4]) else None


def packed(
    kind: Kind,
    head: bytes,
    data: bytes | memoryview = b"",
    *,
    source: int = 0,
    number: int = 0,
    time_ns: int = 0,
    encoding: FrameEncoding = FrameEncoding.NONE,
) -> bytes:
    """The header of a record with this body."""
    crc = zlib.crc32(data, zlib.crc32(head))
    size = len(head) + len(data)
    start = _RECORD.pack(MARK, kind, encoding, source, number, time_ns, len(head), size, crc, 0)[:-4]
    return start + zlib.crc32(start).to_bytes(4, "little")


def unpacked(header: bytes) -> RecordHeader | None:
    """None for anything but a whole record header."""
    if len(header) < RECORD_HEADER_BYTES:
        return None
    mark, kind, encoding, source, number, time_ns, head, body, body_crc, crc = _RECORD.unpack(header)
    if mark != MARK or crc != zlib.crc32(header[:-4]) or kind not in Kind.__members__.values() or head > body:
        return None
    return RecordHeader(Kind(kind), FrameEncoding(encoding), source, number, time_ns, head, body, body_crc)
