"""Writing a journal: one transaction a frame, committed before anything of it is published."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import astuple, replace
from pathlib import Path

import msgspec
import numpy as np

from engines.base import UsageError
from streamer import __version__
from streamer.counting.review_events import ReviewEvent
from streamer.counting.slide_count import Checkpoint, SeenFrame
from streamer.counting.slide_map import SlideUpdate
from streamer.journal.evidence import create_evidence, forget_end, write_evidence
from streamer.journal.positions import PositionsWriter
from streamer.journal.reader import StoredSession, read_sessions
from streamer.journal.reviewing import packed_signed
from streamer.journal.rows import (
    GivenCommand,
    Rules,
    now_utc,
    packed,
    packed_area,
    packed_checkpoint,
    packed_corrections,
    packed_hidden,
    packed_mask,
)
from streamer.journal.schema import (
    AREA_STATES,
    HIDDEN_PARTS,
    PARTIAL_LOOKS,
    REVIEW_EVENTS,
    SHAPES,
    SLIDES,
    connect,
    connect_readonly,
    create,
    fault,
)
from streamer.journal.stage import FOUND_PICTURE, LAST_PICTURE, STATIC_PICTURE, StaticRow, TrackerRow
from streamer.looking.state import AreaState
from streamer.protocol.factory import attribute_messages
from streamer.protocol.messages import AnyMessage, CellMessage, encode, type_of
from streamer.records import Cell, Classifications, SlideInfo, SourceProgress
from streamer.stage.hidden import HiddenParts
from streamer.stage.keyframes import KeyframeState
from streamer.stage.placement import Correction
from streamer.stage.preparation import PreparedFrame
from streamer.stage.static_mask import StaticMask
from streamer.stage.tracker_state import StageChanges, TrackerState

Emission = tuple[AnyMessage, bytes | None]
"""A message and its payload."""


class Journal:
    """The journal of a run: one file, a session for each source. Used by one thread at a time."""

    def __init__(self, path: str | Path, *, resume: bool = False) -> None:
        """Make a new file, or with `resume` continue an existing one.

        UsageError for an existing file without `resume`. JournalError for one that can't be continued; it is left
        unchanged.
        """
        self.path = Path(path)
        self.resumed = self.path.exists()
        """Whether there was a file to continue."""
        if self.resumed and not resume:
            raise UsageError(
                f"--journal {path}: got a file that exists, expected a new one; add --resume to go on with its"
                " sessions, or give another name"
            )
        if self.resumed:
            connect_readonly(self.path).close()
        else:
            create(self.path)
        self.database = connect(self.path)
        self.broken = False
        """Whether a write has failed. Nothing is written after that."""
        self._is_durable: bool | None = None
        """Whether what is written outlasts a crash of the system, as it is set now; None: as SQLite has it."""

    def session(self, source: str) -> SessionJournal | None:
        """The newest session of a source, to be continued; None if there is none."""
        sessions = [stored for stored in read_sessions(self.database, self.path) if stored.source == source]
        return SessionJournal(self, sessions[-1]) if sessions else None

    def new_session(self, source: str, id_: str, *, address: str, live: bool, rules: Rules) -> SessionJournal:
        """`address`: where its frames come from. `live`: they can't be read again."""
        with self.transaction():
            create_evidence(self.database)
            if rules.segmenter is not None:
                self.database.execute(SHAPES)
            self.database.execute(
                "INSERT INTO sessions (id, source, address, live, created_utc, rules, next_seq)"
                " VALUES (?, ?, ?, ?, ?, ?, 0)",
                (id_, source, address, live, now_utc(), msgspec.json.encode(rules).decode()),
            )
        return SessionJournal(self, read_sessions(self.database, self.path)[-1])

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[None]:
        """All writes within are stored when it ends, or none. JournalError if they can't be. `durable`: these, and all
        before them, outlast a crash of the system too."""
        try:
            if durable != self._is_durable:
                self.database.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                self._is_durable = durable
            self.database.execute("BEGIN IMMEDIATE")
            yield
            self.database.execute("COMMIT")
        except sqlite3.Error as error:
            self.broken = True
            self._roll_back()
            raise fault(self.path, error) from error
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        if self.database.in_transaction:
            with contextlib.suppress(sqlite3.Error):  # undone when the file is opened next
                self.database.execute("ROLLBACK")

    def close(self) -> None:
        """Harmless when called twice."""
        with contextlib.suppress(sqlite3.Error):  # a log that can't be moved into the file stays beside it
            self.database.close()


