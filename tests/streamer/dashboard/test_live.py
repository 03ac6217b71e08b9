"""The live front on a real pseudo-terminal: what it writes, and that it leaves the terminal as it was."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import sys
import termios
import threading

import cv2
import numpy as np
import pytest

from streamer.dashboard import Dashboard, is_usable
from streamer.dashboard.display import Inbox
from streamer.dashboard.state import CELLS_KEPT, DashboardState
from streamer.records import Frame
from tests.streamer.dashboard.dashboard_cases import FIVE, cell, differential, frame, health, status

SECOND = 1_000_000_000


class Terminal:
    """A pseudo-terminal that collects what is written to it, in a thread, so that no writer ever waits."""

    def __init__(self) -> None:
        self.ours, theirs = pty.openpty()
        self.stream = os.fdopen(theirs, "w", encoding="utf-8")
        self.written = bytearray()
        self.resize(80, 24)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.stream.fileno(), termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _read(self) -> None:
        while True:
            try:
                got = os.read(self.ours, 65536)
            except OSError:  # hung up
                return
            if not got:
                return
            self.written += got

    def finish(self) -> str:
        self.stream.close()
        self.reader.join(10)
        os.close(self.ours)
        return self.written.decode()


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


def feed(front: Dashboard) -> None:
    front.publish(health({"slide": status()}))
    front.publish(differential(FIVE, 3))
    front.show(Frame("slide", 7, 1, np.full((480, 640, 3), 120, np.uint8)))
    front.publish(frame())


def rows_in(update: str) -> list[int]:
    return [int(row) for row in re.findall(r"\x1b\[(\d+);1H", update)]


def updates(written: str) -> list[str]:
    return re.findall(r"\x1b\[\?2026h(.*?)\x1b\[\?2026l", written, re.DOTALL)


def test_the_screen_is_drawn_by_rows_and_only_changed_rows_again(terminal):
    with Dashboard(terminal.stream) as front:
        feed(front)
        front.tick(1 * SECOND)
        front.tick(2 * SECOND)
        front.publish(differential({**FIVE, "basophil": 2}, 3))
        front.tick(3 * SECOND)
    written = terminal.finish()
    assert "\n" not in written
    assert written.startswith("\x1b[?1049h")
    assert written.rstrip().endswith("\x1b[?1049l")
    assert written.rindex("\x1b[?25h") > written.index("\x1b[?25l")
    first, second, third = updates(written)
    assert rows_in(first) == list(range(1, 25))
    assert rows_in(second) == []
    assert 0 < len(rows_in(third)) < 12
    assert "100 white cells" in first
    assert "101 white cells" in third


def test_drawing_is_limited_in_rate(terminal):
    with Dashboard(terminal.stream, refresh_per_s=10) as front:
        feed(front)
        wait_s = front.tick(SECOND)
        assert wait_s >= 0.1
        front.tick(SECOND + SECOND // 20)
    assert len(updates(terminal.finish())) == 1


def test_a_new_size_is_drawn_whole(terminal):
    with Dashboard(terminal.stream) as front:
        feed(front)
        front.tick(1 * SECOND)
        terminal.resize(120, 35)
        front.tick(2 * SECOND)
    written = updates(terminal.finish())
    assert rows_in(written[1]) == list(range(1, 36))
    assert "\x1b[2J" in written[1]


def test_the_terminal_is_given_back_after_an_error(terminal):
    before = termios.tcgetattr(terminal.stream.fileno())

    def interrupted() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Dashboard(terminal.stream) as front:
        front.run(interrupted)
    assert termios.tcgetattr(terminal.stream.fileno()) == before
    written = terminal.finish()
    assert written.rstrip().endswith("\x1b[?1049l")


def test_without_colour_no_colour_is_sent(terminal, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    with Dashboard(terminal.stream) as front:
        feed(front)
        front.tick(SECOND)
    assert not re.search(r"\x1b\[[\d;]*[34]8;", terminal.finish())


def test_keys_change_the_picture_the_source_and_end_the_run(terminal, monkeypatch):
    def type_in(keys: str) -> None:
        os.write(terminal.ours, keys.encode())

    stdin = os.fdopen(os.dup(terminal.stream.fileno()), "r")
    monkeypatch.setattr(sys, "stdin", stdin)
    monkeypatch.setattr(os, "tcgetpgrp", lambda fd: os.getpgrp())
    with Dashboard(terminal.stream) as front:
        front.publish(health({"a": status(), "b": status()}))
        front.tick(SECOND)
        assert front.state.hint
        shown = []
        for keys in ("m", "f", "f", "m", "m", "\t", "\x1b[A", "q"):
            type_in(keys)
            front._keys.wait(5.0)
            front.tick(SECOND)
            shown.append((front.state.picture, front.state.map))
        # The map, the picture in its place, none, the map and back to none.
        assert shown[:5] == [(None, True), (True, False), (False, False), (False, True), (False, False)]
        assert (shown[-1], front.state.selected) == (shown[4], "b")
        assert front.quit_requested
        front.run(lambda: pytest.fail("a run that was quit asks no more"))
    assert termios.tcgetattr(stdin.fileno())[3] & termios.ICANON
    stdin.close()
    terminal.finish()


def test_what_is_written_to_standard_error_meanwhile_comes_afterwards(tmp_path):
    # In a process of its own: file descriptor 2 is replaced.
    code = (
        "import os, sys\n"
        "from streamer.dashboard import Dashboard\n"
        "with Dashboard() as front:\n"
        "    front.tick(1)\n"
        "    os.write(2, b'a library complains\\n')\n"
        "    print('and so do we', file=sys.stderr)\n"
        "    front.tick(10**10)\n"
    )
    pid, ours = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm-256color", PYTHONPATH=os.getcwd())
        os.execv(sys.executable, [sys.executable, "-c", code])
    written = bytearray()
    while True:
        try:
            got = os.read(ours, 65536)
        except OSError:
            break
        if not got:
            break
        written += got
    os.close(ours)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    screen, after = written.decode().split("\x1b[?1049l")
    assert "complains" not in screen
    assert after.split("\r\n") == ["a library complains", "and so do we", ""]


def test_what_is_no_terminal_is_not_usable(tmp_path, terminal, monkeypatch):
    with (tmp_path / "out").open("w") as file:
        assert not is_usable(file)
    assert is_usable(terminal.stream)
    monkeypatch.setenv("TERM", "dumb")
    assert not is_usable(terminal.stream)
    terminal.finish()


def test_drawing_outside_the_with_block_is_an_error(terminal):
    with pytest.raises(RuntimeError, match="with"):
        Dashboard(terminal.stream).tick(0)
    terminal.finish()


IMAGE = np.zeros((480, 640, 3), np.uint8)


@pytest.mark.parametrize("show_first", [True, False])
def test_the_inbox_pairs_a_frame_with_its_image(show_first):
    inbox, state = Inbox(), DashboardState()
    if show_first:
        inbox.show(Frame("slide", 7, 1, IMAGE))
    inbox.publish(frame(frame_id=7))
    if not show_first:
        inbox.show(Frame("slide", 7, 1, IMAGE))
    assert inbox.take_into(state, 0)
    assert state.sources["slide"].picture is IMAGE
    assert not inbox.take_into(state, 1)


def test_the_inbox_never_gives_a_frame_the_image_of_another():
    inbox, state = Inbox(), DashboardState()
    inbox.show(Frame("slide", 6, 1, IMAGE))
    inbox.publish(frame(frame_id=7))
    inbox.show(Frame("slide", 8, 1, IMAGE))
    inbox.show(Frame("other", 7, 1, IMAGE))
    inbox.take_into(state, 0)
    assert state.sources["slide"].picture is None


def test_the_inbox_keeps_the_newest_and_is_bounded():
    inbox, state = Inbox(), DashboardState()
    for number in range(1000):
        inbox.publish(frame(frame_id=number))
        inbox.publish(cell(number))
        inbox.publish(differential({"neutrophil": number}))
    assert len(inbox._cells["slide"]) == CELLS_KEPT
    inbox.take_into(state, 0)
    view = state.sources["slide"]
    assert view.frame is not None
    assert view.differential is not None
    assert (view.frame.frame_id, view.differential.total, view.newest_cells()[0].cell_id) == (999, 999, 999)


def test_a_cell_comes_with_its_picture_and_a_broken_one_without():
    inbox, state = Inbox(), DashboardState()
    jpeg = cv2.imencode(".jpg", np.full((30, 20, 3), 99, np.uint8))[1].tobytes()
    inbox.publish(cell(1), jpeg)
    inbox.publish(cell(2), b"no picture")
    inbox.publish(cell(3))
    inbox.take_into(state, 0)
    pictures = state.sources["slide"].cell_pictures
    assert list(pictures) == [1]
    assert pictures[1].shape == (30, 20, 3)


STAYING = """
import sys
from streamer.dashboard import Dashboard
from tests.streamer.dashboard.dashboard_cases import FIVE, differential
with Dashboard() as front:
    front.publish(differential(FIVE, 3, final=True))
    front.run(lambda: False)
    front.stay()
