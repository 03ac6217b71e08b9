"""The review of a slide that has ended: its events in their order, applied to its count.

A pure function of the count and the events, which a desk applies as they come and a journal's reader all at once. Of
several words about a cell the last one that was not withdrawn holds; without any the cell is what the run left it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from streamer.counting.review_events import (
    UNDONE,
    AddCell,
    AddComment,
    Amend,
    AnyEvent,
    Begin,
    CellChange,
    Classify,
    Comment,
    Confirm,
    CorrectionFault,
    HistoryEntry,
    Naming,
    ReviewEvent,
    Settle,
    Sign,
    Signature,
    Withdraw,
    Word,
    WordKind,
    check_reviewer,
    check_text,
    kind_of,
)
from streamer.counting.slide_count import CountUpdate, SlideCount
from streamer.counting.slide_map import SlideUpdate
from streamer.records import AddedCell, CellId, Reclassification, Review

Name = tuple[str, str | None]
"""Class and subclass."""

FROZEN = ("signed", "amended")
"""Review states in which nothing may be changed but by an amendment."""

_WORDS: Mapping[type[AnyEvent], WordKind] = {Classify: "corrected", Confirm: "confirmed", Settle: "settled"}


@dataclass(frozen=True, slots=True)
class _Saying:
    """What one event says of one cell."""

    number: int
    kind: WordKind
    class_name: str | None
    """None: the models decide again."""
    subclass: str | None
    by: str
    at: str


NO_CHANGE = CountUpdate(SlideUpdate((), (), ()))

_NOTHING: Mapping[CellId, list[_Saying]] = MappingProxyType({})


class Corrections:
    """Applies the events of one session to its count, which it owns from then on."""

    def __init__(self, count: SlideCount, live_words: Mapping[CellId, Word] | None = None) -> None:
        """`count`: finished. `live_words`: of the cells that people named while it ran."""
        self._count = count
        self._live_words = dict(live_words or {})
        self._base: dict[CellId, Reclassification] = {}
        """What the run left a cell as, of those that somebody said something of since."""
        self._sayings: defaultdict[CellId, list[_Saying]] = defaultdict(list)
        self._blind_sayings: defaultdict[str, defaultdict[CellId, list[_Saying]]] = defaultdict(
            lambda: defaultdict(list)
        )
        self._added: dict[CellId, _Saying] = {}
        self._frame_boxes: dict[CellId, tuple[int, tuple[float, float, float, float]]] = {}
        """Of the cells that were added, the frame and where it shows them."""
        self._comments: dict[int, Comment] = {}
        self._blind: dict[str, bool] = {}
        self.events: list[ReviewEvent] = []
        self.history: list[HistoryEntry] = []
        self.signatures: list[Signature] = []
        """Those who sign add theirs before they apply its event."""

    @property
    def count(self) -> SlideCount:
        return self._count

    @property
    def is_frozen(self) -> bool:
        return self._count.review.state in FROZEN

    @property
    def blind(self) -> tuple[str, ...]:
        """Who is blind now."""
        return tuple(by for by, is_blind in self._blind.items() if is_blind)

    def is_blind(self, by: str) -> bool:
        return self._blind.get(by, False)

    def comments(self) -> list[Comment]:
        """Those that were not withdrawn, oldest first."""
        return list(self._comments.values())

    def is_added(self, cell_id: CellId) -> bool:
        """Whether a person added it, and it was not withdrawn."""
        return cell_id in self._added

    def added_on(self, frame_id: int) -> list[tuple[CellId, tuple[float, float, float, float]]]:
        """The cells that a person added on a frame, with their boxes in it."""
        return [
            (cell_id, box)
            for cell_id, (frame, box) in self._frame_boxes.items()
            if frame == frame_id and cell_id in self._added
        ]

    def frame_box_of(self, cell_id: CellId) -> tuple[float, float, float, float] | None:
        """Where the frame shows a cell that a person added: x1, y1, x2, y2; None for any other cell."""
        found = self._frame_boxes.get(cell_id)
        return None if found is None else found[1]

    def word(self, cell_id: CellId) -> Word | None:
        """Of a cell by its present number; None: nobody said what it is."""
        sayings = self._sayings.get(cell_id)
        last = sayings[-1] if sayings else self._added.get(cell_id)
        if last is None:
            return self._live_words.get(cell_id)
        return None if last.class_name is None else Word(last.kind, last.by, last.at)

    def own(self, by: str, cell_id: CellId) -> Name | None:
        """What a reviewer said of a cell blind; None: nothing."""
        sayings = self._blind_of(by).get(cell_id)
        last = sayings[-1] if sayings else None
        return None if last is None or last.class_name is None else (last.class_name, last.subclass)

    def said_blind(self, by: str) -> dict[CellId, Name]:
        """All that a reviewer said blind."""
        return {cell: name for cell in sorted(self._blind_of(by)) if (name := self.own(by, cell)) is not None}

    def _blind_of(self, by: str) -> Mapping[CellId, list[_Saying]]:
        return self._blind_sayings.get(by, _NOTHING)

    def blind_reviewers(self) -> tuple[str, ...]:
        """Those who said anything blind that was not withdrawn."""
        return tuple(by for by in list(self._blind_sayings) if self.said_blind(by))

    def is_settled(self, cell_id: CellId, reviewers: Iterable[str]) -> bool:
        """Whether somebody who was not blind said what a cell is, after these reviewers did blind."""
        last_blind = max((one.number for by in reviewers for one in self._blind_of(by).get(cell_id, ())), default=-1)
        return any(saying.number > last_blind for saying in self._sayings.get(cell_id, ()))

    def unsettled(self) -> list[CellId]:
        """Cells of which two or more reviewers said something blind that nobody has settled."""
        by_cell: defaultdict[CellId, list[str]] = defaultdict(list)
        for by in self.blind_reviewers():
            for cell in self.said_blind(by):
                by_cell[cell].append(by)
        return sorted(cell for cell, by in by_cell.items() if len(by) > 1 and not self.is_settled(cell, by))

    def last_undone(self, by: str) -> int | None:
        """The number of a reviewer's last event that can be withdrawn; None: there is none."""
        return next(
            (
                one.number
                for one, entry in zip(reversed(self.events), reversed(self.history), strict=True)
                if one.by == by and isinstance(one.event, UNDONE) and not entry.withdrawn
            ),
            None,
        )

    def naming(self, cell_id: CellId, name: tuple[str | None, str | None] | None) -> Naming:
        """What an event holds of a cell that gets a name, or, with None, of one that is right. CorrectionFault for one
        that is not counted."""
        if not self._count.is_counted(cell_id):
            raise CorrectionFault("unknown cell", f"got cell {cell_id}, expected one that is counted and white")
        was = self._count.name_of(cell_id)
        return Naming(self._count.row_of(cell_id), *was, *(was if name is None else name))

    def check_not_frozen(self) -> None:
        """CorrectionFault of a signed slide."""
        if self.is_frozen:
            review = self._count.review
            raise CorrectionFault(
                "signed", f"got a slide that {review.by} signed {review.at}, expected one to be amended first"
            )

    def check(self, by: str, event: AnyEvent) -> None:
        """CorrectionFault for an event that can't be now."""
        check_reviewer(by)
        if not isinstance(event, Amend):
            self.check_not_frozen()
        if isinstance(event, Classify | Confirm | Settle):
            self._check_namings(by, event)
        elif isinstance(event, AddCell):
            self._check_not_blind(by)
            fault = self._count.class_fault(event.class_name, event.subclass)
            if fault is not None:
                raise CorrectionFault("bad class", fault)
            x1, y1, x2, y2 = event.box_px
            if event.cell_id != self._count.next_cell_id or not (x1 < x2 and y1 < y2):
                raise CorrectionFault("not possible", f"got cell {event.cell_id}, expected {self._count.next_cell_id}")
        elif isinstance(event, AddComment):
            check_text(event.text, "comment")
            if event.cell_id is not None:
                self.naming(event.cell_id, None)
        elif isinstance(event, Withdraw):
            self._check_withdrawal(by, event)
        elif isinstance(event, Amend):
            check_text(event.reason, "reason")
            if not self.is_frozen:
                raise CorrectionFault("not signed", "got a slide that is not signed, expected a signed one to amend")
        elif isinstance(event, Sign) and event.despite is not None:
            check_text(event.despite, "reason")

    def _check_namings(self, by: str, event: Classify | Confirm | Settle) -> None:
        if isinstance(event, Settle):
            self._check_not_blind(by)
        for one in event.cells:
            if not self._count.is_counted(one.cell_id) or self._count.row_of(one.cell_id) != one.cell_id:
                raise CorrectionFault("unknown cell", f"got cell {one.cell_id}, expected one that is counted and white")
            fault = self._count.class_fault(one.class_name, one.subclass)
            if fault is None and one.class_name is None and (not isinstance(event, Classify) or self._no_models(one)):
                fault = f"got no class of cell {one.cell_id}, expected one: no model named it"
            if fault is not None:
                raise CorrectionFault("bad class", fault)

    def _no_models(self, one: Naming) -> bool:
        return one.cell_id in self._added

    def _check_not_blind(self, by: str) -> None:
        if self.is_blind(by):
            raise CorrectionFault("blind", f"{by} reviews blind: expected one who does not; begin again without")

    def _check_withdrawal(self, by: str, event: Withdraw) -> None:
        known = event.number < len(self.events)
        if not known or self.events[event.number].by != by or not isinstance(self.events[event.number].event, UNDONE):
            raise CorrectionFault("nothing to undo", f"got event {event.number}, expected one that {by} may withdraw")
        if self.history[event.number].withdrawn:
            raise CorrectionFault("nothing to undo", f"got event {event.number}, which was withdrawn already")

    def apply(self, given: ReviewEvent) -> CountUpdate:
        """Take in the next event: what it changes. CorrectionFault, with nothing changed, for one that can't be."""
        if given.number != len(self.events):
            raise CorrectionFault("not possible", f"got event {given.number}, expected {len(self.events)}")
        self.check(given.by, given.event)
        event, update = given.event, NO_CHANGE
        changes: tuple[CellChange, ...] = ()
        if isinstance(event, Begin):
            self._blind[given.by] = event.blind
        elif isinstance(event, Classify | Confirm | Settle):
            update, changes = self._name(given, event)
        elif isinstance(event, AddCell):
            update = self._add(given, event)
            changes = (CellChange(event.cell_id, None, (event.class_name, event.subclass)),)
        elif isinstance(event, AddComment):
            self._comments[given.number] = Comment(given.by, given.at, event.text, event.cell_id, given.number)
        elif isinstance(event, Withdraw):
            update = self._withdraw(event.number)
        self.events.append(given)
        self.history.append(self._entry(given, changes))
        self._count.review = next_review(self._signed_before(), given)
        return update

    def _signed_before(self) -> bool:
        return any(isinstance(one.event, Sign) for one in self.events[:-1])

    def _entry(self, given: ReviewEvent, changes: tuple[CellChange, ...]) -> HistoryEntry:
        event = given.event
        return HistoryEntry(
            number=given.number,
            at=given.at,
            by=given.by,
            kind=kind_of(event),
            changes=changes,
            text=text_of(event),
            cell_id=event.cell_id if isinstance(event, AddComment) else None,
            withdraws=event.number if isinstance(event, Withdraw) else None,
            blind=self.is_blind(given.by),
        )

    def _name(
        self, given: ReviewEvent, event: Classify | Confirm | Settle
    ) -> tuple[CountUpdate, tuple[CellChange, ...]]:
        kind, blind = _WORDS[type(event)], self.is_blind(given.by)
        for one in event.cells:
            saying = _Saying(given.number, kind, one.class_name, one.subclass, given.by, given.at)
            if blind:
                self._blind_sayings[given.by][one.cell_id].append(saying)
            else:
                self._keep_base(one.cell_id)
                self._sayings[one.cell_id].append(saying)
        update = NO_CHANGE if blind else self._follow([one.cell_id for one in event.cells])
        return update, tuple(
            CellChange(
                one.cell_id,
                (one.was_class, one.was_subclass),
                _said(one) if blind else self._count.name_of(one.cell_id),
            )
            for one in event.cells
        )

    def _add(self, given: ReviewEvent, event: AddCell) -> CountUpdate:
        added = AddedCell(event.frame_id, event.island, event.box_px, event.class_name, event.subclass)
        update = self._count.add_cell(added)
        self._frame_boxes[event.cell_id] = event.frame_id, event.frame_box_px
        self._added[event.cell_id] = _Saying(
            given.number, "added", event.class_name, event.subclass, given.by, given.at
        )
        return update

    def _withdraw(self, number: int) -> CountUpdate:
        by, event = self.events[number].by, self.events[number].event
        self.history[number] = replace(self.history[number], withdrawn=True)
        if isinstance(event, AddComment):
            del self._comments[number]
        elif isinstance(event, AddCell):
            del self._added[event.cell_id]
            return self._count.take_back(event.cell_id)
        elif isinstance(event, Classify | Confirm | Settle):
            blind = self.history[number].blind
            sayings = self._blind_sayings[by] if blind else self._sayings
            for one in event.cells:
                sayings[one.cell_id] = [said for said in sayings[one.cell_id] if said.number != number]
            if not blind:  # an added one may have been withdrawn since
                return self._follow([one.cell_id for one in event.cells if self._count.is_counted(one.cell_id)])
        return NO_CHANGE

    def _keep_base(self, cell_id: CellId) -> None:
        if cell_id not in self._base and cell_id not in self._added:
            self._base[cell_id] = self._count.said_of(cell_id)

    def _follow(self, cell_ids: Sequence[CellId]) -> CountUpdate:
        """Let cells be what was said of them last."""
        return self._count.reclassify(*map(self._last_word, cell_ids)) if cell_ids else NO_CHANGE

    def _last_word(self, cell_id: CellId) -> Reclassification:
        sayings = self._sayings[cell_id]
        last = sayings[-1] if sayings else self._added.get(cell_id)
        if last is None:
            return self._base[cell_id]
        return Reclassification(cell_id, last.class_name, last.subclass, confirmed=last.kind == "confirmed")


def next_review(was_signed: bool, given: ReviewEvent) -> Review:
    """How far people are after an event. `was_signed`: whether the slide was signed before it."""
    if not isinstance(given.event, Sign):
        return Review("in review", given.by, given.at)
    return Review("amended" if was_signed else "signed", given.by, given.at)


def text_of(event: AnyEvent) -> str | None:
    """What a person wrote."""
    if isinstance(event, AddComment):
        return event.text
    if isinstance(event, Amend):
        return event.reason
    return event.despite if isinstance(event, Sign) else None


def _said(one: Naming) -> Name | None:
    return None if one.class_name is None else (one.class_name, one.subclass)
