"""Reading a journal: sessions, and what was said, published and decided in them.

Whatever a journal says is checked here (columns.py): what comes out has the types and sizes that counting expects.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import msgspec

from streamer.config import VerdictConfig
from streamer.counting.slide_count import Checkpoint, SeenFrame
from streamer.journal.columns import (
    CommandRow,
    EvidenceRow,
    FrameRow,
    MessageRow,
    PicturePlaceRow,
    PictureRow,
    RunRow,
    SessionRow,
    SessionRows,
    SlideInfoRow,
    check_rules,
    check_source,
    checked,
    columns_of,
    reading,
)
from streamer.journal.evidence import evidence_at, evidence_of, has_evidence
from streamer.journal.frames import StoredFrames
from streamer.journal.rows import (
    GivenCommand,
    Rules,
    unpacked,
    unpacked_area,
    unpacked_checkpoint,
    unpacked_corrections,
)
from streamer.journal.schema import JournalError, connect_readonly, has_table
from streamer.journal.stage import StoredStage
from streamer.looking.plan import Candidate
from streamer.looking.state import AreaState
from streamer.records import (
    Reclassification,
    SlideInfo,
    SourceProgress,
)
from streamer.stage.placement import Correction


class _ReclassifyBody(msgspec.Struct, rename={"class_": "class"}):
    """The part of a `reclassify` or `confirm` command that the count needs."""

    class_: str | None
    cell_id: int = -1
    cell_ids: list[int] = []
    subclass: str | None = None
    reviewer: str | None = None


class StoredOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What of a run's configuration its journal is read with."""

    reference_ranges: dict[str, tuple[float, float]] | None = None
    stop_at_precision: float | None = None
    record: str | None = None
    um_per_px: str | float | tuple[str, ...] | None = None
    """As given, `[NAME=]UM` each."""
    verdict: VerdictConfig | None = None
    """None: of before there were verdicts."""


@dataclass(frozen=True, slots=True)
class StoredRun:
    run_id: str
    started_utc: str
    program: str
    configuration: str
    """JSON."""
    options: StoredOptions


