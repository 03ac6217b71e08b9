"""`leukostream worklist add`: journals read and put into the list, one after the other."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from engines.base import UsageError
from streamer.commands.output import output_folder, remark, say
from streamer.journal import JournalError, JournalInUseError
from streamer.mosaic.compose import plural
from streamer.worklist.address import Address, address_of
from streamer.worklist.book import Worklist
from streamer.worklist.putting import Put
from streamer.worklist.reading import (
    JournalPath,
    fingerprint_of,
    journals_in,
    place_of,
    read_journal,
    this_host,
)

ATTEMPTS = 3
"""To read a journal that changes meanwhile."""


def add(to: str, paths: Sequence[str]) -> int:
    """1 where a journal could not be read; the others are added all the same. UsageError for an address that is none,
    WorklistError for a list that can't be used."""
    address = address_of(to)
    if address.file is not None and paths:
        output_folder(str(address.file.parent), "--to")
    failed = 0
    with Worklist(address, make=bool(paths)) as worklist:
        places = _places(paths) if paths else _known(worklist, address)
        for place in places:
            try:
                _add(worklist, place)
            except JournalError as error:
                remark(str(error))
                failed += 1
    return 1 if failed else 0


def _places(paths: Sequence[str]) -> Iterator[JournalPath]:
    """UsageError for a folder without a journal."""
    for path in paths:
        if not os.path.isdir(path):
            yield place_of(path)
            continue
        found = journals_in(Path(path))
        if not found:
            raise UsageError(f"worklist add {path}: got a folder without a journal, expected what run --journal wrote")
        yield from map(place_of, found)


def _known(worklist: Worklist, address: Address) -> Iterator[JournalPath]:
    """What is gone is said and passed over: the list keeps what it knows of it."""
    known = worklist.known(this_host())
    if not known:
        remark(f"got no JOURNAL, and {address.shown} knows none of this machine: nothing to do")
    for place in known:
        if os.path.exists(place.path):
            yield place
        else:
            remark(f"{place.path}: vanished; the list keeps its slides as they were. Add it where it is now")


def _add(worklist: Worklist, place: JournalPath) -> None:
    """JournalError where it can't be read, which the list then knows too if it knows the journal or the journal is in
    use."""
    for _ in range(ATTEMPTS):
        was = fingerprint_of(place.path)
        if worklist.fingerprint(place) == was:
            say(f"{place.path}: nothing has changed")
            return
        try:
            reading = read_journal(place)
        except JournalError as error:
            in_use = isinstance(error, JournalInUseError)
            if in_use or place in worklist.known(place.host):
                worklist.could_not_read(place, str(error))
            if not in_use:
                raise
            remark(f"{error}; the list says so")
            return
        done = worklist.put(reading, lambda was=was: fingerprint_of(place.path) == was)  # type: ignore[misc]
        if done is not None:
            _report(place, done, reading.remark)
            return
    raise JournalError(f"journal {place.path}: got one that changes while it is read, expected one at rest; try again")


def _report(place: JournalPath, done: Sequence[Put], why: str | None) -> None:
    counts = Counter(one.outcome for one in done)
    words = [f"{number} {outcome}" for outcome, number in counts.items() if outcome != "copy"]
    copies = sorted({one.other for one in done if one.outcome == "copy" and one.other is not None})
    if copies:
        words.append(f"{counts['copy']} listed as of {', '.join(copies)}, where as much or more has happened")
    moved = sorted({one.other for one in done if one.outcome == "moved" and one.other is not None})
    say(
        f"{place.path}: {plural(len(done), 'slide')}: {', '.join(words)}"
        + (f", from {', '.join(moved)}" if moved else "")
    )
    if why is not None:
        remark(f"{why}; what was sent is listed as it was known")
