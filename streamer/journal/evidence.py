"""What a journal holds of each frame for the verdict: its colours, and how far the source was read.

A table of its own, which journals of before there were verdicts lack: their frames have neither, and the verdict says
so.
"""

from __future__ import annotations

import sqlite3

import msgspec

from streamer.journal.columns import EvidenceRow, SessionRows, check_finite
from streamer.journal.rows import packed, unpacked
from streamer.journal.schema import FRAME_EVIDENCE, has_table
from streamer.records import Density, FieldColours, SourceProgress

_INDEX = "CREATE INDEX IF NOT EXISTS frame_evidence_by_frame ON frame_evidence (session, frame_id)"


def create_evidence(database: sqlite3.Connection) -> None:
    """Where it is not there yet."""
    database.execute(FRAME_EVIDENCE)
    database.execute(_INDEX)


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


def evidence_of(row: EvidenceRow) -> tuple[FieldColours | None, SourceProgress | None]:
    """What a row holds; ValueError for what is not written there."""
    colours = None
    if row.red_cells is not None:
        colours = FieldColours(_unpacked(row.plasma), _unpacked(row.red), row.red_cells)
    return colours, None if row.progress is None else msgspec.json.decode(row.progress, type=SourceProgress)


def has_evidence(database: sqlite3.Connection) -> bool:
    return has_table(database, "frame_evidence")


def evidence_at(rows: SessionRows, frame_id: int | None) -> tuple[FieldColours | None, SourceProgress | None]:
    """Of a frame, or of the end, of a journal that has some; None for what was not noted."""
    row = next(rows.rows("frame_evidence", EvidenceRow, "AND frame_id IS ?", frame_id), None)
    with rows.reading(f"frame_evidence of frame {frame_id}"):
        return (None, None) if row is None else evidence_of(row)


def forget_end(database: sqlite3.Connection, session: int) -> None:
    database.execute("DELETE FROM frame_evidence WHERE session = ? AND frame_id IS NULL", (session,))


def _packed(density: Density | None) -> bytes | None:
    return None if density is None else packed(density, "<f8")


def _unpacked(blob: bytes | None) -> Density | None:
    if blob is None:
        return None
    density = unpacked(blob, "<f8")
    check_finite("density", density)
    b, g, r = density.tolist()
    return b, g, r
