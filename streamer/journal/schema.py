"""The journal's tables, opening its file, and every way in which that can fail as one clear line."""

from __future__ import annotations

import contextlib
import functools
import os
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

from engines.base import LeukostreamError
from streamer.journal.holder import holder_of

APPLICATION_ID = 0x4C45554B
"""Distinguishes a journal from other SQLite files: "LEUK"."""

FORMAT_VERSION = 4
"""Version of the tables and their blobs. A program reads only the format that it writes."""

BUSY_MS = 1000
"""How long to wait for the lock of another process."""

PAGE_BYTES = 8192
"""Twice SQLite's default, for pictures of 80 KB. Larger pages make the log grow, which holds whole pages."""

STEPS_MAX = 20_000_000
"""Of SQLite's machine in one reading of a journal, besides one a byte of it: less than a second. Exporting a session of
40 MB as JSON takes 200 000."""

_STEPS_AT_ONCE = 1_000_000

CHECKED_BYTES = 256 << 20
"""Larger files are not checked as a whole on opening: that takes minutes on a slow disk. SQLite detects a file that was
cut off by its length, and other damage on reading it."""

SCHEMA = """
CREATE TABLE sessions (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    source TEXT NOT NULL,
    address TEXT NOT NULL,      -- where its frames come from
    live INTEGER NOT NULL,      -- 1: a camera or stream, 0: what can be read on from the next frame
    created_utc TEXT NOT NULL,
    rules TEXT NOT NULL,        -- JSON: models with their hashes, thresholds, names
    next_seq INTEGER NOT NULL,  -- of the next message
    end_corrections BLOB,       -- what the stage map moved at the end; NULL: not ended
    ended INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE runs (
    session INTEGER NOT NULL REFERENCES sessions,
    run_id TEXT NOT NULL,
    started_utc TEXT NOT NULL,
    program TEXT NOT NULL,        -- version of leukostream
    configuration TEXT NOT NULL,  -- JSON
    PRIMARY KEY (session, run_id)
) WITHOUT ROWID;
CREATE TABLE frames (
    session INTEGER NOT NULL REFERENCES sessions,
    frame_id INTEGER NOT NULL,
    captured_utc TEXT NOT NULL,
    file TEXT,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    island INTEGER, x_px REAL, y_px REAL, quality REAL,  -- NULL: no place was found
    anchor INTEGER,
    lost TEXT,                 -- why no place was found
    corrections BLOB,          -- (anchor i4, island i4, dx f8, dy f8) each
    accepted INTEGER NOT NULL,
    reasons TEXT NOT NULL,     -- JSON
    focus REAL,
    truncated INTEGER NOT NULL,
    boxes BLOB NOT NULL,       -- (n, 4) f4, x1 y1 x2 y2 in the frame
    scores BLOB NOT NULL,      -- (n,) f4
    labels BLOB NOT NULL,      -- (n,) i2 into the rules' label_names
    cells BLOB NOT NULL,       -- (n,) i4 cell of each box as it was told, -1 for none
    looked INTEGER NOT NULL,   -- 1: looks has a row for each white box
    PRIMARY KEY (session, frame_id)
);
CREATE TABLE looks (
    session INTEGER NOT NULL,
    frame_id INTEGER NOT NULL,
    box INTEGER NOT NULL,
    cell_id INTEGER,
    probabilities BLOB NOT NULL,  -- f4, by the rules' class_names
    subclass_probabilities BLOB NOT NULL,
    PRIMARY KEY (session, frame_id, box)
) WITHOUT ROWID;
CREATE TABLE look_traits (       -- of models that say more of a look than its class
    session INTEGER NOT NULL,
    frame_id INTEGER NOT NULL,
    box INTEGER NOT NULL,
    attributes BLOB,              -- f4, the values of the rules' attributes side by side
    novelty REAL,
    PRIMARY KEY (session, frame_id, box)
) WITHOUT ROWID;
CREATE TABLE cell_changes (
    session INTEGER NOT NULL,
    frame_id INTEGER,             -- NULL: at the end
    cell_id INTEGER NOT NULL,
    joined_to INTEGER,            -- it turned out to be this cell
    class TEXT,                   -- NULL: it turned out to be no white cell, or another one
    subclass TEXT,
    top_class TEXT,
    probabilities TEXT,           -- JSON
    island INTEGER, x_px REAL, y_px REAL,
    looks INTEGER, partial INTEGER, first_frame_id INTEGER, last_frame_id INTEGER
);
CREATE VIEW cells AS
    SELECT * FROM cell_changes WHERE rowid IN (SELECT max(rowid) FROM cell_changes GROUP BY session, cell_id)
    AND class IS NOT NULL;
CREATE TABLE cell_traits (       -- beside cell_changes, in the same order, where there is something to tell
    session INTEGER NOT NULL,
    frame_id INTEGER,             -- NULL: at the end
    cell_id INTEGER NOT NULL,
    unclassified_reason TEXT,
    attributes TEXT               -- JSON: {name: {value, confidence}}
);
CREATE TABLE pictures (
    session INTEGER NOT NULL,
    session_seq INTEGER NOT NULL,  -- of the message that it came with
    cell_id INTEGER NOT NULL,
    jpeg BLOB NOT NULL,
    PRIMARY KEY (session, session_seq)
);
CREATE TABLE messages (
    session INTEGER NOT NULL,
    session_seq INTEGER NOT NULL,
    run_id TEXT NOT NULL,
    type TEXT NOT NULL,
    header BLOB NOT NULL,          -- JSON as published
    PRIMARY KEY (session, session_seq)
);
CREATE INDEX messages_by_type ON messages (session, type, session_seq);
CREATE TABLE commands (          -- what people told a running session to do: an audit, and part of the count
    number INTEGER PRIMARY KEY,
    session INTEGER NOT NULL REFERENCES sessions,
    run_id TEXT NOT NULL,
    after_frame INTEGER,           -- the last frame before it; NULL: none was yet
    given_utc TEXT NOT NULL,
    by TEXT NOT NULL,              -- the name of the key that it came with, or anyone
    request_id TEXT NOT NULL,
    request TEXT NOT NULL,         -- pause, resume, new_slide, stop_at, reclassify
    body TEXT NOT NULL,            -- JSON as it came
    refused TEXT,                  -- code; NULL: it was carried out
    reason TEXT
);
CREATE INDEX commands_by_id ON commands (by, request_id);
CREATE TABLE keyframes (
    session INTEGER NOT NULL,
    number INTEGER NOT NULL,
    island INTEGER NOT NULL, x_px REAL NOT NULL, y_px REAL NOT NULL,
    announced_island INTEGER NOT NULL, announced_x_px REAL NOT NULL, announced_y_px REAL NOT NULL,
    links BLOB NOT NULL,           -- (to, x, y, weight) f8 each
    PRIMARY KEY (session, number)
) WITHOUT ROWID;
CREATE TABLE keyframe_pictures (
    session INTEGER NOT NULL,
    number INTEGER NOT NULL,       -- -1: the last frame, keyframe or not, -2: the last well found
    height INTEGER NOT NULL, width INTEGER NOT NULL, factor INTEGER NOT NULL,
    contrast REAL NOT NULL, coherence REAL NOT NULL, smear REAL NOT NULL,
    rows INTEGER NOT NULL,
    fine BLOB NOT NULL,            -- (rows, n) i1
    PRIMARY KEY (session, number)
);
CREATE TABLE trackers (
    session INTEGER PRIMARY KEY,
    state TEXT NOT NULL            -- JSON
);
CREATE TABLE checkpoints (
    session INTEGER PRIMARY KEY,
    frame_id INTEGER NOT NULL,
    state BLOB NOT NULL            -- msgpack: the slide map and the counts as they stood after that frame
);
"""


