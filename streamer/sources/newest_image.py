"""The newest image of a camera whose library hands over one buffer after the other: a thread takes them all.

Whoever takes buffers as slowly as they are used gets old ones, and those that found no buffer free are lost.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from streamer.sources.driver import RawImage

_WRAPS_AT = 0xFFFF
"""GigE Vision 1.x counts in 16 bits, from 1 on again after this: 0 is no number."""

_NEAR_WRAP = 4096


@dataclass(slots=True)
class Grabbed:
    """One buffer of a library."""

    number: int | None
    """The camera's own; None: it does not number."""
    image: Callable[[], RawImage] | None
    """Called once at most, before `release`; None: it came in part."""
    release: Callable[[], None]
    """Give the buffer back, once; on any thread."""
    arrived_ns: int


def lost_between(before: int | None, number: int | None) -> int:
    """How many images the camera numbered between two that came one after the other. A camera that starts its count
    again has lost none that anybody knows of."""
    if before is None or number is None or number == before:
        return 0
    if number > before:
        return number - before - 1
    if before <= _WRAPS_AT and before > _WRAPS_AT - _NEAR_WRAP and 0 < number < _NEAR_WRAP:
        return _WRAPS_AT - before + number - 1
    return 0


class NewestImage:
    """`start` begins, `take` waits for an image that was not given before, `stop` ends."""

    def __init__(self, grab: Callable[[], Grabbed | None]) -> None:
        """`grab` waits a moment for the next buffer; None: there was none. What it raises, `take` raises."""
        self._grab = grab
        self._changed = threading.Condition()
        self._newest: Grabbed | None = None
        self._number: int | None = None
        self._lost = self._damaged = self._passed_over = 0
        self._error: Exception | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="grab", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def take(self, timeout_s: float) -> RawImage | None:
        """None: none came in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self._error is not None, timeout_s)
            if self._newest is None:
                if self._error is not None:
                    raise self._error
                return None
            newest, self._newest = self._newest, None
            counts = self._lost, self._damaged, self._passed_over
            self._lost = self._damaged = self._passed_over = 0
        try:
            assert newest.image is not None
            image = newest.image()
            image.data = image.data.copy()  # the buffer is filled again
        finally:
            newest.release()
        image.lost, image.damaged, image.passed_over = counts
        return image

    def stop(self, within_s: float = 1.0) -> None:
        with self._changed:
            self._stopped = True
            newest, self._newest = self._newest, None
        if newest is not None:
            newest.release()
        self._thread.join(within_s)

    def _run(self) -> None:
        try:
            while not self._stopped:
                grabbed = self._grab()
                if grabbed is not None:
                    self._add(grabbed)
        except Exception as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _add(self, grabbed: Grabbed) -> None:
        before = None
        with self._changed:
            self._lost += lost_between(self._number, grabbed.number)
            self._number = grabbed.number
            if grabbed.image is None:
                self._damaged += 1
                before = grabbed
            elif self._stopped:
                before = grabbed
            else:
                before, self._newest = self._newest, grabbed
                self._passed_over += before is not None
                self._changed.notify_all()
        if before is not None:
            before.release()