class SessionJournal:
    """One session of a journal: `SlideSession` writes to it, and resumes from it."""

    def __init__(self, journal: Journal, stored: StoredSession) -> None:
        self.journal = journal
        self.stored = stored
        self._number = stored.number
        self._db = journal.database
        self._last: PreparedFrame | None = None
        self._found: PreparedFrame | None = None
        self._hidden: HiddenParts | None = None
        self._has_partial_looks = self._has_area_states = False
        """Whether their tables are there."""
        self._static = StaticMask()
        self._static_row = StaticRow()
        self._progress = stored.last_progress
        """As it was written last, by this process or one before it."""
        self._positions = PositionsWriter(self._db, self._number)
        with stored.reading("keyframe_pictures.number"):
            numbers = self._db.execute("SELECT number FROM keyframe_pictures WHERE session = ?", (self._number,))
            self._pictures: set[int] = {number for (number,) in numbers}

    @property
    def broken(self) -> bool:
        return self.journal.broken

    def begin_run(self, run_id: str, configuration: str) -> None:
        """Record that a process continues this session, which clears its end."""
        with self.journal.transaction():
            create_evidence(self._db)  # journals of before there were verdicts have no such table
            forget_end(self._db, self._number)
            self._db.execute(
                "INSERT INTO runs VALUES (?, ?, ?, ?, ?)", (self._number, run_id, now_utc(), __version__, configuration)
            )
            self._db.execute("UPDATE sessions SET ended = 0, end_corrections = NULL WHERE number = ?", (self._number,))

    def describe(self, slide: SlideInfo) -> None:
        """Store what people say of the slide, in place of what they said before."""
        with self.journal.transaction():
            self._db.execute(SLIDES)
            info = msgspec.json.encode(slide).decode()
            self._db.execute("INSERT OR REPLACE INTO slides VALUES (?, ?)", (self._number, info))
        self.stored = replace(self.stored, slide=slide)

    def frame(
        self,
        seen: SeenFrame,
        update: SlideUpdate,
        changes: StageChanges,
        emissions: Sequence[Emission],
        checkpoint: Checkpoint | None = None,
        area: AreaState | None = None,
    ) -> None:
        """Store one frame, all its changes and its messages; `checkpoint` and `area` replace the last ones."""
        detections, placement = seen.detections, seen.placement
        position = placement.position
        place: tuple[object, ...] = (None,) * 4
        if position is not None:
            place = position.island, float(position.x_px), float(position.y_px), float(position.quality)
        cells = np.array([-1 if one.cell_id is None else one.cell_id for one in update.observations], np.int32)
        with self.journal.transaction():
            self._db.execute(
                "INSERT INTO frames VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(self._number, seen.frame_id, seen.captured_utc, seen.file, seen.width, seen.height, *place),
                    *(placement.anchor, placement.reason, packed_corrections(placement.corrections)),
                    *(seen.accepted, msgspec.json.encode(seen.reasons).decode()),
                    *(None if seen.focus is None else float(seen.focus), detections.truncated),
                    *(packed(detections.boxes_px, "<f4"), packed(detections.scores, "<f4")),
                    *(packed(detections.labels, "<i2"), packed(cells, "<i4"), seen.looks is not None),
                ),
            )
            self._hidden_parts(seen.frame_id, placement.hidden)
            self._looks(seen, cells)
            if not seen.looked:
                self._partial_looks(seen)
            self._shapes(seen)
            self._evidence(seen)
            self._positions.write(seen, changes.tracker.positions, changes.readings)
            self._cell_changes(seen.frame_id, update)
            self._stage(changes)
            self._messages(emissions)
            if area is not None:
                if not self._has_area_states:
                    self._db.execute(AREA_STATES)
                    self._has_area_states = True
                self._db.execute(
                    "INSERT OR REPLACE INTO area_states VALUES (?, ?, ?)",
                    (self._number, seen.frame_id, packed_area(area)),
                )
            if checkpoint is not None:
                self._db.execute(
                    "INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?)",
                    (self._number, checkpoint.frame_id, packed_checkpoint(checkpoint)),
                )

    def end(
        self,
        corrections: Sequence[Correction],
        update: SlideUpdate,
        emissions: Sequence[Emission],
        progress: SourceProgress | None = None,
    ) -> None:
        """Store the end of the session: what is published as the end stays the end, whatever becomes of the machine."""
        with self.journal.transaction(durable=True):
            write_evidence(self._db, self._number, None, None, progress)
            self._cell_changes(None, update)
            self._db.execute(
                "UPDATE sessions SET ended = 1, end_corrections = ? WHERE number = ?",
                (packed_corrections(corrections), self._number),
            )
            self._messages(emissions)

    def other(self, emissions: Sequence[Emission]) -> None:
        """Store messages that change nothing."""
        with self.journal.transaction():
            self._messages(emissions)

    def command(
        self, given: GivenCommand, after_frame: int | None, update: SlideUpdate | None, emissions: Sequence[Emission]
    ) -> None:
        """Store a command, its changes and its messages."""
        with self.journal.transaction():
            self._db.execute(
                "INSERT INTO commands (session, after_frame, run_id, by, request_id, request, body, refused, reason,"
                " given_utc) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (self._number, after_frame, *astuple(given)),
            )
            if update is not None:
                self._cell_changes(after_frame, update)
            self._messages(emissions)

    def review(
        self, given: ReviewEvent, signed: bytes | None, update: SlideUpdate, emissions: Sequence[Emission]
    ) -> None:
        """Store what a person did with a session that has ended, its changes and its messages: they outlast a crash of
        the system. `signed`: what a signature signs."""
        body = msgspec.json.encode(given.event).decode()
        blob = None if signed is None else packed_signed(signed)
        with self.journal.transaction(durable=True):
            self._db.execute(REVIEW_EVENTS)
            self._db.execute(
                "INSERT INTO review_events VALUES (?, ?, ?, ?, ?, ?)",
                (self._number, given.number, given.at, given.by, body, blob),
            )
            self._cell_changes(None, update)
            self._messages(emissions)

    def _hidden_parts(self, frame_id: int, hidden: HiddenParts | None) -> None:
        if hidden is not self._hidden:
            self._hidden = hidden
            row = packed_hidden(hidden) or (None,) * 4
            self._db.execute(HIDDEN_PARTS)
            self._db.execute("INSERT INTO hidden_parts VALUES (?, ?, ?, ?, ?, ?)", (self._number, frame_id, *row))

    def _looks(self, seen: SeenFrame, cells: np.ndarray[tuple[int], np.dtype[np.int32]]) -> None:
        if seen.looks is not None:
            self._look_rows(seen.frame_id, seen.looks, seen.detections.white_rows.tolist(), cells)

    def _partial_looks(self, seen: SeenFrame) -> None:
        found = seen.cell_looks
        ids = np.zeros(0, np.int32) if found is None else found.cell_ids.astype(np.int32)
        if not self._has_partial_looks:
            self._db.execute(PARTIAL_LOOKS)
            self._has_partial_looks = True
        self._db.execute(
            "INSERT INTO partial_looks VALUES (?, ?, ?, ?)",
            (self._number, seen.frame_id, packed(ids, "<i4"), packed([] if found is None else found.boxes_px, "<f4")),
        )
        if found is not None:
            self._look_rows(seen.frame_id, found.looks, list(range(len(ids))), ids)

    def _look_rows(
        self,
        frame_id: int,
        looks: Classifications,
        white: Sequence[int],
        cells: np.ndarray[tuple[int], np.dtype[np.int32]],
    ) -> None:
        classes = looks.probabilities.astype("<f4", copy=False)
        subclasses = looks.subclass_probabilities.astype("<f4", copy=False)
        self._db.executemany(
            "INSERT INTO looks VALUES (?, ?, ?, ?, ?, ?)",
            [
                (
                    *(self._number, frame_id, box, None if cells[box] < 0 else int(cells[box])),
                    *(classes[row].tobytes(), subclasses[row].tobytes()),
                )
                for row, box in enumerate(white)
            ],
        )

        described, novelty = looks.attribute_probabilities, looks.novelty
        if described is not None or novelty is not None:
            blobs: list[bytes | None] = [None] * len(looks)
            if described is not None:
                blobs = [row.tobytes() for row in described.astype("<f4", copy=False)]
            novel: list[float | None] = [None] * len(looks) if novelty is None else novelty.tolist()
            self._db.executemany(
                "INSERT INTO look_traits VALUES (?, ?, ?, ?, ?)",
                [(self._number, frame_id, box, *row) for box, *row in zip(white, blobs, novel, strict=True)],
            )

    def _shapes(self, seen: SeenFrame) -> None:
        if seen.shapes:
            self._db.executemany(
                "INSERT INTO shapes VALUES (?, ?, ?, ?, ?)",
                [
                    (
                        self._number,
                        seen.frame_id,
                        *(look.cell_id, look.quality),
                        msgspec.json.encode(look.shape).decode(),
                    )
                    for look in seen.shapes
                ],
            )

    def _evidence(self, seen: SeenFrame) -> None:
        progress = None if seen.progress == self._progress else seen.progress
        self._progress = seen.progress
        write_evidence(self._db, self._number, seen.frame_id, seen.colours, progress)

    def _cell_changes(self, frame_id: int | None, update: SlideUpdate) -> None:
        if update.removed:
            self._db.executemany(
                "INSERT INTO cell_changes (session, frame_id, cell_id, joined_to) VALUES (?, ?, ?, ?)",
                [(self._number, frame_id, cell_id, joined_to) for cell_id, joined_to in update.removed],
            )
        if update.cells:
            self._db.executemany(
                "INSERT INTO cell_changes VALUES (?, ?, ?, NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [(self._number, frame_id, *_cell_row(cell)) for cell in update.cells],
            )
            traits = [
                (self._number, frame_id, cell.cell_id, cell.unclassified_reason, _attributes_json(cell))
                for cell in update.cells
                if cell.unclassified_reason is not None or cell.attributes is not None
            ]
            if traits:
                self._db.executemany("INSERT INTO cell_traits VALUES (?, ?, ?, ?, ?)", traits)

    def _messages(self, emissions: Sequence[Emission]) -> None:
        if not emissions:
            return
        self._db.executemany(
            "INSERT INTO messages VALUES (?, ?, ?, ?, ?)",
            [
                (self._number, message.session_seq, message.run_id, type_of(message), encode(message))
                for message, _ in emissions
            ],
        )
        pictures = [
            (self._number, message.session_seq, message.cell_id, payload)
            for message, payload in emissions
            if isinstance(message, CellMessage) and payload is not None
        ]
        if pictures:
            self._db.executemany("INSERT INTO pictures VALUES (?, ?, ?, ?)", pictures)
        self._db.execute(
            "UPDATE sessions SET next_seq = ? WHERE number = ?", (emissions[-1][0].session_seq + 1, self._number)
        )

    def _stage(self, changes: StageChanges) -> None:
        self._db.executemany(
            "INSERT OR REPLACE INTO keyframes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [(self._number, *_keyframe_row(state)) for state, _ in changes.keyframes],
        )
        for state, picture in changes.keyframes:
            if state.number not in self._pictures:
                self._pictures.add(state.number)
                self._picture(state.number, picture)
        last = changes.tracker.last
        if last is not None and last[0] is not self._last:
            self._last = last[0]
            self._picture(LAST_PICTURE, last[0])
        found = changes.tracker.found
        if found is not None and found[0] is not self._last and found[0] is not self._found:
            self._found = found[0]
            self._picture(FOUND_PICTURE, found[0])
        if changes.tracker.static is not self._static:
            self._static = changes.tracker.static
            self._static_row = _static_row(self._static)
            if self._static.last is not None:
                self._picture(STATIC_PICTURE, self._static.last)
        tracker = _tracker_json(changes.tracker, self._static_row)
        self._db.execute("INSERT OR REPLACE INTO trackers VALUES (?, ?)", (self._number, tracker))

    def _picture(self, number: int, frame: PreparedFrame) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO keyframe_pictures VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(self._number, number, frame.height, frame.width, frame.factor),
                *(float(frame.contrast), float(frame.coherence), float(frame.smear)),
                *(len(frame.fine), packed(frame.fine, "i1")),
            ),
        )