SHAPES = """
CREATE TABLE IF NOT EXISTS shapes (
    session INTEGER NOT NULL,
    frame_id INTEGER NOT NULL,
    cell_id INTEGER NOT NULL,
    quality REAL NOT NULL,       -- of the look
    measures TEXT NOT NULL,      -- JSON
    PRIMARY KEY (session, frame_id, cell_id)
) WITHOUT ROWID;
"""
"""Measures of cells; only journals of runs with a segmenter have this table."""

HIDDEN_PARTS = """
CREATE TABLE IF NOT EXISTS hidden_parts (
    session INTEGER NOT NULL,
    frame_id INTEGER NOT NULL,   -- the first frame for which they are known
    factor INTEGER, rows INTEGER, columns INTEGER,
    mask BLOB,                   -- zlib, (rows, columns) u1: 1 where frames show no slide; NULL: they do everywhere
    PRIMARY KEY (session, frame_id)
) WITHOUT ROWID;
"""
"""What stays in place while the slide moves, or was given by hand; only in journals of sources that have any."""


FRAME_EVIDENCE = """
CREATE TABLE IF NOT EXISTS frame_evidence (
    session INTEGER NOT NULL,
    frame_id INTEGER,             -- NULL: at the end
    plasma BLOB, red BLOB,        -- (3,) f8 each, optical densities of blue, green and red; NULL: not measured
    red_cells INTEGER,            -- NULL: no colours
    progress TEXT                 -- JSON; NULL: as at the frame before
);
"""
"""For the verdict. Journals of before there were verdicts lack it: their frames have neither, and it says so."""

