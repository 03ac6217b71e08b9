"""Keys on disk and at the door: who comes in, who gives commands, who is refused and counted."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq

from engines.base import UsageError
from streamer.network.connection import RefusedError
from streamer.network.keys import AuthorisedKeys, KeyPair, read_key_pair, read_public_key, write_key_folder
from streamer.network.publisher import Publisher
from streamer.network.subscriber import Subscriber
from streamer.protocol.requests import DoneReply, Pause, RefusedReply, SnapshotReply, SnapshotRequest, StatusRequest
from tests.streamer.network.service_cases import PATIENCE_S, ScriptedControls, Served, request_of, slide, wait_for
from tests.streamer.protocol.message_cases import make_differential, make_factory, make_health


def new_keys(folder: Path) -> Path:
    write_key_folder(folder, KeyPair(*zmq.curve_keypair()))
    return folder


@pytest.fixture
def publisher_keys(tmp_path: Path) -> Path:
    return new_keys(tmp_path / "publisher")


def client_keys(publisher: Path, name: str, *, right: str | None) -> Path:
    """A subscriber's key folder, its public key put into the publisher's where it has a right."""
    folder = new_keys(publisher.parent / name)
    if right is not None:
        place = publisher / "authorised" / ("control" if right == "control" else "")
        shutil.copy(folder / "leukostream.key", place / f"{name}.key")
    return folder


def with_keys(keys: Path, controls: ScriptedControls | None = None, endpoint: str = "tcp://127.0.0.1:*") -> Served:
    def make() -> Publisher:
        publisher = Publisher(endpoint, keys=keys, flush_ms=0)
        publisher.obey(controls or ScriptedControls())
        publisher.publish(make_factory().differential(make_differential(4)))
        return publisher

    return Served(make)


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
def test_who_is_authorised_reads_and_who_has_the_right_commands(
    publisher_keys: Path, tmp_path: Path, transport: str
) -> None:
    reader = client_keys(publisher_keys, "reader", right="read")
    owner = client_keys(publisher_keys, "owner", right="control")
    controls = ScriptedControls()
    endpoint = "tcp://127.0.0.1:*" if transport == "tcp" else f"ipc://{tmp_path}/socket"
    with with_keys(publisher_keys, controls, endpoint) as server:
        for keys, may in ((reader, False), (owner, True)):
            public = publisher_keys / "leukostream.key"
            with Subscriber(server.endpoint, keys=keys, server_key=public) as subscriber:
                received = subscriber.receive(PATIENCE_S)
                assert received is not None
                assert received.topic == "differential.cam"
                reply = subscriber.ask(request_of(Pause), PATIENCE_S)
                assert isinstance(reply, DoneReply if may else RefusedReply)
        assert [by for _, by in controls.done] == ["owner"]


def test_a_key_that_is_not_authorised_is_refused_and_counted(publisher_keys: Path) -> None:
    stranger = client_keys(publisher_keys, "stranger", right=None)
    with (
        with_keys(publisher_keys) as server,
        Subscriber(server.endpoint, keys=stranger, server_key=publisher_keys / "leukostream.key") as subscriber,
    ):
        with pytest.raises(RefusedError, match=r"got our key refused.*give its owner"):
            subscriber.receive(PATIENCE_S)
        assert server.do(lambda publisher: publisher.health().refused["key not authorised"]) >= 1


def test_no_key_and_a_wrong_server_key_are_refused(publisher_keys: Path) -> None:
    reader = client_keys(publisher_keys, "reader", right="read")
    with with_keys(publisher_keys) as server:
        with Subscriber(server.endpoint) as subscriber, pytest.raises(RefusedError, match="it may want --keys"):
            subscriber.receive(PATIENCE_S)
        with (
            Subscriber(server.endpoint, keys=reader, server_key=reader / "leukostream.key") as subscriber,
            pytest.raises(RefusedError, match="--server-key is not the publisher's"),
        ):
            subscriber.receive(PATIENCE_S)
        assert server.do(lambda publisher: publisher.health().refused["handshake failed"]) >= 2


def test_keys_may_come_and_go_while_it_runs(publisher_keys: Path) -> None:
    with with_keys(publisher_keys) as server:
        reader = client_keys(publisher_keys, "late", right="read")
        public = publisher_keys / "leukostream.key"
        with Subscriber(server.endpoint, keys=reader, server_key=public) as subscriber:
            assert subscriber.receive(PATIENCE_S) is not None
        shutil.rmtree(publisher_keys / "authorised")
        with (
            Subscriber(server.endpoint, keys=reader, server_key=public) as subscriber,
            pytest.raises(RefusedError),
        ):
            subscriber.receive(PATIENCE_S)


def test_a_key_folder_is_private_and_never_overwritten(tmp_path: Path) -> None:
    folder = new_keys(tmp_path / "a" / "keys")
    assert [oct(path.stat().st_mode & 0o777) for path in (folder, folder / "leukostream.key_secret")] == [
        "0o700",
        "0o600",
    ]
    pair = read_key_pair(folder)
    assert read_public_key(folder / "leukostream.key") == pair.public
    assert pair.secret.decode() not in repr(pair)
    with pytest.raises(UsageError, match=r"leukostream\.key_secret, which exists"):
        new_keys(folder)
    assert read_key_pair(folder) == pair


def spoil_mode(folder: Path) -> None:
    (folder / "leukostream.key_secret").chmod(0o640)


def spoil_text(folder: Path) -> None:
    (folder / "leukostream.key_secret").write_text("-----BEGIN PRIVATE KEY-----")


def spoil_key(folder: Path) -> None:
    (folder / "leukostream.key_secret").write_text('public-key = "short"\nsecret-key = "short"\n')


def spoil_nothing_there(folder: Path) -> None:
    (folder / "leukostream.key_secret").unlink()


def spoil_no_folder(folder: Path) -> None:
    shutil.rmtree(folder / "authorised")


def spoil_authorised(folder: Path) -> None:
    (folder / "authorised" / "colleague.key").write_text("secret-key = 7")


def spoil_authorised_mode(folder: Path) -> None:
    (folder / "authorised" / "control").chmod(0o777)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_mode, "got permissions 0640, expected 0600.*chmod 600"),
        (spoil_text, "got what is no key file, expected public-key"),
        (spoil_key, "got something else as public-key, expected 40 characters"),
        (spoil_nothing_there, "No such file.*leukostream keys new"),
        (spoil_no_folder, "got no such folder.*leukostream keys new"),
        (spoil_authorised, r"colleague\.key: got nothing as public-key"),
        (spoil_authorised_mode, "others may write to.*chmod go-w"),
    ],
)
def test_bad_key_folders_are_refused_at_the_start(
    publisher_keys: Path, spoil: Callable[[Path], None], said: str
) -> None:
    spoil(publisher_keys)
    with pytest.raises(UsageError, match=said):
        Publisher("tcp://127.0.0.1:*", keys=publisher_keys)


def test_a_folder_that_becomes_bad_lets_nobody_in(publisher_keys: Path) -> None:
    reader = client_keys(publisher_keys, "reader", right="read")
    keys = AuthorisedKeys(publisher_keys)
    public = read_public_key(reader / "leukostream.key")
    assert keys.look_up(public) is not None
    spoil_authorised(publisher_keys)
    assert keys.look_up(public) is None
    os.remove(publisher_keys / "authorised" / "colleague.key")
    assert keys.look_up(public) is not None


def test_keys_are_asked_for_beyond_this_machine_and_control_too(publisher_keys: Path) -> None:
    with Publisher("tcp://*:*", keys=publisher_keys) as publisher:
        assert publisher.endpoint.startswith("tcp://0.0.0.0:")
    with pytest.raises(UsageError, match="anyone could give commands; expected --keys DIR"):
        Publisher("tcp://*:*", insecure=True, control=True)
    with pytest.raises(UsageError, match="got --keys alone, expected both or neither"):
        Subscriber("tcp://127.0.0.1:5555", keys=publisher_keys)


@pytest.mark.parametrize("control", [False, True])
def test_without_keys_commands_are_an_option_of_the_publisher(control: bool) -> None:
    def make() -> Publisher:
        publisher = Publisher("tcp://127.0.0.1:*", control=control)
        publisher.obey(ScriptedControls())
        publisher.publish(make_factory().differential(make_differential(4)))
        return publisher

    with Served(make) as server, Subscriber(server.endpoint) as subscriber:
        status = subscriber.ask(request_of(StatusRequest), PATIENCE_S)
        assert status is not None
        assert getattr(status, "may_control", None) is control
        reply = subscriber.ask(request_of(Pause), PATIENCE_S)
        assert isinstance(reply, DoneReply if control else RefusedReply)


def test_connections_are_bounded() -> None:
    with Served(lambda: Publisher("tcp://127.0.0.1:*", connections_max=4)) as server:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        sockets = [context.socket(zmq.SUB) for _ in range(12)]
        for socket in sockets:
            socket.connect(server.endpoint)
        wait_for(lambda: server.do(lambda publisher: publisher.health().refused.get("too many connections", 0)) >= 8)
        context.destroy(linger=0)
        wait_for(lambda: server.do(lambda publisher: publisher.health().connections) == 0)
        with Subscriber(server.endpoint) as subscriber:  # there is room again
            assert subscriber.ask(request_of(SnapshotRequest), PATIENCE_S) is not None


def test_a_peer_that_is_cut_off_by_its_heartbeat() -> None:
    """A TCP peer that speaks ZeroMQ's greeting and then falls silent, as a half-open connection does."""
    with Served(lambda: Publisher("tcp://127.0.0.1:*", heartbeat_ms=50)) as server:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        raw = context.socket(zmq.STREAM)
        raw.connect(server.endpoint)
        identity = raw.recv_multipart()[0]
        greeting = b"\xff" + bytes(7) + b"\x01\x7f\x03\x00NULL" + bytes(16) + b"\x00" + bytes(31)
        ready = b"\x05READY\x0bSocket-Type\x00\x00\x00\x03SUB"
        raw.send_multipart([identity, greeting + b"\x04" + bytes([len(ready)]) + ready])
        wait_for(lambda: server.do(lambda publisher: publisher.health().connections) == 1)
        wait_for(lambda: server.do(lambda publisher: publisher.health().connections) == 0)
        context.destroy(linger=0)