def _keyframe_row(state: KeyframeState) -> tuple[object, ...]:
    links = np.array([(link.to, link.x_px, link.y_px, link.weight) for link in state.links], "<f8")
    return (
        *(state.number, state.island, float(state.x_px), float(state.y_px)),
        *(state.announced_island, *map(float, state.announced_px), links.tobytes()),
    )


def _static_row(static: StaticMask) -> StaticRow:
    return StaticRow(
        pairs=static.pairs,
        history=None if static.history is None else packed_mask(static.history),
        found=None if static.found is None else packed_mask(static.found),
    )


def _tracker_json(state: TrackerState, static: StaticRow) -> str:
    position = reason = anchor = None
    if state.last is not None:
        placement = state.last[1]
        anchor, reason = placement.anchor, placement.reason
        if placement.position is not None:
            at = placement.position
            position = at.island, float(at.x_px), float(at.y_px), float(at.quality)
    row = TrackerRow(
        next_island=state.next_island,
        reference=state.reference,
        pending=state.pending,
        distorted=dict(state.distorted),
        given_up=state.given_up,
        was_found=state.was_found,
        found=None if state.found is None else state.found[1:],
        found_is_last=state.found is not None and state.last is not None and state.found[0] is state.last[0],
        hunches=state.hunches,
        position=position,
        anchor=anchor,
        reason=reason,
        static=static,
    )
    return msgspec.json.encode(row).decode()


def _cell_row(cell: Cell) -> tuple[object, ...]:
    return (
        *(cell.cell_id, cell.class_name, cell.subclass, cell.top_class),
        msgspec.json.encode(cell.class_probabilities).decode(),
        *(cell.island, cell.x_px, cell.y_px, cell.looks, cell.partial, cell.first_frame_id, cell.last_frame_id),
    )


def _attributes_json(cell: Cell) -> str | None:
    attributes = attribute_messages(cell.attributes)
    return None if attributes is None else msgspec.json.encode(attributes).decode()
