"""Bars for work that takes a while: on a terminal alone, and never in the way of what is done."""

from __future__ import annotations

import os
import pty
import sys

import pytest

from streamer.commands.progress import steps, track

WORK = """
import sys
from streamer.commands.progress import track
print(sum(track([1, 2, 3], "pictures", 3)))
"""


def test_without_a_terminal_nothing_is_written(capfd: pytest.CaptureFixture[str]) -> None:
    assert list(track(iter("abc"), "letters")) == ["a", "b", "c"]
    with steps("frames", 2) as step:
        step()
    assert capfd.readouterr() == ("", "")


def test_a_terminal_shows_a_bar_while_it_lasts() -> None:
    pid, ours = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm-256color", PYTHONPATH=os.getcwd())
        os.execv(sys.executable, [sys.executable, "-c", WORK])
    written = b""
    while True:
        try:
            got = os.read(ours, 65536)
        except OSError:  # hung up
            break
        if not got:
            break
        written += got
    os.close(ours)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert b"pictures" in written
    assert b"/3" in written
    assert written.endswith(b"6\r\n")


def test_what_fails_fails_as_without_a_bar() -> None:
    def broken() -> object:
        yield 1
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(track(broken(), "pictures"))  # type: ignore[arg-type]
