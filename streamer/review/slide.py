"""One finished slide under review: its count in memory, its events, and its cells as records.

Opening it counts its frames again; from then on an event costs what it changes, and not what the slide holds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import msgspec

from streamer.counting.corrections import Corrections
from streamer.counting.review_events import AnyEvent, CellChange, Comment, HistoryEntry, ReviewEvent, check_text
from streamer.counting.slide_count import CountUpdate
from streamer.journal import Recounted, SeenFrame, StoredSession, recounted
from streamer.mosaic.places import FinalPlaces, PlacedFrame
from streamer.protocol.factory import MessageFactory
from streamer.protocol.messages import DifferentialMessage
from streamer.records import Cell
from streamer.review.desk import CellRecord, CellView, SessionInfo, Snapshot

VIEWS_KEPT = 64
"""Frames of a cell that a record names: the first ones of those that show it."""


class _LiveBody(msgspec.Struct, rename={"class_": "class"}):
    """What of a live command a history tells."""

    cell_id: int | None = None
    cell_ids: list[int] = []
    class_: str | None = None
    subclass: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class _View:
    cell: int
    """Its number then."""
    view: CellView


class ReviewedSlide:
    """A session of a journal that has ended, counted again. One thread at a time."""

    def __init__(self, stored: StoredSession, factory: MessageFactory) -> None:
        """JournalError for what can't be counted."""
        self.stored = stored
        self.factory = factory
        self.version = 0
        self.is_touched = False
        """Whether any message was made of it here."""
        self.to_sign = b""
        """What the event that signs it is about to sign."""
        self._frames: dict[int, PlacedFrame] = {}
        views: list[_View] = []
        places = FinalPlaces()

        self._frame_ids: set[int] = set()

        def see(seen: SeenFrame) -> None:
            self._frame_ids.add(seen.frame_id)
            places.add(seen)
            views.extend(_views(stored, seen))

        self._found = recounted(stored, see)
        places.correct(stored.end_corrections)
        self._frames = {frame.frame_id: frame for frame in places.frames()}
        self._live_history, self._live_comments = _of_live_commands(stored)
        self._pictures = self._picture_places()
        self._views = self._views_by_cell(views)
        comments = self._comments_by_cell()
        self._records = {cell.cell_id: self._record(cell, comments) for cell in self._cells()}
        self.differential: DifferentialMessage = MessageFactory(
            stored.source, session=stored.id, run_id=factory.run_id
        ).differential(self._found.differential)

    @property
    def corrections(self) -> Corrections:
        return self._found.corrections

    @property
    def found(self) -> Recounted:
        return self._found

    def info(self) -> SessionInfo:
        return SessionInfo(self.stored.id, self.stored.source, self.corrections.count.review, is_live=False)

    def has_frame(self, frame_id: int) -> bool:
        return frame_id in self._frame_ids

    def frame(self, frame_id: int) -> PlacedFrame | None:
        """Where a frame lies; None: it has no place on the slide."""
        return self._frames.get(frame_id)

    def apply(self, by: str, at: str, event: AnyEvent) -> tuple[ReviewEvent, CountUpdate]:
        """Take in an event. CorrectionFault, with nothing changed, for one that can't be."""
        given = ReviewEvent(number=len(self.corrections.events), at=at, by=by, event=event)
        return given, self.corrections.apply(given)

    def follow(self, given: ReviewEvent, update: CountUpdate) -> tuple[list[Cell], tuple[CellRecord, ...]]:
        """After an event was applied: the cells that its messages are of, and all records that are other ones now."""
        cells = self.corrections.count.changed_cells(update)
        entry = self.corrections.history[given.number]
        comments = self._comments_by_cell()
        for cell in cells:
            self._records[cell.cell_id] = self._record(cell, comments)
        for number, _ in update.slide.removed:
            self._records.pop(number, None)
        changed = {cell.cell_id for cell in cells}
        for number in self._commented(entry):
            if number in self._records:
                self._records[number] = self._record(self.corrections.count.cell(number), comments)
                changed.add(number)
        self.version += 1
        self.is_touched = True
        return cells, tuple(self._records[number] for number in sorted(changed))

    def _commented(self, entry: HistoryEntry) -> Iterator[int]:
        for one in (entry, *(self.corrections.history[n] for n in [entry.withdraws] if n is not None)):
            if one.kind == "comment" and one.cell_id is not None:
                yield one.cell_id

    def keep_picture(self, cell_id: int, session_seq: int) -> None:
        """Note the picture that a message of the desk's own has."""
        self._pictures[cell_id] = session_seq
        self._records[cell_id] = replace(self._records[cell_id], has_picture=True)

    def picture(self, cell_id: int) -> bytes | None:
        count = self.corrections.count
        if not 0 <= cell_id < count.next_cell_id:
            return None
        session_seq = self._pictures.get(count.cell(cell_id).cell_id)
        return None if session_seq is None else self.stored.picture(session_seq)

    def snapshot(self, reviewer: str | None) -> Snapshot:
        corrections, count = self.corrections, self.corrections.count
        blind = reviewer is not None and corrections.is_blind(reviewer)
        cells = tuple(self._records.values())
        history: Sequence[HistoryEntry] = (*self._live_history, *corrections.history)
        if reviewer is not None and blind:
            own = corrections.said_blind(reviewer)
            cells = tuple(replace(one, own=own[one.cell_id]) if one.cell_id in own else one for one in cells)
            history = tuple(one for one in history if one.by == reviewer or not one.blind)
        reviewed, whole = count.reviewed()
        return Snapshot(
            info=self.info(),
            version=self.version,
            differential=self.differential,
            cells=cells,
            classes=count.nameable,
            subclasses=count.subclasses,
            history=tuple(history),
            comments=tuple(self._comments_by_cell().get(None, ())),
            signatures=tuple(corrections.signatures),
            to_review=whole,
            reviewed=reviewed,
            blind=corrections.blind,
        )

    def _comments_by_cell(self) -> dict[int | None, list[Comment]]:
        """None: those on the slide."""
        count, by_cell = self.corrections.count, defaultdict[int | None, list[Comment]](list)
        for one in (*self._live_comments, *self.corrections.comments()):
            known = one.cell_id is not None and 0 <= one.cell_id < count.next_cell_id
            by_cell[count.row_of(one.cell_id) if known and one.cell_id is not None else one.cell_id].append(one)
        return by_cell

    def _cells(self) -> list[Cell]:
        count = self.corrections.count
        return sorted(chain(count.cells(), count.uncounted_cells()), key=lambda cell: cell.cell_id)

    def _record(self, cell: Cell, comments: Mapping[int | None, Sequence[Comment]]) -> CellRecord:
        corrections = self.corrections
        return CellRecord(
            cell_id=cell.cell_id,
            class_name=cell.class_name,
            subclass=cell.subclass,
            top_class=cell.top_class,
            probabilities=cell.class_probabilities,
            attributes=cell.attributes,
            unclassified_reason=cell.unclassified_reason,
            looks=cell.looks,
            partial=cell.partial,
            counted=cell.counted,
            kind=cell.kind,
            island=cell.island,
            x_px=cell.x_px,
            y_px=cell.y_px,
            first_frame_id=cell.first_frame_id,
            last_frame_id=cell.last_frame_id,
            views=self._views.get(cell.cell_id) or self._view_of_added(cell),
            has_picture=cell.cell_id in self._pictures,
            added=corrections.is_added(cell.cell_id),
            word=corrections.word(cell.cell_id) if cell.reclassified else None,
            comments=tuple(comments.get(cell.cell_id, ())),
        )

    def _view_of_added(self, cell: Cell) -> tuple[CellView, ...]:
        box = self.corrections.frame_box_of(cell.cell_id)
        frame = self._frames.get(cell.first_frame_id)
        return () if box is None else (CellView(cell.first_frame_id, box, None if frame is None else frame.file),)

    def _picture_places(self) -> dict[int, int]:
        """`session_seq` of the newest picture, by the present numbers of the cells."""
        count = self.corrections.count
        return {
            count.cell(cell_id).cell_id: session_seq
            for cell_id, session_seq in self.stored.picture_places()
            if cell_id < count.next_cell_id
        }

    def _views_by_cell(self, views: Sequence[_View]) -> dict[int, tuple[CellView, ...]]:
        count = self.corrections.count
        by_cell: defaultdict[int, list[CellView]] = defaultdict(list)
        for one in views:
            if one.cell < count.next_cell_id:
                of_cell = by_cell[count.row_of(one.cell)]
                if len(of_cell) < VIEWS_KEPT:
                    of_cell.append(one.view)
        return {cell_id: tuple(of_cell) for cell_id, of_cell in by_cell.items()}


