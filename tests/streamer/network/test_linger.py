"""After the end: who is answered, for how long, and who is cut off."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest
import zmq

from streamer.network.publisher import Publisher
from streamer.network.subscriber import Subscriber
from streamer.network.subscriber_async import AsyncSubscriber
from streamer.protocol.factory import MessageFactory
from streamer.protocol.messages import NEW_SLIDE, AnyMessage, EndMessage, decode
from streamer.protocol.requests import SnapshotReply, SnapshotRequest
from tests.streamer.network.service_cases import PATIENCE_S, Served, request_of, slide, wait_for
from tests.streamer.protocol.message_cases import make_cell, make_differential, make_factory, make_health

LOCAL = "tcp://127.0.0.1:*"
FOR_EVER_S = 3600.0


def the_end(factory: MessageFactory, *, reason: str = "end of the source") -> list[AnyMessage]:
    return [factory.differential(make_differential(9, final=True)), factory.end("finished", reason)]


class Ending:
    """A publisher that closes on a thread of its own."""

    def __init__(self, publisher: Publisher) -> None:
        self.publisher = publisher
        self.thread = threading.Thread(target=publisher.close)
        self.thread.start()

    def over(self) -> bool:
        self.thread.join(PATIENCE_S)
        return not self.thread.is_alive()


def join(publisher: Publisher, topic: str = "end.cam") -> None:
    wait_for(lambda: publisher.service() or publisher.wants(*topic.split(".")))


def stall(publisher: Publisher, context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
    """A subscriber that reads nothing and whose queue is full, and the end published behind that."""
    socket = context.socket(zmq.SUB)
    socket.setsockopt(zmq.RCVHWM, 1)
    socket.connect(publisher.endpoint)
    socket.subscribe(b"")
    join(publisher)
    factory = make_factory()
    while not publisher.lost:
        publisher.publish(factory.cell(make_cell()), bytes(50_000))
    for message in the_end(factory):
        publisher.publish(message)
    return socket


def take_all(subscriber: Subscriber) -> list[AnyMessage]:
    messages: list[AnyMessage] = []
    while not subscriber.is_over or (received := subscriber.receive(0)) is not None:
        if not subscriber.is_over:
            received = subscriber.receive(PATIENCE_S)
        assert received is not None
        messages.append(received.message)  # type: ignore[arg-type]
    return messages


def test_who_keeps_up_and_stays_is_sent_everything_and_holds_nobody_up() -> None:
    publisher = Publisher(LOCAL, linger_s=FOR_EVER_S)
    with Subscriber(publisher.endpoint) as subscriber:
        join(publisher)
        factory = make_factory()
        messages = [*slide(factory, 30), *the_end(factory)]
        for message in messages:
            publisher.publish(message)
        ending = Ending(publisher)
        assert ending.over()
        assert take_all(subscriber) == messages
        assert (publisher.cut_off, publisher.lost, subscriber.lost) == (False, {}, 0)


def test_nobody_is_waited_for_where_nobody_is() -> None:
    publisher = Publisher(LOCAL, linger_s=FOR_EVER_S)
    for message in the_end(make_factory()):
        publisher.publish(message)
    assert Ending(publisher).over()
    assert not publisher.cut_off


def test_who_was_slow_gets_all_after_the_end_and_then_it_is_over() -> None:
    publisher = Publisher(LOCAL, high_water_mark=20, linger_s=FOR_EVER_S)
    with Subscriber(publisher.endpoint, high_water_mark=1) as subscriber:
        join(publisher)
        factory = make_factory()
        messages: list[AnyMessage] = [factory.health(make_health())]
        publisher.publish(messages[0])
        while not publisher.lost:
            messages.append(factory.cell(make_cell()))
            publisher.publish(messages[-1], bytes(50_000))
        for message in slide(factory, 60) + the_end(factory):  # all passed over
            messages.append(message)
            publisher.publish(message)
        ending = Ending(publisher)
        got = take_all(subscriber)
        assert {m.session_seq for m in got} == {m.session_seq for m in messages}
        assert got[-1] == messages[-1] == subscriber.end_of("cam")
        assert (subscriber.lost, subscriber.replayed > 0) == (0, True)
        assert ending.thread.is_alive()  # it may have been passed over still, for all that the publisher knows
    assert ending.over()
    assert not publisher.cut_off


@pytest.mark.parametrize("way", ["time", "hurry"])
def test_who_does_not_read_is_cut_off_and_counted(way: str) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    linger_s = 0.2 if way == "time" else FOR_EVER_S
    publisher = Publisher(LOCAL, high_water_mark=20, linger_s=linger_s, flush_ms=0)
    _stalled = stall(publisher, context)
    ending = Ending(publisher)
    if way == "hurry":
        wait_for(lambda: publisher.lingering)
        publisher.hurry()
    assert ending.over()
    assert publisher.cut_off
    assert publisher.lost["cell"] == 1
    context.destroy(linger=0)


def test_without_linger_nobody_is_answered_after_the_end() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    publisher = Publisher(LOCAL, high_water_mark=20, linger_s=0, flush_ms=0)
    _stalled = stall(publisher, context)
    publisher.service = publisher._answer_requests = lambda: pytest.fail("answered")  # type: ignore[method-assign]
    publisher.close()
    context.destroy(linger=0)


def test_a_snapshot_has_the_end_until_another_session_begins() -> None:
    factory = make_factory()
    with Served(lambda: Publisher(LOCAL)) as server, Subscriber(server.endpoint) as subscriber:

        def end() -> EndMessage | None:
            reply = subscriber.ask(request_of(SnapshotRequest), PATIENCE_S)
            assert isinstance(reply, SnapshotReply)
            return reply.sources["cam"].end

        server.publish(factory.health(make_health()))
        assert end() is None
        server.publish(*(last := the_end(factory)))
        assert end() == last[-1]
        server.publish(factory.health(make_health()))
        assert end() is None


def test_who_joins_gets_the_end_unless_another_session_goes_on() -> None:
    factory = make_factory()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with Publisher(LOCAL) as publisher:

        def first_of(topic: bytes, *, until: Callable[[list[bytes]], bool]) -> list[list[bytes]]:
            socket = context.socket(zmq.SUB)
            socket.connect(publisher.endpoint)
            socket.subscribe(topic)
            got: list[list[bytes]] = []
            while not got or not until(got[-1]):
                wait_for(lambda: publisher.service() or socket.poll(0))
                got.append(socket.recv_multipart())
            socket.close(0)
            return got

        last = the_end(factory, reason=NEW_SLIDE)
        for message in last:
            publisher.publish(message)
        assert decode(first_of(b"end.", until=lambda parts: True)[0][1]) == last[-1]
        publisher.publish(factory.health(make_health()))
        topics = [parts[0] for parts in first_of(b"", until=lambda parts: parts[0] == b"health.cam")]
        assert b"end.cam" not in topics
    context.destroy(linger=0)


def test_a_new_slide_is_no_end_of_a_source_and_a_resumed_session_goes_on() -> None:
    first, resumed = make_factory(), make_factory(run_id="run-2", next_session_seq=3)
    second = make_factory("other")
    steps = [
        (first.health(make_health()), False),
        (second.health(make_health()), False),
        (second.end("stopped", "by the user"), False),
        (first.end("finished", NEW_SLIDE), False),
        (first.end("finished", "end of the source"), True),
        (resumed.health(make_health()), False),
        (resumed.end("failed", "no room"), True),
    ]
    with Served(lambda: Publisher(LOCAL)) as server, Subscriber(server.endpoint) as subscriber:
        while not server.do(lambda publisher: publisher.wants("end", "cam")):
            pass
        for message, is_over in steps:
            server.publish(message)
            received = subscriber.receive(PATIENCE_S)
            assert received is not None
            assert received.message == message
            assert subscriber.is_over is is_over
        assert subscriber.end_of("other") == steps[2][0]


def test_an_end_is_known_whatever_was_asked_for() -> None:
    factory = make_factory()
    last = the_end(factory)

    async def follow(endpoint: str, ready: threading.Event) -> AnyMessage | None:
        async with AsyncSubscriber(endpoint, ["frame."]) as subscriber:
            ready.set()
            while not subscriber.is_over:
                assert await subscriber.receive(0.05) is None
            return subscriber.end_of("cam")

    with Served(lambda: Publisher(LOCAL)) as server:
        found: list[AnyMessage | None] = []
        ready = threading.Event()
        thread = threading.Thread(target=lambda: found.append(asyncio.run(follow(server.endpoint, ready))))
        thread.start()
        assert ready.wait(PATIENCE_S)
        while not server.do(lambda publisher: publisher.wants("end", "cam")):
            pass
        server.publish(*last)
        thread.join(PATIENCE_S)
        assert found == [last[-1]]
