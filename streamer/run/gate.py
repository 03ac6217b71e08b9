"""Between a reader and its ring: closed while a source is paused."""

from __future__ import annotations

import threading
from collections.abc import Callable

from streamer.records import Frame
from streamer.run.ring import Ring

PAUSED = "paused"
"""The reason under which frames are counted that a live source gave while it was paused."""


class Gate:
    """Lets frames into a ring while it is open.

    While it is closed, the reader of a ring that loses nothing waits; that of a live one goes on reading, so that the
    camera stays alive, and its frames are counted in `dropped`. Any thread opens and closes it.
    """

    def __init__(self, ring: Ring[Frame], taken: Callable[[Frame], None] = lambda frame: None) -> None:
        """`taken` gets every frame that went into the ring, on the reader's thread."""
        self._ring = ring
        self._taken = taken
        self._open = threading.Event()
        self._open.set()
        self._dropped = 0

    @property
    def paused(self) -> bool:
        return not self._open.is_set()

    @property
    def dropped(self) -> dict[str, int]:
        return {PAUSED: self._dropped} if self._dropped else {}

    def pause(self) -> None:
        self._open.clear()

    def resume(self) -> None:
        self._open.set()

    def put(self, item: Frame, timeout: float | None = None) -> bool:
        """As Ring.put; False also where it stayed paused for `timeout` seconds."""
        if not self._open.is_set():
            if self._ring.policy == "drop_oldest":
                self._dropped += 1
                return not self._ring.closed
            if not self._open.wait(timeout):
                return False
        if not self._ring.put(item, timeout):
            return False
        self._taken(item)
        return True

    def close(self) -> None:
        self._ring.close()

    @property
    def closed(self) -> bool:
        return self._ring.closed
