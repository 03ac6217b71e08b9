"""What the store of sent messages holds, for those who only read it: JOURNAL.sent, which `outbox` writes."""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from engines.base import LeukostreamError
from streamer.interop.store import holds

APPLICATION_ID = 0x4C455558
"""Distinguishes the file from other SQLite files: "LEUX"."""

SCHEMA = """
CREATE TABLE messages (
    receiver TEXT NOT NULL,
    control_id TEXT NOT NULL,      -- MSH-10
    session TEXT NOT NULL,
    kind TEXT NOT NULL,            -- "oul" or "oru"
    er7 TEXT NOT NULL,             -- as it was sent, and is sent again
    stored_utc TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL DEFAULT 'waiting',
    code TEXT,                     -- MSA-1
    answer TEXT,                   -- as it was received
    answered_utc TEXT,
    PRIMARY KEY (receiver, control_id)
);
"""

_OBR_25 = 25


class OutboxError(LeukostreamError):
    """The file can't be used."""


@dataclass(frozen=True, slots=True)
class Sending:
    """A message that its receiver acknowledged."""

    receiver: str
    """mllp://HOST:PORT."""
    control_id: str
    """MSH-10."""
    subject: str
    """The pseudonym of the session, as the message has it."""
    kind: str
    """ "oul" or "oru"."""
    status: str
    """OBR-25: "P" preliminary, "F" final, "C" corrected."""
    stored_utc: str
    """When the message was made, of the result as it was then."""
    answered_utc: str


def acknowledged(path: Path) -> list[Sending]:
    """What was acknowledged of a store, oldest first; empty where there is no such file. OutboxError for one that is
    none, or that a process sends from now."""
    if not path.exists():
        return []
    try:
        address = f"file:{quote(str(path.absolute()))}?mode=ro"
        with contextlib.closing(sqlite3.connect(address, uri=True, timeout=0.0)) as database:
            database.execute("PRAGMA trusted_schema = OFF")
            if not holds(database, APPLICATION_ID, SCHEMA):
                raise other_file(path)
            rows = database.execute(
                "SELECT receiver, control_id, session, kind, er7, stored_utc, answered_utc FROM messages"
                " WHERE state = 'acknowledged' ORDER BY answered_utc, control_id"
            ).fetchall()
    except sqlite3.Error as error:
        what = "a store that another process sends from" if "locked" in str(error) else f"'{error}'"
        raise OutboxError(f"{path}: got {what}, expected a store that can be read; try again later") from error
    if not all(isinstance(value, str) for row in rows for value in row):
        raise OutboxError(f"{path}: got a value that is no text, expected leukostream's store of what was sent")
    return [
        Sending(receiver, control_id, subject, kind, _status(er7), stored_utc, answered_utc)
        for receiver, control_id, subject, kind, er7, stored_utc, answered_utc in rows
    ]


def other_file(path: Path) -> OutboxError:
    """For a file that is no store."""
    return OutboxError(f"{path}: got another file, expected leukostream's store of what was sent")


def _status(er7: str) -> str:
    """OBR-25 of one of our own messages, which all separate fields by "|"; empty where it has none."""
    order = next((segment for segment in er7.split("\r") if segment.startswith("OBR|")), "").split("|")
    return order[_OBR_25] if len(order) > _OBR_25 else ""
