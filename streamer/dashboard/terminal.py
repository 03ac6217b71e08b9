"""The terminal under the dashboard: single keys without waiting, and standard error held off the screen."""

from __future__ import annotations

import contextlib
import os
import re
import select
import sys
import tempfile
import time
from typing import IO, Any

from rich.console import Console

try:
    import termios
    import tty
except ImportError:  # Windows: no keys; all else is the same
    termios = None  # type: ignore[assignment]

KEY_NAMES = {
    **{
        f"\x1b{mode}{letter}": name
        for mode in "[O"
        for letter, name in zip("ABCD", ("up", "down", "right", "left"), strict=True)
    },
    **{"\x1b": "esc", "\t": "tab", "\r": "enter", "\n": "enter"},
}
_KEY = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O.|[_P\]].*?(?:\x1b\\|\x07))|[\s\S]")
"""An escape sequence, such as an arrow key or a late answer of the terminal, else one character."""

ANSWER_S = 0.5
"""How long a terminal takes to answer, at most: one over a slow line."""

KEPT_BYTES = 65_536
"""The last bytes of standard error to show afterwards."""


def is_usable(stream: IO[str]) -> bool:
    """Whether a full-screen display can be drawn on `stream`: a terminal that can place its cursor."""
    if stream.closed or not stream.isatty():
        return False
    console = Console(file=stream)
    return not console.is_dumb_terminal and not console.legacy_windows


def keys_of(typed: str) -> list[str]:
    """Names of the keys in what a terminal sent; what is neither a letter nor in KEY_NAMES is left out."""
    keys = []
    for part in _KEY.findall(typed):
        name = KEY_NAMES.get(part, part)
        if len(part) == 1 or part in KEY_NAMES:
            keys.append(name)
    return keys


class Keys:
    """Single key presses from standard input; none if it is no terminal or belongs to another job."""

    def __init__(self) -> None:
        self._fd: int | None = None
        self._before: list[Any] | None = None

    @property
    def available(self) -> bool:
        return self._before is not None

    def start(self) -> None:
        """Turn off line buffering and echo. Ctrl-C works as before; Ctrl-Z is off until `stop`."""
        if termios is None:
            return
        with contextlib.suppress(OSError, ValueError, AttributeError, termios.error):
            fd = sys.stdin.fileno()
            if not os.isatty(fd) or os.tcgetpgrp(fd) != os.getpgrp():
                return
            before = termios.tcgetattr(fd)
            tty.setcbreak(fd, termios.TCSADRAIN)
            quiet = termios.tcgetattr(fd)
            quiet[6][termios.VSUSP] = bytes([os.fpathconf(fd, "PC_VDISABLE") & 0xFF])
            termios.tcsetattr(fd, termios.TCSADRAIN, quiet)
            self._fd, self._before = fd, before

    def stop(self) -> None:
        """Restore the terminal; harmless when called twice."""
        if self._fd is not None and self._before is not None:
            with contextlib.suppress(OSError, termios.error):
                termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)
        self._fd = self._before = None

    @property
    def belongs_to_a_person(self) -> bool:
        """Whether somebody typed this command and sees its end: a shell gives what is typed a job of its own, and what
        a script runs the script's."""
        return self.available and os.getpgrp() == os.getpid()

    def ask(self, question: str, answered: re.Pattern[bytes], out: IO[str]) -> bytes:
        """What the terminal answers to an escape sequence; what there is of it after ANSWER_S, if it does not."""
        got = b""
        if self._fd is None:
            return got
        out.write(question)
        out.flush()
        end = time.monotonic() + ANSWER_S
        while not answered.search(got) and (left := end - time.monotonic()) > 0:
            if select.select([self._fd], [], [], left)[0]:
                part = os.read(self._fd, 256)
                if not part:
                    break
                got += part
        return got

    def read(self) -> list[str]:
        """The keys pressed since the last call: letters, and those of KEY_NAMES by their names."""
        if self._fd is None or not select.select([self._fd], [], [], 0)[0]:
            return []
        try:
            pressed = os.read(self._fd, 256)
        except OSError:
            pressed = b""
        if not pressed:  # hung up
            self.stop()
        return keys_of(pressed.decode("utf-8", "replace"))

    def wait(self, seconds: float) -> None:
        """Sleep until a key is pressed, at most `seconds`."""
        if seconds <= 0:
            return
        if self._fd is None:
            time.sleep(seconds)
        else:
            select.select([self._fd], [], [], seconds)


class HeldErrors:
    """Holds back what this process and its native libraries write to standard error if that is a terminal."""

    def __init__(self) -> None:
        self._screen_fd: int | None = None
        self._file: IO[bytes] | None = None
        self._left_out = 0

    def start(self) -> None:
        """Redirect file descriptor 2 to a temporary file."""
        if not os.isatty(2):
            return
        sys.stderr.flush()
        self._file = tempfile.TemporaryFile(mode="a+b")  # noqa: SIM115 - closed by `stop`
        self._screen_fd = os.dup(2)
        os.dup2(self._file.fileno(), 2)

    def trim(self) -> None:
        """Drop old output from the file. Call it now and then."""
        if self._file is None:
            return
        size = os.fstat(self._file.fileno()).st_size
        if size > 16 * KEPT_BYTES:
            kept = os.pread(self._file.fileno(), KEPT_BYTES, size - KEPT_BYTES)
            os.ftruncate(self._file.fileno(), 0)
            os.write(self._file.fileno(), kept)
            self._left_out += size - len(kept)

    def stop(self) -> None:
        """Restore standard error and write what was held; harmless when called twice."""
        if self._file is None or self._screen_fd is None:
            return
        sys.stderr.flush()
        os.dup2(self._screen_fd, 2)
        os.close(self._screen_fd)
        size = os.fstat(self._file.fileno()).st_size
        start = max(0, size - KEPT_BYTES)
        kept = os.pread(self._file.fileno(), KEPT_BYTES, start)
        if self._left_out + start:
            os.write(2, f"({self._left_out + start} bytes of earlier messages left out)\n".encode())
        while kept:
            kept = kept[os.write(2, kept) :]
        self._file.close()
        self._file = self._screen_fd = None
        self._left_out = 0
