"""The publishing socket, seen from plain SUB sockets."""

from __future__ import annotations

import socket as unix
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from engines.base import LeukostreamError, UsageError
from streamer.network.publisher import Publisher
from streamer.protocol.messages import AnyMessage, encode
from tests.streamer.protocol.message_cases import (
    frame_message,
    make_cell,
    make_differential,
    make_factory,
    make_health,
    one_of_each,
)

Context = zmq.Context[zmq.Socket[bytes]]
Connect = Callable[..., zmq.Socket[bytes]]


@pytest.fixture
def context() -> Iterator[Context]:
    context: Context = zmq.Context()
    yield context
    context.destroy(linger=0)


@pytest.fixture
def connect(context: Context) -> Connect:
    def connect(endpoint: str, *topics: bytes, high_water_mark: int = 1000) -> zmq.Socket[bytes]:
        socket = context.socket(zmq.SUB)
        socket.setsockopt(zmq.RCVHWM, high_water_mark)
        socket.connect(endpoint)
        for topic in topics:
            socket.subscribe(topic)
        return socket

    return connect


def serve_until(publisher: Publisher, condition: Callable[[], object]) -> None:
    """What the publishing thread does while there is nothing to publish."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "waited ten seconds"
        publisher.service()
        time.sleep(0.002)


def received(socket: zmq.Socket[bytes]) -> list[list[bytes]]:
    messages = []
    while socket.poll(100):
        messages.append(socket.recv_multipart())
    return messages


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
def test_messages_are_topic_header_payload(transport: str, tmp_path: Path, connect: Connect) -> None:
    endpoint = "tcp://127.0.0.1:*" if transport == "tcp" else f"ipc://{tmp_path}/socket"
    with Publisher(endpoint) as publisher:
        socket = connect(publisher.endpoint, b"")
        serve_until(publisher, lambda: publisher.wants("frame", "cam"))
        messages = one_of_each(make_factory())
        for message in messages:
            publisher.publish(message, b"\xff\xd8 picture" if message is messages[1] else None)
        assert received(socket) == [
            [b"frame.cam", encode(messages[0])],
            [b"cell.cam", encode(messages[1]), b"\xff\xd8 picture"],
            [b"differential.cam", encode(messages[2])],
            [b"health.cam", encode(messages[3])],
        ]


def test_who_joins_late_gets_the_newest_differential_and_health_at_once(connect: Connect) -> None:
    factory, other = make_factory(), make_factory("cam2")
    with Publisher("tcp://127.0.0.1:*") as publisher:
        for total in range(3):
            publisher.publish(factory.differential(make_differential(total)))
        publisher.publish(frame_message(factory))
        publisher.publish(factory.cell(make_cell()))
        last: list[AnyMessage] = [factory.differential(make_differential(3)), factory.health(make_health())]
        last.append(other.differential(make_differential(8)))
        for message in last:
            publisher.publish(message)
        everything, one_source = connect(publisher.endpoint, b""), connect(publisher.endpoint, b"differential.cam2")
        serve_until(publisher, lambda: everything.poll(0) and one_source.poll(0))
        assert [parts[1] for parts in received(everything)][:3] == [encode(message) for message in last]
        assert {parts[1] for parts in received(one_source)} == {encode(last[2])}


def test_the_second_of_the_same_prefix_gets_last_values_too(connect: Connect) -> None:
    message = make_factory().health(make_health())
    with Publisher("tcp://127.0.0.1:*") as publisher:
        publisher.publish(message)
        for _ in range(3):
            socket = connect(publisher.endpoint, b"health.")
            serve_until(publisher, lambda socket=socket: socket.poll(0))  # type: ignore[misc]
            assert socket.recv_multipart() == [b"health.cam", encode(message)]


def test_wants_follows_who_is_there(connect: Connect) -> None:
    with Publisher("tcp://127.0.0.1:*") as publisher:
        assert not publisher.wants("frame", "cam")
        sockets = [connect(publisher.endpoint, b"frame.") for _ in range(2)]
        serve_until(publisher, lambda: publisher.wants("frame", "cam"))
        assert not publisher.wants("cell", "cam")
        sockets[0].close(0)
        cells = connect(publisher.endpoint, b"cell.cam")
        serve_until(publisher, lambda: publisher.wants("cell", "cam"))
        assert publisher.wants("frame", "cam")
        assert not publisher.wants("cell", "bench")
        sockets[1].close(0)
        serve_until(publisher, lambda: not publisher.wants("frame", "cam"))
        assert publisher.wants("cell", "cam")
        cells.close(0)


def test_one_who_does_not_read_holds_nobody_up(connect: Connect) -> None:
    factory = make_factory()
    with Publisher("tcp://127.0.0.1:*", high_water_mark=20, flush_ms=0) as publisher:
        stalled = connect(publisher.endpoint, b"cell.", high_water_mark=1)
        reading = connect(publisher.endpoint, b"frame.")
        serve_until(publisher, lambda: publisher.wants("cell", "cam") and publisher.wants("frame", "cam"))
        published = 2000
        for _ in range(published):
            publisher.publish(factory.cell(make_cell()), bytes(50_000))
        message = frame_message(factory)
        publisher.publish(message)
        assert reading.recv_multipart() == [b"frame.cam", encode(message)]
        kept = received(stalled)
        assert 0 < len(kept) < published


def test_subscriptions_of_nonsense_do_no_harm(context: Context, connect: Connect) -> None:
    message = make_factory().health(make_health())
    with Publisher("tcp://127.0.0.1:*") as publisher:
        hostile = context.socket(zmq.XSUB)
        hostile.connect(publisher.endpoint)
        for event in (b"", b"\x02hello", b"\x00never subscribed", b"\x01\xff\xfe", b"hello", b"\x01" + b"x" * 3000):
            hostile.send(event)
        hostile.send_multipart([b"\x01many", b"parts"])
        hostile.send(b"\x01" + b"x" * 100_000)  # above the limit: it is cut off
        publisher.publish(message)
        socket = connect(publisher.endpoint, b"")
        serve_until(publisher, lambda: socket.poll(0))
        assert socket.recv_multipart() == [b"health.cam", encode(message)]


def test_nobody_is_there() -> None:
    publisher = Publisher("tcp://127.0.0.1:*")
    for message in one_of_each(make_factory()):
        publisher.publish(message, b"payload")
    publisher.close()
    publisher.close()


@pytest.mark.parametrize("endpoint", ["tcp://*:*", "tcp://0.0.0.0:*"])
def test_what_other_machines_can_reach_needs_insecure(endpoint: str) -> None:
    with pytest.raises(
        UsageError, match=r"other machines can reach.*expected --keys DIR.*tcp://127\.0\.0\.1:PORT.*--insecure"
    ):
        Publisher(endpoint)
    with Publisher(endpoint, insecure=True) as publisher:
        assert publisher.endpoint.startswith("tcp://0.0.0.0:")


def test_ipv6_loopback(connect: Connect) -> None:
    try:
        publisher = Publisher("tcp://[::1]:*")
    except LeukostreamError:
        pytest.skip("this machine has no IPv6 loopback")
    with publisher:
        assert publisher.endpoint.startswith("tcp://[::1]:")


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
def test_an_address_in_use(transport: str, tmp_path: Path, connect: Connect) -> None:
    endpoint = "tcp://127.0.0.1:*" if transport == "tcp" else f"ipc://{tmp_path}/socket"
    message = make_factory().health(make_health())
    with Publisher(endpoint) as publisher:
        with pytest.raises(LeukostreamError, match="address in use by another program, expected a free one") as caught:
            Publisher(publisher.endpoint)
        assert not isinstance(caught.value, UsageError)
        publisher.publish(message)
        socket = connect(publisher.endpoint, b"")
        serve_until(publisher, lambda: socket.poll(0))  # the first one still works


def test_a_socket_left_over_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with unix.socket(unix.AF_UNIX) as left_over:
        left_over.bind(str(path))
        left_over.listen()
    with Publisher(f"ipc://{path}") as publisher:
        assert publisher.endpoint == f"ipc://{path}"


def test_a_file_at_the_path_is_not_deleted(tmp_path: Path) -> None:
    path = tmp_path / "results.txt"
    path.write_text("counts")
    with pytest.raises(UsageError, match="got a path where a file or folder lies"):
        Publisher(f"ipc://{path}")
    assert path.read_text() == "counts"


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ("tcp://192.0.2.1:5555", "does not have, expected one of its own"),
        ("tcp://no-such-interface:5555", "does not have, expected one of its own"),
        ("ipc:///no/such/folder/socket", "got a folder that does not exist"),
    ],
)
def test_an_address_that_can_not_be_had(endpoint: str, said: str) -> None:
    with pytest.raises(LeukostreamError, match=said):
        Publisher(endpoint, insecure=True)