def _views(stored: StoredSession, seen: SeenFrame) -> Iterator[_View]:
    """Of the boxes of white and nucleated red cells of a frame."""
    detections = seen.detections
    rows = zip(detections.boxes_px.tolist(), detections.labels.tolist(), stored.cells_of(seen.frame_id), strict=True)
    for (x1, y1, x2, y2), label, cell in rows:
        if cell >= 0 and detections.kinds[label] in ("white", "nucleated red"):
            yield _View(cell, CellView(seen.frame_id, (x1, y1, x2, y2), seen.file))


def _of_live_commands(stored: StoredSession) -> tuple[tuple[HistoryEntry, ...], tuple[Comment, ...]]:
    """What people said while the session ran."""
    history, comments = [], []
    for given in stored.commands():
        if given.request not in ("reclassify", "confirm", "comment") or given.refused is not None:
            continue
        with stored.reading("commands.body"):
            body, by = msgspec.json.decode(given.body, type=_LiveBody), given.reviewer
            if given.request == "comment":
                check_text(body.text or "", "comment")
        if given.request == "comment":
            comments.append(Comment(by, given.given_utc, body.text or "", body.cell_id))
            history.append(
                HistoryEntry(
                    number=None, at=given.given_utc, by=by, kind="comment", text=body.text, cell_id=body.cell_id
                )
            )
            continue
        after = None if body.class_ is None else (body.class_, body.subclass)
        cells = body.cell_ids if body.cell_id is None else [body.cell_id]
        history.append(
            HistoryEntry(
                number=None,
                at=given.given_utc,
                by=by,
                kind="class" if given.request == "reclassify" else "confirm",
                changes=tuple(CellChange(cell, None, after) for cell in cells),
            )
        )
    return tuple(history), tuple(comments)
