"""Our subscriber against our publisher, against crafted messages, and the document's plain one."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from engines.base import UsageError
from streamer.network.publisher import Publisher
from streamer.network.subscriber import Received, Subscriber
from streamer.protocol.messages import (
    AnyMessage,
    CellMessage,
    DifferentialMessage,
    Envelope,
    FrameMessage,
    HealthMessage,
    ProtocolVersionError,
    WireError,
    encode,
    topic_of,
)
from tests.streamer.protocol.message_cases import (
    frame_message,
    make_cell,
    make_differential,
    make_factory,
    make_health,
    one_of_each,
)

PROTOCOL = Path(__file__).parents[3] / "docs" / "protocol.md"
PATIENCE_S = 10.0


def serve_until(publisher: Publisher, condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "waited ten seconds"
        publisher.service()
        time.sleep(0.002)


def next_while_serving(publisher: Publisher, subscriber: Subscriber) -> Received:
    found: list[Received] = []

    def arrived() -> bool:
        received = subscriber.receive(0)
        if received is not None:
            found.append(received)
        return bool(found)

    serve_until(publisher, arrived)
    return found[0]


def next_of(subscriber: Subscriber) -> Received:
    received = subscriber.receive(PATIENCE_S)
    assert received is not None
    return received


class Crafted:
    """A publisher of whatever parts a test sends, in one process with its subscriber."""

    def __init__(self) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self.context.socket(zmq.XPUB)
        self.socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        self.socket.bind("inproc://crafted")
        self.subscriber = Subscriber("inproc://crafted", replay=False, context=self.context)
        for _ in range(3):
            self.socket.recv()  # the subscriptions

    def send(self, message: AnyMessage, **changes: object) -> None:
        header = json.dumps({**json.loads(encode(message)), **changes}).encode()
        self.socket.send_multipart([topic_of(message).encode(), header])


@pytest.fixture
def crafted() -> Iterator[Crafted]:
    crafted = Crafted()
    yield crafted
    crafted.subscriber.close()
    crafted.context.destroy(linger=0)


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
def test_typed_messages_in_order(transport: str, tmp_path: Path) -> None:
    endpoint = "tcp://127.0.0.1:*" if transport == "tcp" else f"ipc://{tmp_path}/socket"
    with Publisher(endpoint) as publisher, Subscriber(publisher.endpoint) as subscriber:
        serve_until(publisher, lambda: publisher.wants("frame", "cam"))
        messages = one_of_each(make_factory())
        for message in messages:
            publisher.publish(message, b"picture" if isinstance(message, CellMessage) else None)
        got = [next_of(subscriber) for _ in messages]
        assert [type(received.message) for received in got] == [
            FrameMessage,
            CellMessage,
            DifferentialMessage,
            HealthMessage,
        ]
        assert [received.message for received in got] == messages
        assert [received.raw_header for received in got] == [encode(message) for message in messages]
        assert [received.topic for received in got] == ["frame.cam", "cell.cam", "differential.cam", "health.cam"]
        assert [received.payload for received in got] == [None, b"picture", None, None]
        assert {(received.lost_before, received.restarted) for received in got} == {(0, False)}
        assert (subscriber.lost, subscriber.repeats, subscriber.restarts) == (0, 0, 0)


def test_topics_are_prefixes() -> None:
    topics = ["cell.", "health.cam"]
    with Publisher("tcp://127.0.0.1:*") as publisher, Subscriber(publisher.endpoint, topics) as subscriber:
        serve_until(publisher, lambda: publisher.wants("cell", "cam") and publisher.wants("health", "cam"))
        for message in [*one_of_each(make_factory()), *one_of_each(make_factory("bench"))]:
            publisher.publish(message)
        assert [next_of(subscriber).topic for _ in range(3)] == ["cell.cam", "health.cam", "cell.bench"]
        assert subscriber.receive(0.05) is None


def test_who_joins_late_has_the_newest_differential_and_health_and_sees_no_loss() -> None:
    factory = make_factory()
    with Publisher("tcp://127.0.0.1:*") as publisher, Subscriber(publisher.endpoint) as early:
        serve_until(publisher, lambda: publisher.wants("frame", "cam"))
        for total in range(5):
            publisher.publish(factory.differential(make_differential(total)))
        publisher.publish(factory.health(make_health()))
        with Subscriber(publisher.endpoint) as late:
            got = [next_while_serving(publisher, late) for _ in range(2)]
            assert [received.topic for received in got] == ["differential.cam", "health.cam"]
            assert isinstance(got[0].message, DifferentialMessage)
            assert got[0].message.total == 4
            publisher.publish(factory.differential(make_differential(5)))
            assert next_of(late).message.seq == 5
            assert (late.lost, late.restarts) == (0, 0)
        assert [next_of(early).message.session_seq for _ in range(7)] == [0, 1, 2, 3, 4, 5, 6]
        assert early.receive(0.05) is None
        assert (early.lost, early.repeats) == (0, 2)


def test_connecting_before_the_publisher_is_there(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/socket"
    with Subscriber(endpoint) as subscriber:
        assert subscriber.receive(0.0) is None
        with Publisher(endpoint) as publisher:
            publisher.publish(make_factory().health(make_health()))
            assert next_while_serving(publisher, subscriber).topic == "health.cam"


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
def test_a_publisher_that_restarts_is_noticed(transport: str, tmp_path: Path) -> None:
    endpoint = "tcp://127.0.0.1:*" if transport == "tcp" else f"ipc://{tmp_path}/socket"
    with Publisher(endpoint, linger_ms=0) as publisher:
        endpoint = publisher.endpoint
        factory = make_factory(run_id="run-1")
        for total in range(3):
            publisher.publish(factory.differential(make_differential(total)))
        subscriber = Subscriber(endpoint)
        assert not next_while_serving(publisher, subscriber).restarted
    with subscriber, Publisher(endpoint) as publisher:
        factory = make_factory(run_id="run-2")
        publisher.publish(factory.differential(make_differential(0)))
        received = next_while_serving(publisher, subscriber)
        assert (received.message.run_id, received.message.seq) == ("run-2", 0)
        assert (received.restarted, received.lost_before) == (True, 0)
        publisher.publish(frame_message(factory))
        assert not next_while_serving(publisher, subscriber).restarted
        assert (subscriber.restarts, subscriber.lost) == (1, 0)


def test_losses_are_told_by_topic(crafted: Crafted) -> None:
    messages: dict[str, AnyMessage] = {
        "cell": make_factory().cell(make_cell()),
        "health": make_factory().health(make_health()),
    }
    for type_, seq in [("cell", 4), ("health", 0), ("cell", 5), ("cell", 9), ("health", 1), ("cell", 10)]:
        crafted.send(messages[type_], seq=seq)
    assert [next_of(crafted.subscriber).lost_before for _ in range(6)] == [0, 0, 0, 3, 0, 0]
    assert crafted.subscriber.lost == 3


def test_sources_do_not_mix(crafted: Crafted) -> None:
    factories = [make_factory("cam", run_id="a"), make_factory("bench", run_id="b")]
    for factory in factories * 2:
        crafted.send(factory.cell(make_cell()))
    assert [next_of(crafted.subscriber).restarted for _ in range(4)] == [False] * 4
    assert (crafted.subscriber.restarts, crafted.subscriber.lost) == (0, 0)


def test_a_restart_forgets_the_numbers_of_its_source_only(crafted: Crafted) -> None:
    cam, again, bench = make_factory(), make_factory(run_id="run-2"), make_factory("bench")
    crafted.send(cam.cell(make_cell()), seq=100)
    crafted.send(bench.cell(make_cell()), seq=50)
    crafted.send(again.cell(make_cell()), seq=3)
    crafted.send(bench.cell(make_cell()), seq=52)
    assert [(r.lost_before, r.restarted) for r in (next_of(crafted.subscriber) for _ in range(4))] == [
        (0, False),
        (0, False),
        (0, True),
        (1, False),
    ]


def test_another_major_version_is_refused_and_receiving_may_go_on(crafted: Crafted) -> None:
    message = make_factory().cell(make_cell())
    crafted.send(message, version="3.0")
    crafted.send(message)
    with pytest.raises(ProtocolVersionError, match=r"got a message of protocol 3\.0, expected 2\.x or 1\.x"):
        crafted.subscriber.receive(PATIENCE_S)
    assert next_of(crafted.subscriber).message == message


@pytest.mark.parametrize("parts", [[b"hello"], [b""], [b"frame.cam", b"not JSON"], [b"\xff", b"\xff"]])
def test_what_is_no_message_is_refused(crafted: Crafted, parts: list[bytes]) -> None:
    crafted.socket.send_multipart(parts)
    with pytest.raises(WireError):
        crafted.subscriber.receive(PATIENCE_S)


def test_a_type_of_a_later_minor_version_is_passed_on(crafted: Crafted) -> None:
    crafted.send(make_factory().cell(make_cell()), type="movie", version="1.2")
    received = next_of(crafted.subscriber)
    assert isinstance(received.message, Envelope)
    assert json.loads(received.raw_header)["cell_id"] == 3


def test_iteration_ends_after_the_silence_asked_for(crafted: Crafted) -> None:
    with Subscriber("inproc://crafted", timeout_s=0.05, context=crafted.context) as subscriber:
        for _ in range(3):
            crafted.socket.recv()
        for message in one_of_each(make_factory()):
            crafted.send(message)
        assert [received.message.session_seq for received in subscriber] == [0, 1, 2, 3]


@pytest.mark.parametrize("endpoint", ["127.0.0.1:5555", "tcp://*:5555", "tcp://127.0.0.1:0", "http://127.0.0.1:80"])
def test_a_malformed_address(endpoint: str) -> None:
    with pytest.raises(UsageError, match=r"^endpoint "):
        Subscriber(endpoint)


def test_the_plain_subscriber_of_the_document() -> None:
    script = re.search(r"```python\n(.*?)```", PROTOCOL.read_text(encoding="utf-8"), re.DOTALL)
    assert script is not None
    with Publisher("tcp://127.0.0.1:*") as publisher:
        publisher.publish(make_factory().differential(make_differential(4)))
        with subprocess.Popen(
            [sys.executable, "-c", script[1], publisher.endpoint], stdout=subprocess.PIPE, text=True
        ) as process:
            serve_until(publisher, lambda: publisher.wants("differential", "cam"))
            assert process.stdout is not None
            line = process.stdout.readline()
            process.kill()
    assert line == "differential.cam 4 {'neutrophil': 100.0, 'monocyte': 0.0}\n"
