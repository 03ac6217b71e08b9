"""Whether a camera changed its resolution, asked of the camera itself.

OpenCV scales the frames that follow to the size of the first, and says nothing. What a camera says of its stream over
RTSP holds the parameter sets of H.264 and H.265 (RFC 6184, RFC 7798), in which the size is, or the size itself
(`a=framesize`, `a=x-dimensions`): a stream that is described otherwise than before is worth opening again.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable

ASKED_EVERY_S = 5.0
"""For so long frames of a new size may have the old one."""

_SIZE = re.compile(r"sprop-(?:parameter-sets|sps)=[^;\s]+|^a=(?:framesize|x-dimensions):.+$", re.MULTILINE)


def size_of(description: str | None) -> tuple[str, ...]:
    """The parts of a description that change with the size of the picture; empty: none does."""
    return tuple(_SIZE.findall((description or "").replace("\r", "")))


class AnnouncedSize:
    """Asks again and again, on a thread of its own; `start` begins and `stop` ends."""

    def __init__(self, describe: Callable[[], str | None], every_s: float = ASKED_EVERY_S) -> None:
        self._describe = describe
        self._every_s = every_s
        self._stopped = threading.Event()
        self.changed = False
        """Whether it is another one than when it was asked first; for any thread."""
        self._thread = threading.Thread(target=self._ask, name="announced size", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Does not wait for an answer that is on its way."""
        self._stopped.set()

    def _ask(self) -> None:
        first: tuple[str, ...] = ()
        while not self.changed:
            size = size_of(self._describe())
            first = first or size
            self.changed = bool(size) and size != first
            if self._stopped.wait(self._every_s):
                return
