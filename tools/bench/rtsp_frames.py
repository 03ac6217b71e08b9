"""Encoded frames in a file, for a server that runs with another Python: the standard library is all it needs."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

PATH = "/scope"
"""Of the server's one stream."""

_HEAD = struct.Struct("<I?")
"""Before each frame: its bytes, and whether it is a key frame."""


def write_frames(path: Path, frames: Iterable[tuple[bytes, bool]]) -> None:
    """`frames`: each with whether it is a key frame."""
    with path.open("wb") as file:
        for data, is_key in frames:
            file.write(_HEAD.pack(len(data), is_key) + data)


def read_frames(path: Path) -> list[tuple[bytes, bool]]:
    """As `write_frames` took them."""
    data, place, frames = path.read_bytes(), 0, []
    while place < len(data):
        size, is_key = _HEAD.unpack_from(data, place)
        place += _HEAD.size
        frames.append((data[place : place + size], is_key))
        place += size
    return frames
