"""A desk without a journal, for tests of the page: it keeps its cells in memory, counts them by the real count's own
functions, and tells its listeners on a thread of its own, as the real ones do."""

from __future__ import annotations

import hashlib
import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import cv2
import msgspec
import numpy as np

from streamer.counting.absolute import described
from streamer.counting.agreement import cohen_kappa
from streamer.counting.differential import NOT_CELLS, Tally, differential
from streamer.dashboard.palette import class_colour
from streamer.protocol.factory import MessageFactory
from streamer.protocol.messages import DifferentialMessage
from streamer.records import AttributeValue, Review, SlideInfo, Verdict, VerdictReason
from streamer.review.desk import (
    Agreement,
    CellChange,
    CellRecord,
    CellView,
    Change,
    Comment,
    Disagreement,
    EventKind,
    HistoryEntry,
    Listener,
    ReviewRefused,
    SessionInfo,
    Signature,
    Snapshot,
    Word,
)
from streamer.review.server.frames import Field

SESSION = "slide-1"
AT = "2026-11-30T10:00:00.000000Z"
CLASSES = (
    "neutrophil",
    "immature granulocyte",
    "lymphocyte",
    "monocyte",
    "eosinophil",
    "basophil",
    "blast",
    "erythroblast",
    "smudge cell",
    "artefact",
    "unclassified",
)
SUBCLASSES: Mapping[str, tuple[str, ...]] = {
    "neutrophil": ("segmented neutrophil", "band neutrophil"),
    "immature granulocyte": ("metamyelocyte", "myelocyte", "promyelocyte"),
    "lymphocyte": ("variant lymphocyte",),
}
USUAL = {"neutrophil": 0.55, "lymphocyte": 0.28, "monocyte": 0.08, "eosinophil": 0.04, "unclassified": 0.03}
RANGES = {"neutrophil": (40.0, 60.0), "lymphocyte": (20.0, 40.0), "monocyte": (2.0, 8.0), "eosinophil": (1.0, 4.0)}
WIDTH, HEIGHT = 640, 480
A_FRAME = 20
NOTHING_SAID = SlideInfo()
UNDONE = ("class", "confirm", "add", "comment", "settle")

Named = tuple[str, str | None]


