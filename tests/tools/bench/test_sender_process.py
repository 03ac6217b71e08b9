from __future__ import annotations

import contextlib
import signal
import sys
import time
from pathlib import Path

import pytest

from engines.base import UsageError
from tools.bench.sender_process import SenderProcess

WAITS = f"{sys.executable} -c 'import time; print(1, flush=True); time.sleep(60)'"


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system does not show states of processes")
def test_it_is_stopped_and_goes_on_and_is_killed_and_started_again() -> None:
    with contextlib.closing(SenderProcess(WAITS)) as sender:
        pid = sender._process.pid
        assert not sender.is_away(time.monotonic())
        sender.disturb(signal.SIGSTOP, 10.0)
        assert sender.is_away(time.monotonic())
        for _ in range(500):
            if state_of(pid) == "T":
                break
            time.sleep(0.01)
        assert state_of(pid) == "T"
        assert sender.is_away(time.monotonic() + 11.0)
        assert not sender.is_away(time.monotonic())
        for _ in range(500):
            if state_of(pid) != "T":
                break
            time.sleep(0.01)
        assert (state_of(pid) != "T", sender._process.pid) == (True, pid)
        sender.disturb(signal.SIGKILL, 10.0)
        sender._process.wait(10)
        assert sender.is_away(time.monotonic() + 11.0)
        assert not sender.is_away(time.monotonic())
        assert sender._process.pid != pid
        again = sender._process
    assert again.poll() is not None


def test_what_ends_at_once_is_no_sender() -> None:
    with pytest.raises(UsageError, match=r"--sender 'true': got its end, expected a line"):
        SenderProcess("true")
