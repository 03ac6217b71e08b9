"""Films: video files, and those that a web server holds."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from streamer.records import Frame, Mode, Skip
from streamer.sources.address import without_credentials
from streamer.sources.base import SourceAbsentError, SourceError
from streamer.sources.decoded import DecodedFrames
from streamer.sources.decoder import OpenDecoder, Timeouts, open_decoder
from streamer.sources.diagnosis import Diagnosis, why_not


class VideoFileSource:
    """Every frame of a film, as fast as they are taken, or, with `live`, at the film's own rate.

    Pixels stay as they are stored: a rotation tag is ignored, as that of an image is, since boxes are given in the
    film's own pixels. A film cut off in the middle gives the frames that are whole (the last of them may be missing),
    then a Skip "truncated".
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
        open_decoder: OpenDecoder = open_decoder,
        why_not: Callable[[str], Diagnosis] = why_not,
    ) -> None:
        """`path`: or the URL of one."""
        self.path = path
        self.name = name
        self._is_remote = "://" in path
        self._shown = without_credentials(path) if self._is_remote else path
        self._now_ns = now_ns
        self._frames = DecodedFrames(name, self._shown)
        self._live = live
        self._sleep = sleep
        self._open_decoder = open_decoder
        self._why_not = why_not
        self._period_ns = 0
        self._due_ns = 0

    @property
    def length(self) -> int | None:
        """As the film announces it; some only estimate it."""
        return self._frames.announced

    def open(self) -> None:
        """SourceError for what is no video, or not enough of one to be read; SourceAbsentError for a server that does
        not answer."""
        if not self._is_remote:
            self._check_file()
        decoder = self._open_decoder(self.path, Timeouts() if self._is_remote else None)
        if decoder is None:
            raise self._not_open()
        self._period_ns = round(1e9 / decoder.fps) if self._live and decoder.fps else 0
        self._due_ns = self._now_ns()
        self._frames.start(decoder)

    def _check_file(self) -> None:
        try:
            with Path(self.path).open("rb") as file:
                start = file.read(4096)
        except OSError as error:
            raise SourceError(f"source {self.path}: got {error.strerror}, expected a readable video file") from error
        if b"\0" not in start:  # FFmpeg would play a text file as a film of its letters
            raise SourceError(f"source {self.path}: got {'a text' if start else 'an empty'} file, {_EXPECTED}")

    def _not_open(self) -> SourceError:
        if self._is_remote:
            diagnosis = self._why_not(self.path)
            kind = SourceAbsentError if diagnosis.is_absent else SourceError
            return kind(f"film {self._shown}: got {diagnosis.got}, expected a video; {diagnosis.remedy}")
        return SourceError(
            f"source {self.path}: got a file that is no video, or one cut off before its index, {_EXPECTED};"
            " copy it again, or record to AVI or MKV, which are readable in part"
        )

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


_EXPECTED = "expected a video that FFmpeg reads, or images (a folder or a glob)"