print("left")
"""


def in_a_terminal(*, of_a_script: bool) -> tuple[int, int]:
    """The code above as a command that somebody typed, or as one that a script runs: process and terminal."""
    pid, ours = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm-256color", PYTHONPATH=os.getcwd())
        os.environ.pop("NO_COLOR", None)
        if of_a_script:
            os.execv("/bin/sh", ["sh", "-c", '"$0" -c "$1"; echo ended', sys.executable, STAYING])
        os.execv(sys.executable, [sys.executable, "-c", STAYING])
    return pid, ours


def read_until(ours: int, what: bytes, seen: bytes = b"") -> bytes:
    while what not in seen:
        try:
            got = os.read(ours, 65536)
        except OSError:  # hung up
            got = b""
        assert got, seen[-300:]
        seen += got
        if b"\x1b[c" in got:
            os.write(ours, b"\x1b[?62;22c")  # what every terminal answers
    return seen


def test_what_was_seen_stays_until_q_where_somebody_typed_the_command():
    pid, ours = in_a_terminal(of_a_script=False)
    seen = read_until(ours, b"q leaves it")
    assert b"100 white cells" in seen
    os.write(ours, b"q")
    read_until(ours, b"left\r\n", seen)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(ours)


def test_what_a_script_runs_ends_by_itself():
    pid, ours = in_a_terminal(of_a_script=True)
    seen = read_until(ours, b"ended\r\n")
    assert b"q leaves it" not in seen
    assert b"left\r\n" in seen
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(ours)


def test_sixteen_colours_are_those_that_tell_the_classes_apart(terminal, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-16color")
    monkeypatch.delenv("COLORTERM")
    with Dashboard(terminal.stream) as front:
        feed(front)
        front.tick(SECOND)
    written = terminal.finish()
    assert not re.search(r"\x1b\[[\d;]*[34]8;", written)
    marks = {letter: code for code, letter in re.findall(r"\x1b\[1;97;(\d+)m([NLMEB])\x1b", written)}
    assert len(marks) == len(set(marks.values())) == 5
