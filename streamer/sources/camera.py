"""A camera of this machine, by index or device."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import cv2

from streamer.records import Frame, Mode, Skip
from streamer.sources.base import SourceError, SourceLostError
from streamer.sources.capture import Capture, OpenCapture, open_capture


class CameraSource:
    """Reads a camera through V4L2 (elsewhere through what OpenCV finds), with as little stored up as the driver allows.

    `mjpg` asks for compressed frames, which many USB cameras need for their full rate; `size_px` (width, height) and
    `fps` are asked for too, and a camera that can't gives what it has. A camera that sends nothing is lost after 3 s.
    """

    default_mode: Mode = "live"

    def __init__(
        self,
        name: str,
        device: str,
        now_ns: Callable[[], int],
        *,
        mjpg: bool = False,
        size_px: tuple[int, int] | None = None,
        fps: float | None = None,
        open_capture: OpenCapture = open_capture,
    ) -> None:
        self.device = device
        self.name = name
        self._now_ns = now_ns
        self._open_capture = open_capture
        self._wishes: list[tuple[int, float]] = []
        if mjpg:  # before the size: the sizes on offer depend on it
            self._wishes.append((cv2.CAP_PROP_FOURCC, float(cv2.VideoWriter.fourcc(*"MJPG"))))
        if size_px is not None:
            self._wishes += [(cv2.CAP_PROP_FRAME_WIDTH, size_px[0]), (cv2.CAP_PROP_FRAME_HEIGHT, size_px[1])]
        if fps is not None:
            self._wishes.append((cv2.CAP_PROP_FPS, fps))
        self._capture: Capture | None = None
        self._answered = False
        self._frame_id = 0

    def open(self) -> None:
        """SourceError for a camera that never gave a frame, SourceLostError for one that did."""
        backend = cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY
        target = int(self.device) if self.device.isdigit() else self.device
        capture = self._open_capture(target, backend, [])
        if not capture.isOpened():
            if self._answered:
                raise SourceLostError(f"camera {self.device}: got no answer, expected frames; is it plugged in?")
            raise SourceError(
                f"camera {self.device}: got no answer, expected a camera; this machine shows {_devices()};"
                " check the cable, the permission to read the device, and that no other program uses it"
            )
        for wish, value in self._wishes:
            capture.set(wish, value)
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        self._capture = capture

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


def _devices() -> str:
    return ", ".join(sorted(str(path) for path in Path("/dev").glob("video*"))) or "no /dev/video*"
