"""Files and folders that commands write: whole or not at all, and one clear line where they can't be written."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, TextIO

from engines.base import LeukostreamError, printable


@contextlib.contextmanager
def reporting(option: str, path: str | Path, expected: str = "a file that can be written") -> Iterator[None]:
    """LeukostreamError that names the option for what the operating system refuses."""
    try:
        yield
    except BrokenPipeError:
        raise  # its reader has closed the pipe, which is no fault
    except OSError as error:
        raise LeukostreamError(
            f"{option} {path}: got '{error.strerror}', expected {expected}: check the path and its permissions"
        ) from error


@contextlib.contextmanager
def writing(path: str, option: str = "-o") -> Iterator[BinaryIO]:
    """The file `path`, which appears under its name when it is whole; "-" is standard output.

    What exists and is no regular file, such as a pipe or /dev/null, is written to and not replaced.
    """
    if path == "-":
        sys.stdout.flush()
        yield sys.stdout.buffer
        return
    direct = os.path.exists(path) and not os.path.isfile(path)  # a folder is refused by `open`
    unfinished = path if direct else f"{path}.part"
    with reporting(option, path):
        try:
            with open(unfinished, "wb") as file:
                yield file
            if not direct:
                os.replace(unfinished, path)
        finally:
            if not direct:
                with contextlib.suppress(OSError):
                    os.unlink(unfinished)


def output_folder(path: str, option: str = "-o") -> Path:
    """The folder `path`, made where it is not there yet."""
    if os.path.isfile(path):
        raise LeukostreamError(f"{option} {path}: got a file, expected a folder; give another name")
    with reporting(option, path, "a folder that can be written"):
        Path(path).mkdir(parents=True, exist_ok=True)
    return Path(path)


def say(line: str, stream: TextIO | None = None) -> None:
    """One line for people, on standard output unless `stream` says otherwise; no control character of a name or path
    in it reaches the terminal."""
    print(printable(line), file=stream or sys.stdout, flush=True)


def say_table(rows: Sequence[Sequence[str]]) -> None:
    """Indented; the first and the last column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for first, *middle, last in rows:
        cells = [f"{text:>{width}}" for text, width in zip(middle, widths[1:-1], strict=True)]
        say(f"  {first:<{widths[0]}}  {'  '.join(cells)}  {last}".rstrip())


def remark(line: str, stream: TextIO | None = None) -> None:
    """One line for people that says who speaks, on standard error unless `stream` says otherwise."""
    say(f"leukostream: {line}", stream or sys.stderr)
