"""Video files and network streams, decoded by the FFmpeg that comes with OpenCV."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import cv2

from streamer.records import Frame, Mode, Skip
from streamer.sources.address import without_credentials
from streamer.sources.base import SourceError, SourceLostError
from streamer.sources.capture import Capture, OpenCapture, open_capture

OPEN_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 5.0

_PORTS = {"http": 80, "https": 443, "rtsp": 554, "rtsps": 322, "rtmp": 1935}


class VideoFileSource:
    """Every frame of a video file, as fast as they are taken, or, with `live`, at the file's own rate.

    A file cut off in the middle gives the frames that are whole (the last of them may be missing), then a Skip
    "truncated".
    """

    default_mode: Mode = "analysis"

    def __init__(
        self,
        name: str,
        path: str,
        now_ns: Callable[[], int],
        *,
        live: bool = False,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.path = path
        self.name = name
        self._now_ns = now_ns
        self._frames = _Frames(name, path)
        self._live = live
        self._sleep = sleep
        self._period_ns = 0
        self._due_ns = 0

    @property
    def length(self) -> int | None:
        """As the file announces it; some only estimate it."""
        return self._frames.announced

    def open(self) -> None:
        """SourceError for what is no video, or not enough of one to be read."""
        try:
            with Path(self.path).open("rb") as file:
                start = file.read(4096)
        except OSError as error:
            raise SourceError(f"source {self.path}: got {error.strerror}, expected a readable video file") from error
        expected = "expected a video that FFmpeg reads, or images (a folder or a glob)"
        if b"\0" not in start:  # FFmpeg would play a text file as a film of its letters
            raise SourceError(f"source {self.path}: got {'a text' if start else 'an empty'} file, {expected}")
        capture = open_capture(self.path, cv2.CAP_FFMPEG, [])
        if not capture.isOpened():
            raise SourceError(
                f"source {self.path}: got a file that is no video, or one cut off before its index, {expected};"
                " copy it again, or record to AVI or MKV, which are readable in part"
            )
        fps = capture.get(cv2.CAP_PROP_FPS)
        self._period_ns = round(1e9 / fps) if self._live and 0 < fps < 1000 else 0
        self._due_ns = self._now_ns()
        self._frames.start(capture)

    def seek(self, frame_id: int) -> None:
        """Read on to a frame, without a pause: a position given to FFmpeg is not exact with every codec."""
        while self._frames.given < frame_id and self._frames.read(self._now_ns) is not None:
            pass
        self._due_ns = self._now_ns()

    def read(self) -> Frame | Skip | None:
        if self._period_ns:
            self._wait()
        return self._frames.read(self._now_ns) or self._frames.end()

    def _wait(self) -> None:
        """Until the next frame is due. A reader that came too late gets its frame at once and no burst after it."""
        now_ns = self._now_ns()
        if now_ns < self._due_ns:
            self._sleep((self._due_ns - now_ns) / 1e9)
        late = now_ns > self._due_ns + self._period_ns
        self._due_ns = (now_ns if late else self._due_ns) + self._period_ns

    def close(self) -> None:
        self._frames.stop()


class StreamSource:
    """A network stream, live: RTSP over TCP, HTTP (motion JPEG, for one) and what else FFmpeg opens.

    One decoding thread: FFmpeg's frame threads would hold back one frame each. A stream that reports its length (a file
    behind HTTP) ends after it; any other that stops is lost.
    """

    default_mode: Mode = "live"

    def __init__(
        self,
        name: str,
        url: str,
        now_ns: Callable[[], int],
        *,
        open_timeout_s: float = OPEN_TIMEOUT_S,
        read_timeout_s: float = READ_TIMEOUT_S,
        open_capture: OpenCapture = open_capture,
    ) -> None:
        self._url = url
        self._shown = without_credentials(url)
        self.name = name
        self._now_ns = now_ns
        self._open_capture = open_capture
        self._read_timeout_s = read_timeout_s
        self._parameters = [
            *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, round(open_timeout_s * 1000)),
            *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, round(read_timeout_s * 1000)),
            *(cv2.CAP_PROP_N_THREADS, 1),
        ]
        self._frames = _Frames(name, self._shown)
        self._answered = False

    def open(self) -> None:
        """SourceError for a stream that never answered, SourceLostError for one that did once."""
        capture = self._open_capture(self._url, cv2.CAP_FFMPEG, self._parameters)
        if capture.isOpened():
            self._answered = True
            self._frames.start(capture)
            return
        fault = f"stream {self._shown}: got {_why_not(self._url)}, expected a video stream"
        if self._answered:
            raise SourceLostError(fault)
        raise SourceError(f"{fault}; check the address, user and password, and that the camera is on")

    def read(self) -> Frame | Skip | None:
        item = self._frames.read(self._now_ns)
        if item is not None:
            return item
        if self._frames.announced:
            return self._frames.end()
        raise SourceLostError(
            f"stream {self._shown}: got no frame for {self._read_timeout_s:g} s or its end, expected more"
        )

    def close(self) -> None:
        self._frames.stop()


class _Frames:
    """The frames of one VideoCapture after the other, numbered on."""

    def __init__(self, name: str, shown: str) -> None:
        """`shown`: the address, for errors."""
        self.name = name
        self._shown = shown
        self._capture: Capture | None = None
        self._codec = ""
        self._since_start = 0
        self._ended = False
        self.given = 0
        self.announced: int | None = None
        """How many frames the container says it has, which some only estimate; None where it does not say."""

    def start(self, capture: Capture) -> None:
        count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.announced = int(count) if count > 0 else None
        self._codec = _codec(capture)
        self._capture, self._since_start, self._ended = capture, 0, False

    def read(self, now_ns: Callable[[], int]) -> Frame | Skip | None:
        if self._capture is None or not self._capture.grab():
            return None
        captured_ns = now_ns()
        self._since_start += 1
        decoded, image = self._capture.retrieve()
        if not decoded:
            what = f"frame {self._since_start - 1}"
            return Skip(self.name, what, "damaged frame", f"{what}: got one that does not decode")
        frame = Frame(self.name, self.given, captured_ns, image)
        self.given += 1
        return frame

    def end(self) -> Skip | None:
        """At the end: once a Skip where frames are missing, then None. SourceError where there was none at all."""
        if not self._since_start and not self.given:
            why = "it brings no AV1 decoder" if self._codec == "AV1" else "they are damaged, or it has no decoder"
            raise SourceError(
                f"source {self._shown}: got a video in {self._codec}, of whose frames OpenCV {cv2.__version__} decodes"
                f" none ({why}), expected one that it decodes; convert it (ffmpeg -i FILE -c:v libx264 OUT.mp4), or"
                " copy it again"
            )
        missing = (self.announced or 0) - self._since_start
        if self._ended or missing <= max(2, 0.02 * self._since_start):
            return None
        self._ended = True
        what = f"frame {self._since_start}"
        detail = f"{what}: got the end, expected about {self.announced} frames; the rest is cut off or damaged"
        return Skip(self.name, what, "truncated", detail)

    def stop(self) -> None:
        if self._capture is not None:
            self._capture.release()
            self._capture = None


def _codec(capture: Capture) -> str:
    """By its four letters."""
    code = int(capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
    letters = code.to_bytes(4, "little").decode("ascii", "replace").strip("\0 ")
    return "AV1" if letters.upper() == "AV01" else letters or "an unknown codec"


def _why_not(url: str) -> str:
    """In words, why a stream did not open: OpenCV learns from FFmpeg only that it did not."""
    parts = urlsplit(url)
    usual_port = _PORTS.get(parts.scheme.lower())
    if parts.hostname is None or usual_port is None:
        return "no answer"
    port = parts.port or usual_port
    try:
        socket.create_connection((parts.hostname, port), timeout=1.0).close()
    except OSError as error:
        return f"'{error.strerror or error}' from {parts.hostname}:{port}"
    return f"an answer from {parts.hostname}:{port}, but no video"
