"""Films and streams, decoded by the FFmpeg that comes with OpenCV.

It scales frames to their first size where a stream changes its own, has no AV1, and does not tell when a film was made:
for these there is the extra `av`.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import cv2
import numpy as np

from streamer.sources.capture import Capture, OpenCapture, open_capture, set_ffmpeg_options
from streamer.sources.decoder import Grabbed, Pixels, Timeouts


class OpenCVDecoder:
    """`grab` decodes, and only what is taken is converted, before the next `grab`."""

    keeps_frames = False
    sees_sizes = False
    begun_utc_ns: int | None = None
    about = f"OpenCV {cv2.__version__}"

    def __init__(self, capture: Capture, *, has_clock: bool) -> None:
        count, fps = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
        self.announced = int(count) if count > 0 else None
        self.fps = fps if 0 < fps < 1000 else None
        self.codec = _codec(capture)
        self._capture = capture
        # Motion JPEG over HTTP has no clock: FFmpeg numbers its frames as if there were 25 a second.
        self._has_clock = has_clock and self.codec != "MJPG"

    def grab(self) -> Grabbed | None:
        if not self._capture.grab():
            return None
        return Grabbed(self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000 if self._has_clock else None, self._take)

    def close(self) -> None:
        self._capture.release()

    def _take(self) -> Pixels | None:
        decoded, image = self._capture.retrieve()
        return np.asarray(image, np.uint8) if decoded else None


def open_opencv(
    address: str, timeouts: Timeouts | None = None, *, open_capture: OpenCapture = open_capture
) -> OpenCVDecoder | None:
    """As OpenDecoder says. A stream has one decoding thread: FFmpeg's frame threads would hold back one frame each."""
    parameters: list[int] = []
    if timeouts is not None:
        parameters = [
            *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, round(timeouts.open_s * 1000)),
            *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, round(timeouts.read_s * 1000)),
            *(cv2.CAP_PROP_N_THREADS, 1),
        ]
    set_ffmpeg_options(is_stream=timeouts is not None)
    capture = open_capture(address, cv2.CAP_FFMPEG, parameters)
    if not capture.isOpened():
        return None
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
    has_clock = timeouts is None or not urlsplit(address).scheme.lower().startswith("http")
    return OpenCVDecoder(capture, has_clock=has_clock)


def _codec(capture: Capture) -> str:
    """By its four letters."""
    code = int(capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
    letters = code.to_bytes(4, "little").decode("ascii", "replace").strip("\0 ")
    return "AV1" if letters.upper() == "AV01" else letters or "an unknown codec"
