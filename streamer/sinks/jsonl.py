"""The sink that writes the messages as JSON Lines: one header a line, no payloads."""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import stat
import sys
from collections.abc import Callable
from typing import BinaryIO, cast

from engines.base import LeukostreamError
from streamer.protocol.lines import json_line
from streamer.protocol.messages import AnyMessage, encode


class JsonLines:
    """Writes each message as one line, at once, to a file or to standard output ("-").

    A full disk or a reader that left is expected: `on_fault` gets one line for people the first time, every line
    lost is counted in `lost`, and writing is tried again with the next message. `check` says at the end what was lost.
    A line is written whole or, in a regular file, not at all. A reader of standard output that left (`| head`) sets
    `reader_gone` and says nothing: the run may end. A reader that is slow makes `publish` wait.
    """

    def __init__(self, path: str, *, append: bool = False, on_fault: Callable[[str], None] | None = None) -> None:
        """LeukostreamError where `path` can't be written. An existing file is replaced unless `append`."""
        self.path = path
        self.lost = 0
        self.reader_gone = False
        self._on_fault = on_fault
        self.fault: str | None = None
        """Why lines were lost first; None: none was."""
        self._torn = False
        self._is_stdout = path == "-"
        if self._is_stdout:
            self._file = _standard_output()
        else:
            try:
                if append and os.path.isfile(path):
                    _cut_torn_line(path)
                self._file = cast(BinaryIO, io.FileIO(path, "ab" if append else "wb"))
            except OSError as error:
                raise LeukostreamError(
                    f"--jsonl {path}: got {error.strerror}, expected a file that can be written: "
                    "check the folder and its permissions, or use --jsonl - for standard output"
                ) from error

    def publish(self, message: AnyMessage, payload: bytes | None = None) -> None:
        if self.reader_gone:
            self.lost += 1
            return
        line = json_line(encode(message))
        try:
            self._write(b"\n" + line if self._torn else line)
            self._torn = False
        except BrokenPipeError as error:
            self.lost += 1
            self.reader_gone = self._is_stdout
            if not self.reader_gone:
                self._tell(error)
        except OSError as error:
            self.lost += 1
            self._tell(error)

    def check(self) -> None:
        """LeukostreamError where lines were lost, other than to a reader of standard output that had enough."""
        if self.fault is not None:
            raise LeukostreamError(
                f"--jsonl {self.path}: got '{self.fault}', and lost {self.lost} lines, expected room for all of them:"
                " the file is not complete; free some, and run again"
            )

    def close(self) -> None:
        if not self._is_stdout:
            with contextlib.suppress(OSError):  # nothing is buffered here, so nothing more can be lost
                self._file.close()

    def _write(self, line: bytes) -> None:
        rest = memoryview(line)
        try:
            while rest:
                written = cast("int | None", self._file.write(rest))
                if written is None:
                    raise BlockingIOError(0, "a reader that doesn't keep up")
                rest = rest[written:]
            self._file.flush()
        except OSError:
            if len(rest) < len(line):
                self._take_back(len(line) - len(rest))
            raise

    def _take_back(self, size: int) -> None:
        """Cut the first `size` bytes of an unfinished line off again; a pipe keeps them, so its line is ended later."""
        self._torn = True
        with contextlib.suppress(OSError):
            descriptor = self._file.fileno()
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode):
                os.ftruncate(descriptor, status.st_size - size)
                os.lseek(descriptor, 0, os.SEEK_END)
                self._torn = False

    def _tell(self, error: OSError) -> None:
        if self.fault is None and self._on_fault is not None:
            self._on_fault(
                f"--jsonl {self.path}: got {error.strerror}: lines are being lost and counted; the run goes on"
            )
        self.fault = self.fault or error.strerror


def _cut_torn_line(path: str) -> None:
    """Cut off what a killed process wrote of its last line, so that the next one stands alone."""
    with open(path, "r+b") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as written:
            end = written.rfind(b"\n") + 1
            is_message = written[end : end + 1] == b"{"
        if is_message:
            file.truncate(end)


def _standard_output() -> BinaryIO:
    """Standard output, unbuffered: a buffer that can't be emptied would make the interpreter complain at exit."""
    sys.stdout.flush()
    try:
        return cast(BinaryIO, io.FileIO(sys.stdout.fileno(), "wb", closefd=False))
    except (OSError, ValueError):  # replaced by an object that has no descriptor
        return sys.stdout.buffer
