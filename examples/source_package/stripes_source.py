"""A source in a package of its own: `--source stripes:WIDTHxHEIGHT[,frames=N]`, a pattern that moves."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from engines.base import UsageError
from streamer.records import Frame, Mode, Skip

STRIPE_PX = 16


class StripesSource:
    default_mode: Mode = "analysis"

    def __init__(self, name: str, width: int, height: int, frames: int, now_ns: Callable[[], int]) -> None:
        self.name = name
        self.length = frames
        self._shape = height, width, 3
        self._now_ns = now_ns
        self._frame_id = 0

    def open(self) -> None: ...

    def read(self) -> Frame | Skip | None:
        if self._frame_id == self.length:
            return None
        columns = (np.arange(self._shape[1]) + self._frame_id) // STRIPE_PX % 2 * 255
        image = np.broadcast_to(columns.astype(np.uint8)[None, :, None], self._shape).copy()
        frame = Frame(self.name, self._frame_id, self._now_ns(), image)
        self._frame_id += 1
        return frame

    def close(self) -> None: ...


def open_stripes(name: str, target: str, now_ns: Callable[[], int]) -> StripesSource:
    """What the entry point names."""
    match = re.fullmatch(r"(\d+)x(\d+)(?:,frames=(\d+))?", target)
    if match is None:
        raise UsageError(f"--source stripes:{target}: got {target!r}, expected a size such as 640x480,frames=100")
    return StripesSource(name, int(match[1]), int(match[2]), int(match[3] or 100), now_ns)
