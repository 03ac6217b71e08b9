"""Which requests run next, and together. No clock, thread or socket: the ideas of streamer/run/batcher.py, for requests
of microscopes that come and go."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Waits(Protocol):
    """A request that waits."""

    @property
    def asker(self) -> bytes: ...
    @property
    def group(self) -> Hashable:
        """The same for requests that one run of an engine may take together."""

    @property
    def rows(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def arrived_ns(self) -> int: ...


Item = TypeVar("Item", bound=Waits)


@dataclass(frozen=True, slots=True)
class NotYet:
    """Nothing to run."""

    at_most_ns: int | None
    """Ask again after so long even if no request comes; None: when one does."""


class Waiting(Generic[Item]):
    """The requests that wait, bounded. Not for several threads at once.

    The group whose oldest request is due goes first. A request is due at once where its engine takes it alone, else
    when a run is full, or after `max_wait_ms`. Askers of a group take turns, so that one that asks much does not keep
    others waiting; the requests of an asker stay in their order.
    """

    def __init__(
        self,
        rows_of: Callable[[Hashable], int],
        *,
        max_wait_ms: float = 2.0,
        requests_max: int = 256,
        bytes_max: int = 1 << 30,
    ) -> None:
        """`rows_of`: how many rows a run of a group takes of several requests; 1: each request runs alone, whole."""
        self._rows_of = rows_of
        self._max_wait_ns = round(max_wait_ms * 1e6)
        self._requests_max, self._bytes_max = requests_max, bytes_max
        self._groups: dict[Hashable, OrderedDict[bytes, deque[Item]]] = {}
        self.bytes_used = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, item: Item) -> bool:
        """False, and it is not taken, where too many wait already. The first is always taken."""
        if self._count >= self._requests_max or (self._count and self.bytes_used + item.size_bytes > self._bytes_max):
            return False
        self._groups.setdefault(item.group, OrderedDict()).setdefault(item.asker, deque()).append(item)
        self._count += 1
        self.bytes_used += item.size_bytes
        return True

    def oldest_ns(self) -> int | None:
        """When the request came that waits longest; None where none waits."""
        return min((self._oldest(askers) for askers in self._groups.values()), default=None)

    def take(self, now_ns: int) -> list[Item] | NotYet:
        """Requests of one group for one run."""
        if not self._groups:
            return NotYet(None)
        group = min(self._groups, key=lambda one: (self._due_ns(one), self._oldest(self._groups[one])))
        left_ns = self._due_ns(group) - now_ns
        return self._take(group) if left_ns <= 0 else NotYet(left_ns)

    def _due_ns(self, group: Hashable) -> int:
        askers, limit = self._groups[group], self._rows_of(group)
        is_full = sum(item.rows for items in askers.values() for item in items) >= limit
        return self._oldest(askers) + (0 if is_full else self._max_wait_ns)

    @staticmethod
    def _oldest(askers: OrderedDict[bytes, deque[Item]]) -> int:
        return min(items[0].arrived_ns for items in askers.values())

    def _take(self, group: Hashable) -> list[Item]:
        askers, limit = self._groups[group], self._rows_of(group)
        taken: list[Item] = []
        rows = 0
        while askers:
            asker = next(iter(askers))
            item = askers[asker][0]
            if taken and rows + item.rows > limit:
                break
            askers[asker].popleft()
            if askers[asker]:
                askers.move_to_end(asker)  # its next turn comes after those of the others
            else:
                del askers[asker]
            taken.append(item)
            rows += item.rows
            if rows >= limit:
                break
        if not askers:
            del self._groups[group]
        self._count -= len(taken)
        self.bytes_used -= sum(item.size_bytes for item in taken)
        return taken
