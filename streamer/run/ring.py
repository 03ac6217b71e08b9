"""The bounded hand-over between two threads, with a named policy for when it is full."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable
from typing import Generic, Literal, TypeVar

from streamer.records import QUEUE_FULL

Item = TypeVar("Item")

Policy = Literal["block", "drop_oldest"]
"""What `put` does when the ring is full: wait for room (nothing is lost), or throw the oldest away (counted)."""


class Ring(Generic[Item]):
    """First in, first out, at most `capacity` items; any number of producers and consumers.

    Whoever calls `close` ends it for both sides: every later or waiting `put` returns False, while `get` still gives
    what is left and then None. Nothing waits by polling.
    """

    def __init__(self, capacity: int, policy: Policy) -> None:
        if capacity < 1:
            raise ValueError(f"capacity: got {capacity}, expected 1 or more")
        self.capacity = capacity
        self.policy = policy
        self._items: deque[Item] = deque()
        self._dropped: Counter[str] = Counter()
        self._closed = False
        self._lock = threading.Lock()
        self._filled = threading.Condition(self._lock)
        self._freed = threading.Condition(self._lock)
        self._listeners: tuple[Callable[[], None], ...] = ()

    def put(self, item: Item, timeout: float | None = None) -> bool:
        """Hand over; False where the ring is closed, or still full after `timeout` seconds (None: wait for ever).

        With `drop_oldest` it never waits: the oldest item makes room and is counted in `dropped` as QUEUE_FULL.
        """
        with self._lock:
            if self.policy == "block":
                self._freed.wait_for(lambda: self._closed or len(self._items) < self.capacity, timeout)
                if len(self._items) >= self.capacity:
                    return False
            if self._closed:
                return False
            if len(self._items) >= self.capacity:
                self._items.popleft()
                self._dropped[QUEUE_FULL] += 1
            self._items.append(item)
            self._filled.notify()
        self._tell()
        return True

    def get(self, timeout: float | None = None) -> Item | None:
        """The oldest item; None where none came within `timeout` seconds (None: wait for ever) or none will."""
        with self._lock:
            self._filled.wait_for(lambda: self._closed or self._items, timeout)
            if not self._items:
                return None
            item = self._items.popleft()
            self._freed.notify()
            return item

    def peek(self) -> Item | None:
        """The oldest item, left where it is; None where there is none. Another thread may take it meanwhile."""
        with self._lock:
            return self._items[0] if self._items else None

    def close(self) -> None:
        """No more items; harmless when called twice."""
        with self._lock:
            self._closed = True
            self._filled.notify_all()
            self._freed.notify_all()
        self._tell()

    def clear(self, reason: str) -> int:
        """Throw away what waits, counted as dropped for `reason`; how many they were."""
        with self._lock:
            lost = len(self._items)
            self._items.clear()
            if lost:
                self._dropped[reason] += lost
            self._freed.notify_all()
            return lost

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every put and close, on the thread that did it and outside of the ring's lock."""
        with self._lock:
            self._listeners = (*self._listeners, listener)

    @property
    def closed(self) -> bool:
        with self._lock:
            return self._closed

    @property
    def drained(self) -> bool:
        """Closed and empty: nothing will ever come out again."""
        with self._lock:
            return self._closed and not self._items

    @property
    def full(self) -> bool:
        with self._lock:
            return len(self._items) >= self.capacity

    @property
    def dropped(self) -> dict[str, int]:
        """Items lost so far, by reason; a copy. Empty when nothing was lost."""
        with self._lock:
            return dict(self._dropped)

    def __len__(self) -> int:
        with self._lock:
            return len(self._items)

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()
