"""Network streams: RTSP over TCP, HTTP (motion JPEG, for one), MPEG-TS and what else FFmpeg opens."""

from __future__ import annotations

from collections.abc import Callable

from streamer.records import Frame, Mode, Skip
from streamer.sources.address import without_credentials
from streamer.sources.announced_size import ASKED_EVERY_S, AnnouncedSize
from streamer.sources.base import SourceAbsentError, SourceError, SourceLostError
from streamer.sources.decoded import DAMAGED, DecodedFrames
from streamer.sources.decoder import Decoder, OpenDecoder, Timeouts, back_end, open_decoder
from streamer.sources.diagnosis import Diagnosis, described, why_not
from streamer.sources.newest import NewestFrames

BEHIND_AT_MOST_S = 2.0
"""A stream that is further behind jumps to now."""

CATCHES_UP_WITHIN_S = 1.0
"""What was held up on the way comes at once, and is decoded within so long. A stream that is still behind then is
opened again, which throws away what is stored up anywhere."""

FELL_BEHIND = "fell behind"
"""The reason under which it is counted that a stream jumped to now."""

NEW_SIZE = "another resolution"
"""The reason under which it is counted that a stream was opened again, since its camera describes it otherwise."""


class StreamSource:
    """A network stream, live: its newest frame is what `read` gives, and those that nobody takes are not converted.

    A stream that reports its length (a film behind RTSP) ends after it; any other that stops is lost.
    """

    default_mode: Mode = "live"

    def __init__(
        self,
        name: str,
        url: str,
        now_ns: Callable[[], int],
        *,
        every_frame: bool = False,
        timeouts: Timeouts | None = None,
        open_decoder: OpenDecoder = open_decoder,
        why_not: Callable[[str], Diagnosis] = why_not,
        described: Callable[[str], str | None] = described,
        asked_every_s: float = ASKED_EVERY_S,
    ) -> None:
        """`every_frame`: pass over none, and fall behind if need be. `described`: what the camera says of a stream,
        asked as often where the decoder does not see that its resolution changes."""
        self._url = url
        self._shown = without_credentials(url)
        self.name = name
        self._now_ns = now_ns
        self._every_frame = every_frame
        self._timeouts = timeouts or Timeouts()
        self._open_decoder = open_decoder
        self._why_not = why_not
        self._described = described
        self._asked_every_s = asked_every_s
        self._announced: AnnouncedSize | None = None
        self._size_px: tuple[int, int] | None = None
        """Of the last frame."""
        self._size_px_before: tuple[int, int] | None = None
        """When it was opened again for another one, until the next frame."""
        self._tells_size = url.lower().startswith("rtsp://")
        self._frames = DecodedFrames(name, self._shown)
        self._newest: NewestFrames | None = None
        self._passed_over = 0
        self._answered = False

    @property
    def remarks(self) -> list[str]:
        """What whoever starts a run should know."""
        if self._open_decoder is not open_decoder or back_end() == "av":
            return []
        asked = f" (it is asked every {self._asked_every_s:g} s)" if self._tells_size else ""
        return [
            f"stream {self._shown}: read with OpenCV, which does not see that a camera changes its resolution"
            f"{asked}; pip install 'leukostream[av]' brings what does"
        ]

    @property
    def length(self) -> int | None:
        return self._frames.announced

    @property
    def behind_s(self) -> float | None:
        """How far it is behind what the camera sends; None: closed, or it has no clock."""
        newest = self._newest
        return None if newest is None else newest.behind_s

    @property
    def passed_over(self) -> int:
        """Frames that came while another was being handed over."""
        newest = self._newest
        return self._passed_over + (0 if newest is None else newest.passed_over)

    def open(self) -> None:
        """SourceLostError for a stream that answered once. Before that: SourceAbsentError for one that does not answer,
        SourceError for one that refuses, or is no video."""
        decoder = self._open_decoder(self._url, self._timeouts)
        if decoder is not None:
            self._answered = True
            self._start(decoder)
            return
        diagnosis = self._why_not(self._url)
        fault = f"stream {self._shown}: got {diagnosis.got}, expected a video stream"
        if self._answered:
            raise SourceLostError(fault)
        raise (SourceAbsentError if diagnosis.is_absent else SourceError)(f"{fault}; {diagnosis.remedy}")

    def read(self) -> Frame | Skip | None:
        if self._announced is not None and self._announced.changed:
            return self._open_for_new_size()
        item = self._next()
        if isinstance(item, Frame):
            self._note_size((item.width, item.height))
        return item

    def _next(self) -> Frame | Skip | None:
        if self._newest is None:
            item = self._frames.read(self._now_ns)
            if item is not None:
                return item
            if self._frames.announced:
                return self._frames.end()
            raise self._lost()
        if (behind_s := self._newest.worst_s) > BEHIND_AT_MOST_S:
            if not self._newest.catches_up(CATCHES_UP_WITHIN_S):
                self._open_again(f"fell {behind_s:.1f} s behind")
            most = f"{BEHIND_AT_MOST_S:g} s"
            detail = f"got frames {behind_s:.1f} s after they were sent, expected {most} at most; jumped to now"
            return Skip(self.name, f"{behind_s:.1f} s", FELL_BEHIND, detail)
        newest = self._newest.take()
        if newest is None:
            raise self._lost()
        if isinstance(newest, int):
            what = f"after frame {self._frames.given - 1}"
            return Skip(self.name, what, DAMAGED, f"{what}: got {newest} that do not decode", count=newest)
        return self._frames.frame_of(newest.grabbed, newest.captured_ns)

    def close(self) -> None:
        self._stop_asking()
        if self._newest is not None:
            newest, self._newest = self._newest, None
            newest.stop()  # closes the decoder
            self._passed_over += newest.passed_over
            self._frames.decoder = None
        self._frames.stop()

    def _start(self, decoder: Decoder) -> None:
        self._frames.start(decoder)
        if decoder.announced is None and not self._every_frame:
            self._newest = NewestFrames(decoder, self._now_ns)
            self._newest.start()
        if decoder.announced is None and not decoder.sees_sizes and self._tells_size:
            self._announced = AnnouncedSize(lambda: self._described(self._url), self._asked_every_s)
            self._announced.start()

    def _open_again(self, why: str) -> None:
        self.close()
        decoder = self._open_decoder(self._url, self._timeouts)
        if decoder is None:
            raise SourceLostError(f"stream {self._shown}: {why}, and did not open again")
        self._start(decoder)

    def _open_for_new_size(self) -> Skip:
        self._size_px_before = self._size_px
        self._open_again("is described as of another resolution")
        what = f"after frame {self._frames.given - 1}"
        return Skip(self.name, what, NEW_SIZE, "the camera describes its stream otherwise than before; opened it again")

    def _note_size(self, size_px: tuple[int, int]) -> None:
        if size_px == self._size_px_before:  # what changes in its description is not the size
            self._tells_size = False
            self._stop_asking()
        self._size_px, self._size_px_before = size_px, None

    def _stop_asking(self) -> None:
        if self._announced is not None:
            self._announced.stop()
            self._announced = None

    def _lost(self) -> SourceLostError:
        waited_s = self._timeouts.read_s
        return SourceLostError(f"stream {self._shown}: got no frame for {waited_s:g} s or its end, expected more")
