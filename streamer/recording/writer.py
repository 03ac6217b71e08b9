"""Appending to a recording: each record is in the file whole or not at all."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

from engines.base import UsageError
from streamer.recording.format import FILE_HEADER_BYTES, RecordingError, file_header
from streamer.recording.reader import Recording


class RecordingFile:
    """Appends to a file without buffering, so that what was written survives the process."""

    def __init__(self, path: str | Path, *, go_on: bool = False) -> None:
        """Make a new file, or with `go_on` append to what is whole in an existing one.

        UsageError for an existing file without `go_on`; RecordingError for one that is no recording, has another
        version, or can't be written.
        """
        self.path = Path(path)
        there = self.path.exists()
        if there and not go_on:
            raise UsageError(
                f"--record {path}: got a file that exists, expected a new one; give another name, or add --resume to"
                " go on with it and its journal"
            )
        end = FILE_HEADER_BYTES
        if there:
            with Recording(self.path) as recording:
                end = recording.ending.at_byte
        try:
            self._file = io.FileIO(self.path, "r+b" if there else "xb")
            if there:
                self._file.truncate(end)
                self._file.seek(end)
            else:
                self._file.write(file_header())
        except OSError as error:
            raise RecordingError(
                f"--record {path}: got '{error.strerror}', expected a file that can be written; check the folder, its"
                " permissions and its room"
            ) from error
        self.size_bytes = end

    def write(self, *parts: bytes | memoryview) -> None:
        """Append one record. OSError if it can't be written; a part of it is removed again."""
        try:
            for part in parts:
                rest = memoryview(part)
                while rest:
                    rest = rest[self._file.write(rest) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file.fileno(), self.size_bytes)
                self._file.seek(self.size_bytes)
            raise
        self.size_bytes += sum(map(len, parts))

    def close(self) -> None:
        """Harmless when called twice."""
        with contextlib.suppress(OSError):
            self._file.close()
