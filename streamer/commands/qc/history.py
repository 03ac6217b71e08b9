"""The journals of a history, and what is measured of their slides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from engines.base import UsageError
from streamer.commands.output import remark
from streamer.journal import JournalError, opened
from streamer.qc.counts import SQLITE
from streamer.qc.measures import MeasuredSlide, measured


def measured_slides(paths: Sequence[str]) -> list[MeasuredSlide]:
    """Of every slide that has ended. What of a folder is no journal is said and passed over; JournalError for one that
    was named, UsageError where nothing is left."""
    slides: list[MeasuredSlide] = []
    for path, named in _journals(paths):
        try:
            with opened(str(path)) as journal:
                for stored in journal.sessions:
                    if stored.ended:
                        slides.append(measured(stored))
                    else:
                        remark(f"--history {path}: {stored.source} has not ended, and is left out")
        except JournalError as error:
            if named:
                raise
            remark(f"--history: left out: {error}")
    if paths and not slides:
        raise UsageError(f"--history: got no slide that has ended in {', '.join(paths)}, expected some")
    return slides


def _journals(paths: Sequence[str]) -> Iterator[tuple[Path, bool]]:
    """Each with whether it was named itself. Of a folder the files that SQLite wrote, by name."""
    for path in map(Path, paths):
        if path.is_dir():
            yield from ((one, False) for one in sorted(path.iterdir()) if _is_database(one))
        else:
            yield path, True


def _is_database(path: Path) -> bool:
    try:
        if not path.is_file():
            return False
        with open(path, "rb") as file:
            return file.read(len(SQLITE)) == SQLITE
    except OSError:
        return False
