"""Microscopes, servers and the network between them killed and cut at random: the parts, and a minute of all of it."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tools.bench.chaos_actors import Child, descendants
from tools.bench.chaos_faults import KINDS, Scene, faults
from tools.bench.faulty_network import FaultyNetwork
from tools.bench.stops import longest_during, stops

PATIENCE_S = 30.0
S = 1_000_000_000

if sys.platform != "linux":
    pytest.skip("needs /proc", allow_module_level=True)


def awaited(what: Callable[[], object]) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < until_s
        time.sleep(0.01)


def test_the_same_seed_disturbs_in_the_same_way() -> None:
    first, again, other = (list(itertools.islice(faults(seed, with_ray=True), 200)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert {fault.kind for fault in first} == {kind.name for kind in KINDS}
    without = {fault.kind for fault in itertools.islice(faults(1, with_ray=False), 200)}
    assert without == {kind.name for kind in KINDS if not kind.needs_ray}


def test_a_stop_is_between_two_frames_and_a_restart_begins_with_the_kill() -> None:
    first, second, third = stops([0, 1 * S, 9 * S, 10 * S], [2 * S, 4 * S])
    assert (first.seconds, first.restarted_s) == (1.0, None)
    assert (second.began_ns, second.seconds, second.restarted_s) == (S, 8.0, 5.0)
    assert (third.seconds, third.restarted_s) == (1.0, None)
    assert stops([5]) == []


@pytest.mark.parametrize(
    ("began_s", "ended_s", "longest_s"), [(0, 1, 1.0), (1.5, 1.6, 4.0), (5.5, 6.5, 2.0), (0, 9, 4.0)]
)
def test_how_long_another_stood_still_at_the_time(began_s: float, ended_s: float, longest_s: float) -> None:
    frames_ns = [0, 1 * S, 5 * S, 6 * S, 8 * S]
    assert longest_during(frames_ns, round(began_s * S), round(ended_s * S)) == longest_s


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of what sends everything back."""
    listening = socket.create_server(("127.0.0.1", 0))

    def answer(one: socket.socket) -> None:
        with closing(one):
            try:
                while data := one.recv(1 << 16):
                    one.sendall(data)
            except OSError:
                pass

    def accept() -> None:
        try:
            while True:
                threading.Thread(target=answer, args=(listening.accept()[0],), daemon=True).start()
        except OSError:
            pass

    threading.Thread(target=accept, daemon=True).start()
    yield listening.getsockname()[1]
    listening.close()


def echoed(one: socket.socket, text: bytes) -> bytes:
    one.sendall(text)
    got = b""
    while len(got) < len(text):
        part = one.recv(1 << 16)
        if not part:
            raise ConnectionResetError
        got += part
    return got


def test_a_network_passes_on_until_it_is_cut_and_again_when_it_is_healed(echo: int) -> None:
    with FaultyNetwork() as network:
        link = network.link(echo)
        with socket.create_connection(("127.0.0.1", link.port), PATIENCE_S) as one:
            large = os.urandom(3_000_000)
            sending = threading.Thread(target=one.sendall, args=(large,))
            sending.start()
            got = b""
            while len(got) < len(large):
                got += one.recv(1 << 20)
            sending.join()
            assert got == large
            link.cut()
            with pytest.raises(OSError):  # noqa: PT011  # reset or ended, as the system says it
                echoed(one, b"lost")
        with (
            socket.create_connection(("127.0.0.1", link.port), PATIENCE_S) as refused,
            pytest.raises(OSError),  # noqa: PT011
        ):
            echoed(refused, b"lost")
        link.heal()
        with socket.create_connection(("127.0.0.1", link.port), PATIENCE_S) as again:
            assert echoed(again, b"there") == b"there"


def test_what_is_frozen_comes_later_and_whole(echo: int) -> None:
    with FaultyNetwork() as network:
        link = network.link(echo)
        with socket.create_connection(("127.0.0.1", link.port), PATIENCE_S) as one:
            assert echoed(one, b"before") == b"before"
            link.freeze()
            one.sendall(b"meanwhile")
            one.settimeout(0.2)
            with pytest.raises(TimeoutError):
                one.recv(1)
            one.settimeout(PATIENCE_S)
            link.heal()
            assert one.recv(100) == b"meanwhile"


def test_what_is_delayed_takes_at_least_so_long_each_way(echo: int) -> None:
    with FaultyNetwork() as network:
        link = network.link(echo)
        link.delay(0.1)
        with socket.create_connection(("127.0.0.1", link.port), PATIENCE_S) as one:
            began_s = time.monotonic()
            assert echoed(one, b"there") == b"there"
            assert time.monotonic() - began_s >= 0.2


def test_a_port_without_anybody_refuses_until_somebody_is_there(free_port: int) -> None:
    with FaultyNetwork() as network:
        link = network.link(free_port)
        with (
            socket.create_connection(("127.0.0.1", link.port), PATIENCE_S) as one,
            pytest.raises(OSError),  # noqa: PT011
        ):
            echoed(one, b"lost")


def test_a_child_that_is_killed_is_started_again_until_it_is_over(tmp_path: Path) -> None:
    child = Child("sleeper", ["sleep", "60"], tmp_path / "log", pause_s=0.0)
    scene = Scene((), [child], (), None)

    def starts(count: int) -> bool:
        scene.look(time.monotonic())
        return child.starts == count and child.is_running

    try:
        awaited(lambda: starts(1))
        assert child.send(signal.SIGKILL)
        awaited(lambda: starts(2))
        assert len(child.killed_ns) == 1
        assert len(descendants(os.getpid())) >= 1
    finally:
        child.end()
    assert not child.is_running
    assert not child.send(signal.SIGKILL)
    scene.look(time.monotonic() + 1.0)
    assert child.starts == 2


@pytest.mark.slow
def test_a_minute_of_it_changes_no_journal(tmp_path: Path) -> None:
    """Whether nobody stopped for too long is for a machine that has nothing else to do: the bench says it."""
    path = tmp_path / "chaos.json"
    ray = [] if importlib.util.find_spec("ray") else ["--no-ray"]
    words = ["--minutes", "1", "--seed", "3", "--json", str(path), "--keep", str(tmp_path / "kept"), *ray]
    run = subprocess.run(
        [sys.executable, "-m", "tools.bench", "chaos", *words], capture_output=True, text=True, check=False
    )
    assert path.exists(), run.stderr
    report = json.loads(path.read_text())
    assert report["journals_equal"], report["differences"]
    assert sum(report["faults"].values()) > 5
    assert report["rows_compared"]["frames"] == sum(one["frames"] for one in report["microscopes"].values()) > 100
    assert all(one["inference"]["remote"] > 0 for one in report["microscopes"].values())
    assert sum(report["starts"].values()) > len(report["starts"]), "somebody was started again"
    assert "journals: equal" in run.stdout
