"""The pictures of frames, for the field that a cell lies in: those of the run's recording, or of a source that can be
read again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2

from engines.base import LeukostreamError
from engines.geometry import Image
from streamer.config import FIVE_PART_RANGES
from streamer.journal import StoredOptions, StoredSession, opened
from streamer.journal.columns import Number, Row, Side
from streamer.mosaic.compose import pictures_of
from streamer.mosaic.pictures import Pictures
from streamer.mosaic.places import PlacedFrame
from streamer.review.server.presented import Ranges
from streamer.run.session import PICTURE_QUALITY, picture_bounds

KEPT_FRAMES = 12
"""As pictures in memory: those around the one that is looked at."""
QUALITY = 92


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    image: Image
    jpeg: bytes

    def picture(self, box_px: Sequence[float]) -> bytes | None:
        """JPEG of the cell within `box_px`, as a run keeps it; None for a box outside of the frame."""
        left, top, right, bottom = picture_bounds(box_px, (self.image.shape[1], self.image.shape[0]))
        if right <= left or bottom <= top:
            return None
        part = self.image[top:bottom, left:right]
        done, encoded = cv2.imencode(".jpg", part, [cv2.IMWRITE_JPEG_QUALITY, PICTURE_QUALITY])
        return encoded.tobytes() if done else None


class FieldSource(Protocol):
    """Where the frames of slides come from. LeukostreamError, one line for people, where one can't be had."""

    def field(self, session: str, frame_id: int) -> Field: ...

    def has_frames(self, session: str) -> bool:
        """Whether the frames of a slide can be had, as far as is known before one is read."""
        ...

    def ranges(self, session: str) -> Ranges | None:
        """Usual percentages by class; None: not known."""
        ...

    def close(self) -> None: ...


class NoFields:
    """Of a run elsewhere: it publishes no frames that could be asked for."""

    def field(self, session: str, frame_id: int) -> Field:
        raise LeukostreamError(
            "got a slide that is still being counted elsewhere, expected a finished one: its frames can be seen once it"
            " is reviewed from its journal"
        )

    def has_frames(self, session: str) -> bool:
        return False

    def ranges(self, session: str) -> Ranges | None:
        return None

    def close(self) -> None:
        """Nothing is held open."""


class JournalFields:
    """Of the slides of a journal. Any thread: one frame is read at a time.

    What the journal says of its frames is read once, in the beginning: whoever reviews it holds it alone after that.
    """

    def __init__(self, journal: str | Path, recording: str | None = None) -> None:
        """`recording`: of the same run; None: the one that the run itself kept, or its source. JournalError for the
        journal."""
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, int], Field] = OrderedDict()
        with opened(str(journal)) as reader:
            self._slides = {stored.id: _slide(stored, recording) for stored in reader.sessions}

    def has_frames(self, session: str) -> bool:
        slide = self._slides.get(session)
        return slide is not None and not isinstance(slide.pictures, LeukostreamError)

    def ranges(self, session: str) -> Ranges | None:
        slide = self._slides.get(session)
        return None if slide is None else slide.ranges

    def field(self, session: str, frame_id: int) -> Field:
        with self._lock:
            key = (session, frame_id)
            if key not in self._kept:
                self._kept[key] = self._read(session, frame_id)
                if len(self._kept) > KEPT_FRAMES:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key]

    def _read(self, session: str, frame_id: int) -> Field:
        slide = self._slides.get(session)
        frame = None if slide is None else slide.frames.get(frame_id)
        if slide is None or frame is None:
            raise LeukostreamError(f"got frame {frame_id}, expected one of this slide")
        if isinstance(slide.pictures, LeukostreamError):
            raise LeukostreamError(str(slide.pictures).removeprefix("mosaic: "))
        # Where it lies on the slide does not matter for its picture.
        placed = PlacedFrame(frame_id, 0, 0.0, 0.0, frame.width, frame.height, frame.file, True, 0.0)
        image = next((image for _, image in slide.pictures.of([placed])), None)
        if image is None:
            raise LeukostreamError(f"frame {frame_id}: got no picture of it, expected one; it was not kept")
        done, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        if not done:
            raise LeukostreamError(f"frame {frame_id}: got a picture that can't be encoded, expected one")
        return Field(image, encoded.tobytes())

    def close(self) -> None:
        with self._lock:
            for slide in self._slides.values():
                if not isinstance(slide.pictures, LeukostreamError):
                    slide.pictures.close()


class _Frame(Row, frozen=True, array_like=True):
    """What a journal's row of a frame says that its picture must fit."""

    frame_id: Number
    width: Side
    height: Side
    file: str | None


@dataclass(frozen=True, slots=True, eq=False)
class _Slide:
    ranges: Ranges
    frames: Mapping[int, _Frame]
    pictures: Pictures | LeukostreamError
    """Why there are none, else where they come from."""


def _slide(stored: StoredSession, recording: str | None) -> _Slide:
    runs = stored.runs()
    options = runs[-1].options if runs else StoredOptions()
    pictures: Pictures | LeukostreamError
    try:
        pictures = pictures_of(stored, recording)
    except LeukostreamError as error:
        pictures = error
    return _Slide(
        FIVE_PART_RANGES if options.reference_ranges is None else options.reference_ranges,
        {row.frame_id: row for row in stored.rows("frames", _Frame, "ORDER BY frame_id")},
        pictures,
    )
