"""One slide that a run still counts, as its messages tell it. No socket, no thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from streamer.counting.differential import NOT_CELLS
from streamer.counting.review_events import Comment, HistoryEntry, Word
from streamer.protocol.messages import CellMessage, DifferentialMessage
from streamer.records import UNCLASSIFIED, Review
from streamer.review.desk import CellRecord, Change, SessionInfo, Snapshot

Name = tuple[str | None, str | None]


@dataclass(slots=True)
class LiveSlide:
    """What is known of a session so far."""

    session: str
    source: str
    run_id: str
    ended: bool = False
    version: int = 0
    differential: DifferentialMessage | None = None
    cells: dict[int, CellMessage] = field(default_factory=dict)
    pictures: dict[int, bytes] = field(default_factory=dict)
    joined: dict[int, int] = field(default_factory=dict)
    """Of cells that turned out to be others, these."""
    words: dict[int, Word] = field(default_factory=dict)
    """Said here."""
    history: list[HistoryEntry] = field(default_factory=list)
    comments: list[Comment] = field(default_factory=list)
    undoable: dict[str, list[dict[int, tuple[Name, Name]]]] = field(default_factory=dict)
    """By reviewer: of each command that named cells, what each was said to be before and what since."""

    def info(self) -> SessionInfo:
        found = None if self.differential is None else self.differential.review
        return SessionInfo(self.session, self.source, found or Review(), is_live=not self.ended)

    @property
    def classes(self) -> tuple[str, ...]:
        """Empty before the first look at a cell."""
        names = next((tuple(one.class_probabilities) for one in self.cells.values() if one.class_probabilities), ())
        return (*names, *(name for name in NOT_CELLS if name not in names), UNCLASSIFIED) if names else ()

    def subclasses(self) -> dict[str, tuple[str, ...]]:
        """Those that cells had so far."""
        seen: dict[str, dict[str, None]] = {}
        for one in self.cells.values():
            if one.subclass is not None:
                seen.setdefault(one.class_, {})[one.subclass] = None
        return {name: tuple(sorted(of)) for name, of in seen.items()}

    def take(self, message: CellMessage | DifferentialMessage, payload: bytes | None) -> Change:
        """Follow a message."""
        self.version += 1
        self.run_id = message.run_id
        if isinstance(message, DifferentialMessage):
            self.differential = message
            return self.change(((message, payload),), (), ())
        number = message.cell_id
        if message.joined_to is not None:
            self.joined[number] = message.joined_to
        if _is_gone(message):
            self.cells.pop(number, None)
            return self.change(((message, payload),), (), (number,))
        self.cells[number] = message
        if payload is not None:
            self.pictures[number] = payload
        return self.change(((message, payload),), (number,), ())

    def change(
        self,
        messages: tuple[tuple[CellMessage | DifferentialMessage, bytes | None], ...],
        changed: Sequence[int],
        removed: tuple[int, ...],
        history: tuple[HistoryEntry, ...] = (),
    ) -> Change:
        comments = self.comments_by_cell()
        return Change(
            session=self.session,
            version=self.version,
            messages=messages,
            cells=tuple(self._record(self.cells[number], comments) for number in changed if number in self.cells),
            removed=removed,
            differential=self.differential if any(isinstance(m, DifferentialMessage) for m, _ in messages) else None,
            history=history,
        )

    def snapshot(self) -> Snapshot:
        comments = self.comments_by_cell()
        records = tuple(self._record(self.cells[number], comments) for number in sorted(self.cells))
        whole = [one for one in self.cells.values() if not one.partial]
        return Snapshot(
            info=self.info(),
            version=self.version,
            differential=self.differential,
            cells=records,
            classes=self.classes,
            subclasses=self.subclasses(),
            history=tuple(self.history),
            comments=tuple(comments.get(None, ())),
            to_review=len(whole),
            reviewed=sum(one.reclassified for one in whole),
        )

    def comments_by_cell(self) -> dict[int | None, list[Comment]]:
        by_cell: dict[int | None, list[Comment]] = {}
        for one in self.comments:
            by_cell.setdefault(one.cell_id, []).append(one)
        return by_cell

    def present(self, cell_id: int) -> int:
        """The number of a cell, or of the one that it turned out to be."""
        seen = set()
        while cell_id in self.joined and cell_id not in seen:
            seen.add(cell_id)
            cell_id = self.joined[cell_id]
        return cell_id

    def said(self, cell_id: int) -> Name:
        """What a person said of a cell; (None, None): nobody did."""
        one = self.cells[cell_id]
        return (one.class_, one.subclass) if one.reclassified else (None, None)

    def note(self, entry: HistoryEntry, word: Callable[[int], Word | None], cells: Sequence[int]) -> Change:
        """Something that was said here and carried out."""
        self.history.append(entry)
        for number in cells:
            found = word(number)
            if found is None:
                self.words.pop(number, None)
            else:
                self.words[number] = found
        self.version += 1
        return self.change((), cells, (), (entry,))

    def _record(self, one: CellMessage, comments: dict[int | None, list[Comment]]) -> CellRecord:
        return CellRecord(
            cell_id=one.cell_id,
            class_name=one.class_,
            subclass=one.subclass,
            top_class=one.top_class,
            probabilities=one.class_probabilities,
            attributes=one.attributes,
            unclassified_reason=one.unclassified_reason,
            looks=one.looks,
            partial=one.partial,
            counted=one.counted,
            kind="white",
            island=one.island,
            x_px=one.x_px,
            y_px=one.y_px,
            first_frame_id=one.first_frame_id,
            last_frame_id=one.last_frame_id,
            has_picture=one.cell_id in self.pictures,
            word=self.words.get(one.cell_id, Word("corrected", None, None)) if one.reclassified else None,
            comments=tuple(comments.get(one.cell_id, ())),
        )


def _is_gone(message: CellMessage) -> bool:
    """Whether a cell is in no list any more: it was joined to another, or is no white cell. Those that are listed and
    not counted are partial, or none."""
    if message.counted:
        return False
    return message.joined_to is not None or not (message.partial or message.class_ in NOT_CELLS)
