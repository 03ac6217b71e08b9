"""The messages of journaled sessions from the first on, for what no longer is in the publisher's window."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from streamer.journal.reader import StoredSession
from streamer.journal.schema import JournalError
from streamer.network.history import Batch
from streamer.protocol.messages import WireError, decode, topic_of

_SCAN_MAX = 500
"""Messages read for one batch at most, since the publishing thread reads it."""


class JournalHistory:
    """A `History` (streamer/network/history.py) of some sessions of a journal."""

    def __init__(self, sessions: Iterable[StoredSession]) -> None:
        self._sessions = {session.id: session for session in sessions}

    def add(self, session: StoredSession) -> None:
        """Add a session that has begun since."""
        self._sessions[session.id] = session

    def read(
        self, session: str, after: int, until: int, topics: Sequence[bytes], *, max_messages: int, max_bytes: int
    ) -> Batch | None:
        stored = self._sessions.get(session)
        if stored is None:
            return None
        batch: list[Sequence[bytes]] = []
        size, through = 0, after
        try:
            for header, payload in stored.messages_after(after, _SCAN_MAX):
                message = decode(header)
                if message.session_seq > until:
                    break
                topic = topic_of(message).encode()
                if topic.startswith(tuple(topics)):
                    size += len(header) + len(payload or b"")
                    if batch and (len(batch) >= max_messages or size > max_bytes):
                        break
                    batch.append((topic, header) if payload is None else (topic, header, payload))
                through = message.session_seq
        except (JournalError, WireError):  # the writer reports a disk that fails
            return None
        return Batch(tuple(batch), through) if through > after else None
