"""`leukostream serve` as processes of their own, to be asked, told to end, and killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from types import TracebackType


class ServeProcess:
    """A server, ready when the block begins."""

    def __init__(self, *options: str, bind: str = "tcp://127.0.0.1:*") -> None:
        words = [sys.executable, "-m", "streamer", "serve", "--bind", bind, "--workers", "1", *options]
        self.process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
        )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        found = re.match(r"serving on (\S+): ", self.line)
        if found is None:
            self.process.wait(20.0)
            raise AssertionError(f"got {self.line!r}, {self.process.stderr and self.process.stderr.read()}")
        self.endpoint = found[1]

    def __enter__(self) -> ServeProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.kill()

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate(timeout=20.0)

    def end(self) -> tuple[int, str, str]:
        """SIGTERM; exit status, what else it printed, and what it remarked."""
        self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate(timeout=20.0)
        return self.process.returncode, out, err
