"""Real pictures in a terminal, by the protocol that it says it has: kitty's, iTerm2's, or sixels.

Sources: https://sw.kovidgoyal.net/kitty/graphics-protocol/, https://iterm2.com/documentation-images.html, and DEC STD
070 for sixels. The libraries that do this (term-image, textual-image) bring Pillow and, of the latter, the LGPL.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from rich.segment import Segment

from streamer.dashboard.palette import PLAIN
from streamer.dashboard.state import Picture

Protocol = Literal["kitty", "iterm2", "sixel"]

QUESTION = "\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\\x1b[16t\x1b[c"
"""Whether kitty's pictures are understood, how large a character is, and what kind of terminal it is. Every terminal
answers the last one, so that nobody waits for an answer to the first two that never comes."""
ANSWERED = re.compile(rb"\x1b\[\?([\d;]*)c")
"""The end of the answers."""
_KITTY = re.compile(rb"\x1b_Gi=31;OK\x1b\\")
_CHARACTER = re.compile(rb"\x1b\[6;(\d+);(\d+)t")
_SIXEL = b"4"
_CHUNK = 4096
"""Bytes of base64 in one of kitty's parts, at most."""
_LEVELS = 6
"""Of each colour of a sixel picture: 216 colours, as most terminals have 256 registers."""


class PictureSegment(Segment):
    """Where a picture begins on the screen: its upper left corner. The segment itself is blank, like all others below
    the picture."""

    picture: Picture
    columns: int
    rows: int

    @classmethod
    def of(cls, picture: Picture, columns: int, rows: int) -> PictureSegment:
        segment = cls(" " * columns, PLAIN)
        segment.picture, segment.columns, segment.rows = picture, columns, rows
        return segment


def protocol_of(environment: Mapping[str, str], answers: bytes) -> Protocol | None:
    """The protocol of a terminal that gave these answers to QUESTION."""
    if environment.get("TERM_PROGRAM") == "iTerm.app" or environment.get("LC_TERMINAL") == "iTerm2":
        return None if "TMUX" in environment else "iterm2"  # iTerm2 does not answer for this
    if _KITTY.search(answers):
        return "kitty"
    kind = ANSWERED.search(answers)
    return "sixel" if kind is not None and _SIXEL in kind.group(1).split(b";")[1:] else None


def character_px(answers: bytes) -> tuple[int, int] | None:
    """Width and height of a character, in pixels; None where the terminal does not say."""
    found = _CHARACTER.search(answers)
    if found is None or not int(found.group(1)) or not int(found.group(2)):
        return None
    return int(found.group(2)), int(found.group(1))


def encoded_picture(
    protocol: Protocol, picture: Picture, columns: int, rows: int, character: tuple[int, int], number: int
) -> str:
    """(H, W, 3) uint8 BGR as escape codes that draw it over `columns` x `rows` characters from the cursor on.
    `number`, from 1, is that of its place: kitty replaces the picture that was there."""
    if protocol == "sixel":
        size = columns * character[0], rows * character[1] // 6 * 6
        return sixels(cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False))
    if protocol == "iterm2":
        data = _file(picture, ".jpg")
        shape = f"inline=1;size={len(data)};width={columns};height={rows};preserveAspectRatio=0"
        return f"\x1b]1337;File={shape}:{base64.b64encode(data).decode()}\x07"
    data = base64.b64encode(_file(picture, ".png"))
    parts = [data[start : start + _CHUNK].decode() for start in range(0, len(data), _CHUNK)]
    keys = f"a=T,f=100,i={number},p=1,c={columns},r={rows},C=1,q=2,"
    return "".join(
        f"\x1b_G{'' if place else keys}m={int(place < len(parts) - 1)};{part}\x1b\\" for place, part in enumerate(parts)
    )


def erased(protocol: Protocol) -> str:
    """Take away what was drawn. The other protocols' pictures are gone where text is written over them."""
    return "\x1b_Ga=d,d=A,q=2\x1b\\" if protocol == "kitty" else ""


def _file(picture: Picture, kind: str) -> bytes:
    settings = [cv2.IMWRITE_PNG_COMPRESSION, 1] if kind == ".png" else [cv2.IMWRITE_JPEG_QUALITY, 90]
    return cv2.imencode(kind, picture, settings)[1].tobytes()


def sixels(picture: Picture) -> str:
    """(H, W, 3) uint8 BGR, H a multiple of 6, as sixels of 216 colours."""
    levels = (picture.astype(np.uint16) * (_LEVELS - 1) + 127) // 255
    codes = (levels[..., 2] * _LEVELS + levels[..., 1]) * _LEVELS + levels[..., 0]
    steps = [round(100 * level / (_LEVELS - 1)) for level in range(_LEVELS)]
    colours = [
        f"#{code};2;{steps[code // _LEVELS**2]};{steps[code // _LEVELS % _LEVELS]};{steps[code % _LEVELS]}"
        for code in np.unique(codes).tolist()
    ]
    height, width = codes.shape
    bands = ("$".join(_band(codes[top : top + 6])) for top in range(0, height, 6))
    return f'\x1bPq"1;1;{width};{height}{"".join(colours)}{"-".join(bands)}\x1b\\'


def _band(codes: npt.NDArray[np.uint16]) -> Iterator[str]:
    """Six rows of pixels: for each colour in them where it is, equal neighbours in one run."""
    weights = (1 << np.arange(6, dtype=np.uint16))[:, None]
    for code in np.unique(codes).tolist():
        bits = ((codes == code) * weights).sum(axis=0)
        starts = np.concatenate([[0], np.flatnonzero(np.diff(bits)) + 1])
        counts = np.diff(starts, append=len(bits))
        runs = (
            f"!{count}{chr(63 + int(bits[at]))}" for at, count in zip(starts.tolist(), counts.tolist(), strict=True)
        )
        yield f"#{code}{''.join(runs)}"
