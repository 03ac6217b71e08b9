"""What is listed of a slide, as plain data; the JSON of `worklist list --jsonl` and of the page."""

from __future__ import annotations

from typing import Literal

import msgspec

from engines.base import LeukostreamError

SlideState = Literal["running", "preliminary", "signed", "sent"]
"""running: its run has not ended, or was killed and can be gone on with. preliminary: nobody has signed it, or its
signature does not hold. signed: somebody has, and no receiver has acknowledged what was signed. sent: one has."""

STATES: tuple[SlideState, ...] = ("running", "preliminary", "signed", "sent")

Place = Literal["there", "vanished", "not in it", "elsewhere"]
"""Of a journal. there: at its path. vanished: nothing is at its path. not in it: what is there now holds other slides.
elsewhere: on another machine, which this one can't look at."""


class WorklistError(LeukostreamError):
    """The list can't be used."""


class ListedFlag(msgspec.Struct, frozen=True, kw_only=True, rename={"class_": "class"}):
    code: str
    class_: str | None
    direction: str | None
    text: str


class ListedSending(msgspec.Struct, frozen=True, kw_only=True):
    """A message with a result of the slide that a receiver acknowledged."""

    receiver: str
    control_id: str
    kind: str
    status: str
    """ "P" preliminary, "F" final, "C" corrected."""
    stored_utc: str
    """When it was made. UTC, ISO 8601 in whole seconds, as all times but `begun_utc`."""
    answered_utc: str


class SlideEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A session as its journal has it. None is what nobody said, or what is not known yet."""

    session: str
    source: str
    slide: str | None
    accession: str | None
    operator: str | None
    instrument: str | None
    begun_utc: str
    """ISO 8601 in microseconds."""
    ended: bool
    ended_utc: str | None
    """When its last frame was captured. None: it has not ended, or has no frame."""
    total: int
    """White cells, counted again from the journal."""
    verdict: str | None
    verdict_reason: str | None
    """The gravest, in words."""
    review: str
    """A ReviewState; "in review" too where a signature does not hold."""
    reviewed_by: str | None
    reviewed_utc: str | None
    signature_fault: str | None
    """Why it does not hold. None: it does, or there is none."""
    progress: int
    """Grows with whatever happens to a session, so that an older reading never replaces a later one."""
    flags: tuple[ListedFlag, ...] = ()
    sendings: tuple[ListedSending, ...] = ()


COLUMNS = tuple(name for name in SlideEntry.__struct_fields__ if name not in ("flags", "sendings"))
"""Of an entry, those that are columns of its row."""


class ListedSlide(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the list."""

    state: SlideState
    entry: SlideEntry | None
    """None: of a journal that another process has held since it was added, so that nobody could read it."""
    journal: str
    """Path, on `host`."""
    host: str
    place: Place
    moved_from: str | None
    """Where its journal was before; None: it has always been there."""
    remark: str | None
    """Why the journal could not be read when it was last looked at; None: it could."""
    looked_utc: str
    """When that was."""
