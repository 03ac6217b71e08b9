"""Results that a webhook has to be sent, on disk until it has taken them: an SQLite file. No clock.

A result is stored as it will be sent, and sent again as it is, under the same id. What was delivered stays for as long
as the file does, so that a result that comes a second time is not sent a second time.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engines.base import LeukostreamError
from streamer.interop.store import open_store

APPLICATION_ID = 0x4C455557
"""Distinguishes the file from other SQLite files: "LEUW"."""

SCHEMA = """
CREATE TABLE results (
    id TEXT PRIMARY KEY,           -- webhook-id
    url TEXT NOT NULL,
    body BLOB NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    due_s REAL NOT NULL,           -- Unix time of the next attempt
    state TEXT NOT NULL DEFAULT 'waiting',
    detail TEXT                    -- what was wrong with the last attempt
)
"""

State = Literal["waiting", "delivered", "given up"]


@dataclass(frozen=True, slots=True)
class StoredResult:
    id: str
    body: bytes
    attempts: int
    """Made so far."""
    due_s: float


class WebhookOutbox:
    """Of one process at a time. LeukostreamError for a file that is none, can't be written, or is another one's now."""

    def __init__(self, path: Path, url: str) -> None:
        """`url`: of the receiver; what is stored for another one waits until it is asked for."""
        self._path, self._url = path, url
        with self._reporting():
            path.parent.mkdir(parents=True, exist_ok=True)
            other_file = LeukostreamError(f"{path}: got another file, expected a bridge's results; see --state")
            self._database = open_store(path, APPLICATION_ID, SCHEMA, other_file)

    def close(self) -> None:
        self._database.close()

    def put(self, id_: str, body: bytes, now_s: float) -> None:
        """Store a result to be sent at once, unless one of that id is stored."""
        with self._reporting():
            self._database.execute(
                "INSERT OR IGNORE INTO results (id, url, body, due_s) VALUES (?, ?, ?, ?)",
                (id_, self._url, body, now_s),
            )

    def next(self) -> StoredResult | None:
        """The one whose attempt is due first; None where none waits."""
        with self._reporting():
            row = self._database.execute(
                "SELECT id, body, attempts, due_s FROM results WHERE state = 'waiting' AND url = ? ORDER BY due_s,"
                " rowid LIMIT 1",
                (self._url,),
            ).fetchone()
        return None if row is None else StoredResult(*row)

    def failed(self, id_: str, detail: str, due_s: float | None) -> None:
        """An attempt was in vain; `due_s`: the next one, None for never again."""
        with self._reporting():
            self._database.execute(
                "UPDATE results SET attempts = attempts + 1, detail = ?, due_s = coalesce(?, due_s), state = ?"
                " WHERE id = ?",
                (detail, due_s, "given up" if due_s is None else "waiting", id_),
            )

    def delivered(self, id_: str) -> None:
        with self._reporting():
            self._database.execute(
                "UPDATE results SET attempts = attempts + 1, state = 'delivered', body = x'' WHERE id = ?", (id_,)
            )

    def count(self, state: State) -> int:
        with self._reporting():
            [count] = self._database.execute(
                "SELECT count(*) FROM results WHERE state = ? AND url = ?", (state, self._url)
            ).fetchone()
        return int(count)

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if "locked" in str(error):
                raise LeukostreamError(
                    f"{self._path}: got a file that another bridge uses, expected to be the only one; give it another"
                    " --state"
                ) from error
            raise LeukostreamError(f"{self._path}: got '{error}', expected a file that can be written") from error
        except OSError as error:
            raise LeukostreamError(
                f"{self._path}: got '{error.strerror}', expected a folder for it: see --state"
            ) from error
