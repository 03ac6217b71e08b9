"""The cameras that are attached to this machine, over all back ends.

Each back end looks in a process of its own: a vendor's library that crashes or hangs is one line, and the others
answer.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2

from engines.base import LeukostreamError
from streamer.sources import aravis, genicam, pylon
from streamer.sources.capture import open_capture
from streamer.sources.driver import AttachedCamera
from streamer.sources.own_process import answer_of

ANSWERS_WITHIN_S = 20.0
"""A camera that does not answer takes OpenCV 3 s, and a GigE Vision producer looks for 1 s on each network."""

_LISTS_DEVICES = sys.platform == "linux"
_INDICES = 5
"""Tried where the system does not list its devices."""


@dataclass(frozen=True, slots=True)
class Attached:
    """What was found."""

    cameras: tuple[AttachedCamera, ...]
    faults: tuple[str, ...]
    """One line for each back end that could not look."""


_NO_ANSWER = "no answer: in use by another program, or not the device that sends"

BackEnds = Mapping[str, Callable[[], list[AttachedCamera]]]


def of_opencv() -> list[AttachedCamera]:
    """The system's own. Each is opened and asked for a frame, which takes seconds where one does not answer."""
    if _LISTS_DEVICES:
        numbers = sorted(int(path.name[5:]) for path in Path("/dev").glob("video*") if path.name[5:].isdigit())
        return [_look(number, cv2.CAP_V4L2) for number in numbers]
    tried = (_look(number, cv2.CAP_ANY) for number in range(_INDICES))
    return [camera for camera in tried if camera.usable]


BACK_ENDS: BackEnds = {
    "camera": of_opencv,
    "genicam": genicam.attached,
    "genicam:aravis": aravis.attached,
    "pylon": pylon.attached,
}
"""By the prefix of their sources."""


def attached_cameras(back_ends: BackEnds | None = None, within_s: float = ANSWERS_WITHIN_S) -> Attached:
    """All at once, each within so many seconds."""
    back_ends = BACK_ENDS if back_ends is None else back_ends

    def look(name: str) -> list[AttachedCamera] | str:
        try:
            found: list[AttachedCamera] = answer_of(back_ends[name], within_s)
            return found
        except TimeoutError:
            return f"{name}: got no answer within {within_s:g} s, expected the list of its cameras; its library hangs"
        except LeukostreamError as error:
            text = str(error)
            return text if text.startswith(f"{name}:") else f"{name}: {text}"

    with ThreadPoolExecutor(len(back_ends)) as pool:
        answers = list(pool.map(look, back_ends))
    cameras = [camera for answer in answers if not isinstance(answer, str) for camera in answer]
    return Attached(tuple(cameras), tuple(answer for answer in answers if isinstance(answer, str)))


def _look(number: int, backend: int) -> AttachedCamera:
    capture = open_capture(number, backend, [])
    try:
        decoded, image = capture.retrieve() if capture.isOpened() and capture.grab() else (False, None)
        name = _name(number) or f"camera {number}"
        if not decoded or image is None:
            return AttachedCamera(f"camera:{number}", name, _NO_ANSWER, usable=False)
        size = f"{image.shape[1]}x{image.shape[0]}"
        fps = capture.get(cv2.CAP_PROP_FPS)
        gives = f"{size}, {fps:g} frames/s" if fps else size
        return AttachedCamera(f"camera:{number},size={size}", name, gives, usable=True)
    finally:
        capture.release()


def _name(number: int) -> str:
    try:
        return Path(f"/sys/class/video4linux/video{number}/name").read_text("utf-8", "replace").strip()
    except OSError:
        return ""
