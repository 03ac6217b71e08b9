"""The review of a session in its journal: a table of its own, which only journals of reviewed slides have, one row an
event, and what is signed beside the event that signs it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import replace

import msgspec

from streamer.counting.corrections import FROZEN, Corrections, next_review
from streamer.counting.review_events import AnyEvent, ReviewEvent, Sign, Signature, Word
from streamer.counting.slide_count import SlideCount
from streamer.journal.columns import ReviewRow
from streamer.journal.reader import StoredSession
from streamer.journal.schema import has_table
from streamer.journal.signing import fault_of, signed_form
from streamer.records import CellId, Review

SIGNED_MAX_BYTES = 256 << 20
"""Of what one signature signs, unpacked."""

StoredEvent = tuple[ReviewEvent, bytes | None]
"""An event, and of a signature what was signed."""


def review_events(stored: StoredSession) -> Iterator[StoredEvent]:
    """All events of a session, in order. JournalError for what is none."""
    if not has_table(stored.database, "review_events"):
        return
    for row in stored.rows("review_events", ReviewRow, "ORDER BY number"):
        with stored.reading(f"review_events.body of event {row.number}"):
            event: AnyEvent = msgspec.json.decode(row.body, type=AnyEvent)
            given = msgspec.convert(
                {"number": row.number, "at": row.given_utc, "by": row.by, "event": event}, ReviewEvent
            )
        with stored.reading(f"review_events.signed of event {row.number}"):
            if isinstance(event, Sign) != (row.signed is not None):
                raise ValueError(f"got {'something' if row.signed else 'nothing'} signed by an event of that kind")
            signed = None if row.signed is None else _unpacked(row.signed)
        yield given, signed


def packed_signed(signed: bytes) -> bytes:
    return zlib.compress(signed, 6)


def _unpacked(blob: bytes) -> bytes:
    try:
        unpacking = zlib.decompressobj()
        signed = unpacking.decompress(blob, SIGNED_MAX_BYTES)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if not unpacking.eof:
        raise ValueError(f"got more than {SIGNED_MAX_BYTES} bytes, or a part of what was signed")
    return signed


def review_of(stored: StoredSession) -> Review:
    """How far people are with a session, without counting it."""
    review, was_signed = Review(), False
    for given in (one for of_frame in stored.reclassifications().values() for one in of_frame):
        review = Review("in review", given.by, given.at)
    for event, _ in review_events(stored):
        review = next_review(was_signed, event)
        was_signed = was_signed or isinstance(event.event, Sign)
    return review


def is_signed(stored: StoredSession) -> bool:
    """Whether a session is frozen."""
    return review_of(stored).state in FROZEN


def reviewed(stored: StoredSession, count: SlideCount) -> Corrections:
    """The review of a session, applied to its count, which has finished; its signatures are checked. JournalError for
    what can't be applied."""
    corrections = Corrections(count, _live_words(stored, count))
    for given, signed in review_events(stored):
        with stored.reading(f"review_events: event {given.number}"):
            if isinstance(given.event, Sign) and signed is not None:
                event = given.event
                again = signed_form(stored, corrections, given.by, given.at, event.despite)
                fault = fault_of(signed, event.sha256, again)
                corrections.signatures.append(replace(signature_of(given, event, signed), fault=fault))
            corrections.apply(given)
    return corrections


def signature_of(given: ReviewEvent, event: Sign, signed: bytes) -> Signature:
    """Of an event that signs, unchecked."""
    return Signature(
        number=given.number,
        by=given.by,
        at=given.at,
        sha256=event.sha256,
        despite=event.despite,
        signed=signed,
    )


def _live_words(stored: StoredSession, count: SlideCount) -> dict[CellId, Word]:
    """Of the cells that people named or confirmed while the session ran, by their present numbers."""
    words: dict[CellId, Word] = {}
    for of_frame in stored.reclassifications().values():
        for given in of_frame:
            if count.is_counted(given.cell_id):
                cell = count.cell(given.cell_id)
                if cell.reclassified:
                    words[cell.cell_id] = Word("confirmed" if given.confirmed else "corrected", given.by, given.at)
    return words
