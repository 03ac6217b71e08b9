"""Counting the reference slide again: a run of its own, as the accepted one was made, with today's models."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from engines.base import LeukostreamError, UsageError
from streamer.config import load_config
from streamer.journal import JournalReader, StoredSession, decoded, opened
from streamer.protocol.messages import EndMessage
from streamer.recording import Recording
from streamer.recording.format import FILE_HEADER_BYTES, version_of
from streamer.sources import parse_source

LIKE_ACCEPTED = (
    *("um_per_px", "rbc_diameter_px", "long_side_px", "ignore_box", "min_score"),
    *("stop_at", "stop_at_precision", "reference_ranges", "verdict"),
)
"""Of the accepted run's configuration what decides how a slide is counted, and names no file."""

_ENDLESS = ("camera", "stream", "imagezmq")


@dataclass(frozen=True, slots=True)
class CountedAgain:
    session: StoredSession
    recording: bool
    """Whether it was counted from a recording."""


def session_of(journal: JournalReader, source: str | None) -> StoredSession:
    """The newest of `source`, or of the only one. UsageError where that is not clear."""
    by_source = {one.source: one for one in journal.sessions}
    if source is None and len(by_source) == 1:
        return journal.sessions[-1]
    if source is None or source not in by_source:
        got = "several sources" if source is None else f"source {source!r}"
        raise UsageError(f"--accepted: got {got}, expected --source with one of: {', '.join(by_source)}")
    return by_source[source]


@contextlib.contextmanager
def counted_again(
    reference: str, accepted: StoredSession, kept: str | None, models: Mapping[str, str | None]
) -> Iterator[CountedAgain]:
    """Counts `reference` as `accepted` was counted, with `models` (fields of Config); what people read of it goes to
    standard error. `kept`: where its journal stays; None: it is gone in the end.

    LeukostreamError where it can't be counted to its end, UsageError for a source that has none.
    """
    from streamer.commands.run.build import run  # here, so that help and misspelt options are answered at once

    recording = _is_recording(reference)
    address = _replayed(reference, accepted.source) if recording else reference
    if parse_source(address).kind in _ENDLESS:
        raise UsageError(f"REFERENCE: got {reference!r}, expected a recording or another source that ends")
    if kept is not None and os.path.exists(kept):
        raise UsageError(f"--journal {kept}: got a file that is there, expected a new one")
    with tempfile.TemporaryDirectory(prefix="leukostream-qc-") as folder:
        path = kept or str(Path(folder) / "reference.db")
        given = {name: value for name, value in models.items() if value is not None}
        own = {"source": (f"{accepted.source}={address}",), "mode": "analysis", "journal": path, "dashboard": False}
        config = load_config(None, {**_like(accepted), **given, **own})
        with contextlib.redirect_stdout(sys.stderr):
            run(config)
        with opened(path) as journal:
            session = journal.sessions[-1]
            _check_whole(session, reference)
            yield CountedAgain(session, recording)


def _is_recording(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return version_of(file.read(FILE_HEADER_BYTES)) is not None
    except OSError:
        return False


def _replayed(path: str, source: str) -> str:
    """Of a recording with several sources, that of the accepted one's name."""
    with Recording(path) as recording:
        several = len(recording.tracks) > 1
    return f"replay:{path}{f',source={source}' if several else ''}"


def _like(accepted: StoredSession) -> dict[str, Any]:
    runs = accepted.runs()
    if not runs:
        return {}
    with accepted.reading("runs.configuration"):
        stored = msgspec.json.decode(runs[-1].configuration, type=dict[str, Any])
    return {name: stored[name] for name in LIKE_ACCEPTED if stored.get(name) is not None}


def _check_whole(session: StoredSession, reference: str) -> None:
    header = session.last_message("end") if session.ended else None
    end = None if header is None else decoded(session, header)
    if not isinstance(end, EndMessage) or end.state != "finished":
        what = "no end" if not isinstance(end, EndMessage) else f"{end.state}: {end.reason}"
        raise LeukostreamError(f"REFERENCE {reference}: got a count that ended early ({what}), expected a whole one")
