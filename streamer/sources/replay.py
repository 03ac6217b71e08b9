"""A recording as a source: `replay:FILE`, `replay:FILE,speed=2`, `replay:FILE,speed=max,source=left`."""

from __future__ import annotations

import difflib
import io
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from engines.base import UsageError
from streamer.recording import FrameEncoding, RecordedFrame, Recording, RecordingError
from streamer.recording.recorder import sampled_crc
from streamer.records import EncodedImage, Frame, Mode, Skip
from streamer.sources.address import split_options
from streamer.sources.base import SourceError
from streamer.sources.imagefile import Unreadable, decode
from streamer.sources.imageheader import read_header

AS_FAST_AS_IT_GOES = "max"


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """What stands behind `replay:`."""

    path: str
    speed: float | None = None
    """Times as fast as it was recorded, or 0 for as fast as it goes; None: as the mode says."""
    source: str | None = None
    """Which source of the recording; None: the only one."""

    @classmethod
    def parse(cls, target: str) -> ReplayOptions:
        """UsageError for an unknown option or a speed that is none."""
        path, text = split_options(target)
        values: dict[str, str] = {}
        for part in filter(None, re.split("[,&]", text)):
            key, _, value = (piece.strip() for piece in part.partition("="))
            if key not in ("speed", "source"):
                near = difflib.get_close_matches(key, ["speed", "source"], n=1)
                raise UsageError(
                    f"replay: got the option {key!r}, expected speed or source"
                    + (f"; did you mean {near[0]}?" if near else "")
                )
            values[key] = value
        speed = None if "speed" not in values else parse_speed(values["speed"], "replay: speed")
        return cls(os.path.expanduser(path), speed, values.get("source"))