def test_who_does_not_take_replies_is_counted_and_holds_nobody_up() -> None:
    with Served(lambda: Publisher("tcp://127.0.0.1:*")) as server:
        server.publish(*slide(make_factory(), 300))
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        greedy = context.socket(zmq.DEALER)
        greedy.setsockopt(zmq.RCVHWM, 1)
        greedy.setsockopt(zmq.RCVBUF, 4096)
        greedy.connect(server.service_endpoint)
        request = json.dumps(
            {"request": "replay", "version": "1.0", "id": "1", "session": "slide-1", "after": -1, "topics": [""]}
        ).encode()
        for _ in range(900):
            greedy.send(request)
        with Subscriber(server.endpoint) as subscriber:
            assert isinstance(subscriber.ask(request_of(SnapshotRequest), PATIENCE_S), SnapshotReply)
        wait_for(lambda: server.do(lambda publisher: publisher.health().refused.get("reply not taken", 0)) > 0)
        context.destroy(linger=0)


def test_a_stalled_subscriber_costs_counted_messages_only() -> None:
    factory = make_factory()
    with Served(lambda: Publisher("tcp://127.0.0.1:*", high_water_mark=20, flush_ms=0)) as server:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        stalled = context.socket(zmq.SUB)
        stalled.setsockopt(zmq.RCVHWM, 1)
        stalled.setsockopt(zmq.RCVBUF, 4096)
        stalled.subscribe(b"frame.")
        stalled.connect(server.endpoint)
        with Subscriber(server.endpoint, ["differential."]) as subscriber:
            while not server.do(lambda p: p.wants("frame", "cam") and p.wants("differential", "cam")):
                pass
            for _ in range(40):
                server.publish(*slide(factory, 60))
            last = factory.differential(make_differential(9, final=True))
            server.publish(last, factory.health(make_health()))
            while subscriber.state() != last:
                subscriber.receive(0.05)
        lost = server.do(lambda publisher: publisher.health().lost)
        assert lost["frame"] > 0
        context.destroy(linger=0)
