"""A run in a terminal, led by keys alone: real models, the simulated slide, commands in the journal."""

from __future__ import annotations

import os
import pty
import sys
from pathlib import Path

import pytest

from streamer.cli import main
from streamer.journal import opened


class Terminal:
    """A command that somebody types, and what it writes."""

    def __init__(self, *words: str) -> None:
        self.pid, self.ours = pty.fork()
        if self.pid == 0:
            os.environ.update(TERM="xterm-256color", PYTHONPATH=os.getcwd())
            os.execv(sys.executable, [sys.executable, "-m", "streamer", *words])
        self.seen = b""

    def until(self, text: str) -> None:
        """Read on until it is written after what was waited for before."""
        while text.encode() not in self.seen:
            got = os.read(self.ours, 65536)
            assert got
            if b"\x1b[c" in got:
                os.write(self.ours, b"\x1b[?62;22c")  # what every terminal answers
            self.seen += got
        self.seen = self.seen.partition(text.encode())[2]

    def press(self, keys: str) -> None:
        os.write(self.ours, keys.encode())

    def rest(self) -> tuple[int, str]:
        """Its exit status and what it writes until then."""
        while True:
            try:
                got = os.read(self.ours, 65536)
            except OSError:  # hung up
                break
            if not got:
                break
            self.seen += got
        os.close(self.ours)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), self.seen.decode(errors="replace")


@pytest.mark.slow
def test_pause_new_slide_and_stop_by_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = tmp_path / "keys.db"
    terminal = Terminal("run", "--source", "slide=sim:seed=3,cells=400,paced=1", "--journal", str(journal))
    terminal.until("1 white cells")
    terminal.press("p")
    terminal.until("p goes on")
    terminal.press("p")
    terminal.until("going on")
    terminal.press("n")
    terminal.until("n once more")
    terminal.press("n")
    terminal.until("a new slide has begun")
    terminal.press("ss")
    terminal.until("q leaves it")
    terminal.press("q")
    status, said = terminal.rest()
    assert status == 0
    assert "stopped before the end of the source" in said
    assert main(["recount", str(journal)]) == 0
    assert capsys.readouterr().out.count("equal to the final differential published") == 2
    with opened(str(journal)) as read:
        given = [
            (command, by)
            for session in read.sessions
            for command, by in session.database.execute(
                "SELECT request, by FROM commands WHERE session = ? ORDER BY number", (session.number,)
            )
        ]
    assert given == [(name, "keyboard") for name in ("pause", "resume", "new_slide")]
