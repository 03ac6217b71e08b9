"""A journal as entries of the list: counted again, so that it says what report and exports say, and never written."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from engines.base import printable
from streamer import __version__
from streamer.interop.pseudonyms import pseudonym_of
from streamer.interop.sent import OutboxError, Sending, acknowledged
from streamer.interop.status import review_of
from streamer.journal import SeenFrame, StoredSession, opened, recounted, review_events
from streamer.journal.schema import APPLICATION_ID
from streamer.worklist.entries import ListedFlag, ListedSending, SlideEntry, WorklistError

_MAGIC = b"SQLite format 3\0"
_APPLICATION_ID_AT = 68
"""Of an SQLite file's header: four bytes, big-endian. Source: sqlite.org/fileformat.html, 1.3."""


@dataclass(frozen=True, slots=True)
class JournalPath:
    """Where a journal is."""

    host: str
    path: str
    """Absolute, links resolved."""


@dataclass(frozen=True, slots=True)
class JournalReading:
    place: JournalPath
    slides: tuple[SlideEntry, ...]
    fingerprint: str | None
    """Of the files that were read; None: something of them could not be read, and should be looked for again."""
    remark: str | None
    """What that was."""


def this_host() -> str:
    return socket.gethostname()


def place_of(path: str | Path) -> JournalPath:
    """WorklistError for a path that no database can hold."""
    found = os.path.realpath(path)
    try:
        found.encode()
    except UnicodeEncodeError:
        raise WorklistError(
            f"journal {printable(found)}: got a path that is not UTF-8, expected one; rename it"
        ) from None
    return JournalPath(this_host(), found)


def is_journal(path: Path) -> bool:
    """Whether a file's head says so."""
    try:
        with open(path, "rb") as file:
            head = file.read(_APPLICATION_ID_AT + 4)
    except OSError:
        return False
    return head.startswith(_MAGIC) and head[_APPLICATION_ID_AT:] == APPLICATION_ID.to_bytes(4, "big")


def journals_in(folder: Path) -> list[Path]:
    """By name; folders within it are not searched. WorklistError where it can't be read."""
    try:
        return sorted(one for one in folder.iterdir() if one.is_file() and is_journal(one))
    except OSError as error:
        raise WorklistError(f"{folder}: got '{error.strerror}', expected a folder of journals") from error


def fingerprint_of(path: str) -> str:
    """Changes with whatever this program would make of a journal: its file, its log, what was sent, the program."""
    parts = [__version__]
    for name in (path, f"{path}-wal", f"{path}.sent"):
        try:
            status = os.stat(name)
        except OSError:
            parts.append("-")
        else:
            parts.append(f"{status.st_ino}.{status.st_size}.{status.st_mtime_ns}")
    return " ".join(parts)


def read_journal(place: JournalPath) -> JournalReading:
    """Count all its slides again. JournalError for a journal that can't be read, one in use among them."""
    fingerprint: str | None = fingerprint_of(place.path)
    sent: list[Sending] = []
    remark = None
    try:
        sent = acknowledged(Path(f"{place.path}.sent"))
    except OutboxError as error:  # what was sent before is known already
        fingerprint, remark = None, printable(str(error))
    with opened(place.path) as journal:
        slides = tuple(_entry(stored, sent) for stored in journal.sessions)
    return JournalReading(place, slides, fingerprint, remark)


def _entry(stored: StoredSession, sent: list[Sending]) -> SlideEntry:
    last: str | None = None

    def note(seen: SeenFrame) -> None:
        nonlocal last
        last = seen.captured_utc or last

    result = recounted(stored, note)
    found = result.differential
    review, verdict = review_of(result), found.verdict
    is_reviewed = review.state != "unsigned" and result.count.review is not None
    pseudonym = str(pseudonym_of(stored.id))
    with stored.reading("sessions.created_utc"):
        begun_utc = _utc(stored.created_utc, "microseconds")
    with stored.reading("frames.captured_utc"):
        ended_utc = _utc(last) if stored.ended and last is not None else None
    with stored.reading("review_events.given_utc"):
        at = result.count.review.at
        reviewed_utc = None if at is None or not is_reviewed else _utc(at)
    info = stored.slide
    return SlideEntry(
        session=_text(stored.id),
        source=_text(stored.source),
        slide=info.name,
        accession=info.accession,
        operator=info.operator,
        instrument=info.instrument,
        begun_utc=begun_utc,
        ended=stored.ended,
        ended_utc=ended_utc,
        total=found.total,
        verdict=None if verdict is None else verdict.state,
        verdict_reason=_text(verdict.reasons[0].text) if verdict is not None and verdict.reasons else None,
        review=review.state,
        reviewed_by=_text(result.count.review.by) if is_reviewed and result.count.review.by is not None else None,
        reviewed_utc=reviewed_utc,
        signature_fault=None if review.fault is None else _text(review.fault),
        progress=stored.next_seq + sum(1 for _ in review_events(stored)),
        flags=tuple(
            ListedFlag(
                code=_text(flag.code),
                class_=None if flag.class_ is None else _text(flag.class_),
                direction=None if flag.direction is None else _text(flag.direction),
                text=_text(flag.text),
            )
            for flag in found.flags
        ),
        sendings=tuple(_sendings(stored, pseudonym, sent)),
    )


def _sendings(stored: StoredSession, pseudonym: str, sent: list[Sending]) -> Iterator[ListedSending]:
    for one in sent:
        if one.subject == pseudonym:
            with stored.reading("the store of what was sent"):
                yield ListedSending(
                    receiver=_text(one.receiver),
                    control_id=_text(one.control_id),
                    kind=_text(one.kind),
                    status=_text(one.status),
                    stored_utc=_utc(one.stored_utc),
                    answered_utc=_utc(one.answered_utc),
                )


def _utc(text: str, precision: str = "seconds") -> str:
    """One form for all, so that texts compare as times do. ValueError for what is no time."""
    try:
        found = datetime.fromisoformat(text)
        found = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(str(error)) from error
    return found.replace(tzinfo=None).isoformat(timespec=precision) + "Z"


def _text(text: str) -> str:
    """As every database takes it: without control characters and halves of characters."""
    return printable(text)
