"""One journal's slides put into the database, within a transaction in which nobody else writes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, and_, delete, exists, insert, or_, select, update

from streamer.worklist.entries import COLUMNS, SlideEntry
from streamer.worklist.finding import by_session, flags_of
from streamer.worklist.reading import JournalPath
from streamer.worklist.tables import flags, journals, sendings, slides

Outcome = Literal["new", "updated", "unchanged", "moved", "copy"]


@dataclass(frozen=True, slots=True)
class Put:
    """What became of a slide that was put in."""

    session: str
    outcome: Outcome
    """copy: the list keeps that of another place, where the journal is still, or was when more had happened."""
    other: str | None = None
    """That place, or where the journal was moved from."""


def is_at(table: Any, place: JournalPath) -> ColumnElement[bool]:
    return and_(table.c.host == place.host, table.c.path == place.path)


def put_slide(connection: Connection, place: JournalPath, entry: SlideEntry) -> Put:
    was_sent = _add_sendings(connection, entry)
    old = connection.execute(select(slides).where(slides.c.session == entry.session)).one_or_none()
    values = {name: getattr(entry, name) for name in COLUMNS}
    values |= {"host": place.host, "path": place.path, "in_journal": True, "words": _words(entry, place)}
    if old is None:
        connection.execute(insert(slides).values(moved_from=None, **values))
        _put_flags(connection, entry)
        return Put(entry.session, "new")
    other = _other_place(old, place)
    if other is not None:
        is_there = old.in_journal and old.host == place.host and os.path.exists(old.path)
        if entry.progress < old.progress or (is_there and entry.progress == old.progress):
            return Put(entry.session, "copy", other)
    values["moved_from"] = old.moved_from if other is None else other
    kept = by_session(connection, flags, select(slides.c.session).where(slides.c.session == entry.session))
    is_known = not was_sent and all(getattr(old, name) == value for name, value in values.items())
    if is_known and flags_of(kept[entry.session]) == entry.flags:
        return Put(entry.session, "unchanged")
    connection.execute(update(slides).where(slides.c.session == entry.session).values(**values))
    connection.execute(delete(flags).where(flags.c.session == entry.session))
    _put_flags(connection, entry)
    return Put(entry.session, "updated" if other is None else "moved", other)


def _other_place(old: Row[Any], place: JournalPath) -> str | None:
    """Where the list has a slide; None: here."""
    if (old.host, old.path) == (place.host, place.path):
        return None
    return str(old.path) if old.host == place.host else f"{old.host}:{old.path}"


def _put_flags(connection: Connection, entry: SlideEntry) -> None:
    for number, flag in enumerate(entry.flags):
        connection.execute(insert(flags).values(session=entry.session, number=number, **msgspec.to_builtins(flag)))


def _add_sendings(connection: Connection, entry: SlideEntry) -> bool:
    """Those that are new; whether any is."""
    known = connection.execute(select(sendings).where(sendings.c.session == entry.session)).all()
    keys = {(row.receiver, row.control_id) for row in known}
    new = [one for one in entry.sendings if (one.receiver, one.control_id) not in keys]
    for one in new:
        connection.execute(insert(sendings).values(session=entry.session, **msgspec.structs.asdict(one)))
    return bool(new)


def note(connection: Connection, place: JournalPath, fingerprint: str | None, remark: str | None) -> None:
    values = {"fingerprint": fingerprint, "remark": remark, "looked_utc": _now_utc()}
    if not connection.execute(update(journals).where(is_at(journals, place)).values(**values)).rowcount:
        connection.execute(insert(journals).values(host=place.host, path=place.path, **values))


def left_journals(place: JournalPath) -> Any:
    """Deletes those, but this one, of which no slide is listed any more and that could be read."""
    listed = exists().where(slides.c.host == journals.c.host, slides.c.path == journals.c.path)
    is_other = or_(journals.c.host != place.host, journals.c.path != place.path)
    return delete(journals).where(is_other, journals.c.fingerprint.is_not(None), ~listed)


def _words(entry: SlideEntry, place: JournalPath) -> str:
    """All that a slide is looked for by, in one text. Folded here: databases differ in what a capital letter is."""
    named = (entry.slide, entry.accession, entry.operator, entry.instrument, entry.source, entry.reviewed_by)
    flagged = [text for flag in entry.flags for text in (flag.code, flag.class_, flag.text)]
    return "\n".join(filter(None, (*named, entry.session, place.path, *flagged))).casefold()


def _now_utc() -> str:
    return datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"
