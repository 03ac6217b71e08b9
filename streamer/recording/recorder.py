"""Recording a run: any thread hands over frames and messages, and one writing thread stores them.

It starts no thread itself: `Recorder.run` is the body of that thread.
"""

from __future__ import annotations

import contextlib
import threading
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import msgspec
import numpy as np
import numpy.typing as npt

from streamer import __version__
from streamer.config import Keep
from streamer.protocol.messages import AnyMessage, encode
from streamer.recording.format import (
    EndHead,
    FrameEncoding,
    FrameHead,
    Kind,
    RecordingError,
    RunHead,
    RunSource,
    packed,
)
from streamer.recording.writer import RecordingFile
from streamer.records import QUEUE_FULL, Frame, Mode, RecordingStatus, usable_error, usable_point, usable_scale

WAITING_MAX_BYTES = 96 << 20
"""Frames and messages that may wait to be written; one frame always may."""

JPEG_QUALITY = 95

COMPRESSION_SHARE = 0.25
"""Share of one core for PNG (measured: 17 ms for 640 x 480). Frames beyond it stay uncompressed."""

RETRY_NS = 1_000_000_000
"""Pause after a failed write."""

NOT_WRITTEN = "not written"
"""The reason of what the disk would not take."""

_MESSAGE_BYTES = 4096
"""Assumed size of a waiting message without its payload."""

_PNG = [
    *(cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY),
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_SUB),
]
"""The fastest settings tried that halve a camera's frame."""

_Item = Frame | tuple[AnyMessage, bytes | None]


@dataclass(frozen=True, slots=True)
class TrackInfo:
    """A source to be recorded."""

    name: str
    address: str
    mode: Mode
    """If the queue is full, a live source loses what does not fit, which is counted; any other waits."""


