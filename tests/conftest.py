import os
import random
import signal
import socket
from collections.abc import Iterator

import hypothesis
import pytest

from streamer.commands.run import build
from streamer.run.stage_process import StageProcesses
from tests import requirements
from tests.requirements import pytest_addoption, pytest_make_collect_report, pytest_runtest_makereport

__all__ = ["pytest_addoption", "pytest_make_collect_report", "pytest_runtest_makereport"]

PORTS = range(20_000, 30_000)
"""Below those that the system gives to connecting sockets: a subscriber that tries a free port of that range again and
again may one day be connected to itself."""

PORTS_PER_WORKER = 1000


def pytest_configure(config: pytest.Config) -> None:
    requirements.pytest_configure(config)
    # How long an example takes says what else the machine does: a deadline fails tests of what is right.
    hypothesis.settings.register_profile("without deadlines", deadline=None)
    hypothesis.settings.load_profile("without deadlines")
    # A shell starts what runs in its background with Ctrl-C ignored; the tests of Ctrl-C need it as it usually is.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _ctrl_c_as_before() -> Iterator[None]:
    """A test that leaves another handler behind fails itself, and not one that comes after it."""
    before = signal.getsignal(signal.SIGINT)
    yield
    after = signal.getsignal(signal.SIGINT)
    if after is not before:
        signal.signal(signal.SIGINT, before)
        pytest.fail(f"Ctrl-C was left to {after}, expected {before} as before the test")


@pytest.fixture(autouse=True)
def _frames_placed_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in the tests' own process start no process to place frames in: that would take a second of each of hundreds.
    Runs in processes of their own do, as do the tests of it."""
    monkeypatch.setattr(build, "stage_processes", lambda sources: StageProcesses((), 1))


@pytest.fixture
def free_port() -> int:
    return a_free_port()


def a_free_port() -> int:
    """A TCP port of this machine that nobody uses, and that no test beside this one is given."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = PORTS.start + worker * PORTS_PER_WORKER % len(PORTS)
    for port in random.sample(range(first, first + PORTS_PER_WORKER), 50):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no free port between {first} and {first + PORTS_PER_WORKER}")
