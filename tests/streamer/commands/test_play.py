"""Recorded messages published again, over real sockets."""

import re
import threading

import msgspec
import pytest

from streamer.cli import main
from streamer.commands.play import Played, play_messages
from streamer.network.subscriber import Subscriber
from streamer.recording import Recording
from tests.streamer.protocol.message_cases import START_NS, Clock, make_cell, make_differential, make_factory
from tests.streamer.recording.recording_cases import frames_of, pictures, record

STEP_NS = 200_000_000


@pytest.fixture
def told():
    """Six messages of two sources, 0.2 s apart."""
    clock = Clock()
    factories = [make_factory(name, clock=clock) for name in ("left", "right")]
    messages = []
    for _ in range(3):
        for factory in factories:
            clock.now_ns += STEP_NS
            messages.append(
                factory.cell(make_cell()) if len(messages) == 2 else factory.differential(make_differential())
            )
    assert messages[-1].published_ns == START_NS + 6 * STEP_NS
    return messages


@pytest.fixture
def path(tmp_path, told):
    path = tmp_path / "a.rec"
    record(path, frames_of("left", pictures(1)) + frames_of("right", pictures(1)), told)
    return path


class Publisher:
    """Notes when it gets what."""

    def __init__(self, clock):
        self.clock = clock
        self.published = []
        self.services = 0

    def publish(self, message, payload=None):
        self.published.append((self.clock.now_ns - START_NS, message))

    def service(self):
        self.services += 1


def played(path, source=None, speed=1.0, as_new=False):
    clock = Clock()

    def sleep(seconds):
        clock.now_ns += round(seconds * 1e9)

    publisher = Publisher(clock)
    with Recording(path) as recording:
        result = play_messages(recording, publisher, source, speed, as_new=as_new, now_ns=clock, sleep=sleep)
    return result, publisher


@pytest.mark.parametrize(("speed", "step_ns", "services"), [(1.0, STEP_NS, 50), (4.0, STEP_NS // 4, 15), (0.0, 0, 0)])
def test_they_come_at_their_times_as_they_were(path, told, speed, step_ns, services):
    result, publisher = played(path, speed=speed)
    assert publisher.published == [(i * step_ns, message) for i, message in enumerate(told)]
    assert result == Played({"left": 3, "right": 3})
    assert publisher.services == services  # who asks waits for 20 ms at most


def test_one_source_of_several(path, told):
    _, publisher = played(path, source="right")
    assert [message for _, message in publisher.published] == told[1::2]


def test_as_a_run_of_its_own(path, told):
    _, first = played(path, as_new=True)
    _, second = played(path, as_new=True)
    runs = {message.run_id for _, message in first.published + second.published}
    sessions = {message.session for _, message in first.published}
    assert (len(runs), len(sessions)) == (2, 1)
    same = [msgspec.structs.replace(m, session="slide-1", run_id="run-1") for _, m in first.published]
    assert same == told


def test_from_the_command_line_to_a_subscriber(path, told, tmp_path, capfd):
    endpoint = f"ipc://{tmp_path}/play"
    received = []

    def subscribe():
        with Subscriber(endpoint, ["differential.", "cell."], timeout_s=20) as subscriber:
            for one in subscriber:
                received.append(one.message)
                if len(received) == len(told):
                    break

    listener = threading.Thread(target=subscribe)
    listener.start()
    assert main(["play", str(path), "--publish", endpoint, "--speed", "max", "--wait-s", "20"]) == 0
    listener.join()
    assert sorted(received, key=lambda m: m.published_ns) == told
    assert capfd.readouterr().out.splitlines()[-1] == "published 6 messages: 3 of left, 3 of right"


def test_one_that_was_cut_off_says_where_it_ends(path, tmp_path, capfd):
    path.write_bytes(path.read_bytes()[:-200])
    assert main(["play", str(path), "--publish", f"ipc://{tmp_path}/play", "--speed", "max", "--wait-s", "0"]) == 0
    captured = capfd.readouterr()
    assert re.search(r"published [345] messages", captured.out)
    (line,) = captured.err.splitlines()
    assert "got the middle of a record at byte" in line


BAD = [
    (["missing.rec", "--publish", "tcp://127.0.0.1:*"], 1, "No such file"),
    (["a.rec"], 2, "--publish"),
    (["a.rec", "--publish", "tcp://127.0.0.1:*", "--speed", "0"], 2, "--speed: got '0', expected a number above 0"),
    (["a.rec", "--publish", "tcp://127.0.0.1:*", "--source", "up"], 1, "got source 'up', expected one of: left, right"),
    (["a.rec", "--publish", "nowhere"], 2, "nowhere"),
    (["text.rec", "--publish", "tcp://127.0.0.1:*"], 1, "got no recording"),
]


@pytest.mark.parametrize(("arguments", "status", "says"), BAD, ids=[says for *_, says in BAD])
def test_bad_usage_is_one_clear_line(path, tmp_path, capfd, monkeypatch, arguments, status, says):
    (tmp_path / "text.rec").write_text("what I did last night")
    monkeypatch.chdir(tmp_path)
    assert main(["play", *arguments]) == status
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("leukostream: ")
    assert says in line
