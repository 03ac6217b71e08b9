"""What is to be analysed again, cut into shards: one slide each, as one source that can be read to its end."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

from engines.base import LeukostreamError, UsageError
from streamer.journal import JournalReader, StoredSession
from streamer.recording import MAGIC, Recording
from streamer.records import SlideInfo
from streamer.sources import open_source, parse_source
from streamer.sources.address import split_name, split_options
from streamer.sources.images import is_image, list_images, natural_key

FINITE = ("path", "replay", "wsi", "sim")
"""Kinds of sources that end, and give the same frames whenever they are read."""

NOTHING_SAID = SlideInfo()

_SQLITE = b"SQLite format 3\0"


@dataclass(frozen=True, slots=True)
class Shard:
    name: str
    """The source of its messages, and the stem of its files."""
    address: str
    """As after run --source, with an absolute path."""
    slide: SlideInfo = NOTHING_SAID
    """What the journal that it comes from says of it."""
    fault: str | None = None
    """Why it can't be analysed; None: it can be tried."""


def shards_of(given: Sequence[str], known: Mapping[str, str]) -> list[Shard]:
    """In the order in which they are given, each address once. `known`: names by address of an earlier call, which they
    keep. UsageError for a camera or stream, and for what matches nothing."""
    found: dict[str, Shard] = {}
    named: set[str] = set()
    for text in given:
        name, source = split_name(text, "SRC")
        shards = list(_found(source))
        if name is not None:
            if len(shards) != 1:
                raise UsageError(f"{text}: got {len(shards)} slides for the name {name!r}, expected one")
            shards = [replace(shards[0], name=name)]
            named.add(shards[0].address)
        for shard in shards:
            before = found.get(shard.address)
            if before is None or before.slide == NOTHING_SAID:  # a journal says more than its recording alone
                found[shard.address] = shard
    return _distinct(list(found.values()), named, known)


def _distinct(shards: Sequence[Shard], named: Set[str], known: Mapping[str, str]) -> list[Shard]:
    """With different names: as given, as they had before, else numbered. UsageError for a name given twice."""
    fixed = {**known, **{shard.address: shard.name for shard in shards if shard.address in named}}
    taken = set(fixed.values())
    if len(taken) < len(fixed):
        twice = next(name for name, count in Counter(fixed.values()).items() if count > 1)
        raise UsageError(f"{twice}=…: got the name {twice!r} for two slides, expected different ones")
    distinct = []
    for shard in shards:
        name, number = fixed.get(shard.address, shard.name), 2
        if shard.address not in fixed:
            while name in taken:
                name, number = f"{shard.name}-{number}", number + 1
            taken.add(name)
        distinct.append(replace(shard, name=name))
    return distinct


def _found(source: str) -> Iterator[Shard]:
    address = parse_source(source)
    if address.kind not in FINITE:
        raise UsageError(
            f"{source}: got a camera or stream, expected what can be read again: a recording, a journal, a directory of"
            " images, a film, wsi:FILE"
        )
    if address.kind == "sim":
        yield Shard(address.name, source)
        return
    prefix = "" if address.kind == "path" else f"{address.kind}:"
    where, options = split_options(address.target) if prefix else (address.target, "")
    path = os.path.abspath(os.path.expanduser(where))
    behind = f",{options}" if options else ""
    if glob.has_magic(where) and not os.path.lexists(path):
        yield from _matches(source, prefix, path, behind)
    elif not os.path.lexists(path):
        raise UsageError(f"{source}: got no such file or folder, expected one; check the path")
    else:
        yield from _at(prefix, path, behind)


def _matches(source: str, prefix: str, pattern: str, options: str) -> Iterator[Shard]:
    """Images are one slide, as after run --source; anything else is one each."""
    paths = sorted(glob.glob(pattern), key=natural_key)
    if not paths:
        raise UsageError(f"{source}: got nothing that matches, expected files or folders; check the pattern")
    if not prefix and all(os.path.isfile(path) and is_image(Path(path)) for path in paths):
        yield Shard(parse_source(pattern).name, pattern)
        return
    for path in paths:
        yield from _at(prefix, path, options)


