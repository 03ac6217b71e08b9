"""A camera that is a program of this machine: it can be killed and stopped, and comes again."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import time

from engines.base import UsageError


class SenderProcess:
    """Runs a command in a process group of its own, which prints a line once it can be connected to."""

    def __init__(self, command: str) -> None:
        """UsageError where it ends before that."""
        self.command = command
        self._comes_again_s: float | None = None
        """When it is started or goes on; None: it is there."""
        self._process = self._started()

    def disturb(self, signal_number: signal.Signals, away_s: float) -> None:
        """SIGKILL or SIGSTOP to all of it, for so long."""
        os.killpg(self._process.pid, signal_number)
        self._comes_again_s = time.monotonic() + away_s

    def is_away(self, now_s: float) -> bool:
        """Also while it is brought back, where its time is over: starting it may take some seconds."""
        if self._comes_again_s is None or now_s < self._comes_again_s:
            return self._comes_again_s is not None
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGCONT)
        else:
            self._process = self._started()
        self._comes_again_s = None
        return True

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _started(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            shlex.split(self.command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        if not process.stdout.readline():
            process.wait()
            raise UsageError(f"--sender {self.command!r}: got its end, expected a line once it can be connected to")
        return process
