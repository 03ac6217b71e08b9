"""What is killed in `chaos`: microscopes, servers and Ray's head, each a process that is started again."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from engines.base import LeukostreamError

PROGRAM = (sys.executable, "-m", "streamer")
_PR_SET_CHILD_SUBREAPER = 36
_UP_WITHIN_S = 90.0
_FAILURES_MAX = 20
"""How often a microscope may end by itself before its slide does; all of these are reported."""


class Child:
    """A process that is started again after a pause whenever it ends, until it is `over`."""

    is_preferred = False

    def __init__(self, name: str, words: Sequence[str], log: Path, pause_s: float) -> None:
        """`log` gets what it says to people."""
        self.name, self.words, self._log, self._pause_s = name, list(words), log, pause_s
        self.is_over = False
        self.starts = 0
        self.killed_ns: list[int] = []
        """When it was killed, by the monotonic clock."""
        self._process: subprocess.Popen[bytes] | None = None
        self._due_s = 0.0

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def look(self, now_s: float) -> None:
        """Start it, or note that it ended."""
        if self.is_over or self.is_running:
            return
        if self._process is not None:
            status, self._process = self._process.returncode, None
            self._due_s = now_s + self._pause_s
            self.ended(status, now_s)
        elif now_s >= self._due_s:
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    self.words_now(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0
                )
            self.starts += 1
            prefer(self._process.pid, self.is_preferred)

    def words_now(self) -> list[str]:
        return self.words

    def ended(self, status: int, now_s: float) -> None:
        """Its exit status; below 0 the signal that ended it."""

    def send(self, number: signal.Signals) -> bool:
        """Whether it runs, and so got the signal."""
        if self._process is None or not self.is_running:
            return False
        if number == signal.SIGKILL:
            self.killed_ns.append(time.monotonic_ns())
        self._process.send_signal(number)
        return True

    def end(self) -> None:
        """For good."""
        self.is_over = True
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()


class Microscope(Child):
    """`run`, which goes on where its journal ends, until its slide does."""

    is_preferred = True

    def __init__(self, name: str, source: str, inference: str, options: Sequence[str], folder: Path) -> None:
        self.journal = folder / f"{name}.journal"
        self.failures: list[str] = []
        words = [*PROGRAM, "run", "--source", f"{name}={source}", *options, "--inference", inference]
        super().__init__(name, words, folder / f"{name}.log", pause_s=0.0)

    def words_now(self) -> list[str]:
        again = ["--resume"] if self.journal.exists() else []
        return [*self.words, "--journal", str(self.journal), *again]

    def ended(self, status: int, now_s: float) -> None:
        if status == 0:
            self.is_over = True
        elif status != -signal.SIGKILL:
            said = self._log.read_text("utf-8", "replace").strip().splitlines()
            self.failures.append(f"exit status {status}: {said[-1] if said else ''}"[:300])
            self._due_s = now_s + 1.0
            if len(self.failures) > _FAILURES_MAX:
                raise LeukostreamError(f"{self.name}: got {self.failures[-1]}, expected it to go on; see {self._log}")


class Head(Child):
    """`ray start --head`, and a fleet on it whenever it was started again. Everything of it descends from this
    process, orphans too."""

    def __init__(self, folder: Path, servers: int, models: Sequence[str], temporary: str) -> None:
        """`temporary`: a short path, since Ray has its sockets below it."""
        self.port = free_port()
        self._folder, self._temporary = folder, temporary
        words = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
        words += ["--port", str(self.port), "--node-ip-address", "127.0.0.1", "--temp-dir", temporary]
        words += ["--include-dashboard", "false", "--num-cpus", str(servers), "--disable-usage-stats"]
        words += ["--object-store-memory", str(100 << 20)]
        super().__init__("ray head", words, folder / "head.log", pause_s=1.0)
        up = [*PROGRAM, "fleet", "up", "--address", f"127.0.0.1:{self.port}", "--insecure"]
        self._up_words = [*up, "--workers", f"cpu={servers}", "--model", *models]
        self._up: subprocess.Popen[bytes] | None = None
        self._up_until_s = 0.0
        self.has_fleet = False
        self._rest_due_s = 0.0

    def look(self, now_s: float) -> None:
        if not self.is_over and not self.is_running:
            self.has_fleet = False
            self._end_up()
            if now_s >= self._rest_due_s:
                kill_all(self.processes())
                super().look(now_s)
            return
        if self.has_fleet or self.is_over:
            return
        if self._up is None:
            if _listens(self.port):
                with (self._folder / "fleet.log").open("ab") as log:
                    self._up = subprocess.Popen(self._up_words, stdout=log, stderr=log, process_group=0)
                self._up_until_s = now_s + _UP_WITHIN_S
        elif self._up.poll() is not None or now_s > self._up_until_s:
            self.has_fleet = self._up.poll() == 0
            self._end_up()

    def lose(self, lasts_s: float) -> bool:
        """Kill the head alone; what it leaves behind goes when it is started again, after so long."""
        processes = [pid for pid in self.processes() if "gcs_server" in command_of(pid)]
        self._rest_due_s = time.monotonic() + lasts_s
        self.killed_ns.append(time.monotonic_ns())
        kill_all(processes)
        return bool(processes)

    def processes(self) -> list[int]:
        """All of the cluster that run, its actors too."""
        mine = descendants(os.getpid())
        return [pid for pid in mine if self._temporary in (line := command_of(pid)) or line.startswith("ray::")]

    def actors(self, class_name: str) -> list[int]:
        return [pid for pid in self.processes() if command_of(pid).startswith(f"ray::{class_name}")]

    def end(self) -> None:
        self._end_up()
        super().end()
        kill_all(self.processes())

    def _end_up(self) -> None:
        if self._up is not None:
            if self._up.poll() is None:
                self._up.kill()
            self._up.wait()
            self._up = None


def adopt_orphans() -> None:
    """Processes whose parent is killed become this one's, so that they are found, and ended, at the end. Linux."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(pid: int) -> list[int]:
    """Processes below one that have not ended."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                children.setdefault(int(parent), []).append(int(path.parent.name))
    found, waiting = [], [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def command_of(pid: int) -> str:
    """Its command line; nothing of one that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return ""


def kill_all(pids: Sequence[int], number: signal.Signals = signal.SIGKILL) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def prefer(pid: int, is_preferred: bool = True) -> None:
    """A microscope has a machine of its own, and the network is none: here they go before servers that start again,
    where the system lets us."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, -10 if is_preferred else 0)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 0.2).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def ended_at_last(children: Sequence[Child]) -> Iterator[None]:
    try:
        yield
    finally:
        for child in children:
            child.end()
