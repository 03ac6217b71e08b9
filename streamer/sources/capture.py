"""OpenCV's VideoCapture as cameras, streams and video files use it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol

import cv2

# OpenCV reads these when it first opens something. What a person has set stays.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
# A frame that was cut off is not decoded to a half grey picture. Naming options at all takes away OpenCV's own
# default of RTSP over TCP, so it is named too. Not "nobuffer": it throws away the packets read to find the format.
os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp|fflags;discardcorrupt")
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


def open_capture(target: int | str, backend: int, parameters: Sequence[int]) -> Capture:
    """A VideoCapture, perhaps not open; OpenCV's own errors count as one that is not open."""
    capture: Capture = cv2.VideoCapture()
    try:
        capture.open(target, backend, list(parameters))  # type: ignore[attr-defined]
    except cv2.error:
        capture.release()
    return capture