@dataclass(frozen=True, slots=True)
class StoredSession(SessionRows):
    """One session of a journal, as of when it was read. JournalError for what of it can't be read."""

    id: str
    source: str
    address: str
    live: bool
    created_utc: str
    rules: Rules
    next_seq: int
    ended: bool
    end_corrections: tuple[Correction, ...]
    slide: SlideInfo = field(default_factory=SlideInfo)
    """What people say of its slide."""

    @property
    def name(self) -> str:
        """What people call its slide; that of its source where they said nothing."""
        return self.slide.name or self.source

    @property
    def first_id(self) -> str:
        """Of the journal's first session: random, and of the journal for as long as it is kept."""
        with self.reading("sessions.id"):
            row = self.database.execute("SELECT id FROM sessions ORDER BY number LIMIT 1").fetchone()
            return str(row[0])

    @property
    def stage(self) -> StoredStage:
        return StoredStage(self.database, self.path, self.number)

    def check(self, where: str, *, address: str | None = None, rules: Rules | None = None) -> None:
        """JournalError unless the session has that source and those rules, and nobody has reviewed it since it ended;
        `where` names the file."""
        where = f"journal {where}: session of {self.source!r}"
        if self.is_reviewed:
            raise JournalError(
                f"{where}: got one that people have reviewed since it ended, expected one to go on with; use another"
                " --journal"
            )
        if address is not None and address != self.address:
            raise JournalError(
                f"{where}: got the source {address}, expected {self.address}, which it was started with; give that"
                " one, or another --journal"
            )
        for name in rules.__struct_fields__ if rules is not None else ():
            if name in ("error_rates", "known"):  # they decide no count, and a card may be measured anew
                continue
            got, expected = getattr(rules, name), getattr(self.rules, name)
            if got != expected:
                raise JournalError(
                    f"{where}: got {name.replace('_', ' ')} {_words(got)}, expected {_words(expected)} as it was"
                    " started with; use the same models and options, or another --journal"
                )

    @property
    def is_reviewed(self) -> bool:
        """Whether anything was said of it since it ended: then it can't be gone on with."""
        return has_table(self.database, "review_events") and self.value("review_events", "1", "LIMIT 1") is not None

    def runs(self) -> list[StoredRun]:
        """Oldest first."""
        runs = []
        for row in self.rows("runs", RunRow, "ORDER BY started_utc"):
            with self.reading("runs.configuration"):
                options = msgspec.json.decode(row.configuration, type=StoredOptions)
            runs.append(StoredRun(row.run_id, row.started_utc, row.program, row.configuration, options))
        return runs

    def last_frame(self) -> tuple[int, str | None] | None:
        """(frame_id, file) of the last frame; None before the first."""
        row = next(self.rows("frames", FrameRow, "ORDER BY frame_id DESC LIMIT 1"), None)
        return None if row is None else (row.frame_id, row.file)

    def checkpoint(self) -> Checkpoint | None:
        """The newest that can be gone on from; None: the frames have to be counted from the first."""
        state = self.value("checkpoints", "state", "")
        with self.reading("checkpoints.state"):
            return None if state is None else unpacked_checkpoint(state)

    def area_state(self) -> AreaState | None:
        """What the decision on the next frame depends on; None where every frame was looked at, or nobody noted it."""
        if not has_table(self.database, "area_states"):
            return None
        is_newest = "AND frame_id = (SELECT max(frame_id) FROM frames WHERE session = ?)"
        state = self.value("area_states", "state", is_newest, self.number)
        with self.reading("area_states.state"):
            return None if state is None else unpacked_area(state)

    @property
    def end_progress(self) -> SourceProgress | None:
        """How far the source was read in the end; None where nobody noted it, or it has not ended."""
        return evidence_at(self, None)[1] if has_evidence(self.database) else None

    @property
    def last_progress(self) -> SourceProgress | None:
        """The same at the newest frame; None where nobody noted it yet."""
        if not has_evidence(self.database):
            return None
        last = "AND frame_id IS NOT NULL AND progress IS NOT NULL ORDER BY frame_id DESC LIMIT 1"
        row = next(self.rows("frame_evidence", EvidenceRow, last), None)
        with self.reading("frame_evidence.progress"):
            return None if row is None else evidence_of(row)[1]

    @property
    def frame_count(self) -> int:
        """How many frames there are."""
        with self.reading("frames"):
            row = self.database.execute("SELECT count(*) FROM frames WHERE session = ?", (self.number,)).fetchone()
            return int(row[0])

    def frames(self, after: int = -1) -> Iterator[SeenFrame]:
        """All frames numbered above `after`, in order, exactly as they were counted."""
        return self._frames.counted(after)

    def visited(self) -> Iterator[tuple[Candidate, bool]]:
        """All frames in order, as far as what was looked at depends on them, and whether the detector saw them."""
        return self._frames.visited()

    @property
    def _frames(self) -> StoredFrames:
        return StoredFrames(self.database, self.path, self.number, self.rules)

    def reclassifications(self) -> dict[int, list[Reclassification]]:
        """The classes that people gave to cells, or confirmed, in order, by the frame that they followed."""
        by_frame: dict[int, list[Reclassification]] = {}
        which = "AND request IN ('reclassify', 'confirm') AND refused IS NULL ORDER BY number"
        rows = self.rows("commands", CommandRow, which)
        for row in rows:
            with self.reading("commands.body"):
                body = msgspec.json.decode(row.body, type=_ReclassifyBody)
            after = -1 if row.after_frame is None else row.after_frame
            confirmed, by = row.request == "confirm", body.reviewer or row.by
            by_frame.setdefault(after, []).extend(
                Reclassification(cell_id, body.class_, body.subclass, confirmed, by, row.given_utc)
                for cell_id in (body.cell_ids if confirmed else [body.cell_id])
            )
        return by_frame

    def commands(self) -> list[GivenCommand]:
        """All commands, refused ones too, in order."""
        rows = self.rows("commands", CommandRow, "ORDER BY number")
        return [
            GivenCommand(
                row.run_id, row.by, row.request_id, row.request, row.body, row.refused, row.reason, row.given_utc
            )
            for row in rows
        ]

    def carried_out(self, by: str, request_id: str) -> str | None:
        """Body of the command with this id, if it was carried out on any session of this source."""
        with self.reading("commands.body"):
            row = self.database.execute(
                "SELECT body FROM commands JOIN sessions ON sessions.number = commands.session"
                " WHERE by = ? AND request_id = ? AND refused IS NULL AND source = ?",
                (by, request_id, self.source),
            ).fetchone()
            return None if row is None else str(row[0])

    def cells_of(self, frame_id: int) -> list[int]:
        """The cell of each box of a frame, as published then; -1 for none."""
        cells = self.value("frames", "cells", "AND frame_id = ?", frame_id)
        with self.reading(f"frames.cells of frame {frame_id}"):
            return [int(cell) for cell in unpacked(cells, "<i4")]

    def differentials(self) -> Iterator[bytes]:
        """The headers of all differentials, in order of publication."""
        return (row.header for row in self._messages("AND type = 'differential' ORDER BY session_seq"))

    def frame_messages(self) -> Iterator[bytes]:
        """The headers of all frames, in order."""
        return (row.header for row in self._messages("AND type = 'frame' ORDER BY session_seq"))

    def cell_messages(self) -> Iterator[tuple[bytes, bytes | None]]:
        """(header, JPEG) of all `cell` messages, in order of publication."""
        return ((row.header, row.jpeg) for row in self._messages("AND type = 'cell' ORDER BY session_seq"))

    def last_message(self, type_: str) -> bytes | None:
        """The header of the newest message of a type; None before the first."""
        rows = self._messages("AND type = ? ORDER BY session_seq DESC LIMIT 1", type_)
        return next((row.header for row in rows), None)

    def messages_after(self, session_seq: int, limit: int = -1) -> Iterator[tuple[bytes, bytes | None]]:
        """(header, payload) of the messages numbered above `session_seq`, in order; all of them with -1."""
        rows = self._messages("AND session_seq > ? ORDER BY session_seq LIMIT ?", session_seq, limit)
        return ((row.header, row.jpeg) for row in rows)

    def _messages(self, rest: str, *values: object) -> Iterator[MessageRow]:
        return self.rows("messages LEFT JOIN pictures USING (session, session_seq)", MessageRow, rest, *values)

    def picture_places(self) -> Iterator[tuple[int, int]]:
        """(cell_id, session_seq) of the cells that have a picture; the newest of a cell last."""
        rows = self.rows("pictures", PicturePlaceRow, "ORDER BY session_seq")
        return ((row.cell_id, row.session_seq) for row in rows)

    def picture(self, session_seq: int) -> bytes | None:
        """The JPEG of one message; None: it has none."""
        rows = self.rows("pictures", PictureRow, "AND session_seq = ?", session_seq)
        return next((row.jpeg for row in rows), None)

    def pictures(self) -> Iterator[tuple[int, bytes]]:
        """(cell_id, JPEG) of the cells that have one; the newest of a cell last."""
        return ((row.cell_id, row.jpeg) for row in self.rows("pictures", PictureRow, "ORDER BY session_seq"))


