"""Many subscribers in real processes, who come late, are stopped, killed, and cut off: each ends with the journal's
differential, to the byte."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from streamer.journal import Journal
from streamer.network.publisher import Publisher
from streamer.protocol.messages import AnyMessage, decode
from tests.streamer.journal.journal_cases import new_session
from tests.streamer.network.crowd_cases import digest
from tests.streamer.protocol.message_cases import frame_message, make_cell, make_differential, make_factory, make_health

FRAMES_PER_S = 15
PATIENCE_S = 180.0

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="stops processes as Linux does")]


class Show:
    """Publishes at a steady pace, with a journal, and does at given times what cuts subscribers off."""

    def __init__(self, path: Path, endpoint: str) -> None:
        self.journal = Journal(path)
        self.kept = new_session(self.journal)
        self.factory = make_factory("slide")
        self.factory.session = "session"
        self.publisher = Publisher(endpoint, insecure=True, linger_s=5.0)
        self.port = int(self.publisher.endpoint.rpartition(":")[2])
        self.processes: list[subprocess.Popen[str]] = []
        self.late_frames = 0

    def join(self, count: int, spread_s: float, *, host: str = "127.0.0.1", inside: tuple[str, ...] = ()) -> int:
        """Its place among the processes."""
        endpoint = f"tcp://{host}:{self.port}"
        command = [sys.executable, "-m", "tests.streamer.network.crowd_cases", endpoint, str(count), str(spread_s)]
        seed = str(len(self.processes))
        self.processes.append(subprocess.Popen([*inside, *command, seed], stdout=subprocess.PIPE, text=True))
        return len(self.processes) - 1

    def wait_for_connections(self, count: int) -> None:
        until = time.monotonic() + PATIENCE_S
        while (self.publisher.health().connections or 0) < count:
            assert time.monotonic() < until, f"got {self.publisher.health().connections}, expected {count}"
            self.publisher.service()
            time.sleep(0.002)

    def publish(self, message: AnyMessage) -> None:
        self.kept.other([(message, None)])
        self.publisher.publish(message)

    def run(self, seconds: float, at: Mapping[float, Callable[[], object]]) -> None:
        """`at`: seconds from the beginning, and what happens then."""
        due = sorted(at.items())
        began = time.monotonic()
        number = 0
        while number < seconds * FRAMES_PER_S:
            while due and time.monotonic() - began >= due[0][0]:
                due.pop(0)[1]()
            self.publish(frame_message(self.factory))
            if number % 3 == 0:
                self.publish(self.factory.cell(make_cell(number)))
                self.publish(self.factory.differential(make_differential(number // 3 + 1)))
            if number % FRAMES_PER_S == 0:
                self.publish(self.factory.health(make_health()))
            number += 1
            while time.monotonic() - began < number / FRAMES_PER_S:
                self.publisher.service()
                time.sleep(0.002)
        for _, act in due:
            act()

    def reports(self) -> list[dict[str, object]]:
        """What each subscriber came to, once all have ended."""
        self.publish(self.factory.differential(make_differential(10_000, final=True)))
        until, due = time.monotonic() + PATIENCE_S, 0.0
        while any(process.poll() is None for process in self.processes):
            assert time.monotonic() < until, "some subscribers never saw the final differential"
            if time.monotonic() >= due:
                due = time.monotonic() + 1.0
                self.publish(self.factory.health(make_health()))
            self.publisher.service()
            time.sleep(0.002)
        return [json.loads(line) for process in self.processes for line in (process.stdout or ())]

    def expected(self) -> str:
        """The journal's last differential."""
        *_, last = self.kept.stored.differentials()
        message = decode(last)
        assert not hasattr(message, "type")
        return digest(message)  # type: ignore[arg-type]

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        self.publisher.hurry()
        self.publisher.close()
        self.journal.close()


@contextlib.contextmanager
def show(path: Path, endpoint: str = "tcp://127.0.0.1:*") -> Iterator[Show]:
    one = Show(path, endpoint)
    try:
        yield one
    finally:
        one.close()


def check(reports: list[dict[str, object]], expected: str, count: int) -> None:
    assert len(reports) == count
    assert {report["state"] for report in reports} == {expected}
    assert sum(int(str(report["lost"])) for report in reports) == 0
    assert all(report["whole"] for report in reports)


def test_a_hundred_join_at_random_moments(tmp_path: Path) -> None:
    with show(tmp_path / "journal.db") as one:
        for _ in range(4):
            one.join(25, 25.0)
        one.run(30.0, {})
        check(one.reports(), one.expected(), 100)


def test_fifty_are_stopped_and_killed_and_come_back(tmp_path: Path) -> None:
    with show(tmp_path / "journal.db") as one:
        shortly, long, killed = (one.join(count, 1.0) for count in (15, 15, 20))
        one.wait_for_connections(100)

        def send(place: int, number: int) -> Callable[[], None]:
            return lambda: os.kill(one.processes[place].pid, number)

        def kill() -> None:
            process = one.processes[killed]
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
            one.processes.pop(killed)
            one.join(20, 1.0)

        one.run(
            35.0,
            {
                5.0: send(shortly, signal.SIGSTOP),
                8.0: send(shortly, signal.SIGCONT),
                5.1: send(long, signal.SIGSTOP),
                25.0: send(long, signal.SIGCONT),  # so long that its connections were cut off
                10.0: kill,
            },
        )
        check(one.reports(), one.expected(), 50)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def namespace() -> Iterator[str]:
    """A network namespace that is connected to this one: lsw0 here, 10.231.7.1, and lsw1 there, 10.231.7.2."""
    name = f"lsw{os.getpid()}"
    try:
        ip("netns", "add", name)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("network namespaces are not permitted here")
    try:
        ip("link", "add", "lsw0", "type", "veth", "peer", "name", "lsw1", "netns", name)
        ip("addr", "add", "10.231.7.1/30", "dev", "lsw0")
        ip("link", "set", "lsw0", "up")
        ip("-n", name, "addr", "add", "10.231.7.2/30", "dev", "lsw1")
        ip("-n", name, "link", "set", "lsw1", "up")
        yield name
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            ip("link", "del", "lsw0")
        ip("netns", "del", name)


def test_a_network_that_is_cut_and_comes_back(tmp_path: Path, namespace: str) -> None:
    with show(tmp_path / "journal.db", "tcp://0.0.0.0:*") as one:
        one.join(20, 1.0, host="10.231.7.1", inside=("ip", "netns", "exec", namespace))
        one.wait_for_connections(40)
        connected: list[int | None] = []
        one.run(
            35.0,
            {
                4.9: lambda: connected.append(one.publisher.health().connections),
                5.0: lambda: ip("link", "set", "lsw0", "down"),
                24.9: lambda: connected.append(one.publisher.health().connections),
                25.0: lambda: ip("link", "set", "lsw0", "up"),
            },
        )
        assert connected == [40, 0]
        check(one.reports(), one.expected(), 20)
