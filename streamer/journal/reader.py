"""Reading a journal: sessions, frames, messages, and the state of the stage tracker."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import msgspec

from streamer.counting.slide_count import Checkpoint, SeenFrame
from streamer.journal.evidence import has_evidence, read_evidence
from streamer.journal.rows import (
    GivenCommand,
    Rules,
    unpacked,
    unpacked_checkpoint,
    unpacked_corrections,
    unpacked_looks,
)
from streamer.journal.schema import JournalError, connect_readonly
from streamer.records import CellShape, Detections, MeasuredLook, Reclassification, SourceProgress, StagePosition
from streamer.stage.keyframes import KeyframeState, Link
from streamer.stage.placement import Correction, Placement
from streamer.stage.preparation import PreparedFrame
from streamer.stage.registration import Shift
from streamer.stage.tracker import TrackerState

LAST_PICTURE = -1
"""Number under which the picture of the last frame is stored."""

FOUND_PICTURE = -2
"""The same for `TrackerState.found`, if that is another frame."""


class _ReclassifyBody(msgspec.Struct, rename={"class_": "class"}):
    """The part of a `reclassify` command that the count needs."""

    cell_id: int
    class_: str | None
    subclass: str | None = None


class TrackerRow(msgspec.Struct, frozen=True, kw_only=True):
    """A TrackerState without its pictures, as JSON."""

    next_island: int
    reference: int | None
    pending: tuple[tuple[int, int], ...]
    distorted: dict[int, str]
    given_up: int
    was_found: bool
    found: tuple[int, Shift] | None
    found_is_last: bool
    """Whether `found` is of the last frame."""
    hunches: tuple[tuple[int, int, Shift], ...]
    position: tuple[int, float, float, float] | None
    """Of the last frame: island, x_px, y_px, quality."""
    anchor: int | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class StoredRun:
    run_id: str
    started_utc: str
    program: str
    configuration: str
    """JSON."""


@dataclass(frozen=True, slots=True)
class StoredSession:
    """One session of a journal, as of when it was read."""

    database: sqlite3.Connection
    number: int
    id: str
    source: str
    address: str
    live: bool
    created_utc: str
    rules: Rules
    next_seq: int
    ended: bool
    end_corrections: tuple[Correction, ...]

    def check(self, where: str, *, address: str | None = None, rules: Rules | None = None) -> None:
        """JournalError unless the session has that source and those rules; `where` names the file."""
        where = f"journal {where}: session of {self.source!r}"
        if address is not None and address != self.address:
            raise JournalError(
                f"{where}: got the source {address}, expected {self.address}, which it was started with; give that"
                " one, or another --journal"
            )
        for name in rules.__struct_fields__ if rules is not None else ():
            if name == "known":  # says nothing of how frames are counted
                continue
            got, expected = getattr(rules, name), getattr(self.rules, name)
            if got != expected:
                raise JournalError(
                    f"{where}: got {name.replace('_', ' ')} {_words(got)}, expected {_words(expected)} as it was"
                    " started with; use the same models and options, or another --journal"
                )

    def runs(self) -> list[StoredRun]:
        """Oldest first."""
        rows = self.database.execute(
            "SELECT run_id, started_utc, program, configuration FROM runs WHERE session = ? ORDER BY started_utc",
            (self.number,),
        )
        return [StoredRun(*row) for row in rows]

    def last_frame(self) -> tuple[int, str | None] | None:
        """(frame_id, file) of the last frame; None before the first."""
        row = self.database.execute(
            "SELECT frame_id, file FROM frames WHERE session = ? ORDER BY frame_id DESC LIMIT 1", (self.number,)
        ).fetchone()
        return None if row is None else (int(row[0]), row[1])

    def checkpoint(self) -> Checkpoint | None:
        """The newest; None before the first."""
        row = self.database.execute("SELECT state FROM checkpoints WHERE session = ?", (self.number,)).fetchone()
        return None if row is None else unpacked_checkpoint(row[0])

    @property
    def end_progress(self) -> SourceProgress | None:
        """How far the source was read in the end; None where nobody noted it, or it has not ended."""
        return read_evidence(self.database, self.number, None)[1] if has_evidence(self.database) else None

    def frames(self, after: int = -1) -> Iterator[SeenFrame]:
        """All frames numbered above `after`, in order, exactly as they were counted."""
        rows = self.database.execute(
            "SELECT frame_id, captured_utc, file, width, height, island, x_px, y_px, quality, anchor, lost,"
            " corrections, accepted, reasons, focus, truncated, boxes, scores, labels, looked"
            " FROM frames WHERE session = ? AND frame_id > ? ORDER BY frame_id",
            (self.number, after),
        )
        noted = has_evidence(self.database)
        for frame_id, utc, file, width, height, island, x, y, quality, anchor, lost, corrections, *rest in rows:
            accepted, reasons, focus, truncated, boxes, scores, labels, looked = rest
            looks = self.database.execute(
                "SELECT probabilities, subclass_probabilities, attributes, novelty"
                " FROM looks LEFT JOIN look_traits USING (session, frame_id, box)"
                " WHERE session = ? AND frame_id = ? ORDER BY box",
                (self.number, frame_id),
            ).fetchall()
            colours, progress = read_evidence(self.database, self.number, frame_id) if noted else (None, None)
            yield SeenFrame(
                frame_id=frame_id,
                width=width,
                height=height,
                placement=Placement(
                    None if island is None else StagePosition(island, x, y, quality),
                    anchor,
                    lost,
                    unpacked_corrections(corrections),
                ),
                detections=Detections(
                    boxes_px=unpacked(boxes, "<f4", 4),
                    scores=unpacked(scores, "<f4"),
                    labels=unpacked(labels, "<i2").astype("intp"),
                    label_names=self.rules.label_names,
                    kinds=self.rules.kinds,
                    truncated=bool(truncated),
                ),
                looks=unpacked_looks(self.rules, looks) if looked else None,
                accepted=bool(accepted),
                reasons=tuple(msgspec.json.decode(reasons)),
                focus=focus,
                file=file,
                captured_utc=utc,
                shapes=self._shapes(frame_id),
                colours=colours,
                progress=progress,
            )

    def _shapes(self, frame_id: int) -> list[MeasuredLook]:
        """The measures made on a frame, in order."""
        if self.rules.segmenter is None:  # such journals have no such table
            return []
        rows = self.database.execute(
            "SELECT cell_id, quality, measures FROM shapes WHERE session = ? AND frame_id = ?", (self.number, frame_id)
        )
        return [
            MeasuredLook(cell_id, quality, msgspec.json.decode(measures, type=CellShape))
            for cell_id, quality, measures in rows
        ]

    def reclassifications(self) -> dict[int, list[Reclassification]]:
        """The classes that people gave to cells, in order, by the frame that they followed."""
        by_frame: dict[int, list[Reclassification]] = {}
        rows = self.database.execute(
            "SELECT after_frame, body FROM commands"
            " WHERE session = ? AND request = 'reclassify' AND refused IS NULL ORDER BY number",
            (self.number,),
        )
        for after_frame, request in rows:
            body = msgspec.json.decode(request, type=_ReclassifyBody)
            by_frame.setdefault(after_frame, []).append(Reclassification(body.cell_id, body.class_, body.subclass))
        return by_frame

    def commands(self) -> list[GivenCommand]:
        """All commands, refused ones too, in order."""
        rows = self.database.execute(
            "SELECT run_id, by, request_id, request, body, refused, reason FROM commands"
            " WHERE session = ? ORDER BY number",
            (self.number,),
        )
        return [GivenCommand(*row) for row in rows]

    def carried_out(self, by: str, request_id: str) -> str | None:
        """Body of the command with this id, if it was carried out on any session of this source."""
        row = self.database.execute(
            "SELECT body FROM commands JOIN sessions ON sessions.number = commands.session"
            " WHERE by = ? AND request_id = ? AND refused IS NULL AND source = ?",
            (by, request_id, self.source),
        ).fetchone()
        return None if row is None else str(row[0])

    def cells_of(self, frame_id: int) -> list[int]:
        """The cell of each box of a frame, as published then; -1 for none."""
        row = self.database.execute(
            "SELECT cells FROM frames WHERE session = ? AND frame_id = ?", (self.number, frame_id)
        ).fetchone()
        return [int(cell) for cell in unpacked(row[0], "<i4")]

    def differentials(self) -> Iterator[bytes]:
        """The headers of all differentials, in order of publication."""
        rows = self.database.execute(
            "SELECT header FROM messages WHERE session = ? AND type = 'differential' ORDER BY session_seq",
            (self.number,),
        )
        return (row[0] for row in rows)

    def messages_after(self, session_seq: int, limit: int = -1) -> Iterator[tuple[bytes, bytes | None]]:
        """(header, payload) of the messages numbered above `session_seq`, in order; all of them with -1."""
        return iter(
            self.database.execute(
                "SELECT header, jpeg FROM messages LEFT JOIN pictures USING (session, session_seq)"
                " WHERE session = ? AND session_seq > ? ORDER BY session_seq LIMIT ?",
                (self.number, session_seq, limit),
            )
        )

    def pictures(self) -> Iterator[tuple[int, bytes]]:
        """(cell_id, JPEG) of the cells that have one; the newest of a cell last."""
        return iter(
            self.database.execute(
                "SELECT cell_id, jpeg FROM pictures WHERE session = ? ORDER BY session_seq", (self.number,)
            )
        )

    def keyframes(self) -> Iterator[tuple[KeyframeState, PreparedFrame]]:
        """In order of their numbers, without spectra."""
        rows = self.database.execute(
            "SELECT number, island, x_px, y_px, announced_island, announced_x_px, announced_y_px, links,"
            " height, width, factor, contrast, coherence, smear, rows, fine"
            " FROM keyframes JOIN keyframe_pictures USING (session, number) WHERE session = ? ORDER BY number",
            (self.number,),
        )
        for number, island, x, y, announced_island, announced_x, announced_y, links, *picture in rows:
            link_rows = unpacked(links, "<f8", 4).tolist()
            state = KeyframeState(
                number=number,
                island=island,
                x_px=x,
                y_px=y,
                announced_px=(announced_x, announced_y),
                announced_island=announced_island,
                links=tuple(Link(int(to), *link) for to, *link in link_rows),
            )
            yield state, _prepared(*picture)

    def last_picture(self) -> PreparedFrame | None:
        """Of the last frame; None before the first."""
        return self._picture(LAST_PICTURE)

    def _picture(self, number: int) -> PreparedFrame | None:
        row = self.database.execute(
            "SELECT height, width, factor, contrast, coherence, smear, rows, fine FROM keyframe_pictures"
            " WHERE session = ? AND number = ?",
            (self.number, number),
        ).fetchone()
        return None if row is None else _prepared(*row)

    def tracker(self) -> TrackerState | None:
        """None before the first frame."""
        row = self.database.execute("SELECT state FROM trackers WHERE session = ?", (self.number,)).fetchone()
        picture = self.last_picture()
        if row is None or picture is None:
            return None
        state = msgspec.json.decode(row[0], type=TrackerRow)
        found = None
        if state.found is not None:
            of = picture if state.found_is_last else self._picture(FOUND_PICTURE)
            found = None if of is None else (of, *state.found)
        position = None if state.position is None else StagePosition(*state.position)
        return TrackerState(
            next_island=state.next_island,
            reference=state.reference,
            pending=state.pending,
            distorted=state.distorted,
            given_up=state.given_up,
            was_found=state.was_found,
            found=found,
            hunches=state.hunches,
            last=(picture, Placement(position, state.anchor, state.reason)),
        )


def _words(value: object) -> str:
    """For people; of a model, its name and the start of its hash."""
    name, sha256 = getattr(value, "name", None), getattr(value, "sha256", None)
    if name is not None:
        return f"{name} ({sha256[:12]}…)" if sha256 else str(name)
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return "none" if value is None else str(value)


def _prepared(
    height: int, width: int, factor: int, contrast: float, coherence: float, smear: float, rows: int, fine: bytes
) -> PreparedFrame:
    picture = unpacked(fine, "i1").reshape(rows, -1)
    return PreparedFrame(height, width, factor, picture, None, contrast, coherence, smear)


def read_sessions(database: sqlite3.Connection) -> list[StoredSession]:
    """Oldest first."""
    rows = database.execute(
        "SELECT number, id, source, address, live, created_utc, rules, next_seq, ended, end_corrections FROM sessions"
        " ORDER BY number"
    )
    return [
        StoredSession(
            database=database,
            number=number,
            id=id_,
            source=source,
            address=address,
            live=bool(live),
            created_utc=created,
            rules=msgspec.json.decode(rules, type=Rules),
            next_seq=next_seq,
            ended=bool(ended),
            end_corrections=unpacked_corrections(corrections),
        )
        for number, id_, source, address, live, created, rules, next_seq, ended, corrections in rows.fetchall()
    ]


class JournalReader(AbstractContextManager["JournalReader"]):
    """A journal opened for reading, which leaves its file unchanged. One thread."""

    def __init__(self, path: str | Path) -> None:
        """JournalError for anything but a whole journal of this format, and for one being written."""
        self.path = Path(path)
        self._database = connect_readonly(self.path)
        self.sessions = read_sessions(self._database)

    def close(self) -> None:
        self._database.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
