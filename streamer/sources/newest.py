"""The newest frame of a live stream: a thread decodes all that comes, and only what is taken is converted.

Whoever reads a stream as fast as it is used, and not as fast as it is sent, gets what was stored up on the way: in the
camera, the network and the decoder.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from streamer.sources.decoder import Decoder, Grabbed
from streamer.sources.stream_clock import StreamClock

QUIET_S = 0.05
"""What was stored up is over when nothing came for so long: more than a frame takes to decode on a busy machine."""

STORED_UP_AT_MOST_S = 1.0
"""For so long frames are taken for what was stored up, at most."""

LAGGING_S = 0.1
"""A frame further behind is not given while newer ones come at once."""

GIVEN_AT_LEAST_EVERY_S = 0.5
"""But one in so many seconds is: a stream that is always a little behind still shows."""

CAUGHT_UP_S = 0.5
"""Up to here a stream that fell behind has caught up."""

_STOP_S = 0.5


@dataclass(frozen=True, slots=True)
class Newest:
    """A frame that was asked for."""

    grabbed: Grabbed
    captured_ns: int
    """When it was grabbed."""


class NewestFrames:
    """`start` begins, `take` gives a frame that was not given before, `stop` ends; these are for one thread."""

    def __init__(self, decoder: Decoder, now_ns: Callable[[], int]) -> None:
        """The decoder is closed by the thread that grabs."""
        self._decoder = decoder
        self._now_ns = now_ns
        self._clock = StreamClock()
        self._changed = threading.Condition()
        self._newest: Newest | None = None
        self._damaged = 0
        self._count = 0
        self._wanted = False
        self._ended = False
        self._stopped = False
        self._begun_ns = now_ns()
        self._lagging_since_ns: int | None = None
        """When the first came that was far behind since one was given, or was not; None: the last was not."""
        self._worst_s = 0.0
        self.passed_over = 0
        """Whole frames that nobody took."""
        self._thread = threading.Thread(target=self._grab_all, name="stream", daemon=True)

    @property
    def behind_s(self) -> float | None:
        """As StreamClock has it; for any thread."""
        return self._clock.behind_s

    @property
    def worst_s(self) -> float:
        """How far it was behind at most, since the last `catches_up`."""
        return self._worst_s

    def start(self) -> None:
        self._thread.start()

    def catches_up(self, within_s: float) -> bool:
        """Wait until it is no more behind, because all that came at once is decoded; False where that takes longer."""
        with self._changed:
            caught_up = self._changed.wait_for(lambda: self._ended or (self.behind_s or 0.0) < CAUGHT_UP_S, within_s)
            self._worst_s = 0.0
            return caught_up and not self._ended

    def take(self) -> Newest | int | None:
        """The newest frame, waited for; a number: so many were damaged since the last call; None: there are no more."""
        with self._changed:
            while True:
                if self._damaged:
                    damaged, self._damaged = self._damaged, 0
                    return damaged
                if self._newest is not None and self._is_current():
                    newest, self._newest = self._newest, None
                    self._lagging_since_ns = None
                    return newest
                if self._ended and self._newest is None:
                    return None
                self._wanted = True
                self._changed.wait()

    def stop(self) -> None:
        """Harmless when called twice. A thread that waits for the network ends when that gives up."""
        with self._changed:
            self._stopped = True
            self.passed_over += self._newest is not None
            self._newest = None
        if self._thread.ident is not None:
            self._thread.join(_STOP_S)

    def _is_current(self) -> bool:
        """Whether what is newest is not followed at once by more that was stored up somewhere."""
        if self._ended or not (self._is_stored_up() or self._is_lagging(self._now_ns())):
            return True
        count = self._count
        return not self._changed.wait_for(lambda: self._count != count or self._ended, QUIET_S)

    def _is_lagging(self, now_ns: int) -> bool:
        since_ns = self._lagging_since_ns
        return since_ns is not None and now_ns - since_ns <= GIVEN_AT_LEAST_EVERY_S * 1e9

    def _is_stored_up(self) -> bool:
        return self._clock.stored_up and self._now_ns() - self._begun_ns < STORED_UP_AT_MOST_S * 1e9

    def _grab_all(self) -> None:
        try:
            while not self._stopped and (grabbed := self._decoder.grab()) is not None:
                self._add(grabbed, self._now_ns())
        finally:
            self._decoder.close()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _add(self, grabbed: Grabbed, now_ns: int) -> None:
        if grabbed.damaged:
            self._add_damaged()
            return
        self._clock.add(grabbed.position_s, now_ns / 1e9)
        with self._changed:
            behind_s = self._clock.behind_s or 0.0
            self._worst_s = max(self._worst_s, behind_s)
            if behind_s <= LAGGING_S:
                self._lagging_since_ns = None
            elif self._lagging_since_ns is None:
                self._lagging_since_ns = now_ns
            self._changed.notify_all()
        if not self._decoder.keeps_frames:
            if not self._wanted or self._is_stored_up() or self._is_lagging(now_ns):
                self.passed_over += 1
                return
            pixels = grabbed.take()
            if pixels is None:
                self._add_damaged()
                return
            grabbed = Grabbed(grabbed.position_s, lambda: pixels)
        with self._changed:
            self.passed_over += self._newest is not None
            self._newest = Newest(grabbed, now_ns)
            self._count += 1
            self._wanted = False
            self._changed.notify_all()

    def _add_damaged(self) -> None:
        with self._changed:
            self._damaged += 1
            self._changed.notify_all()
