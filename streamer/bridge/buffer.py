"""What waits to be delivered: bounded, newest state only, losses counted. No clock, no thread."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Hashable

from streamer.bridge.events import Event

BUFFER_MAX = 10_000


class Buffer:
    """In order of arrival. A differential or health that a newer one replaces leaves before it was delivered: the newer
    one says all that it did. Where it is full, the oldest cell goes, or else the oldest of all, and is counted."""

    def __init__(self, most: int = BUFFER_MAX) -> None:
        self._most = most
        self._waiting: OrderedDict[Hashable, Event] = OrderedDict()
        self.superseded = 0
        self.lost: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, event: Event) -> None:
        key: Hashable = (event.kind, event.source) if event.is_replaceable else event
        if self._waiting.pop(key, None) is not None:
            self.superseded += 1
        self._waiting[key] = event
        if len(self._waiting) > self._most:
            self._waiting.pop(
                next((key for key, one in self._waiting.items() if one.kind == "cell"), next(iter(self._waiting)))
            )
            self.lost["buffer full"] += 1

    def pop(self) -> Event | None:
        """The oldest; None where nothing waits."""
        return self._waiting.popitem(last=False)[1] if self._waiting else None
