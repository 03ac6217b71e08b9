"""What a journal holds of each frame for the verdict: its colours, and how far the source was read.

A table of its own, which journals of before there were verdicts lack: their frames have neither, and the verdict says
so.
"""

from __future__ import annotations

import sqlite3

import msgspec

from streamer.journal.rows import packed, unpacked
from streamer.records import Density, FieldColours, SourceProgress

_TABLE = """
CREATE TABLE IF NOT EXISTS frame_evidence (
    session INTEGER NOT NULL,
    frame_id INTEGER,             -- NULL: at the end
    plasma BLOB, red BLOB,        -- (3,) f8 each, optical densities of blue, green and red; NULL: not measured
    red_cells INTEGER,            -- NULL: no colours
    progress TEXT                 -- JSON; NULL: as at the frame before
)
"""
_INDEX = "CREATE INDEX IF NOT EXISTS frame_evidence_by_frame ON frame_evidence (session, frame_id)"


def create_evidence(database: sqlite3.Connection) -> None:
    """Where it is not there yet."""
    database.execute(_TABLE)
    database.execute(_INDEX)


def has_evidence(database: sqlite3.Connection) -> bool:
    return database.execute("SELECT 1 FROM sqlite_master WHERE name = 'frame_evidence'").fetchone() is not None


def write_evidence(
    database: sqlite3.Connection,
    session: int,
    frame_id: int | None,
    colours: FieldColours | None,
    progress: SourceProgress | None,
) -> None:
    """Of a frame, or of the end. Nothing where there is nothing to keep."""
    if colours is None and progress is None:
        return
    plasma, red, red_cells = colours if colours is not None else (None, None, None)
    database.execute(
        "INSERT INTO frame_evidence VALUES (?, ?, ?, ?, ?, ?)",
        (
            *(session, frame_id, _packed(plasma), _packed(red), red_cells),
            None if progress is None else msgspec.json.encode(progress).decode(),
        ),
    )


def read_evidence(
    database: sqlite3.Connection, session: int, frame_id: int | None
) -> tuple[FieldColours | None, SourceProgress | None]:
    """Of a frame, or of the end, in a journal that `has_evidence`."""
    row = database.execute(
        "SELECT plasma, red, red_cells, progress FROM frame_evidence WHERE session = ? AND frame_id IS ?",
        (session, frame_id),
    ).fetchone()
    if row is None:
        return None, None
    plasma, red, red_cells, progress = row
    colours = None if red_cells is None else FieldColours(_unpacked(plasma), _unpacked(red), red_cells)
    return colours, None if progress is None else msgspec.json.decode(progress, type=SourceProgress)


def forget_end(database: sqlite3.Connection, session: int) -> None:
    database.execute("DELETE FROM frame_evidence WHERE session = ? AND frame_id IS NULL", (session,))


def _packed(density: Density | None) -> bytes | None:
    return None if density is None else packed(density, "<f8")


def _unpacked(blob: bytes | None) -> Density | None:
    if blob is None:
        return None
    b, g, r = unpacked(blob, "<f8").tolist()
    return b, g, r
