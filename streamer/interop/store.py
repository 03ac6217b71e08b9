"""SQLite files of one process at a time: what is on its way to somebody, kept until it has arrived."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from engines.base import LeukostreamError


def open_store(path: Path, application_id: int, schema: str, other_file: LeukostreamError) -> sqlite3.Connection:
    """The file, made where it is not there, and locked for as long as it is open. `other_file` is raised where it has
    another id or other tables; sqlite3.Error, "database is locked", where another process has it open."""
    database = sqlite3.connect(path, timeout=0.0, isolation_level=None)
    try:
        database.execute("PRAGMA trusted_schema = OFF")
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("BEGIN EXCLUSIVE")  # and the lock is kept
        if _id_of(database) == 0 and not _tables_of(database):
            database.execute(f"PRAGMA application_id = {application_id}")
            database.execute(schema)
        elif not holds(database, application_id, schema):
            raise other_file
        database.execute("COMMIT")
    except BaseException:
        database.close()
        raise
    return database


def holds(database: sqlite3.Connection, application_id: int, schema: str) -> bool:
    """Whether a file has that id and the one table of `schema`, no more and no less."""
    return _id_of(database) == application_id and _tables_of(database) == [schema.strip().removesuffix(";")]


def _id_of(database: sqlite3.Connection) -> int:
    [found] = database.execute("PRAGMA application_id").fetchone()
    return int(found)


def _tables_of(database: sqlite3.Connection) -> list[str | None]:
    return [sql for (sql,) in database.execute("SELECT sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'")]