SLIDES = """
CREATE TABLE IF NOT EXISTS slides (
    session INTEGER PRIMARY KEY,
    info TEXT NOT NULL            -- JSON: name, accession, operator, instrument, stain … as people gave them
);
"""
"""What people say of the slide of a session; only in journals where they said something."""

POSITIONS = (
    """
CREATE TABLE IF NOT EXISTS frame_positions (
    session INTEGER NOT NULL,
    frame_id INTEGER NOT NULL,
    x_um REAL, y_um REAL, z_um REAL,  -- as the source reported it; NULL: it did not
    um_per_px REAL,                   -- likewise
    PRIMARY KEY (session, frame_id)
) WITHOUT ROWID;
""",
    """
CREATE TABLE IF NOT EXISTS keyframe_positions (
    session INTEGER NOT NULL,
    number INTEGER NOT NULL,          -- of the keyframe
    x_um REAL NOT NULL, y_um REAL NOT NULL,
    epoch INTEGER NOT NULL,
    PRIMARY KEY (session, number)
) WITHOUT ROWID;
""",
    """
CREATE TABLE IF NOT EXISTS known_positions (
    session INTEGER PRIMARY KEY,
    state TEXT NOT NULL               -- JSON: how the camera sees the stage, and whether it is believed
);
""",
)
"""Of sources that know where their frames lie, or how large a pixel is; journals of others lack these tables."""

REVIEW_EVENTS = """
CREATE TABLE IF NOT EXISTS review_events (
    session INTEGER NOT NULL,
    number INTEGER NOT NULL,      -- of the session, from 0 without gaps
    given_utc TEXT NOT NULL,
    by TEXT NOT NULL,             -- the reviewer's initials
    body TEXT NOT NULL,           -- JSON: what the reviewer did, from what to what
    signed BLOB,                  -- of a signature: zlib, what was signed; NULL: of any other event
    PRIMARY KEY (session, number)
) WITHOUT ROWID;
"""
"""What people do with a session that has ended; only in journals of which somebody reviewed a slide. Rows are added and
never changed."""

PARTIAL_LOOKS = """
CREATE TABLE IF NOT EXISTS partial_looks (
    session INTEGER NOT NULL,
    frame_id INTEGER NOT NULL,
    cells BLOB NOT NULL,          -- (n,) i4 known cells that the classifier saw, whose rows in looks are 0 to n - 1
    boxes BLOB NOT NULL,          -- (n, 4) f4, x1 y1 x2 y2 of these in the frame
    PRIMARY KEY (session, frame_id)
) WITHOUT ROWID;
"""
"""Frames of which the detector saw nothing; only in journals of runs that look at what is new."""

