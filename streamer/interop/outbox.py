"""What was sent, and what became of it: an SQLite file beside the journal.

A message is stored before it is sent and stays as it is, so that what is sent again after a failure is the same, its
MSH-10 too. Its answer is stored before the next one is sent. A process that is killed between an acknowledgement and
that sends the message once more, which the receiver knows by its MSH-10.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from streamer.interop.hl7_messages import Hl7Message
from streamer.interop.mllp import Answer, Receiver
from streamer.interop.sent import APPLICATION_ID, SCHEMA, OutboxError, other_file
from streamer.interop.store import open_store

State = Literal["waiting", "acknowledged", "refused"]


@dataclass(frozen=True, slots=True)
class StoredMessage:
    message: Hl7Message
    """As it was stored first."""
    state: State
    """"refused": the receiver answered so; it is sent again when it is asked for again."""
    attempts: int
    code: str | None
    answered_utc: str | None


class Outbox:
    """Of one process at a time. OutboxError for a file that is none, can't be written, or is another one's now."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._reporting():
            self._database = open_store(path, APPLICATION_ID, SCHEMA, other_file(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._database.close()

    def put(self, receiver: Receiver, message: Hl7Message, session: str, kind: str) -> StoredMessage:
        """Store a message unless one with its MSH-10 is stored for that receiver; that one is given then."""
        with self._reporting():
            self._database.execute(
                "INSERT OR IGNORE INTO messages (receiver, control_id, session, kind, er7, stored_utc)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (str(receiver), message.control_id, session, kind, message.er7, _now()),
            )
            er7, state, attempts, code, answered_utc = self._database.execute(
                "SELECT er7, state, attempts, code, answered_utc FROM messages WHERE receiver = ? AND control_id = ?",
                (str(receiver), message.control_id),
            ).fetchone()
        return StoredMessage(Hl7Message(message.control_id, er7), state, attempts, code, answered_utc)

    def attempt(self, receiver: Receiver, message: Hl7Message) -> None:
        """Note that it is sent now."""
        with self._reporting():
            self._database.execute(
                "UPDATE messages SET attempts = attempts + 1 WHERE receiver = ? AND control_id = ?",
                (str(receiver), message.control_id),
            )

    def answered(self, receiver: Receiver, answer: Answer) -> None:
        with self._reporting():
            self._database.execute(
                "UPDATE messages SET state = ?, code = ?, answer = ?, answered_utc = ?"
                " WHERE receiver = ? AND control_id = ?",
                (
                    "acknowledged" if answer.accepted else "refused",
                    *(answer.code, answer.er7, _now(), str(receiver), answer.control_id),
                ),
            )

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if "locked" in str(error):
                raise OutboxError(
                    f"{self._path}: got a store that another process sends from, expected to be the only one; wait"
                    " until it has ended"
                ) from error
            raise OutboxError(f"{self._path}: got '{error}', expected a store that can be written") from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
