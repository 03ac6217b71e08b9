"""A source that a resumed session goes on with: from the frame after its last one, or, where frames can't be read
again, numbered on from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, runtime_checkable

from streamer.records import Frame, Skip
from streamer.sources.base import PassedOnSource, Source, SourceError

FIRST_FRAMES = 5
"""Frames from which a run learns how large red cells are (analysis/magnification.py)."""


@runtime_checkable
class Seekable(Protocol):
    """What a source has that can go to a frame faster than by reading all before it."""

    def seek(self, frame_id: int) -> None:
        """After `open`: the next `read` gives this frame, or None where there is no such frame."""


class ReadOnSource(PassedOnSource):
    """A finite source behind a frame that was analysed before. Opened already: its first `open` does nothing."""

    def __init__(
        self,
        source: Source,
        last_frame_id: int,
        is_same: Callable[[Frame], bool],
        passed: Callable[[Frame], None] = lambda frame: None,
    ) -> None:
        """Opens `source` and goes to its frame `last_frame_id`, which `is_same` must recognise; SourceError where it
        does not, or where there is no such frame. `passed` is shown frames of before, in order, the first FIRST_FRAMES
        at least: what was measured of them is measured again. What was skipped on the way is not reported again."""
        super().__init__(source)
        self._is_open = True
        source.open()
        try:
            frame = _go_to(source, last_frame_id, passed)
            if frame is None or not is_same(frame):
                got = "fewer frames" if frame is None else "another picture"
                raise SourceError(
                    f"source {source.name}: got {got} at frame {last_frame_id} than the journal, expected the same"
                    " slide; give the source that the session was started with, or another --journal"
                )
        except BaseException:
            source.close()
            raise

    def open(self) -> None:
        if not self._is_open:
            self._source.open()
        self._is_open = False

    def close(self) -> None:
        self._is_open = False
        super().close()


class NumberedOnSource(PassedOnSource):
    """A live source whose frames are numbered on from those of an earlier run."""

    def __init__(self, source: Source, first_frame_id: int) -> None:
        super().__init__(source)
        self._first = first_frame_id

    def read(self) -> Frame | Skip | None:
        item = self._source.read()
        return replace(item, frame_id=self._first + item.frame_id) if isinstance(item, Frame) else item


def _go_to(source: Source, frame_id: int, passed: Callable[[Frame], None]) -> Frame | None:
    """The frame of that number, or the first after it; None where there are fewer."""
    shown = 0
    while True:
        item = source.read()
        if not isinstance(item, Frame):
            if item is None:
                return None
            continue
        passed(item)
        shown += 1
        if item.frame_id >= frame_id:
            return item
        if shown == FIRST_FRAMES and isinstance(source, Seekable):
            source.seek(frame_id)