def make_cells(count: int, seed: int = 0) -> list[CellRecord]:
    """As a slide may have them; twenty a frame, each seen once."""
    rng = np.random.default_rng(seed)
    names = [*USUAL, "basophil"]
    shares = [*USUAL.values(), 1 - sum(USUAL.values())]
    likely = [name for name in CLASSES if name not in (*NOT_CELLS, "unclassified")]
    cells = []
    for number, name in enumerate(rng.choice(names, count, p=shares).tolist()):
        top = name if name != "unclassified" else "monocyte"
        sure = float(rng.uniform(0.3, 0.45) if name == "unclassified" else rng.uniform(0.5, 0.999))
        rest = rng.dirichlet(np.full(len(likely) - 1, 0.4)) * (1 - sure)
        others = iter(rest.tolist())
        probabilities = {one: sure if one == top else float(next(others)) for one in likely}
        row, column = divmod(number % A_FRAME, 5)
        left, up = 20.0 + 124 * column, 18.0 + 116 * row
        cells.append(
            CellRecord(
                cell_id=number,
                class_name=name,
                subclass="segmented neutrophil" if name == "neutrophil" and number % 3 else None,
                top_class=top,
                probabilities=probabilities,
                attributes={"nucleus_shape": AttributeValue("segmented-bilobed", 0.9)} if number % 2 else None,
                unclassified_reason="low confidence" if name == "unclassified" else None,
                looks=1,
                partial=number % 29 == 28,
                counted=number % 29 != 28,
                kind="white",
                island=0,
                x_px=left + 42,
                y_px=up + 42,
                first_frame_id=number // A_FRAME,
                last_frame_id=number // A_FRAME,
                views=(CellView(number // A_FRAME, (left, up, left + 84, up + 84)),),
                has_picture=True,
            )
        )
    return cells


def drawn(cell: CellRecord, side: int = 110) -> bytes:
    """A picture of a cell: a nucleus of its class's colour, its number."""
    image = np.full((side, side, 3), 232, np.uint8)
    red, green, blue = (int(class_colour(cell.class_name)[at : at + 2], 16) for at in (1, 3, 5))
    cv2.circle(image, (side // 2, side // 2), side // 3, (215, 195, 210), -1, cv2.LINE_AA)
    cv2.circle(image, (side // 2, side // 2), side // 5, (blue, green, red), -1, cv2.LINE_AA)
    cv2.putText(image, str(cell.cell_id), (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (40, 30, 30), 1, cv2.LINE_AA)
    return cv2.imencode(".jpg", image)[1].tobytes()


class FakeFields:
    """Frames that are drawn; with `why_not` there are none."""

    def __init__(self, why_not: str | None = None) -> None:
        self.why_not = why_not

    def field(self, session: str, frame_id: int) -> Field:
        if self.why_not is not None:
            raise ReviewRefused("unknown frame", self.why_not)
        image = np.full((HEIGHT, WIDTH, 3), 230, np.uint8)
        for number in range(A_FRAME):
            row, column = divmod(number, 5)
            cv2.circle(image, (62 + 124 * column, 60 + 116 * row), 40, (190, 160, 180), -1, cv2.LINE_AA)
        return Field(image, cv2.imencode(".jpg", image)[1].tobytes())

    def has_frames(self, session: str) -> bool:
        return self.why_not is None

    def ranges(self, session: str) -> Mapping[str, tuple[float, float]]:
        return RANGES

    def close(self) -> None:
        pass


@dataclass(slots=True)
class _Event:
    entry: HistoryEntry
    before: dict[int, CellRecord | None] = field(default_factory=dict)


class FakeDesk:
    """One slide, finished unless `is_live`."""

    def __init__(
        self,
        cells: Iterable[CellRecord],
        *,
        source: str = "slide7",
        pictures: Callable[[CellRecord], bytes] = drawn,
        is_live: bool = False,
        verdict: str = "ready for review",
        about: SlideInfo = NOTHING_SAID,
    ) -> None:
        self._source, self._pictures, self._is_live, self._verdict = source, pictures, is_live, verdict
        self._about = about
        self._cells = {cell.cell_id: cell for cell in cells}
        self._events: list[_Event] = []
        self._comments: list[Comment] = []
        self._signatures: list[Signature] = []
        self._own: dict[str, dict[int, Named]] = {}
        self._blind: set[str] = set()
        self._review = Review()
        self._version = 0
        self._factory = MessageFactory("slide7", session=SESSION, run_id="run")
        self._lock = threading.RLock()
        self._listeners: list[Listener] = []
        self._changes: queue.Queue[Change | None] = queue.Queue()
        self._differential = self._counted()
        self._teller = threading.Thread(target=self._tell, daemon=True)
        self._teller.start()

    # What is seen

    def sessions(self) -> list[SessionInfo]:
        return [SessionInfo(SESSION, self._source, self._review, self._is_live)]

    def version(self, session: str) -> int:
        with self._lock:
            self._known(session)
            return self._version

    def snapshot(self, session: str, reviewer: str | None = None) -> Snapshot:
        with self._lock:
            self._known(session)
            own = self._own.get(reviewer or "", {}) if reviewer in self._blind else {}
            cells = [replace(cell, own=own.get(number)) for number, cell in sorted(self._cells.items())]
            to_review = [cell for cell in cells if not cell.partial]
            entries = [event.entry for event in self._events]
            return Snapshot(
                info=self.sessions()[0],
                version=self._version,
                differential=self._differential,
                cells=tuple(cells),
                classes=CLASSES,
                subclasses=SUBCLASSES,
                history=tuple(one for one in entries if not one.blind or one.by == reviewer),
                comments=tuple(self._comments),
                signatures=tuple(self._signatures),
                to_review=len(to_review),
                reviewed=sum(cell.word is not None for cell in to_review),
                blind=tuple(sorted(self._blind)),
            )

    def picture(self, session: str, cell_id: int) -> bytes | None:
        self._known(session)
        cell = self._cell(cell_id)
        return self._pictures(cell) if cell.has_picture else None

    # What is said

    def begin(self, session: str, reviewer: str, *, blind: bool = False) -> None:
        with self._changing(session, reviewer):
            (self._blind.add if blind else self._blind.discard)(reviewer)
            self._done("begin", reviewer, {}, blind=blind)

    def classify(
        self, session: str, cell_ids: Sequence[int], class_name: str | None, subclass: str | None, reviewer: str
    ) -> None:
        with self._changing(session, reviewer):
            cells = [self._cell(number) for number in cell_ids]
            if class_name is not None:
                self._check_class(class_name, subclass)
            if reviewer in self._blind:
                named = (class_name or "unclassified", subclass)
                self._own.setdefault(reviewer, {}).update(dict.fromkeys(cell_ids, named))
                self._done("class", reviewer, {}, blind=True)
                return
            changed = {}
            for cell in cells:
                name = cell.top_class if class_name is None else class_name
                word = None if class_name is None else Word("corrected", reviewer, AT)
                counted = not cell.partial and name not in NOT_CELLS
                changed[cell.cell_id] = replace(cell, class_name=name, subclass=subclass, word=word, counted=counted)
            self._done("class", reviewer, changed)

    def confirm(self, session: str, cell_ids: Sequence[int], reviewer: str) -> None:
        with self._changing(session, reviewer):
            word = Word("confirmed", reviewer, AT)
            changed = {number: replace(self._cell(number), word=word) for number in cell_ids}
            self._done("confirm", reviewer, changed)

    def undo(self, session: str, reviewer: str) -> None:
        with self._changing(session, reviewer):
            for event in reversed(self._events):
                entry = event.entry
                if (
                    entry.by == reviewer
                    and not entry.withdrawn
                    and entry.kind in ("class", "confirm", "add", "comment")
                ):
                    event.entry = replace(entry, withdrawn=True)
                    self._done("withdraw", reviewer, dict(event.before), withdraws=entry.number)
                    return
            raise ReviewRefused("nothing to undo", "got nothing to undo of this reviewer, expected a change")

    def add_cell(
        self,
        session: str,
        frame_id: int,
        x_px: float,
        y_px: float,
        class_name: str,
        reviewer: str,
        *,
        subclass: str | None = None,
        width_px: float | None = None,
        height_px: float | None = None,
        picture: bytes | None = None,
    ) -> int:
        with self._changing(session, reviewer):
            self._check_class(class_name, subclass)
            if not (0 <= x_px < WIDTH and 0 <= y_px < HEIGHT):
                raise ReviewRefused("no place", f"got the point {x_px:g}, {y_px:g}, expected one within the frame")
            half = (width_px or 84) / 2
            box_px = (x_px - half, y_px - half, x_px + half, y_px + half)
            number = max(self._cells, default=-1) + 1
            cell = CellRecord(
                cell_id=number,
                class_name=class_name,
                subclass=subclass,
                top_class="unclassified",
                probabilities={},
                attributes=None,
                unclassified_reason=None,
                looks=0,
                partial=False,
                counted=class_name not in NOT_CELLS,
                kind="white",
                island=0,
                x_px=x_px,
                y_px=y_px,
                first_frame_id=frame_id,
                last_frame_id=frame_id,
                views=(CellView(frame_id, box_px),),
                has_picture=True,
                added=True,
                word=Word("added", reviewer, AT),
            )
            self._done("add", reviewer, {number: cell})
            return number

    def comment(self, session: str, text: str, reviewer: str, *, cell_id: int | None = None) -> None:
        with self._changing(session, reviewer):
            comment = Comment(reviewer, AT, text, cell_id)
            if cell_id is None:
                self._comments.append(comment)
                self._done("comment", reviewer, {}, text=text)
            else:
                cell = self._cell(cell_id)
                self._done("comment", reviewer, {cell_id: replace(cell, comments=(*cell.comments, comment))}, text=text)

    def sign(
        self, session: str, reviewer: str, *, despite: str | None = None, version: int | None = None
    ) -> Signature | None:
        with self._changing(session, reviewer):
            if version is not None and version != self._version:
                raise ReviewRefused("not possible", "got a slide that has changed, expected the one looked at")
            if self._is_live:
                raise ReviewRefused("not possible", "got a slide that is still being counted, expected a finished one")
            if self._verdict == "do not use" and not despite:
                raise ReviewRefused("do not use", "got the verdict 'do not use' and no reason, expected one to sign")
            state = "amended" if self._signatures else "signed"
            self._review = Review(state, reviewer, AT)
            signed = msgspec.json.encode({"signed_by": reviewer, "differential": self._differential})
            sha256 = hashlib.sha256(signed).hexdigest()
            signature = Signature(
                number=len(self._events), by=reviewer, at=AT, sha256=sha256, despite=despite, signed=signed
            )
            self._signatures.append(signature)
            self._done("sign", reviewer, {}, text=despite)
            return signature

    def amend(self, session: str, reviewer: str, reason: str) -> None:
        with self._lock:
            self._known(session)
            if self._review.state not in ("signed", "amended"):
                raise ReviewRefused("not signed", "got a slide that is not signed, expected a signed one")
            self._done("amend", reviewer, {}, text=reason)

    def agreement(self, session: str, first: str, second: str) -> Agreement:
        with self._lock:
            one, other = self._own.get(first, {}), self._own.get(second, {})
            both = sorted(one.keys() & other.keys())
            names = sorted({named[0] for of in (one, other) for named in of.values()})
            table = np.zeros((len(names), len(names)), int)
            for number in both:
                table[names.index(one[number][0]), names.index(other[number][0])] += 1
            return Agreement(
                kappa=cohen_kappa(table),
                both=len(both),
                unnamed=0,
                only_first=len(one.keys() - other.keys()),
                only_second=len(other.keys() - one.keys()),
                disagreements=tuple(
                    Disagreement(number, one[number], other[number], self._cells[number].word is not None)
                    for number in both
                    if one[number] != other[number]
                ),
            )

    def settle(
        self, session: str, cell_ids: Sequence[int], class_name: str, subclass: str | None, reviewer: str
    ) -> None:
        with self._changing(session, reviewer):
            word = Word("settled", reviewer, AT)
            changed = {
                number: replace(self._cell(number), class_name=class_name, subclass=subclass, word=word)
                for number in cell_ids
            }
            self._done("settle", reviewer, changed)

    def settle_agreed(self, session: str, first: str, second: str, reviewer: str) -> int:
        with self._changing(session, reviewer):
            one, other = self._own.get(first, {}), self._own.get(second, {})
            word = Word("settled", reviewer, AT)
            changed: dict[int, CellRecord | None] = {
                number: replace(self._cell(number), class_name=named[0], subclass=named[1], word=word)
                for number, named in one.items()
                if other.get(number) == named and self._cell(number).word is None
            }
            if not changed:
                raise ReviewRefused("nothing to settle", "got no cell that both named alike, expected one at least")
            self._done("settle", reviewer, changed)
            return len(changed)

    def verify(self, session: str) -> tuple[Signature, ...]:
        return tuple(self._signatures)

    def listen(self, listener: Listener) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def close(self) -> None:
        self._changes.put(None)
        self._teller.join()

    # Beneath

    def _tell(self) -> None:
        while (change := self._changes.get()) is not None:
            for listener in list(self._listeners):
                listener(change)

    def _known(self, session: str) -> None:
        if session != SESSION:
            raise ReviewRefused("unknown session", f"got the session {session!r}, expected {SESSION!r}")

    def _cell(self, number: int) -> CellRecord:
        if number not in self._cells:
            raise ReviewRefused("unknown cell", f"got cell {number}, expected one of this slide")
        return self._cells[number]

    def _check_class(self, class_name: str, subclass: str | None) -> None:
        known = (*SUBCLASSES.get(class_name, ()), None)
        if class_name not in CLASSES or subclass not in known:
            got = f"{class_name!r}{'' if subclass is None else f' with {subclass!r}'}"
            raise ReviewRefused("bad class", f"got {got}, expected a class of this slide")

    def _changing(self, session: str, reviewer: str) -> threading.RLock:
        self._known(session)
        if not reviewer.isascii() or not reviewer.isalpha():
            raise ReviewRefused("bad reviewer", f"got the reviewer {reviewer!r}, expected initials")
        if self._review.state in ("signed", "amended"):
            raise ReviewRefused("signed", "got a change of a signed slide, expected an open one; amend it first")
        return self._lock

    def _done(
        self,
        kind: EventKind,
        by: str,
        changed: Mapping[int, CellRecord | None],
        *,
        text: str | None = None,
        withdraws: int | None = None,
        blind: bool = False,
    ) -> None:
        before = {number: self._cells.get(number) for number in changed}
        removed = [number for number, cell in changed.items() if cell is None]
        for number, cell in changed.items():
            if cell is None:
                del self._cells[number]
            else:
                self._cells[number] = cell
        entry = HistoryEntry(
            number=len(self._events),
            at=AT,
            by=by,
            kind=kind,
            changes=tuple(
                CellChange(number, _named(before[number]), _named(changed[number]))
                for number in changed
                if kind != "comment"
            ),
            text=text,
            withdraws=withdraws,
            blind=blind,
        )
        self._events.append(_Event(entry, before))
        self._version += 1
        if kind != "sign" and not blind:
            self._review = Review("in review", by, AT)
        self._differential = self._counted()
        self._changes.put(
            Change(
                session=SESSION,
                version=self._version,
                messages=((self._differential, None),),
                cells=tuple(cell for cell in changed.values() if cell is not None),
                removed=tuple(removed),
                differential=self._differential,
                history=(entry,),
            )
        )

    def _counted(self) -> DifferentialMessage:
        whole = [cell for cell in self._cells.values() if not cell.partial]
        seen = Counter(cell.name for cell in whole)
        tally = Tally(
            classes=Counter(cell.class_name for cell in whole),
            subclasses=Counter(cell.subclass for cell in whole if cell.subclass),
            frames=len(self._cells) // A_FRAME + 1,
            frames_accepted=len(self._cells) // A_FRAME + 1,
            edge=sum(cell.partial for cell in self._cells.values()),
            seen_ids={name: tuple(c.cell_id for c in whole if name in (c.class_name, c.subclass)) for name in seen},
        )
        found = differential(
            tally,
            [name for name in CLASSES if name != "unclassified"],
            subclass_names=[name for names in SUBCLASSES.values() for name in names],
            subclass_parents=[parent for parent, names in SUBCLASSES.items() for _ in names],
            ranges=RANGES,
            final=not self._is_live,
        )
        reason = VerdictReason("few_cells", "the count is short", float(len(whole)), 200.0)
        reasons = () if self._verdict == "ready for review" else (reason,)
        return self._factory.differential(
            msgspec.structs.replace(
                described(found, self._about),
                verdict=Verdict(state=self._verdict, reasons=reasons),
                review=self._review,
                reviewed_cells=sum(cell.word is not None for cell in self._cells.values()),
            )
        )


def _named(cell: CellRecord | None) -> Named | None:
    return None if cell is None else (cell.class_name, cell.subclass)
