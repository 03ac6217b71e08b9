"""Subscribers that are too slow, only want the newest, or are gone without a word."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
import zmq

from streamer.network.outgoing import NEWEST_INTERVAL_NS, OWED_FOR_NS, OutgoingMessages
from streamer.network.publisher import Publisher
from streamer.network.subscriber import Subscriber
from streamer.protocol.messages import encode
from streamer.protocol.requests import SnapshotRequest
from tests.streamer.network.cable_cases import Cable
from tests.streamer.network.service_cases import PATIENCE_S, Served, request_of, slide, wait_for
from tests.streamer.protocol.message_cases import Clock, frame_message, make_differential, make_factory, make_health

Context = zmq.Context[zmq.Socket[bytes]]


@pytest.fixture
def context() -> Iterator[Context]:
    context: Context = zmq.Context()
    yield context
    context.destroy(linger=0)


class Box:
    """An outbox and a plain subscriber in one process, with a clock that the test sets."""

    def __init__(self, context: Context, *topics: bytes, high_water_mark: int = 1000) -> None:
        self.clock, self.context = Clock(), context
        publishing = context.socket(zmq.XPUB)
        publishing.setsockopt(zmq.SNDHWM, high_water_mark)
        publishing.bind("inproc://box")
        self.outbox = OutgoingMessages(publishing, self.clock)
        self.factory = make_factory()
        self.reader = self.connect(*topics, high_water_mark=high_water_mark)

    def connect(self, *topics: bytes, high_water_mark: int = 1000) -> zmq.Socket[bytes]:
        socket = self.context.socket(zmq.SUB)
        socket.setsockopt(zmq.RCVHWM, high_water_mark)
        for topic in topics:
            socket.subscribe(topic)
        socket.connect("inproc://box")
        deadline = time.monotonic() + PATIENCE_S
        while not all(self.outbox.wants(topic) for topic in topics):
            assert time.monotonic() < deadline
            self.outbox.service()
        return socket

    def differential(self, total: int) -> None:
        self.outbox.publish(
            [b"differential.cam", encode(self.factory.differential(make_differential(total)))], "differential"
        )

    def frame(self) -> None:
        self.outbox.publish([b"frame.cam", encode(frame_message(self.factory))], "frame")

    def after_ms(self, milliseconds: int) -> None:
        self.clock.now_ns += milliseconds * 1_000_000
        self.outbox.service()

    def got(self, socket: zmq.Socket[bytes] | None = None) -> list[tuple[str, int]]:
        found = []
        while (socket or self.reader).poll(50):
            topic, header = (socket or self.reader).recv_multipart()
            found.append((topic.decode(), json.loads(header)["seq"]))
        return found


def test_conflated_topics_carry_the_newest_at_most_twice_a_second(context: Context) -> None:
    box = Box(context, b"newest.")
    name = "newest.differential.cam"
    for total in range(30):
        box.differential(total)
        box.frame()
        box.after_ms(30)
    assert box.got() == [(name, 0), (name, 17)]
    box.after_ms(NEWEST_INTERVAL_NS // 1_000_000)
    assert box.got() == [(name, 29)]
    box.after_ms(NEWEST_INTERVAL_NS // 1_000_000)
    assert box.got() == []
    late = box.connect(b"newest.differential")
    while not late.poll(1):
        box.outbox.service()
    assert box.got(late) == [(name, 29)]


def test_a_lost_conflated_message_is_counted_by_its_own_type(context: Context) -> None:
    box = Box(context, b"newest.health.", high_water_mark=1)
    for _ in range(20):
        box.outbox.publish([b"health.cam", encode(box.factory.health(make_health()))], "health")
        box.after_ms(NEWEST_INTERVAL_NS // 1_000_000)
    assert box.outbox.lost["health"] > 0
    assert set(box.outbox.lost) == {"health"}


def test_conflated_topics_are_not_published_where_nobody_asks(context: Context) -> None:
    box = Box(context, b"")
    for total in range(3):
        box.differential(total)
        box.after_ms(1000)
    assert box.got() == [("differential.cam", 0), ("differential.cam", 1), ("differential.cam", 2)]


def test_who_was_too_slow_gets_the_newest_differential_as_soon_as_there_is_room(context: Context) -> None:
    box = Box(context, b"", high_water_mark=5)
    other = box.connect(b"differential.")
    for total in range(40):
        box.frame()
        box.differential(total)
        box.got(other)
    assert sum(box.outbox.lost.values()) > 0
    box.after_ms(1000)
    first = box.got()
    assert ("differential.cam", 39) not in first
    box.after_ms(999)
    assert box.got() == []
    box.after_ms(1)
    assert box.got() == [("differential.cam", 39)]
    box.after_ms(OWED_FOR_NS // 1_000_000)
    assert box.got() == []


def test_nothing_is_sent_again_where_nobody_was_too_slow(context: Context) -> None:
    box = Box(context, b"")
    for total in range(40):
        box.differential(total)
    assert len(box.got()) == 40
    box.after_ms(2000)
    assert (box.got(), box.outbox.lost) == ([], {})


def test_one_asks_for_the_conflated_and_another_for_everything() -> None:
    factory = make_factory()
    messages = slide(factory, 60)
    with (
        Served(lambda: Publisher("tcp://127.0.0.1:*")) as server,
        Subscriber(server.endpoint) as everything,
        Subscriber(server.endpoint, ["newest.differential."]) as newest,
    ):
        wait_for(lambda: server.do(lambda p: p.wants("newest", "cam") and p.wants("newest.differential", "cam")))
        wait_for(lambda: server.do(lambda p: p.wants("frame", "cam")))
        server.publish(*messages)
        last = factory.differential(make_differential(99, final=True))
        server.publish(last, factory.health(make_health()))
        read = 0
        while (received := newest.receive(PATIENCE_S)) is not None and received.message != last:
            read += 1
        assert received is not None
        assert received.topic == "newest.differential.cam"
        assert read < 20
        assert newest.lost == 0
        got = [everything.receive(PATIENCE_S) for _ in range(len(messages) + 2)]
        assert [one.message for one in got[:-1] if one is not None] == [*messages, last]
        assert everything.receive(0.05) is None
        assert everything.lost == 0


def test_a_cable_that_is_pulled_is_noticed_by_both_and_nothing_is_lost() -> None:
    messages = slide(make_factory(), 120)
    with (
        Served(lambda: Publisher("tcp://127.0.0.1:*", heartbeat_ms=100)) as server,
        Cable(server.endpoint) as cable,
        Subscriber(cable.endpoint, heartbeat_ms=100) as subscriber,
    ):
        wait_for(lambda: server.do(lambda p: p.wants("frame", "cam")))
        server.publish(*messages[:60])
        got = [subscriber.receive(PATIENCE_S) for _ in range(60)]
        before = server.do(lambda p: p.health().connections)
        cable.pull()
        wait_for(lambda: server.do(lambda p: p.health().connections) < before or not p_wants(server))
        server.publish(*messages[60:100])
        while not p_wants(server):  # ZeroMQ subscribes anew when the socket is next asked for something
            received = subscriber.receive(0.01)
            if received is not None:
                got.append(received)
        server.publish(*messages[100:])
        while len(got) < len(messages):
            received = subscriber.receive(PATIENCE_S)
            assert received is not None
            got.append(received)
        assert [one.message for one in got if one is not None] == messages
        assert subscriber.lost == 0
        assert subscriber.ask(request_of(SnapshotRequest), PATIENCE_S) is not None


def p_wants(server: Served) -> bool:
    return bool(server.do(lambda publisher: publisher.wants("frame", "cam")))
