"""The desk of a reviewer: what can be seen of slides and said of their cells, wherever the slide is.

`Desk` is the contract between who shows a slide (a page, a command, a test) and who keeps it. There are two:
`JournalDesk(path, publish=None, insecure=False, keys=None, linger_s=0)` (journal_desk.py) holds a journal of finished
slides and writes it, alone; `LiveDesk(endpoint, keys=None, server_key=None)` (live_desk.py) follows a run elsewhere,
which stays the only writer, and sends it commands.

All methods may be called from any thread, several at once; each change is whole before the next one begins, so that of
two people at once neither loses anything. A change that returned is in the journal. Whatever can't be done raises
`ReviewRefused`, and then nothing was changed.

What may still be added: fields with defaults to the records, keyword arguments with defaults, codes. What is there
keeps its name and its meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from engines.base import LeukostreamError
from streamer.counting.agreement import Kappa
from streamer.counting.review_events import CellChange, Comment, EventKind, HistoryEntry, Signature, Word, WordKind
from streamer.protocol.messages import AnyMessage, DifferentialMessage
from streamer.records import Attributes, Review

__all__ = [
    "Agreement",
    "CellChange",
    "CellRecord",
    "CellView",
    "Change",
    "Comment",
    "Desk",
    "Disagreement",
    "EventKind",
    "HistoryEntry",
    "Listener",
    "RefusalCode",
    "ReviewRefused",
    "SessionInfo",
    "Signature",
    "Snapshot",
    "Word",
    "WordKind",
]

RefusalCode = Literal[
    "already counted",  # add_cell: where it was to be added a cell is counted already
    "bad class",  # no class, or no subclass of that class, that a cell of this slide may have
    "bad reviewer",  # no initials
    "bad text",  # a comment or a reason that is empty, too long, or holds control characters
    "blind",  # what a reviewer can't do while blind
    "closed",  # the desk
    "do not use",  # sign: the verdict says so, and no reason was given to sign despite it
    "no answer",  # live: the run did not answer
    "no place",  # add_cell: the frame was rejected or has no place on the slide, or the point lies outside it
    "not ended",  # the run was not finished; `leukostream run --resume` goes on with it
    "not possible",  # live: what a running slide can't do, or what the run refused; the reason says which
    "not settled",  # sign: what two blind reviewers said was not settled
    "not signed",  # amend
    "not written",  # the journal could not be written: a full disk; nothing was changed, and nothing can be any more
    "nothing to settle",  # settle_agreed
    "nothing to undo",
    "signed",  # a change of a signed slide, before amend
    "unknown cell",
    "unknown frame",
    "unknown session",
]


class ReviewRefused(LeukostreamError):
    """A change that is not made; nothing was changed. The text is one line for people."""

    def __init__(self, code: RefusalCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        """For programs."""

    @property
    def reason(self) -> str:
        """For people: got, expected, what to do."""
        return str(self)


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """One slide."""

    id: str
    source: str
    review: Review
    is_live: bool
    """Whether a run still counts it."""


@dataclass(frozen=True, slots=True)
class CellView:
    """Where one frame shows a cell."""

    frame_id: int
    box_px: tuple[float, float, float, float]
    """x1, y1, x2, y2 in the frame."""
    file: str | None = None
    """The frame's file; None where the source has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellRecord:
    """A white or nucleated red cell as it stands: what its message says, and what people said of it."""

    cell_id: int
    class_name: str
    """Its class in the result, "unclassified" among them."""
    subclass: str | None
    top_class: str
    """The models' likeliest; "unclassified" for a cell without looks, as one that a person added."""
    probabilities: Mapping[str, float]
    """Of the models, by class; empty for a cell without looks. A person's word does not change them."""
    attributes: Attributes | None
    unclassified_reason: str | None
    looks: int
    """0 for a cell that a person added."""
    partial: bool
    """Only ever seen cut by an edge of a frame: in no percentage."""
    counted: bool
    """In a count of the differential; False of partial cells, smudge cells and artefacts."""
    kind: str
    """"white" or "nucleated red"; live always "white"."""
    island: int
    x_px: float
    """Centre on the slide, x_px and y_px."""
    y_px: float
    first_frame_id: int
    last_frame_id: int
    views: tuple[CellView, ...] = ()
    """The frames that show it, in their order, the first 64 at most. Live: none."""
    has_picture: bool = False
    """Whether `picture` has one."""
    added: bool = False
    """A person added it."""
    word: Word | None = None
    """None: nobody said anything of it, or all of that was withdrawn: it was not reviewed."""
    own: tuple[str, str | None] | None = None
    """The class and subclass that the blind reviewer for whom the snapshot was made gave it; else None."""
    comments: tuple[Comment, ...] = ()

    @property
    def name(self) -> str:
        """Its subclass, or else its class."""
        return self.subclass or self.class_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All of one slide at one moment."""

    info: SessionInfo
    version: int
    """Grows with every change of this session on this desk."""
    differential: DifferentialMessage | None
    """The newest, with `review`, `reviewed_cells`, flags and verdict; None: live, before the first."""
    cells: tuple[CellRecord, ...]
    """By number, those in no count among them."""
    classes: tuple[str, ...]
    """That a cell may be given, "unclassified" last."""
    subclasses: Mapping[str, tuple[str, ...]]
    """Of the classes that have any."""
    history: tuple[HistoryEntry, ...] = ()
    """Oldest first; events of other blind reviewers are left out for a reviewer who is blind. Live: those of this desk.
    """
    comments: tuple[Comment, ...] = ()
    """On the slide."""
    signatures: tuple[Signature, ...] = ()
    """Oldest first."""
    to_review: int = 0
    """White and nucleated red cells seen whole: with as many `reviewed_cells` among them, every cell is confirmed."""
    reviewed: int = 0
    """Of `to_review`, those that a person named, confirmed or added."""
    blind: tuple[str, ...] = ()
    """Reviewers who are blind now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is new of a session: given to listeners in order, on one thread of the desk's own."""

    session: str
    version: int
    """As of the snapshot that has it."""
    messages: tuple[tuple[AnyMessage, bytes | None], ...]
    """(message, payload) as journaled and published, in order: cells first, then the differential, which every event
    changes: at least `review` says who said something last."""
    cells: tuple[CellRecord, ...] = ()
    """Those that are new or other than before, without `own`."""
    removed: tuple[int, ...] = ()
    """Numbers of cells that are in no list any more: an added one that was withdrawn; live, one that was joined."""
    differential: DifferentialMessage | None = None
    """None: as before."""
    history: tuple[HistoryEntry, ...] = ()
    """New events."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    cell_id: int
    first: tuple[str, str | None]
    second: tuple[str, str | None]
    """Class and subclass, as each of two reviewers gave it."""
    settled: bool
    """Somebody has said since what it is."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """What two blind reviewers said of the same cells."""

    kappa: Kappa
    """Of the cells that both named, subclasses where both gave one; those that one called unclassified left out."""
    both: int
    """Cells of which both said something."""
    unnamed: int
    """Of `both`, those that at least one called unclassified."""
    only_first: int
    """Cells of which the first said something and the second nothing; `only_second` likewise."""
    only_second: int
    disagreements: tuple[Disagreement, ...] = field(default=())
    """By cell; unclassified against a name is one too."""


Listener = Callable[[Change], None]
"""Called for each change, in order, on a thread of the desk: it may call the desk, and must not block for long."""


class Desk(Protocol):
    """Slides to review. `session`: the id of one. `reviewer`: initials, 1 to 16 letters, digits, `.`, `-` and `_`, the
    first a letter. `cell_ids`: one or more; a cell that was joined to another stands for that one. `class_name`: one of
    the snapshot's `classes`; `subclass`: one of that class's, or None.

    ReviewRefused of every method: "unknown session" and "closed"; of every change of a slide "signed", "bad reviewer"
    and "not written"; others as said. LiveDesk refuses sign, amend, begin blind, add_cell and settle with
    "not possible", as the slide is still being counted.
    """

    def sessions(self) -> list[SessionInfo]:
        """Oldest first."""
        ...

    def snapshot(self, session: str, reviewer: str | None = None) -> Snapshot:
        """`reviewer`: for whom; where that one is blind the cells have `own`, and what the other blind ones said is
        left out."""
        ...

    def version(self, session: str) -> int:
        """Of the slide as it is now: that of its newest change, for who keeps a snapshot."""
        ...

    def picture(self, session: str, cell_id: int) -> bytes | None:
        """The newest JPEG of a cell; None: there is none."""
        ...

    def begin(self, session: str, reviewer: str, *, blind: bool = False) -> None:
        """Begin a review; `blind`: what the reviewer says from now on changes no result until it is settled, until the
        reviewer begins again without. Said or not, the first change begins one."""
        ...

    def classify(
        self, session: str, cell_ids: Sequence[int], class_name: str | None, subclass: str | None, reviewer: str
    ) -> None:
        """Give cells a class; several at once are one event, and are undone together. `class_name` None: the models
        decide again. Codes: unknown cell, bad class."""
        ...

    def confirm(self, session: str, cell_ids: Sequence[int], reviewer: str) -> None:
        """Say that cells are right as they are. Code: unknown cell."""
        ...

    def undo(self, session: str, reviewer: str) -> None:
        """Withdraw the last event of this reviewer (classify, confirm, add, comment, settle) that is not withdrawn yet;
        what others said of the same cells later stays. Code: nothing to undo."""
        ...

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
        """Add a white cell that was missed, by its centre in a frame and the size of its box; its number. Without a
        size it has that of the slide's usual white cell. `picture`: a JPEG of it. Codes: unknown frame, no place,
        already counted, bad class, blind."""
        ...

    def comment(self, session: str, text: str, reviewer: str, *, cell_id: int | None = None) -> None:
        """On a cell, or on the slide. Codes: unknown cell, bad text."""
        ...

    def sign(
        self, session: str, reviewer: str, *, despite: str | None = None, version: int | None = None
    ) -> Signature | None:
        """Freeze the slide as it stands. `despite`: why, where the verdict is "do not use". `version`: of what the
        reviewer looked at; another one is refused. Codes: not ended, do not use, not settled, bad text, not
        possible."""
        ...

    def amend(self, session: str, reviewer: str, reason: str) -> None:
        """Open a signed slide again, for as long as it is not signed anew; the signed result is kept. Codes: not
        signed, bad text."""
        ...

    def agreement(self, session: str, first: str, second: str) -> Agreement:
        """What two reviewers said blind."""
        ...

    def settle(
        self, session: str, cell_ids: Sequence[int], class_name: str, subclass: str | None, reviewer: str
    ) -> None:
        """Say what cells are of which blind reviewers said something. Codes: unknown cell, bad class, blind."""
        ...

    def settle_agreed(self, session: str, first: str, second: str, reviewer: str) -> int:
        """Settle all cells of which two blind reviewers said the same, which nobody has settled yet; how many. One
        event. Codes: nothing to settle, blind."""
        ...

    def verify(self, session: str) -> tuple[Signature, ...]:
        """All signatures, counted again from the journal's frames: `fault` says of each why it does not hold. Takes as
        long as a recount."""
        ...

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Be told of changes from now on; call what is returned to be told no longer."""
        ...

    def close(self) -> None:
        """Let go of the journal or the run. Safe to call twice; waits for listeners."""
        ...
