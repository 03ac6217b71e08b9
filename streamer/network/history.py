"""The newest messages of every session, as they were sent, so that they can be sent again."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from streamer.protocol.requests import RequestRefused

_SESSIONS_MAX = 64
_SCAN_MAX = 5_000
"""Messages looked at for one batch: what bounds its cost where few of them match."""

_OVERHEAD_BYTES = 400
"""What Python adds to each message kept."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Some messages of a session, in order."""

    messages: tuple[Sequence[bytes], ...]
    """Each [topic, header, payload…]."""
    through: int
    """Everything wanted up to this session_seq is in this batch or was before it."""


class History(Protocol):
    """Where messages are that the window no longer has."""

    def read(
        self, session: str, after: int, until: int, topics: Sequence[bytes], *, max_messages: int, max_bytes: int
    ) -> Batch | None:
        """The first messages with `after` < session_seq <= `until` whose topic begins with one of `topics`.

        At least one where there is any; more while they fit `max_messages` and `max_bytes`. None where messages from
        `after` + 1 on are not (or no longer) known. Called on the publishing thread: it must not take long.
        """


@dataclass(frozen=True, slots=True)
class Place:
    """How far the window of one session reaches."""

    oldest: int
    newest: int


class _Session:
    __slots__ = ("bytes", "messages", "newest")

    def __init__(self) -> None:
        self.messages: deque[tuple[bytes, ...]] = deque()
        self.newest = -1
        self.bytes = 0

    @property
    def oldest(self) -> int:
        return self.newest + 1 - len(self.messages)


class ReplayWindow:
    """Keeps at most `max_bytes` of messages over all sessions; the session that has most gives its oldest first."""

    def __init__(self, max_bytes: int, history: History | None = None) -> None:
        self._max_bytes = max_bytes
        self._history = history
        self._sessions: dict[str, _Session] = {}
        self._bytes = 0

    @property
    def bytes_used(self) -> int:
        return self._bytes

    def add(self, session: str, session_seq: int, parts: Sequence[bytes]) -> None:
        """The next message of `session`. One that does not follow the last one starts its window anew."""
        kept = self._sessions.setdefault(session, _Session())
        if session_seq != kept.newest + 1:
            self._bytes -= kept.bytes
            kept = self._sessions[session] = _Session()
        kept.messages.append(tuple(parts))
        kept.newest = session_seq
        size = _size(parts)
        kept.bytes += size
        self._bytes += size
        while self._bytes > self._max_bytes:
            self._forget_one()
        if len(self._sessions) > _SESSIONS_MAX:
            self._bytes -= self._sessions.pop(next(iter(self._sessions))).bytes

    def place(self, session: str) -> Place:
        """KeyError for a session that is not in the window."""
        kept = self._sessions[session]
        return Place(kept.oldest, kept.newest)

    def read(
        self,
        session: str,
        after: int,
        until: int | None,
        topics: Sequence[bytes],
        *,
        max_messages: int,
        max_bytes: int,
    ) -> Batch:
        """The first messages of `session` with `after` < session_seq <= `until` on `topics`.

        RequestRefused where the window, and the history behind it, do not reach back to `after`.
        """
        kept = self._sessions.get(session)
        if kept is not None and after > kept.newest:
            raise RequestRefused("future", f"got after {after}, expected at most {kept.newest}: there is no more yet")
        end = kept.newest if kept is not None else until if until is not None else 2**62
        end = end if until is None else min(end, until)
        if kept is not None and after + 1 >= kept.oldest:
            return self._from_memory(kept, after, end, tuple(topics), max_messages, max_bytes)
        if self._history is not None:
            batch = self._history.read(session, after, end, topics, max_messages=max_messages, max_bytes=max_bytes)
            if batch is not None:
                return batch
        if kept is None:
            raise RequestRefused("unknown session", f"got session {session!r}, which this publisher does not have")
        raise RequestRefused(
            "too old",
            f"got after {after}, expected at least {kept.oldest - 1}: older ones are no longer kept; take a snapshot",
        )

    def _from_memory(
        self, kept: _Session, after: int, end: int, topics: tuple[bytes, ...], max_messages: int, max_bytes: int
    ) -> Batch:
        batch: list[Sequence[bytes]] = []
        through, size = after, 0
        first = after + 1 - kept.oldest
        last = min(end + 1 - kept.oldest, first + _SCAN_MAX)
        for parts in islice(kept.messages, first, max(first, last)):
            if parts[0].startswith(topics):
                size += _size(parts)
                if batch and (len(batch) >= max_messages or size > max_bytes):
                    break
                batch.append(parts)
            through += 1
        return Batch(tuple(batch), through)

    def _forget_one(self) -> None:
        largest = max(self._sessions.values(), key=lambda session: session.bytes)
        size = _size(largest.messages.popleft())
        largest.bytes -= size
        self._bytes -= size


def _size(parts: Sequence[bytes]) -> int:
    return sum(map(len, parts)) + _OVERHEAD_BYTES
