"""The cameras that are attached to this machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2

from streamer.sources.capture import open_capture

_LISTS_DEVICES = sys.platform == "linux"
_INDICES = 5
"""Tried where the system does not list its devices."""


@dataclass(frozen=True, slots=True)
class AttachedCamera:
    """One that the system shows."""

    device: str
    """Its index."""
    name: str
    """As the driver says it; "" where it does not."""
    size_px: tuple[int, int] | None
    """(width, height) of the frame that it gave; None: it gave none."""
    fps: float | None = None

    @property
    def source(self) -> str:
        """What to write behind `--source`."""
        if self.size_px is None:
            return f"camera:{self.device}"
        return f"camera:{self.device},size={self.size_px[0]}x{self.size_px[1]}"


def attached_cameras() -> Iterator[AttachedCamera]:
    """Each is opened and asked for a frame, which takes seconds where one does not answer."""
    if _LISTS_DEVICES:
        numbers = sorted(int(path.name[5:]) for path in Path("/dev").glob("video*") if path.name[5:].isdigit())
        for number in numbers:
            yield _look(number, cv2.CAP_V4L2)
        return
    for number in range(_INDICES):
        found = _look(number, cv2.CAP_ANY)
        if found.size_px is not None:
            yield found


def _look(number: int, backend: int) -> AttachedCamera:
    capture = open_capture(number, backend, [])
    try:
        decoded, image = capture.retrieve() if capture.isOpened() and capture.grab() else (False, None)
        size_px = (image.shape[1], image.shape[0]) if decoded and image is not None else None
        fps = capture.get(cv2.CAP_PROP_FPS) if size_px else 0.0
        return AttachedCamera(str(number), _name(number), size_px, fps or None)
    finally:
        capture.release()


def _name(number: int) -> str:
    try:
        return Path(f"/sys/class/video4linux/video{number}/name").read_text("utf-8", "replace").strip()
    except OSError:
        return ""