class ReplaySource:
    """The frames of one source of a recording, with the numbers and files that they had.

    As fast as they are taken; with a speed, or with `live` at 1x, at the intervals at which they were recorded. A
    recording that was cut off gives the frames that are whole, then a Skip "truncated" that says where it ends.
    """

    default_mode: Mode = "analysis"

    def __init__(
        self,
        name: str,
        target: str,
        now_ns: Callable[[], int],
        *,
        live: bool = False,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """SourceError for a file that is no recording, UsageError for options that don't fit it."""
        options = ReplayOptions.parse(target)
        self.path = options.path
        self.name = name
        self._now_ns = now_ns
        self._sleep = sleep
        self._speed = (1.0 if live else 0.0) if options.speed is None else options.speed
        try:
            self._recording = Recording(self.path)
        except RecordingError as error:
            raise SourceError(str(error)) from error
        self._is_open = True
        try:
            self._track = self._recording.track(options.source)
        except RecordingError as error:
            self._recording.close()
            if not self._recording.tracks:
                raise SourceError(str(error)) from error
            raise UsageError(f"{error}; give it as replay:{self.path},source=NAME") from error
        self._frame_ids = self._track.frame_ids()
        self._place = 0
        self._told_end = False
        self._due_ns: int | None = None
        self._last_utc_ns = 0
        self.remarks = tuple(self._remarks())
        """Lines for people, on why what is found may not be what was found when it was recorded."""

    @property
    def length(self) -> int:
        return len(self._frame_ids)

    def open(self) -> None:
        """Go to the first frame. SourceError where the file has disappeared meanwhile."""
        if not self._is_open:
            try:
                self._recording = Recording(self.path)
                self._track = self._recording.track(self._track.name)
            except RecordingError as error:
                raise SourceError(str(error)) from error
            self._is_open = True
        self._place = 0
        self._told_end = False
        self._due_ns = None

    def seek(self, frame_id: int) -> None:
        """Go to a frame, or the first one after it."""
        self._place = int(np.searchsorted(self._frame_ids, frame_id))
        self._due_ns = None

    def read(self) -> Frame | Skip | None:
        if self._place >= len(self._frame_ids):
            return self._end()
        frame_id = self._frame_ids[self._place]
        self._place += 1
        recorded = self._recording.frame(self._track, frame_id)
        image = None if recorded is None else decoded(recorded)
        if recorded is None or image is None:
            what = f"frame {frame_id}"
            return Skip(self.name, what, "damaged frame", f"{what}: got a damaged record, expected a whole one")
        if self._speed:
            self._wait(recorded.captured_utc_ns)
        head, now_ns = recorded.head, self._now_ns()
        return Frame(
            self.name,
            frame_id,
            now_ns,
            image,
            head.file,
            EncodedImage(recorded.data, head.bits) if recorded.encoding is FrameEncoding.FILE else None,
            recorded.captured_utc_ns,
            stage_um=head.stage_um,
            stage_error_um=head.stage_error_um,
            is_tile=head.is_tile,
            um_per_px=head.um_per_px,
            exposed_ns=None if head.exposed_after_ns is None else now_ns + head.exposed_after_ns,
            moving=head.moving,
        )

    def close(self) -> None:
        self._is_open = False
        self._recording.close()

    def _wait(self, utc_ns: int) -> None:
        """Until this frame is due. A reader that came too late gets its frame at once and no burst after it."""
        now_ns = self._now_ns()
        if self._due_ns is None:
            self._due_ns = now_ns
        else:
            step_ns = round(max(0, utc_ns - self._last_utc_ns) / self._speed)
            self._due_ns += step_ns
            if now_ns < self._due_ns:
                self._sleep((self._due_ns - now_ns) / 1e9)
            elif now_ns > self._due_ns + step_ns:
                self._due_ns = now_ns
        self._last_utc_ns = utc_ns

    def _end(self) -> Skip | None:
        """At the end: once a Skip where the recording was cut off, then None."""
        ending = self._recording.ending
        if self._told_end or ending.fault is None:
            return None
        self._told_end = True
        what = f"what followed frame {self._frame_ids[-1]}" if self._frame_ids else "all"
        return Skip(self.name, what, "truncated", ending.described(self.path))

    def _remarks(self) -> list[str]:
        track, where = self._track, f"recording {self.path}: source {self._track.name}"
        remarks = []
        if track.lossy:
            remarks.append(
                f"{where}: {track.lossy} of {len(track.frames)} frames were kept as JPEG, not as got: what is found in"
                " them may differ from what was found when they were recorded"
            )
        if track.lost:
            remarks.append(f"{where}: {track.lost} frames could not be kept when it was recorded, and are missing")
        if self._decodes_otherwise():
            remarks.append(
                f"{where}: its image files decode to other pixels here than where it was recorded (another JPEG"
                " decoder): what is found in them may differ"
            )
        return remarks

    def _decodes_otherwise(self) -> bool:
        for frame_id in self._frame_ids[:1]:
            recorded = self._recording.frame(self._track, frame_id)
            if recorded is not None and recorded.head.pixels_crc is not None:
                image = decoded(recorded)
                return image is not None and sampled_crc(image) != recorded.head.pixels_crc
        return False


def parse_speed(text: str, what: str) -> float:
    """A factor above 0, with or without an `x`, or 0 for "max"; UsageError for anything else, naming `what`."""
    if text == AS_FAST_AS_IT_GOES:
        return 0.0
    number = text.lower().removesuffix("x")
    if not re.fullmatch(r"\d+(\.\d*)?|\.\d+", number) or not 0 < float(number) < float("inf"):
        raise UsageError(f"{what}: got {text!r}, expected a number above 0, such as 2, or {AS_FAST_AS_IT_GOES}")
    return float(number)


def decoded(recorded: RecordedFrame) -> npt.NDArray[np.uint8] | None:
    """(H, W, 3) BGR; None for a frame that does not decode."""
    head = recorded.head
    if recorded.encoding is FrameEncoding.RAW:
        if len(recorded.data) != head.height * head.width * 3:
            return None
        return np.frombuffer(recorded.data, np.uint8).reshape(head.height, head.width, 3)
    if recorded.encoding is FrameEncoding.FILE:
        header = read_header(io.BytesIO(recorded.data))
        picture = None if header is None else decode(recorded.data, header, head.bits)
        return None if picture is None or isinstance(picture, Unreadable) else picture.pixels
    image = cv2.imdecode(np.frombuffer(recorded.data, np.uint8), cv2.IMREAD_COLOR)
    return None if image is None else np.asarray(image, np.uint8)