def _at(prefix: str, path: str, options: str) -> Iterator[Shard]:
    if prefix == "replay:" and not options:
        yield from _faults(path, _of_recording)
    elif prefix:
        target = f"{prefix}{path}{options}"
        yield Shard(parse_source(target).name, target)
    elif os.path.isdir(path) and not any(map(is_image, list_images(path))):
        yield from _in_folder(path)
    elif os.path.isdir(path):
        yield Shard(parse_source(path).name, path)
    else:
        yield from _of_file(path)


def _in_folder(path: str) -> Iterator[Shard]:
    """The recordings and journals in a folder without images; those in its folders are not searched."""
    files = [str(file) for file in list_images(path) if _start_of(str(file)).startswith((MAGIC, _SQLITE))]
    if not files:
        raise UsageError(
            f"{path}: got a folder without images, recordings and journals, expected some (folders inside it are not"
            " searched)"
        )
    for file in files:
        yield from _of_file(file)


def _of_file(path: str) -> Iterator[Shard]:
    start = _start_of(path)
    if start.startswith(MAGIC):
        yield from _faults(path, _of_recording)
    elif start.startswith(_SQLITE):
        yield from _faults(path, _of_journal)
    else:
        yield Shard(parse_source(path).name, path)


def _faults(path: str, shards_in: Callable[[str], Iterator[Shard]]) -> Iterator[Shard]:
    """A damaged file among two hundred is a line at the end."""
    try:
        yield from shards_in(path)
    except LeukostreamError as error:
        yield Shard(parse_source(path).name, path, fault=str(error))


def _of_recording(path: str) -> Iterator[Shard]:
    stem = parse_source(path).name
    with Recording(path) as recording:
        names = list(recording.tracks)
        recording.track(None if len(names) < 2 else names[0])  # for its error
    for name in names:
        yield Shard(stem if len(names) == 1 else f"{stem}-{name}", f"replay:{path},source={name}")


def _of_journal(path: str) -> Iterator[Shard]:
    """The recording of its run, or else its sources."""
    stem = parse_source(path).name
    with JournalReader(path) as journal:
        sessions = journal.sessions
        if not sessions:
            raise LeukostreamError(f"journal {path}: got no session, expected one")
        for stored in sessions:
            name = stem if len(sessions) == 1 else f"{stem}-{stored.source}"
            try:
                several = sum(one.source == stored.source for one in sessions) > 1
                yield Shard(name, _pictures_of(stored, several), stored.slide)
            except LeukostreamError as error:
                yield Shard(name, f"{path}#{stored.number}", fault=str(error))


def _pictures_of(stored: StoredSession, several: bool) -> str:
    """Where the frames of a session can be had again. `several`: its journal has several slides of this source."""
    where = f"journal {stored.path}: session of {stored.source!r}"
    runs = stored.runs()
    recorded = runs[-1].options.record if runs else None
    beside = [] if recorded is None else [Path(recorded), stored.path.parent / Path(recorded).name]
    recording = next((path for path in beside if path.is_file()), None)
    if several:
        raise LeukostreamError(
            f"{where}: got one of several slides of this source, whose frames follow one another, expected one slide;"
            " record each slide for itself"
        )
    if recording is not None:
        with Recording(recording) as opened:
            opened.track(stored.source)
        return f"replay:{recording.resolve()},source={stored.source}"
    kind, _, rest = stored.address.partition(":")
    if stored.live or kind not in FINITE:
        raise LeukostreamError(
            f"{where}: got no recording ({recorded or 'none was made'}), expected one: {stored.address} can't be read"
            " again"
        )
    address = rest if kind == "path" else stored.address
    open_source(parse_source(address)).close()  # for its error
    return address


def _start_of(path: str) -> bytes:
    """The first bytes of a file; none where it can't be read, which whoever opens it will say."""
    try:
        with open(path, "rb") as file:
            return file.read(len(_SQLITE))
    except OSError:
        return b""
