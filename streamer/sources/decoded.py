"""The frames of one decoder after the other, numbered on."""

from __future__ import annotations

from collections.abc import Callable

from streamer.records import Frame, Skip
from streamer.sources.base import SourceError
from streamer.sources.decoder import Decoder, Grabbed

DAMAGED = "damaged frame"
"""The reason under which frames are counted that do not decode."""


class DecodedFrames:
    """Makes a Frame of what was grabbed, or a Skip, and knows at the end what is missing."""

    def __init__(self, name: str, shown: str) -> None:
        """`shown`: the address, for errors."""
        self.name = name
        self._shown = shown
        self.decoder: Decoder | None = None
        self._since_start = 0
        self._ended = False
        self.given = 0

    @property
    def announced(self) -> int | None:
        """How many frames the container says it has; None where it does not say, or is not open."""
        return self.decoder.announced if self.decoder is not None else None

    def start(self, decoder: Decoder) -> None:
        self.decoder, self._since_start, self._ended = decoder, 0, False

    def read(self, now_ns: Callable[[], int]) -> Frame | Skip | None:
        """The next one, whatever it is; None at the end."""
        grabbed = self.decoder.grab() if self.decoder is not None else None
        return None if grabbed is None else self.frame_of(grabbed, now_ns())

    def frame_of(self, grabbed: Grabbed, captured_ns: int) -> Frame | Skip:
        pixels = None if grabbed.damaged else grabbed.take()
        self._since_start += 1
        if pixels is None:
            what = f"frame {self._since_start - 1}"
            return Skip(self.name, what, DAMAGED, f"{what}: got one that does not decode")
        begun_ns = None if self.decoder is None else self.decoder.begun_utc_ns
        utc_ns = None
        if begun_ns is not None and grabbed.position_s is not None:
            utc_ns = begun_ns + round(grabbed.position_s * 1e9)
        frame = Frame(self.name, self.given, captured_ns, pixels, captured_utc_ns=utc_ns)
        self.given += 1
        return frame

    def end(self) -> Skip | None:
        """At the end: once a Skip where frames are missing, then None. SourceError where there was none at all."""
        if not self._since_start and not self.given:
            raise SourceError(self._why_none())
        missing = (self.announced or 0) - self._since_start
        if self._ended or missing <= max(2, 0.02 * self._since_start):
            return None
        self._ended = True
        what = f"frame {self._since_start}"
        detail = f"{what}: got the end, expected about {self.announced} frames; the rest is cut off or damaged"
        return Skip(self.name, what, "truncated", detail)

    def stop(self) -> None:
        if self.decoder is not None:
            self.decoder.close()
            self.decoder = None

    def _why_none(self) -> str:
        codec, about = (self.decoder.codec, self.decoder.about) if self.decoder else ("an unknown codec", "nothing")
        av1 = codec == "AV1" and about.startswith("OpenCV")
        why = "it brings no AV1 decoder" if av1 else "they are damaged, or it has no decoder"
        remedy = "pip install 'leukostream[av]', or " if av1 else ""
        return (
            f"source {self._shown}: got a video in {codec}, of whose frames {about} decodes none ({why}), expected one "
            f"that it decodes; {remedy}convert it (ffmpeg -i FILE -c:v libx264 OUT.mp4), or copy it again"
        )
