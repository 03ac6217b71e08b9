"""Peers that send nonsense: nothing crashes, grows, or is done that was not asked for in whole."""

from __future__ import annotations

import contextlib
import json
import random
import socket as unix
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.network.gap_repair import Answer, GapRepair
from streamer.network.history import ReplayWindow
from streamer.network.publisher import Publisher
from streamer.network.service import Peer, RequestHandler
from streamer.network.subscriber import Subscriber
from streamer.protocol.messages import WireError, encode, topic_of
from streamer.protocol.requests import (
    REQUEST_TYPES,
    AnyRequest,
    DoneReply,
    NewSlide,
    Pause,
    Reclassify,
    RefusedReply,
    ReplayReply,
    Resume,
    SnapshotReply,
    SnapshotRequest,
    StopAt,
    decode_reply,
    decode_request,
    encode_request,
)
from tests.streamer.network.service_cases import (
    PATIENCE_S,
    ScriptedControls,
    Served,
    encoded,
    request_of,
    slide,
    wait_for,
)
from tests.streamer.protocol.message_cases import Clock, make_factory


def mutations(count: int, seed: int) -> Iterator[list[bytes]]:
    """Requests with bytes changed, cut, joined, repeated, and parts added."""
    rng = random.Random(seed)
    fields = {"session": "slide-1", "after": 3, "topics": ["cell."], "cells": 20, "cell_id": 1, "class": "monocyte"}
    base = {"version": "1.0", "id": "1", "run_id": "run-1", "source": "cam", **fields}
    valid = [json.dumps({"request": name, **base}).encode() for name in REQUEST_TYPES]
    for _ in range(count):
        text = bytearray(rng.choice(valid))
        for _ in range(rng.randint(0, 4)):
            at = rng.randrange(len(text) + 1)
            kind = rng.randrange(4)
            if kind == 0 and at < len(text):
                text[at] = rng.randrange(256)
            elif kind == 1:
                del text[at : at + rng.randint(1, 9)]
            elif kind == 2:
                text[at:at] = rng.choice([b"{", b"[", b'"', b"\\u0000", b"9" * 30, b"null", b"\xff", b"-1", b"e999"])
            else:
                text += text[at : at + 200]
        parts = [bytes(text[:4000])]
        while rng.random() < 0.1:
            parts.insert(rng.randrange(len(parts) + 1), rng.choice([b"", b"x", b"\0" * 300]))
        yield parts


def fuzz(count: int, seed: int) -> None:
    controls = ScriptedControls()

    def make() -> Publisher:
        publisher = Publisher("tcp://127.0.0.1:*")
        publisher.obey(controls)
        return publisher

    with Served(make) as server:
        server.publish(*slide(make_factory(), 20))
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        hostile = context.socket(zmq.DEALER)
        hostile.connect(server.service_endpoint)
        replies = 0
        for number, parts in enumerate(mutations(count, seed)):
            hostile.send_multipart(parts)
            while number - replies >= 4:
                assert hostile.poll(1000 * PATIENCE_S)
                hostile.recv_multipart()
                replies += 1
        while replies < count:
            assert hostile.poll(1000 * PATIENCE_S)
            hostile.recv_multipart()
            replies += 1
        context.destroy(linger=0)
        assert controls.done == []  # it has no right to command
        health = server.do(lambda publisher: publisher.health())
        assert health.requests == count
        assert health.refused["malformed"] > count // 3
        with Subscriber(server.endpoint) as subscriber:
            assert isinstance(subscriber.ask(request_of(SnapshotRequest), PATIENCE_S), SnapshotReply)


def test_mutated_requests_each_get_a_reply_and_do_nothing() -> None:
    fuzz(3_000, seed=1)


