"""What a source is: who opens it, who reads it, and what failure means.

The pipeline's reader thread of a source calls `open` once, `read` until it returns None, then `close`.
* `read` blocks until the next frame. It returns a Frame; a Skip for something that can't be a frame (counted,
  reported, never fatal); or None at the end of a finite source.
* `SourceLostError` from `open` or `read` of a live source means "gone for now": the reader closes it and opens it
  again after a pause that grows to a cap, and shows the state `reopening`.
* A source whose sender waits for an answer gives its frames a `settle`, and in analysis mode is told by it, on another
  thread, what became of each.
* `SourceAbsentError` from the first `open` of a live source means "not there yet": a camera that is off. It is waited
  for where somebody asked for that, and final else.
* `SourceError` means "will never work": a path that does not exist, a folder without images.
A source is used by one thread. It takes its time from `now_ns`, given at construction, right after the grab.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from engines.base import LeukostreamError
from streamer.records import Frame, Mode, Skip

PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Pauses before a lost source is opened again; the last one repeats. A frame starts them from the first."""


class SourceError(LeukostreamError):
    """A source that can't work, now or later."""


class SourceLostError(SourceError):
    """A live source that stopped answering; worth opening again."""


class SourceAbsentError(SourceError):
    """A live source that has never answered; it may not be on yet."""


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


# What only some sources have, read by any thread.


def length_of(source: Source) -> int | None:
    """Frames that a source holds, those that can't be read among them, once it is open: what its `length` says, where
    it has one. None: it has no end, or does not know."""
    length: int | None = getattr(source, "length", None)
    return length


def behind_of(source: Source) -> float | None:
    """Seconds by which a live stream is behind what its camera sends: its `behind_s`. None: it can't be said."""
    behind_s: float | None = getattr(source, "behind_s", None)
    return behind_s


def passed_over_by(source: Source) -> int:
    """Frames that a live source did not give, because a newer one was there: its `passed_over`."""
    count: int = getattr(source, "passed_over", 0)
    return count


def pauses_of(source: Source) -> Sequence[float]:
    """Seconds before it is opened again, of one time after the other; the last one repeats: its `pauses_s`."""
    pauses_s: Sequence[float] = getattr(source, "pauses_s", PAUSES_S)
    return pauses_s


def settings_of(source: Source) -> Mapping[str, str]:
    """What its camera has, read back when it was opened: its `settings`. Empty: it can't be asked, or is not open."""
    settings: Mapping[str, str] = getattr(source, "settings", {})
    return settings


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

    @property
    def behind_s(self) -> float | None:
        return behind_of(self._source)

    @property
    def passed_over(self) -> int:
        return passed_over_by(self._source)

    @property
    def pauses_s(self) -> Sequence[float]:
        return pauses_of(self._source)

    @property
    def settings(self) -> Mapping[str, str]:
        return settings_of(self._source)

    def open(self) -> None:
        self._source.open()

    def read(self) -> Frame | Skip | None:
        return self._source.read()

    def close(self) -> None:
        self._source.close()
