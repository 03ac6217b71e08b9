"""What a journal holds of a stage that knows where it is: its readings, and what was made of them.

Tables of their own, which journals of sources without positions lack.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

import msgspec

from streamer.counting.slide_count import SeenFrame
from streamer.journal.columns import FramePositionRow, KeyframePositionRow, SessionRows
from streamer.journal.schema import POSITIONS, has_table
from streamer.records import StagePoint
from streamer.stage.positions_state import PositionsMemory
from streamer.stage.readings import KeyframeReading


class PositionsWriter:
    """Stores them, frame by frame, for one session."""

    def __init__(self, database: sqlite3.Connection, session: int) -> None:
        self._db = database
        self._session = session
        self._created = False

    def write(self, seen: SeenFrame, memory: PositionsMemory | None, readings: Sequence[KeyframeReading]) -> None:
        """Those of a frame. Nothing where its source has never known any."""
        at, scale = seen.stage_um, seen.um_per_px
        if at is None and scale is None and memory is None:
            return
        if not self._created:
            for statement in POSITIONS:
                self._db.execute(statement)
            self._created = True
        if at is not None or scale is not None:
            place = (None, None, None) if at is None else (at.x, at.y, at.z)
            row = (self._session, seen.frame_id, *place, scale)
            self._db.execute("INSERT INTO frame_positions VALUES (?, ?, ?, ?, ?, ?)", row)
        self._db.executemany(
            "INSERT INTO keyframe_positions VALUES (?, ?, ?, ?, ?)", [(self._session, *one) for one in readings]
        )
        if memory is not None:
            state = msgspec.json.encode(memory).decode()
            self._db.execute("INSERT OR REPLACE INTO known_positions VALUES (?, ?)", (self._session, state))


def position_of(rows: SessionRows, frame_id: int) -> tuple[StagePoint | None, float | None]:
    """Where the source said that a frame was taken, and its micrometres a pixel."""
    row = next(rows.rows("frame_positions", FramePositionRow, "AND frame_id = ?", frame_id), None)
    if row is None:
        return None, None
    at = None if row.x_um is None or row.y_um is None else StagePoint(row.x_um, row.y_um, row.z_um)
    return at, row.um_per_px


def said_um_per_px(rows: SessionRows) -> float | None:
    """As the source stated it last; None: it did not."""
    if not has_positions(rows.database):
        return None
    rest = "AND um_per_px IS NOT NULL ORDER BY frame_id DESC LIMIT 1"
    row = next(rows.rows("frame_positions", FramePositionRow, rest), None)
    return None if row is None else row.um_per_px


def has_positions(database: sqlite3.Connection) -> bool:
    return has_table(database, "frame_positions")


def keyframe_readings(rows: SessionRows) -> Iterator[KeyframeReading]:
    """In the order in which they were made."""
    if has_table(rows.database, "keyframe_positions"):
        for row in rows.rows("keyframe_positions", KeyframePositionRow, "ORDER BY number"):
            yield KeyframeReading(row.number, row.x_um, row.y_um, row.epoch)


def positions_memory(rows: SessionRows) -> PositionsMemory | None:
    """None where no frame came with a position."""
    if not has_table(rows.database, "known_positions"):
        return None
    stored = rows.value("known_positions", "state", "")
    with rows.reading("known_positions.state"):
        return None if stored is None else msgspec.json.decode(stored, type=PositionsMemory)
