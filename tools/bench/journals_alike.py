"""Whether journals hold the same: every row of every table, but for ids, times and hosts."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

LEFT_OUT: Mapping[str, tuple[str, ...] | None] = {
    "runs": None,  # who ran it, when, with which options
    "sessions": ("number", "id", "address", "created_utc", "next_seq"),
    "frames": ("captured_utc",),
    "messages": ("session_seq", "run_id"),
    "pictures": ("session_seq",),
    "commands": ("number", "run_id", "given_utc"),
}
"""Columns that name a process, a time or a place, by table; None: the whole table. `session_seq` counts health messages
too, and they come by the clock."""

_LEFT_OUT_OF_MESSAGES = (
    "session",
    "run_id",
    "seq",
    "session_seq",
    "last_seq",
    "published_ns",
    "published_utc",
    "captured_ns",
    "captured_utc",
    "timings_ms",
)

Row = tuple[Any, ...]
Tables = dict[str, list[Row]]


def first_difference(one: Path, other: Path) -> str | None:
    """In words, where two journals differ first; None where they hold the same of each source."""
    mine, theirs = tables_of(one), tables_of(other)
    if mine.keys() != theirs.keys():
        return f"sources: got {sorted(theirs)}, expected {sorted(mine)}"
    found = (difference(tables, theirs[source]) for source, tables in mine.items())
    return next((text for text in found if text is not None), None)


def difference(mine: Tables, theirs: Tables) -> str | None:
    """The same of the tables of one source."""
    for table in sorted(mine.keys() | theirs.keys()):
        left, right = mine.get(table, []), theirs.get(table, [])
        for number, (row, its) in enumerate(zip(left, right, strict=False)):
            if row != its:
                return f"{table}, row {number}: got {str(its)[:300]}, expected {str(row)[:300]}"
        if len(left) != len(right):
            return f"{table}: got {len(right)} rows, expected {len(left)}"
    return None


def tables_of(path: Path) -> dict[str, Tables]:
    """By source, the rows of every table that has some, in their order, without what is left out."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as journal:
        sessions = journal.execute("SELECT number, source FROM sessions ORDER BY number").fetchall()
        named = [name for (name,) in journal.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        kept = [table for table in named if LEFT_OUT.get(table, ()) is not None]
        found: dict[str, Tables] = {}
        for number, source in sessions:
            tables = found.setdefault(source, {})
            for table in kept:
                if rows := list(_rows(journal, table, number)):
                    tables.setdefault(table, []).extend(rows)
        return found


def _rows(journal: sqlite3.Connection, table: str, session: int) -> Iterator[Row]:
    columns = [row[1] for row in journal.execute(f"PRAGMA table_info({table})")]
    key = "number" if table == "sessions" else "session"
    order = "session_seq" if "session_seq" in columns else "rowid" if _has_rowid(journal, table) else "1, 2, 3"
    left_out = (key, *(LEFT_OUT.get(table) or ()))
    for values in journal.execute(f"SELECT * FROM {table} WHERE {key} = ? ORDER BY {order}", (session,)):
        row = dict(zip(columns, values, strict=True))
        if table == "messages":
            if row["type"] == "health":
                continue
            row["header"] = _counted(row["header"])
        yield tuple(value for name, value in row.items() if name not in left_out)


def _has_rowid(journal: sqlite3.Connection, table: str) -> bool:
    (sql,) = journal.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    return "WITHOUT ROWID" not in sql


def _counted(header: bytes) -> str:
    message = json.loads(header)
    for name in _LEFT_OUT_OF_MESSAGES:
        message.pop(name, None)
    return json.dumps(message, sort_keys=True)