AREA_STATES = """
CREATE TABLE IF NOT EXISTS area_states (
    session INTEGER PRIMARY KEY,
    frame_id INTEGER NOT NULL,    -- of the last frame then; runs that look at every frame leave the row as it is
    state BLOB NOT NULL           -- msgpack: what the decision on the next frame depends on (looking/state.py)
);
"""
"""As of the last frame, replaced with each; only in journals of runs that look at what is new."""

OPTIONAL = (
    *("shapes", "partial_looks", "area_states", "hidden_parts", "frame_evidence", "slides", "review_events"),
    *("frame_positions", "keyframe_positions", "known_positions"),
)


class JournalError(LeukostreamError):
    """A journal that can't be used or written."""


class JournalInUseError(JournalError):
    """Another process has the journal now."""


def create(path: Path) -> None:
    """Make an empty journal. It gets its name once it is whole, so that no crash leaves half of one."""
    unfinished = path.with_name(f"{path.name}.new")
    with _faults(path):
        try:
            unfinished.unlink(missing_ok=True)
            database = sqlite3.connect(unfinished, isolation_level=None)
            with contextlib.closing(database):
                database.executescript(
                    f"PRAGMA page_size = {PAGE_BYTES}; PRAGMA application_id = {APPLICATION_ID};"
                    f"PRAGMA user_version = {FORMAT_VERSION}; BEGIN; {SCHEMA} COMMIT;"
                )
            os.replace(unfinished, path)
        except OSError as error:
            raise JournalError(
                f"journal {path}: got '{error.strerror}', expected a folder that can be written"
            ) from error
        finally:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)


def connect(path: Path) -> sqlite3.Connection:
    """Open a checked journal for writing, exclusively: other processes are refused until it is closed or this process
    ends in any way."""
    if not os.access(path, os.W_OK):
        raise JournalError(
            f"journal {path}: got a file that can't be written, expected one that can; check its permissions and the"
            " disk"
        )
    with _faults(path):
        # Used by one thread at a time: opened by the one that starts the pipeline, written by the one that publishes.
        database = sqlite3.connect(path, timeout=BUSY_MS / 1000, isolation_level=None, check_same_thread=False)
        try:
            database.execute("PRAGMA trusted_schema = OFF")
            database.execute("PRAGMA journal_mode = WAL")
            # Exclusive only after a first access, so that the log's index is a file, as other connections expect.
            database.execute("SELECT count(*) FROM sessions").fetchone()
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            database.execute("BEGIN IMMEDIATE")
            database.execute("COMMIT")
        except BaseException:
            database.close()
            raise
        return database


def has_table(database: sqlite3.Connection, name: str) -> bool:
    """Whether a journal has one of `OPTIONAL`."""
    return database.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (name,)).fetchone() is not None


def connect_readonly(path: Path) -> sqlite3.Connection:
    """Open a journal for reading, without changing its file. JournalError for a bad one."""
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise JournalError(f"journal {path}: got '{error.strerror}', expected the journal of a run") from error
    if not start.startswith(b"SQLite format 3\0"):
        what = "an empty file" if not start else "another kind of file"
        raise JournalError(f"journal {path}: got {what}, expected a journal; check the path")
    # A log beside the file holds what was written last, and reading it takes a writable folder. Without a log the
    # file is complete, and may be on a read-only disk.
    alone = not os.path.exists(f"{path}-wal")
    address = f"file:{quote(str(path.absolute()))}?mode=ro{'&immutable=1' if alone else ''}"
    with _faults(path):
        database = sqlite3.connect(
            address, uri=True, timeout=BUSY_MS / 1000, isolation_level=None, check_same_thread=False
        )
        try:
            _limit(database, path.stat().st_size)
            _check(database, path)
        except BaseException:
            database.close()
            raise
    return database


def _limit(database: sqlite3.Connection, size_bytes: int) -> None:
    """What the file says of itself is data: no function runs for it, and no query goes on for ever."""
    database.execute("PRAGMA trusted_schema = OFF")
    database.execute("PRAGMA cell_size_check = ON")
    left = (STEPS_MAX + size_bytes) // _STEPS_AT_ONCE

    def over() -> bool:
        nonlocal left
        left -= 1
        return left < 0

    database.set_progress_handler(over, _STEPS_AT_ONCE)