def _words(value: object) -> str:
    """For people; of a model, its name and the start of its hash."""
    name, sha256 = getattr(value, "name", None), getattr(value, "sha256", None)
    if name is not None:
        return f"{name} ({sha256[:12]}…)" if sha256 else str(name)
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return "none" if value is None else str(value)


def read_sessions(database: sqlite3.Connection, path: Path) -> list[StoredSession]:
    """Oldest first. `path`: of the journal, for errors."""
    sessions = []
    with reading(path, "sessions"):
        rows = database.execute(f"SELECT {columns_of(SessionRow)} FROM sessions ORDER BY number").fetchall()
    for values in rows:
        with reading(path, "sessions"):
            row = checked(SessionRow, values)
        with reading(path, f"sessions.rules of session {row.number}"):
            rules = check_rules(msgspec.json.decode(row.rules, type=Rules))
        with reading(path, f"sessions.end_corrections of session {row.number}"):
            corrections = unpacked_corrections(row.end_corrections)
        with reading(path, f"sessions.source of session {row.number}"):
            source = check_source(row.source)
        sessions.append(
            StoredSession(
                database=database,
                path=path,
                number=row.number,
                id=row.id,
                source=source,
                address=row.address,
                live=bool(row.live),
                created_utc=row.created_utc,
                rules=rules,
                next_seq=row.next_seq,
                ended=bool(row.ended),
                end_corrections=corrections,
                slide=_slide_info(database, path, row.number),
            )
        )
    return sessions


def _slide_info(database: sqlite3.Connection, path: Path, session: int) -> SlideInfo:
    if not has_table(database, "slides"):
        return SlideInfo()
    row = next(SessionRows(database, path, session).rows("slides", SlideInfoRow, ""), None)
    with reading(path, f"slides.info of session {session}"):
        return SlideInfo() if row is None else msgspec.json.decode(row.info, type=SlideInfo)


class JournalReader(AbstractContextManager["JournalReader"]):
    """A journal opened for reading, which leaves its file unchanged. One thread."""

    def __init__(self, path: str | Path) -> None:
        """JournalError for anything but a whole journal of this format, and for one being written."""
        self.path = Path(path)
        self._database = connect_readonly(self.path)
        try:
            self.sessions = read_sessions(self._database, self.path)
        except BaseException:
            self._database.close()
            raise

    def close(self) -> None:
        self._database.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
