"""What people do when they review a slide that has ended: events, of which none is ever deleted, and what they come to.

The structs are the JSON that the journal keeps (docs/review.md); the records are what a reader is told.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from streamer.records import REVIEWER, CellId

TEXT_MAX = 2000
"""Characters of a comment or a reason."""

CELLS_MAX = 100_000
"""Cells of one event."""

CellNumber = Annotated[int, Meta(ge=0, le=2**31 - 1)]
ClassName = Annotated[str, Meta(min_length=1, max_length=128)]
Text = Annotated[str, Meta(min_length=1, max_length=TEXT_MAX)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Pixels = Annotated[float, Meta(ge=-1e7, le=1e7)]

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_INITIALS = re.compile(REVIEWER)


class CorrectionFault(ValueError):
    """An event that can't be; the text says why."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        """For programs: see streamer/review/desk.py."""


class Naming(msgspec.Struct, frozen=True, array_like=True):
    """One cell: what it was, and what it is said to be."""

    cell_id: CellNumber
    was_class: ClassName
    was_subclass: ClassName | None
    class_name: ClassName | None
    """None: the models decide again."""
    subclass: ClassName | None


Namings = Annotated[tuple[Naming, ...], Meta(min_length=1, max_length=CELLS_MAX)]


class _Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", forbid_unknown_fields=True):
    pass


class Begin(_Event, frozen=True, kw_only=True, tag="begin"):
    blind: bool = False
    """Whether what this reviewer says from now on changes no result until it is settled."""


class Classify(_Event, frozen=True, kw_only=True, tag="class"):
    cells: Namings


class Confirm(_Event, frozen=True, kw_only=True, tag="confirm"):
    cells: Namings
    """Each is said to be what it was."""


class Settle(_Event, frozen=True, kw_only=True, tag="settle"):
    cells: Namings


class AddCell(_Event, frozen=True, kw_only=True, tag="add"):
    cell_id: CellNumber
    """The next that no cell of the slide has."""
    frame_id: CellNumber
    island: CellNumber
    box_px: tuple[Pixels, Pixels, Pixels, Pixels]
    """x1, y1, x2, y2 on the slide."""
    frame_box_px: tuple[Pixels, Pixels, Pixels, Pixels]
    """The same in the frame."""
    class_name: ClassName
    subclass: ClassName | None


class AddComment(_Event, frozen=True, kw_only=True, tag="comment"):
    text: Text
    cell_id: CellNumber | None


class Withdraw(_Event, frozen=True, kw_only=True, tag="withdraw"):
    number: CellNumber
    """Of the event that does not hold any more."""


class Sign(_Event, frozen=True, kw_only=True, tag="sign"):
    sha256: Sha256
    """Of the canonical form of what was signed, which stands beside it."""
    despite: Text | None


class Amend(_Event, frozen=True, kw_only=True, tag="amend"):
    reason: Text


AnyEvent = Begin | Classify | Confirm | Settle | AddCell | AddComment | Withdraw | Sign | Amend
UNDONE = (Classify, Confirm, Settle, AddCell, AddComment)
"""Events that `Withdraw` may take back."""

EventKind = Literal["begin", "class", "confirm", "add", "comment", "withdraw", "settle", "sign", "amend"]
WordKind = Literal["corrected", "confirmed", "added", "settled"]


def kind_of(event: AnyEvent) -> EventKind:
    kind: EventKind = type(event).__struct_config__.tag  # type: ignore[assignment]  # the tags above
    return kind


class ReviewEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event, as it happened."""

    number: CellNumber
    """Of the session, from 0 without gaps."""
    at: Annotated[str, Meta(max_length=40)]
    """UTC, ISO 8601 with microseconds and Z."""
    by: Annotated[str, Meta(pattern=f"^{REVIEWER}$")]
    event: AnyEvent


def check_reviewer(by: str) -> None:
    """CorrectionFault for what are no initials."""
    if not isinstance(by, str) or not _INITIALS.fullmatch(by):
        raise CorrectionFault(
            "bad reviewer",
            f"got the initials {str(by)[:40]!r}, expected 1 to 16 letters, digits, '.', '_' and '-', a letter first",
        )


def check_text(text: str, what: str) -> None:
    """CorrectionFault for a comment or reason that can't be kept."""
    if not text.strip() or len(text) > TEXT_MAX:
        raise CorrectionFault("bad text", f"{what}: got {len(text)} characters, expected 1 to {TEXT_MAX}")
    if _CONTROL.search(text):
        raise CorrectionFault("bad text", f"{what}: got a control character, expected text and line breaks alone")


@dataclass(frozen=True, slots=True)
class Word:
    """What a person said last of a cell, and what holds of it."""

    kind: WordKind
    by: str | None
    """Initials, or of a run's command without them the name of its key; None: not known here."""
    at: str | None
    """UTC, ISO 8601 with microseconds and Z; None: not known here, as of a live cell that others named."""


@dataclass(frozen=True, slots=True)
class Comment:
    by: str
    at: str
    text: str
    """As it was typed: it may hold anything but control characters, markup too. Line breaks are allowed."""
    cell_id: CellId | None = None
    """None: of the slide."""
    number: int | None = None
    """Of its event; None: of a live run."""


@dataclass(frozen=True, slots=True)
class CellChange:
    """What an event did to one cell: (class, subclass) before and after. `before` is None where there was no such cell,
    and of a live command, which does not say; `after` where the models decide again, by a live command or blind. A
    blind reviewer's event has in `after` what was said, which changed no result."""

    cell_id: CellId
    before: tuple[str, str | None] | None
    after: tuple[str, str | None] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """One event of the review, as it happened; nothing is ever deleted from it."""

    number: int | None
    """Of the session, from 0 without gaps; None: a command to the run while it was live, which came before these."""
    at: str
    """UTC, ISO 8601 with microseconds and Z."""
    by: str
    """Initials, or of a live command without them the name of its key."""
    kind: EventKind
    changes: tuple[CellChange, ...] = ()
    """Of class, confirm, add and settle."""
    text: str | None = None
    """Of comment; the reason of amend, and of a sign despite the verdict "do not use"."""
    cell_id: CellId | None = None
    """Of a comment on a cell."""
    withdraws: int | None = None
    """Of withdraw: the number of the event that it took back."""
    withdrawn: bool = False
    """Whether a later event took it back."""
    blind: bool = False
    """Whether the reviewer was blind then: such events change no result. Of begin: whether they are from then on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One signed result. An amendment does not take it back: it stays, with what was signed, beside the next one."""

    number: int
    """Of its event."""
    by: str
    at: str
    sha256: str
    """Of `signed`, 64 hexadecimal digits."""
    despite: str | None
    """Why it was signed though the verdict was "do not use"; None where it was another."""
    signed: bytes
    """What was signed: canonical JSON, as docs/review.md says."""
    fault: str | None = None
    """Why it does not hold any more, one line; None: it holds, as of the last time that it was counted again."""