@functools.cache
def _own_columns() -> Mapping[str, list[tuple[str, str, int]]]:
    """(name, type, 0) of each column, by table."""
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        own = (SCHEMA, SHAPES, HIDDEN_PARTS, FRAME_EVIDENCE, SLIDES, REVIEW_EVENTS, *POSITIONS)
        database.executescript("".join(own))
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        return {name: _columns(database, name) for (name,) in tables}


def _columns(database: sqlite3.Connection, table: str) -> list[tuple[str, str, int]]:
    """The last one of each is not 0 for a column that is computed."""
    return database.execute("SELECT name, type, hidden FROM pragma_table_xinfo(?)", (table,)).fetchall()


def _check_tables(database: sqlite3.Connection, path: Path) -> None:
    """JournalError unless the file holds our tables, as tables, and nothing that runs when they are used."""
    found = database.execute("SELECT type, name, rootpage, sql FROM sqlite_master").fetchall()
    tables = set()
    for kind, name, rootpage, sql in found:
        own_view = kind == "view" and " ".join(str(sql).split()) in " ".join(SCHEMA.split())
        virtual = kind == "table" and not rootpage
        if virtual or not (own_view or kind in ("table", "index")):
            raise JournalError(
                f"journal {path}: got a {kind} {str(name)[:40]!r} that is none of leukostream's, expected its tables"
                " and nothing that runs; do not use this file"
            )
        if kind == "table":
            tables.add(name)
    for table, columns in _own_columns().items():
        if table not in tables and table in OPTIONAL:
            continue
        if table not in tables or _columns(database, table) != columns:
            what = "other columns in" if table in tables else "no"
            raise JournalError(
                f"journal {path}: got {what} table {table}, expected that of format {FORMAT_VERSION}; take a whole copy"
                " of it, or start anew with another --journal"
            )


def _check(database: sqlite3.Connection, path: Path) -> None:
    application, version = (
        database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
    )
    if application != APPLICATION_ID:
        raise JournalError(f"journal {path}: got an SQLite file of another program, expected a journal; check the path")
    if version != FORMAT_VERSION:
        raise JournalError(
            f"journal {path}: got format {version}, expected {FORMAT_VERSION}; use the version of leukostream that"
            " wrote it, or another --journal"
        )
    _check_tables(database, path)
    database.execute("SELECT count(*) FROM sessions").fetchone()
    if path.stat().st_size > CHECKED_BYTES:
        return
    result = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    if result != "ok":
        raise sqlite3.DatabaseError(result)


@contextlib.contextmanager
def _faults(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise fault(path, error) from error


def fault(path: Path, error: sqlite3.Error) -> JournalError:
    """The error as a line for people."""
    code = getattr(error, "sqlite_errorcode", None)
    code = None if code is None else code & 0xFF
    said = " ".join(str(error).split()).partition(" with text ")[0]  # what follows is the text that is none
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        holder = holder_of(path)
        return JournalInUseError(
            f"journal {path}: got a file that another process has locked{f' ({holder})' if holder else ''}, expected to"
            " be alone; end that run or review first"
        )
    if code == sqlite3.SQLITE_INTERRUPT:
        return JournalError(
            f"journal {path}: got a file that takes more than {STEPS_MAX:.0e} steps to read, expected a journal, which"
            " takes few; do not use this file"
        )
    if code == sqlite3.SQLITE_FULL:
        return JournalError(
            f"journal {path}: got '{said}', expected room; make room, then go on with --resume: it holds everything"
            " that was published"
        )
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return JournalError(
            f"journal {path}: got '{said}', expected a file that can be written, in a folder that can; check the"
            " permissions and the disk"
        )
    if code == sqlite3.SQLITE_IOERR:
        return JournalError(
            f"journal {path}: got '{said}', expected a working disk with room; it holds everything that was published:"
            " go on with --resume"
        )
    return JournalError(
        f"journal {path}: got a damaged file ({said}), expected a whole one; take a copy of it that is, or start anew"
        " with another --journal"
    )