class Recorder:
    """Stores frames and messages; a Sink for the messages.

    A failing disk is reported once, in a line for people. Losses are counted, and the run goes on.
    """

    def __init__(
        self,
        path: str | Path,
        tracks: Sequence[TrackInfo],
        *,
        run_id: str,
        keep: Keep = "got",
        go_on: bool = False,
        utc_offset_ns: int,
        on_fault: Callable[[str], None] = lambda text: None,
        waiting_max_bytes: int = WAITING_MAX_BYTES,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """UsageError and RecordingError as of RecordingFile. `go_on`: append to an existing file."""
        self._numbers = {track.name: number for number, track in enumerate(tracks)}
        self._waits = {track.name: track.mode == "analysis" for track in tracks}
        self._keep = keep
        self._utc_offset_ns = utc_offset_ns
        self._on_fault = on_fault
        self._now_ns = now_ns
        self._waiting_max = waiting_max_bytes
        self._begun_ns = now_ns()
        self._compressed_ns = 0
        self._reported = False
        self._retry_ns: int | None = None
        self._items: deque[tuple[_Item, int]] = deque()
        self._waiting = 0
        self._closed = False
        self._begun = False
        self._lock = threading.Lock()
        self._filled = threading.Condition(self._lock)
        self._freed = threading.Condition(self._lock)
        self.frames = 0
        self.messages = 0
        self._frames_lost: dict[str, Counter[str]] = {track.name: _none_lost() for track in tracks}
        self._messages_lost: dict[str, Counter[str]] = {track.name: _none_lost() for track in tracks}
        self._file = RecordingFile(path, go_on=go_on)
        sources = tuple(RunSource(name=track.name, address=track.address, mode=track.mode) for track in tracks)
        head = RunHead(program=__version__, run_id=run_id, keep=keep, utc_offset_ns=utc_offset_ns, sources=sources)
        self._new = not go_on
        encoded = msgspec.json.encode(head)
        try:
            self._file.write(packed(Kind.RUN, encoded), encoded)
        except OSError as error:
            self._discard()
            raise RecordingError(
                f"--record {path}: got '{error.strerror}', expected room; give a file on a disk that has some"
            ) from error

    def frame(self, frame: Frame) -> None:
        """Store a frame. Waits for room only if its source can wait."""
        size = frame.image.nbytes + (len(frame.encoded.data) if frame.encoded else 0)
        if not self._hand_over(frame, size, self._waits[frame.source]):
            self._frames_lost[frame.source][QUEUE_FULL] += 1

    def publish(self, message: AnyMessage, payload: bytes | None = None) -> None:
        """Store a message, as `frame` does."""
        size = _MESSAGE_BYTES + len(payload or b"")
        if not self._hand_over((message, payload), size, self._waits[message.source]):
            self._messages_lost[message.source][QUEUE_FULL] += 1

    def close(self) -> None:
        """Accept no more; `run` ends once all that waits is written. Harmless when called twice."""
        with self._lock:
            self._closed = True
            self._filled.notify_all()
            self._freed.notify_all()

    def abandon(self) -> None:
        """Leave no file behind after a run that failed before it began. Harmless once `run` was called."""
        with self._lock:
            begun = self._begun
        if not begun:
            self._discard()

    def run(self) -> None:
        """Write until `close`; raises nothing."""
        with self._lock:
            self._begun = True
        try:
            while (item := self._next()) is not None:
                if isinstance(item, Frame):
                    self._write_frame(item)
                else:
                    self._write_message(*item)
            end = EndHead(frames_lost=_counts(self._frames_lost), messages_lost=_counts(self._messages_lost))
            self._store(msgspec.json.encode(end), b"", kind=Kind.END)
        finally:
            self._file.close()
            with self._lock:
                self._closed = True
                self._freed.notify_all()

    def health(self) -> RecordingStatus:
        """For any thread, at any time."""
        return RecordingStatus(
            frames=self.frames,
            messages=self.messages,
            file_bytes=self._file.size_bytes,
            frames_lost=dict(sum(self._frames_lost.values(), Counter())),
            messages_lost=dict(sum(self._messages_lost.values(), Counter())),
        )

    def _discard(self) -> None:
        self._file.close()
        if self._new:
            with contextlib.suppress(OSError):
                self._file.path.unlink(missing_ok=True)

    def _hand_over(self, item: _Item, size: int, waits: bool) -> bool:
        with self._lock:
            if waits:
                self._freed.wait_for(lambda: self._closed or self._fits(size))
            if self._closed or not self._fits(size):
                return False
            self._items.append((item, size))
            self._waiting += size
            self._filled.notify()
            return True

    def _fits(self, size: int) -> bool:
        return not self._items or self._waiting + size <= self._waiting_max

    def _next(self) -> _Item | None:
        with self._lock:
            self._filled.wait_for(lambda: self._closed or self._items)
            if not self._items:
                return None
            item, size = self._items.popleft()
            self._waiting -= size
            self._freed.notify_all()
            return item

    def _write_frame(self, frame: Frame) -> None:
        lost = self._frames_lost[frame.source]
        if self._is_left_alone():
            lost[NOT_WRITTEN] += 1
            return
        encoding, head, data = self._encoded(frame)
        utc_ns = frame.captured_utc_ns
        done = self._store(
            msgspec.json.encode(head),
            data,
            kind=Kind.FRAME,
            encoding=encoding,
            source=self._numbers[frame.source],
            number=frame.frame_id,
            time_ns=frame.captured_ns if utc_ns is None else utc_ns - self._utc_offset_ns,
        )
        self.frames += done
        lost[NOT_WRITTEN] += not done

    def _write_message(self, message: AnyMessage, payload: bytes | None) -> None:
        done = not self._is_left_alone() and self._store(
            encode(message),
            payload or b"",
            kind=Kind.MESSAGE,
            source=self._numbers[message.source],
            number=message.session_seq,
            time_ns=message.published_ns,
        )
        self.messages += done
        self._messages_lost[message.source][NOT_WRITTEN] += not done

    def _is_left_alone(self) -> bool:
        return self._retry_ns is not None and self._now_ns() < self._retry_ns

    def _store(
        self,
        head: bytes,
        data: bytes | memoryview,
        *,
        kind: Kind,
        encoding: FrameEncoding = FrameEncoding.NONE,
        source: int = 0,
        number: int = 0,
        time_ns: int = 0,
    ) -> bool:
        record = packed(kind, head, data, encoding=encoding, source=source, number=number, time_ns=time_ns)
        try:
            self._file.write(record, head, data)
        except OSError as error:
            self._retry_ns = self._now_ns() + RETRY_NS
            if not self._reported:
                self._reported = True
                self._on_fault(
                    f"--record {self._file.path}: got '{error.strerror}', expected room and a working disk; what can't"
                    " be kept is counted, and the run goes on"
                )
            return False
        return True

    def _encoded(self, frame: Frame) -> tuple[FrameEncoding, FrameHead, bytes | memoryview]:
        image, got = frame.image, frame.encoded
        height, width = image.shape[:2]
        head = FrameHead(
            width=width,
            height=height,
            file=frame.file,
            stage_um=usable_point(frame.stage_um),
            stage_error_um=usable_error(frame.stage_error_um),
            is_tile=frame.is_tile,
            um_per_px=usable_scale(frame.um_per_px),
            exposed_after_ns=None if frame.exposed_ns is None else frame.exposed_ns - frame.captured_ns,
            moving=frame.moving,
        )
        if got is not None and (self._keep == "got" or got.data.startswith(b"\xff\xd8")):
            head = msgspec.structs.replace(head, bits=got.bits, pixels_crc=sampled_crc(image))
            return FrameEncoding.FILE, head, got.data
        if self._keep == "jpeg":
            done, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
            if done:
                return FrameEncoding.JPEG, head, jpeg.tobytes()
        begin_ns = self._now_ns()
        if self._compressed_ns <= COMPRESSION_SHARE * (begin_ns - self._begun_ns):
            done, png = cv2.imencode(".png", image, _PNG)
            self._compressed_ns += self._now_ns() - begin_ns
            if done:
                return FrameEncoding.PNG, head, png.tobytes()
        return FrameEncoding.RAW, head, np.ascontiguousarray(image).data.cast("B")


def sampled_crc(image: npt.NDArray[np.uint8]) -> int:
    """Distinguishes the pixels of two decoders at a sixteenth of the cost of a full checksum."""
    return zlib.crc32(image[::16].tobytes())


def _none_lost() -> Counter[str]:
    return Counter({QUEUE_FULL: 0, NOT_WRITTEN: 0})  # no key is added later, so that other threads may read it


def _counts(lost: dict[str, Counter[str]]) -> dict[str, dict[str, int]]:
    return {name: dict(+counter) for name, counter in lost.items() if +counter}
