"""How far a bridge has delivered, in a file, so that it goes on there after a restart.

What was received and not delivered is asked of the streamer again. The file is written after the delivery, so that a
bridge that is killed in between delivers a few messages twice and never leaves one out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from engines.base import LeukostreamError
from streamer.network.gap_repair import Progress

FILE_MAX_BYTES = 4 << 20


class Cursor:
    """Of one process at a time. LeukostreamError for a file that is none, or that can't be read or written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = False
        self.progress: Mapping[str, Progress] = {}
        """By source, up to where all was delivered."""
        try:
            with open(path, "rb") as file:
                self.progress = msgspec.json.decode(file.read(FILE_MAX_BYTES), type=dict[str, Progress])
        except FileNotFoundError:
            pass
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise LeukostreamError(
                f"{path}: got '{error}', expected what a bridge has delivered; remove it to begin anew: what the"
                " streamer still has is delivered again"
            ) from error

    @property
    def going_on(self) -> list[str]:
        """The sources that had not ended."""
        return [
            name
            for name, one in self.progress.items()
            if one.last.get(f"end.{name}") != max(one.last.values(), key=lambda at: (at[1] == one.session, at[2]))
        ]

    def reached(self, progress: Mapping[str, Progress] | None) -> None:
        """All up to there was delivered, or is lost and counted; None: it is not known how far that is."""
        if progress is not None:
            self.progress = progress
            self._changed = True

    def save(self) -> None:
        """Write it where something was delivered since."""
        if not self._changed:
            return
        unfinished = self._path.with_suffix(".part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with open(unfinished, "wb") as file:
                file.write(msgspec.json.encode(self.progress))
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, self._path)
        except OSError as error:
            raise LeukostreamError(
                f"{self._path}: got '{error.strerror}', expected a place for what was delivered: see --state"
            ) from error
        self._changed = False
