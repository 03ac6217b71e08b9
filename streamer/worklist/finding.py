"""Asking the database for slides."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, Select, and_, case, exists, false, func, or_, select

from engines.base import UsageError
from streamer.worklist.entries import COLUMNS, ListedFlag, ListedSending, ListedSlide, Place, SlideState
from streamer.worklist.reading import this_host
from streamer.worklist.tables import flags, journals, sendings, slides

ANY_FLAG = "any"
"""As a filter: whatever is flagged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What is asked for; None and empty: everything."""

    state: SlideState | None = None
    verdict: str | None = None
    flag: str | None = None
    """Code or class of a flag, in any case; ANY_FLAG."""
    since_utc: str | None = None
    """Begun then or later: ISO 8601 in microseconds, with Z."""
    words: tuple[str, ...] = ()
    """All stand somewhere in names, flags or path, in any case."""
    limit: int | None = None


_STATE = case(
    (slides.c.ended.is_(False), "running"),
    (
        slides.c.review.in_(("signed", "amended")),
        case(
            (
                # Of what was signed, not of what was preliminary before: made since, and said to be so.
                exists().where(
                    sendings.c.session == slides.c.session,
                    sendings.c.stored_utc >= slides.c.reviewed_utc,
                    sendings.c.status == case((slides.c.review == "amended", "C"), else_="F"),
                ),
                "sent",
            ),
            else_="signed",
        ),
    ),
    else_="preliminary",
)


def since_utc(text: str, now: datetime) -> str:
    """A moment as the list has them; one without a zone is this machine's time. UsageError for what is none."""
    try:
        if days := re.fullmatch(r"(\d{1,5})d", text):
            found = now - timedelta(days=int(days[1]))
        else:
            found = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(
            f"since: got {text!r}, expected a date or time, such as 2026-11-30 or 2026-11-30T08:00, or days, such as 7d"
        ) from None
    return found.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def found(connection: Connection, what: Filter) -> list[ListedSlide]:
    """Journals that nobody could read yet, then slides, the newest first. ValueError for rows that are none."""
    slides_asked = _slides(what).limit(what.limit)
    chosen = slides_asked.with_only_columns(slides.c.session)
    by_flag, by_sending = by_session(connection, flags, chosen), by_session(connection, sendings, chosen)
    unread = [] if what.verdict or what.flag else connection.execute(_unread(what)).all()
    rows = connection.execute(slides_asked).all()
    shown = [_unread_listed(row) for row in unread]
    shown += [_listed(row, by_flag[row.session], by_sending[row.session]) for row in rows]
    return shown[: what.limit]


def _slides(what: Filter) -> Select[Any]:
    journal = and_(journals.c.host == slides.c.host, journals.c.path == slides.c.path)
    query = (
        select(slides, _STATE.label("state"), journals.c.remark, journals.c.looked_utc)
        .join(journals, journal)
        .order_by(slides.c.begun_utc.desc(), slides.c.session)
    )
    if what.state is not None:
        query = query.where(_STATE == what.state)  # noqa: SIM300
    if what.verdict is not None:
        query = query.where(slides.c.verdict == what.verdict)
    if what.since_utc is not None:
        query = query.where(slides.c.begun_utc >= what.since_utc)
    if what.flag is not None:
        of_slide = exists().where(flags.c.session == slides.c.session)
        folded = what.flag.lower()
        named = or_(func.lower(flags.c.code) == folded, func.lower(flags.c["class"]) == folded)
        query = query.where(of_slide if folded == ANY_FLAG else of_slide.where(named))
    return query.where(*(slides.c.words.contains(word.casefold(), autoescape=True) for word in what.words))


def _unread(what: Filter) -> Select[Any]:
    """Journals that were in use whenever somebody looked: a run's, as a rule."""
    of_it = exists().where(slides.c.host == journals.c.host, slides.c.path == journals.c.path)
    query = select(journals).where(journals.c.remark.is_not(None), ~of_it).order_by(journals.c.looked_utc.desc())
    if what.state not in (None, "running"):
        query = query.where(false())
    if what.since_utc is not None:
        query = query.where(journals.c.looked_utc >= what.since_utc)
    return query.where(*(func.lower(journals.c.path).contains(word.lower(), autoescape=True) for word in what.words))


def by_session(connection: Connection, table: Any, chosen: Select[Any]) -> Mapping[str, Sequence[Row[Any]]]:
    found: defaultdict[str, list[Row[Any]]] = defaultdict(list)
    order = table.c.number if table is flags else table.c.answered_utc
    for row in connection.execute(select(table).where(table.c.session.in_(chosen)).order_by(order)):
        found[row.session].append(row)
    return found


def flags_of(rows: Iterable[Row[Any]]) -> tuple[ListedFlag, ...]:
    return msgspec.convert([_values(row, ListedFlag) for row in rows], tuple[ListedFlag, ...])


def _values(row: Row[Any], of: type[msgspec.Struct]) -> dict[str, Any]:
    return {name: row._mapping[name] for name in of.__struct_encode_fields__}


def _listed(row: Row[Any], of_flags: Iterable[Row[Any]], of_sendings: Iterable[Row[Any]]) -> ListedSlide:
    values = dict(row._mapping)
    entry = {
        **{name: values[name] for name in COLUMNS},
        "flags": flags_of(of_flags),
        "sendings": [_values(one, ListedSending) for one in of_sendings],
    }
    shown = {
        "state": row.state,
        "entry": entry,
        "journal": row.path,
        "host": row.host,
        "place": _place(row.host, row.path, row.in_journal),
        "moved_from": row.moved_from,
        "remark": row.remark,
        "looked_utc": row.looked_utc,
    }
    return msgspec.convert(shown, ListedSlide)


def _unread_listed(row: Row[Any]) -> ListedSlide:
    return ListedSlide(
        state="running",
        entry=None,
        journal=row.path,
        host=row.host,
        place=_place(row.host, row.path, True),
        moved_from=None,
        remark=row.remark,
        looked_utc=row.looked_utc,
    )


def _place(host: str, path: str, in_journal: bool) -> Place:
    if host != this_host():
        return "elsewhere"
    if not os.path.exists(path):
        return "vanished"
    return "there" if in_journal else "not in it"
