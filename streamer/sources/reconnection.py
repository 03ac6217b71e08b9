"""A source read to its end: frames are handed over, and a source that was lost is opened again after a pause.

It starts no thread itself: `SourceReader.run` is the body of one.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from streamer.records import PASSED_OVER, Frame, ReaderState, Skip
from streamer.sources.base import (
    Source,
    SourceAbsentError,
    SourceError,
    SourceLostError,
    behind_of,
    length_of,
    passed_over_by,
    pauses_of,
    settings_of,
)

WAIT_PAUSE_S = 1.0
"""Between two looks for a source that is not there yet."""

STOPPED = "stopped"
"""The reason under which a frame is counted that was read and not taken any more."""

_PUT_TIMEOUT_S = 0.25


class FrameSink(Protocol):
    """Where frames go: a Ring."""

    def put(self, item: Frame, timeout: float | None = None) -> bool: ...

    def close(self) -> None: ...

    @property
    def closed(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class ReaderStatus:
    """A reader at one moment."""

    state: ReaderState
    captured: int
    """Frames that the source gave."""
    skipped: dict[str, int]
    """What it could not give as a frame, by reason."""
    dropped: dict[str, int]
    """Frames lost here, by reason; those lost in the ring are counted there."""
    reopened: int
    """How often it was opened again after it was lost."""
    fault: str | None
    """The last fault, in words; it stays when the source works again. None: there was none."""
    length: int | None = None
    """Frames that the source holds; None: it has no end, does not know, or was not opened yet."""
    behind_s: float | None = None
    """How far a stream is behind what its camera sends; None: it can't be said."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """What its camera has; empty: it can't be asked, or was not opened."""


class SourceReader:
    """Reads one source into one sink until its end, a fault that is for good, or `stop`.

    In live mode the sink is a ring that drops its oldest: the reader never waits there, so that what a camera or a
    network has stored up is read at once and the newest frame is what gets analysed. In analysis mode the sink makes it
    wait.

    Setting `stop` ends a pause at once and a full sink within a quarter of a second. It can't end a read that blocks
    in a driver: that takes up to the source's own timeout (a stream 5 s, a camera 3 s). Whoever joins the thread
    makes it a daemon, waits about a second, and goes on without it; what it read meanwhile is counted as "stopped".
    """

    def __init__(
        self,
        source: Source,
        sink: FrameSink,
        stop: threading.Event,
        *,
        on_skip: Callable[[Skip], None] = lambda skip: None,
        pause: Callable[[float], object] | None = None,
        pauses_s: Sequence[float] | None = None,
        wait_s: float = 0.0,
        now_ns: Callable[[], int] = time.monotonic_ns,
        goes_on: bool = False,
    ) -> None:
        """`on_skip` is called on the reader's thread. `pause` sleeps for the seconds given, less when `stop` is set.
        `pauses_s`: between two tries to open a lost source; None: as it says. `wait_s`: how long a source that is not
        there yet is waited for. `goes_on`: frames of this source were analysed before, so that it may end without
        another one."""
        self._source = source
        self._sink = sink
        self._stop = stop
        self._on_skip = on_skip
        self._pause = pause or stop.wait
        self._pauses_s = tuple(pauses_of(source) if pauses_s is None else pauses_s)
        self._wait_ns = round(wait_s * 1e9)
        self._now_ns = now_ns
        self._goes_on = goes_on
        self._last_skip: Skip | None = None
        self._lock = threading.Lock()
        self._state: ReaderState = "starting"
        self._captured = 0
        self._skipped: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._reopened = 0
        self._fault: str | None = None
        self._length: int | None = None
        self.failure: Exception | None = None
        """What ended it for good: a SourceError, or a fault of the program; None while it runs and after a good end."""
        self.at_end = False
        """Whether the source has given all that it has."""

    @property
    def status(self) -> ReaderStatus:
        """For any thread, at any time."""
        passed_over = passed_over_by(self._source)
        with self._lock:
            dropped = dict(self._dropped) | ({PASSED_OVER: passed_over} if passed_over else {})
            return ReaderStatus(
                *(self._state, self._captured, dict(self._skipped), dropped, self._reopened, self._fault),
                *(self._length, behind_of(self._source), dict(settings_of(self._source))),
            )

    def run(self) -> None:
        """Read until the end; closes the source and the sink, and raises nothing: see `failure`."""
        try:
            self._read_on()
        except Exception as error:
            self.failure = error
            self._set("failed", str(error) if isinstance(error, SourceError) else f"{type(error).__name__}: {error}")
        else:
            self._set("ended")
        finally:
            self._source.close()
            self._sink.close()

    def _read_on(self) -> None:
        losses, until_ns = 0, self._now_ns() + self._wait_ns
        while not self._stop.is_set():
            try:
                self._source.open()
                if self._state == "reopening":
                    with self._lock:
                        self._reopened += 1
                self._set("open")
                self._length = length_of(self._source)
                while not self._stop.is_set():
                    item = self._source.read()
                    if item is None:
                        self._check_end()
                        self.at_end = True
                        return
                    if isinstance(item, Skip):
                        self._skip(item)
                        continue
                    losses = 0
                    if not self._hand_over(item):
                        return
            except SourceAbsentError as error:
                if self._now_ns() >= until_ns:
                    raise
                self._set("starting", f"{error}; waiting for it")
                self._source.close()
                self._pause(WAIT_PAUSE_S)
            except SourceLostError as error:
                self._set("reopening", str(error))
                self._source.close()
                self._pause(self._pauses_s[min(losses, len(self._pauses_s) - 1)])
                losses += 1

    def _check_end(self) -> None:
        """SourceError for a source that ends before its first frame: nothing analysed is no success."""
        if self._captured or self._goes_on:
            return
        why = "it holds none" if self._last_skip is None else self._last_skip.detail
        skipped = sum(self._skipped.values())
        many = f"{skipped} were skipped, the last one was " if skipped > 1 else ""
        raise SourceError(f"source {self._source.name}: got no frame, expected at least one; {many}{why}")

    def _hand_over(self, frame: Frame) -> bool:
        """False where nobody takes it any more."""
        with self._lock:
            self._captured += 1
        while not self._sink.put(frame, _PUT_TIMEOUT_S):
            if self._stop.is_set() or self._sink.closed:
                with self._lock:
                    self._dropped[STOPPED] += 1
                frame.settle(False)
                return False
        return True

    def _skip(self, skip: Skip) -> None:
        with self._lock:
            self._skipped[skip.reason] += skip.count
            self._last_skip = skip
        self._on_skip(skip)

    def _set(self, state: ReaderState, fault: str | None = None) -> None:
        with self._lock:
            self._state = state
            self._fault = fault or self._fault