def test_of_mutated_commands_only_whole_ones_are_carried_out() -> None:
    """The right to command is no right to anything else: what is done is a command that decodes, once for each id."""
    controls = ScriptedControls()
    clock = Clock()
    desk = RequestHandler(ReplayWindow(10**6), now_ns=clock)
    desk.controls = controls
    for message in slide(make_factory(), 20):
        desk.record(message, [topic_of(message).encode(), encode(message)])
    done = 0
    for number, parts in enumerate(mutations(5_000, seed=4)):
        clock.now_ns += 1_000_000_000
        parts = [part.replace(b'"id": "1"', b'"id": "%d"' % number) for part in parts]
        reply = decode_reply(desk.answer(parts, Peer("owner", True))[0])
        done += isinstance(reply, DoneReply) and not reply.repeated
    assert len(controls.done) == done > 500
    kinds = {type(command) for command, _ in controls.done}
    assert kinds == {Pause, Resume, NewSlide, StopAt, Reclassify}
    for command, by in controls.done:
        assert decode_request(encode_request(command)) == command
        assert (by, command.run_id) == ("owner", "run-1")


def test_bytes_that_are_no_zeromq_at_all_do_no_harm() -> None:
    rng = random.Random(5)
    with Served(lambda: Publisher("tcp://127.0.0.1:*")) as server:
        for endpoint in (server.endpoint, server.service_endpoint) * 20:
            with unix.create_connection(("127.0.0.1", int(endpoint.rpartition(":")[2]))) as raw:
                raw.sendall(rng.choice([b"", b"\xff" + bytes(9), b"GET / HTTP/1.1\r\n\r\n"]) + rng.randbytes(500))
        server.publish(*slide(make_factory(), 20))
        with Subscriber(server.endpoint) as subscriber:
            assert isinstance(subscriber.ask(request_of(SnapshotRequest), PATIENCE_S), SnapshotReply)
        wait_for(lambda: server.do(lambda publisher: publisher.health().connections) == 0)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_subscriber_takes_whatever_a_publisher_sends_or_says_that_it_is_no_message(data: st.DataObject) -> None:
    core = GapRepair([""], replay=True, history=data.draw(st.booleans()))
    for message in slide(make_factory(), 12):
        parts = [topic_of(message).encode(), bytearray(encode(message))]
        if data.draw(st.booleans()):
            at = data.draw(st.integers(0, len(parts[1]) - 1))
            parts[1][at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))  # type: ignore[index]
        if data.draw(st.integers(0, 3)) == 0:
            continue  # lost
        with contextlib.suppress(WireError):
            steps = core.take([bytes(part) for part in parts])
            asked = next(steps, None)
            for _ in range(20):
                if asked is None:
                    break
                reply = data.draw(st.sampled_from([None, _refused(asked), _replay(asked, [b"a", b"{}"], 2**40)]))
                try:
                    asked = steps.send(reply)
                except StopIteration:
                    break
    assert core.lost >= 0
    assert all(isinstance(received.message.seq, int) for received in core.ready)


def _refused(request: AnyRequest) -> Answer:
    return RefusedReply(id=request.id, run_id="run-1", code="too old", reason="older ones are no longer kept"), []


def _replay(request: AnyRequest, parts: list[bytes], last: int) -> Answer:
    through = getattr(request, "after", 0) + 1
    reply = ReplayReply(id=request.id, run_id="run-1", session="s", through=through, last=last, messages=[len(parts)])
    return reply, parts


@pytest.mark.slow
def test_many_mutated_requests_leave_no_memory_behind() -> None:
    def resident_kib() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4

    fuzz(5_000, seed=2)
    before = resident_kib()
    fuzz(100_000, seed=3)
    assert resident_kib() - before < 8_000


def test_a_message_that_is_too_long_cuts_its_sender_off() -> None:
    with Served(lambda: Publisher("tcp://127.0.0.1:*")) as server:
        server.publish(*slide(make_factory(), 20))
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        hostile = context.socket(zmq.DEALER)
        hostile.connect(server.service_endpoint)
        hostile.send(encoded(SnapshotRequest))
        assert hostile.poll(1000 * PATIENCE_S)
        hostile.recv_multipart()
        hostile.send(b"x" * 1_000_000)
        time.sleep(0.05)
        hostile.send(encoded(SnapshotRequest))
        assert hostile.poll(1000 * PATIENCE_S)  # reconnected by itself, served as before
        context.destroy(linger=0)
        assert server.do(lambda publisher: publisher.health().requests) >= 2
