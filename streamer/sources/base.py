"""What a source is: who opens it, who reads it, and what failure means.

The pipeline's reader thread of a source calls `open` once, `read` until it returns None, then `close`.
* `read` blocks until the next frame. It returns a Frame; a Skip for something that can't be a frame (counted,
  reported, never fatal); or None at the end of a finite source.
* `SourceLostError` from `open` or `read` of a live source means "gone for now": the reader closes it and opens it
  again after a pause that grows to a cap, and shows the state `reopening`.
* A source whose sender waits for an answer gives its frames a `settle`, and in analysis mode is told by it, on another
  thread, what became of each.
* `SourceError` means "will never work": a path that does not exist, a folder without images.
A source is used by one thread. It takes its time from `now_ns`, given at construction, right after the grab.
"""

from __future__ import annotations

from typing import Protocol

from engines.base import LeukostreamError
from streamer.records import Frame, Mode, Skip


class SourceError(LeukostreamError):
    """A source that can't work, now or later."""


class SourceLostError(SourceError):
    """A live source that stopped answering; worth opening again."""


class Source(Protocol):
    @property
    def name(self) -> str:
        """The `source` of every message."""

    @property
    def default_mode(self) -> Mode:
        """`live` for cameras and network streams, `analysis` for files, recordings and the simulated slide."""

    def open(self) -> None: ...

    def read(self) -> Frame | Skip | None: ...

    def close(self) -> None:
        """Release the device; harmless when called twice or before `open`."""


def length_of(source: Source) -> int | None:
    """Frames that a source holds, those that can't be read among them, once it is open: what its `length` says, where
    it has one. None: it has no end, or does not know."""
    length: int | None = getattr(source, "length", None)
    return length


class PassedOnSource:
    """Another source as it is; what differs is overridden."""

    def __init__(self, source: Source) -> None:
        self._source = source

    @property
    def name(self) -> str:
        return self._source.name

    @property
    def default_mode(self) -> Mode:
        return self._source.default_mode

    @property
    def length(self) -> int | None:
        return length_of(self._source)

    def open(self) -> None:
        self._source.open()

    def read(self) -> Frame | Skip | None:
        return self._source.read()

    def close(self) -> None:
        self._source.close()
