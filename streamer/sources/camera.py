"""A camera of this machine, by index or device."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from engines.base import UsageError, near
from streamer.records import Frame, Mode, Skip
from streamer.sources.base import SourceAbsentError, SourceError, SourceLostError
from streamer.sources.capture import Capture, OpenCapture, open_capture

PAUSES_S = (0.5, 1.0, 2.0, 4.0, 5.0)
"""Before it is opened again: who plugs a cable in stands beside it and waits."""


@dataclass(frozen=True, slots=True)
class CameraSettings:
    """What stands behind `camera:`, or the index or device alone. None: as the camera has it."""

    device: str
    size_px: tuple[int, int] | None = None
    """(width, height)."""
    fps: float | None = None
    fourcc: str | None = None
    """Four characters; MJPG are compressed frames, which many USB cameras need for their full rate."""
    exposure: float | None = None
    """In the driver's own unit: 100 µs for V4L2. Turns the camera's own control of it off."""

    @classmethod
    def parse(cls, target: str) -> CameraSettings:
        """`INDEX[,size=WxH,fps=N,fourcc=C,exposure=F]`; UsageError for anything else."""
        device, *parts = target.split(",")
        if not (device.isascii() and device.isdigit()) and not device.startswith("/dev/"):
            raise UsageError(f"--source camera:{target}: got the device {device!r}, expected an index or /dev/videoN")
        given: dict[str, Any] = {}
        for part in parts:
            key, _, value = (piece.strip() for piece in part.partition("="))
            if key not in _SETTINGS:
                hint = near(key, _SETTINGS) or f"; expected one of {', '.join(_SETTINGS)}"
                raise UsageError(f"--source camera:{target}: got the setting {key!r}, which does not exist{hint}")
            field, pattern, convert, example = _SETTINGS[key]
            if not re.fullmatch(pattern, value):
                raise UsageError(f"--source camera:{target}: got {key} {value!r}, expected one such as {key}={example}")
            given[field] = convert(value)
        return cls(device, **given)

    @property
    def wishes(self) -> list[tuple[int, float]]:
        """Properties of OpenCV's VideoCapture, in the order in which they are to be set."""
        wishes: list[tuple[int, float]] = []
        if self.fourcc is not None:  # before the size: the sizes on offer depend on it
            wishes.append((cv2.CAP_PROP_FOURCC, float(cv2.VideoWriter.fourcc(*self.fourcc))))
        if self.size_px is not None:
            wishes += [(cv2.CAP_PROP_FRAME_WIDTH, self.size_px[0]), (cv2.CAP_PROP_FRAME_HEIGHT, self.size_px[1])]
        if self.fps is not None:
            wishes.append((cv2.CAP_PROP_FPS, self.fps))
        if self.exposure is not None:
            wishes += [(cv2.CAP_PROP_AUTO_EXPOSURE, _MANUAL), (cv2.CAP_PROP_EXPOSURE, self.exposure)]
        return wishes


def _size(text: str) -> tuple[int, int]:
    width, height = text.lower().split("x")
    return int(width), int(height)


_SETTINGS: dict[str, tuple[str, str, Callable[[str], Any], str]] = {
    "size": ("size_px", r"[1-9]\d{1,4}[xX][1-9]\d{1,4}", _size, "1920x1080"),
    "fps": ("fps", r"[1-9]\d{0,3}(\.\d+)?", float, "30"),
    "fourcc": ("fourcc", r"[A-Za-z0-9]{4}", str.upper, "MJPG"),
    "exposure": ("exposure", r"-?\d+(\.\d+)?", float, "50"),
}
"""By name: the field, what its text looks like, what it becomes, an example."""
_MANUAL = 1.0
"""Of CAP_PROP_AUTO_EXPOSURE, as V4L2 numbers it."""


class CameraSource:
    """Reads a camera through V4L2 (elsewhere through what OpenCV finds), with as little stored up as the driver allows.

    A camera that sends nothing is lost after 3 s.
    """

    default_mode: Mode = "live"
    pauses_s = PAUSES_S

    def __init__(
        self, name: str, target: str, now_ns: Callable[[], int], *, open_capture: OpenCapture = open_capture
    ) -> None:
        """`target` as `CameraSettings.parse` takes it."""
        self._settings = CameraSettings.parse(target)
        self.device = self._settings.device
        self.name = name
        self._now_ns = now_ns
        self._open_capture = open_capture
        self._capture: Capture | None = None
        self._answered = False
        self._frame_id = 0

    def open(self) -> None:
        """SourceAbsentError for a camera that never answered, SourceLostError for one that gave frames, SourceError for
        one that does not take a setting."""
        backend = cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY
        target = int(self.device) if self.device.isdigit() else self.device
        capture = self._open_capture(target, backend, [])
        if not capture.isOpened():
            if self._answered:
                raise SourceLostError(f"camera {self.device}: got no answer, expected frames; is it plugged in?")
            raise SourceAbsentError(
                f"camera {self.device}: got no answer, expected a camera; this machine shows {_devices()};"
                " check the cable, the permission to read the device, and that no other program uses it"
            )
        refused = [wish for wish, value in self._settings.wishes if not capture.set(wish, value)]
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        self._capture = capture
        self._check(capture, refused)

    def _check(self, capture: Capture, refused: Sequence[int]) -> None:
        """SourceError for a camera that has another size or format than was asked for: a magnification that was
        measured for one size is wrong for another."""
        settings, got = self._settings, []
        size_px = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        if settings.size_px is not None and all(size_px) and size_px != settings.size_px:
            got.append(f"size {size_px[0]}x{size_px[1]} (asked for: {settings.size_px[0]}x{settings.size_px[1]})")
        fourcc = _fourcc_text(capture.get(cv2.CAP_PROP_FOURCC))
        if settings.fourcc is not None and fourcc and fourcc != settings.fourcc:
            got.append(f"format {fourcc} (asked for: {settings.fourcc})")
        if cv2.CAP_PROP_EXPOSURE in refused:
            got.append(f"no exposure of {settings.exposure:g}")
        if got:
            raise SourceError(
                f"camera {self.device}: got {', '.join(got)}, expected a camera that takes what was asked for: "
                "leave it out, or ask for what the camera offers"
            )

    def read(self) -> Frame | Skip | None:
        if self._capture is None:
            raise SourceLostError(f"camera {self.device}: got a read before it was open, expected it open")
        grabbed = self._capture.grab()
        captured_ns = self._now_ns()
        if not grabbed:
            fault = f"camera {self.device}: got no frame, expected one"
            if self._answered:
                raise SourceLostError(f"{fault}; is it plugged in?")
            raise SourceError(f"{fault}; another device of this machine may be the one that sends: {_devices()}")
        self._answered = True
        decoded, image = self._capture.retrieve()
        if not decoded:
            return Skip(
                self.name, f"after frame {self._frame_id - 1}", "damaged frame", "got a frame that does not decode"
            )
        frame = Frame(self.name, self._frame_id, captured_ns, image)
        self._frame_id += 1
        return frame

    def close(self) -> None:
        if self._capture is not None:
            self._capture.release()
            self._capture = None


def _fourcc_text(value: float) -> str:
    """The four characters; "" where the driver does not say."""
    text = int(value).to_bytes(4, "little", signed=True).decode("latin-1") if value else ""
    return text if text.isprintable() else ""


def _devices() -> str:
    return ", ".join(sorted(str(path) for path in Path("/dev").glob("video*"))) or "no /dev/video*"
