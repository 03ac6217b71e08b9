"""`leukostream worklist list`: the list as a table, or as JSON Lines."""

from __future__ import annotations

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from streamer.commands.output import remark, say
from streamer.dashboard.canvas import clean
from streamer.dashboard.words import number
from streamer.worklist.address import address_of
from streamer.worklist.book import Worklist
from streamer.worklist.entries import ListedFlag, ListedSlide, SlideEntry
from streamer.worklist.finding import Filter

STYLES = {
    "sent": "green",
    "signed": "green",
    "running": "cyan",
    "ready for review": "green",
    "incomplete": "yellow",
    "do not use": "red",
}


UNBROKEN = 10_000
"""Columns of what is no terminal: a line a slide."""
MISSING = "–"
HEADINGS = ("slide", "accession", "begun (UTC)", "cells", "verdict", "flags", "state", "review", "journal")
WHOLE = ("begun (UTC)", "cells", "state")
"""Columns that are not broken into lines."""
OPTIONAL = ("accession", "review")
"""Columns that are left out where no slide has anything to say in them."""
PLACES = {"vanished": "vanished: ", "not in it": "no longer in: ", "elsewhere": "", "there": ""}
DIRECTIONS = {"low": " low", "high": " high"}


def print_list(to: str, what: Filter, *, as_json: bool) -> int:
    """UsageError for an address that is none, WorklistError for a list that can't be used."""
    with Worklist(address_of(to)) as worklist:
        found = worklist.find(what)
    if as_json:
        for one in found:
            say(msgspec.json.encode(one).decode())
    elif found:
        console = Console()
        if not console.is_terminal:
            console.width = UNBROKEN
        console.print(_table(found))
    else:
        remark(f"{worklist.address.shown}: no slide{'' if what == Filter() else ' of that kind'} in the list")
    return 0


def _table(found: list[ListedSlide]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    columns = zip(HEADINGS, zip(*map(_row, found), strict=True), strict=True)
    shown = [
        (name, cells) for name, cells in columns if name not in OPTIONAL or any(cell.plain != MISSING for cell in cells)
    ]
    for name, _ in shown:
        table.add_column(name, justify="right" if name == "cells" else "left", no_wrap=name in WHOLE)
    for row in zip(*(cells for _, cells in shown), strict=True):
        table.add_row(*row)
    return table


def _row(one: ListedSlide) -> tuple[Text, ...]:
    """In the order of HEADINGS."""
    entry = one.entry
    if entry is None:
        missing = Text(MISSING)
        return (*[missing] * 6, _styled(one.state), missing, _journal(one))
    return (
        Text(clean(entry.slide or entry.source)),
        Text(clean(entry.accession or MISSING)),
        Text(clean(entry.begun_utc[:16].replace("T", " "))),
        Text(number(entry.total)),
        _styled(entry.verdict),
        Text(clean("; ".join(dict.fromkeys(map(flag_words, entry.flags))) or MISSING)),
        _styled(one.state),
        _review(entry),
        _journal(one),
    )


def flag_words(flag: ListedFlag) -> str:
    """In short: what and where to; the text itself is in the journal's report."""
    return f"{flag.class_ or flag.code}{DIRECTIONS.get(flag.direction or '', '')}"


def _styled(text: str | None) -> Text:
    return Text(clean(text or MISSING), STYLES.get(text or "", ""))


def _review(entry: SlideEntry) -> Text:
    if entry.signature_fault is not None:
        return Text("signature does not hold", "red")
    by = "" if entry.reviewed_by is None else f"by {entry.reviewed_by}"
    words = {"unsigned": MISSING, "signed": by}.get(entry.review, f"{entry.review} {by}".strip())
    return Text(clean(words))


def _journal(one: ListedSlide) -> Text:
    host = f"{one.host}:" if one.place == "elsewhere" else ""
    moved = "" if one.moved_from is None else f" (was {one.moved_from})"
    unread = "in use, not read yet" if one.entry is None else "not read when last looked at"
    in_use = "" if one.remark is None else f" ({unread})"
    text = Text(clean(f"{PLACES[one.place]}{host}{one.journal}{moved}{in_use}"))
    if one.place in ("vanished", "not in it"):
        text.stylize("red")
    return text
