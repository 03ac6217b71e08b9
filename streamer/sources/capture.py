"""OpenCV's VideoCapture as cameras, streams and video files use it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol

import cv2

_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
_FILMS = "rtsp_transport;tcp|fflags;discardcorrupt"
"""A frame that was cut off is not decoded to a half grey picture. Naming options at all takes away OpenCV's own default
of RTSP over TCP, so it is named too. Not "nobuffer": it throws away the packets read to find the format."""

_STREAMS = f"{_FILMS}|analyzeduration;100000|fpsprobesize;0"
"""FFmpeg reads a second, unless told otherwise, to learn how many frames a stream has in one: all that is old when it
is decoded."""

# OpenCV reads these when it first opens something. What a person has set stays.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
_as_a_person_has_it = _OPTIONS in os.environ
os.environ.setdefault(_OPTIONS, _FILMS)
# Seconds until a camera that sends nothing is given up; CAP_PROP_READ_TIMEOUT_MSEC does not reach V4L2.
os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "3")
if "OPENCV_LOG_LEVEL" not in os.environ:
    # OpenCV writes its own lines to standard error about what is reported here, in one line, anyway.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class Capture(Protocol):
    """The part of cv2.VideoCapture that sources use; tests script it."""

    def isOpened(self) -> bool: ...

    def grab(self) -> bool: ...

    def retrieve(self) -> tuple[bool, Any]: ...

    def get(self, prop: int) -> float: ...

    def set(self, prop: int, value: float) -> bool: ...

    def release(self) -> None: ...


class OpenCapture(Protocol):
    def __call__(self, target: int | str, backend: int, parameters: Sequence[int]) -> Capture: ...


def set_ffmpeg_options(*, is_stream: bool) -> None:
    """For what is opened next: OpenCV reads them each time, and has no other way to be told. A film and a stream that
    are opened in the same instant may have each other's, which costs the stream its first second."""
    wanted = _STREAMS if is_stream else _FILMS
    if not _as_a_person_has_it and os.environ.get(_OPTIONS) != wanted:
        os.environ[_OPTIONS] = wanted


def open_capture(target: int | str, backend: int, parameters: Sequence[int]) -> Capture:
    """A VideoCapture, perhaps not open; OpenCV's own errors count as one that is not open."""
    capture: Capture = cv2.VideoCapture()
    try:
        capture.open(target, backend, list(parameters))  # type: ignore[attr-defined]
    except cv2.error:
        capture.release()
    return capture
