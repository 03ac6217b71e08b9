"""How far a bridge has delivered, in a file, so that it goes on there after a restart.

What was received and not delivered is asked of the streamer again. The file is written after the delivery, so that a
bridge that is killed in between delivers a few messages twice and never leaves one out.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from engines.base import LeukostreamError
from streamer.bridge.events import Event
from streamer.network.gap_repair import Progress
from streamer.protocol.messages import topic_of

FILE_MAX_BYTES = 4 << 20


class _Source(msgspec.Struct):
    run_id: str
    session: str
    last: dict[str, tuple[int, str, int]] = {}
    """By topic: seq, session and session_seq."""


class Cursor:
    """Of one process at a time. LeukostreamError for a file that is none, or that can't be read or written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = False
        self._sources: dict[str, _Source] = {}
        try:
            with open(path, "rb") as file:
                self._sources = msgspec.json.decode(file.read(FILE_MAX_BYTES), type=dict[str, _Source])
        except FileNotFoundError:
            pass
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise LeukostreamError(
                f"{path}: got '{error}', expected what a bridge has delivered; remove it to begin anew: what the"
                " streamer still has is delivered again"
            ) from error

    @property
    def progress(self) -> dict[str, Progress]:
        return {name: Progress(one.run_id, one.session, one.last) for name, one in self._sources.items()}

    @property
    def going_on(self) -> list[str]:
        """The sources of which something was delivered and not their end."""
        return [
            name
            for name, one in self._sources.items()
            if one.last.get(f"end.{name}") != max(one.last.values(), key=lambda at: (at[1] == one.session, at[2]))
        ]

    def delivered(self, event: Event) -> None:
        if event.received is None:
            return
        message = event.message
        known = self._sources.get(event.source)
        if known is None or known.run_id != message.run_id:
            known = self._sources[event.source] = _Source(message.run_id, message.session)
        known.session = message.session
        known.last[topic_of(message)] = (message.seq, message.session, message.session_seq)
        self._changed = True

    def save(self) -> None:
        """Write it where something was delivered since."""
        if not self._changed:
            return
        unfinished = self._path.with_suffix(".part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with open(unfinished, "wb") as file:
                file.write(msgspec.json.encode(self._sources))
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, self._path)
        except OSError as error:
            raise LeukostreamError(
                f"{self._path}: got '{error.strerror}', expected a place for what was delivered: see --state"
            ) from error
        self._changed = False
