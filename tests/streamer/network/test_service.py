"""Requests in, replies out, without sockets: nothing a peer sends goes without one reply."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.network.history import ReplayWindow
from streamer.network.service import COMMANDS_PER_S, Peer, RequestHandler
from streamer.protocol.messages import encode, topic_of
from streamer.protocol.requests import (
    REQUEST_MAX_BYTES,
    REQUEST_TYPES,
    AnyReply,
    DoneReply,
    NewSlide,
    Pause,
    RefusedReply,
    ReplayReply,
    ReplayRequest,
    Resume,
    SnapshotReply,
    SnapshotRequest,
    StatusReply,
    StatusRequest,
    StopAt,
    decode_reply,
)
from tests.streamer.network.service_cases import ScriptedControls, encoded, slide
from tests.streamer.protocol.message_cases import Clock, make_differential, make_factory, one_of_each

OWNER, READER = Peer("owner", True), Peer("reader", False)


class Desk:
    def __init__(self) -> None:
        self.clock = Clock()
        self.controls = ScriptedControls()
        self.desk = RequestHandler(ReplayWindow(10**7), now_ns=self.clock)
        self.desk.controls = self.controls

    def ask(self, *request: bytes, peer: Peer = OWNER) -> tuple[Any, list[bytes]]:
        reply, *rest = self.desk.answer(request, peer)
        return decode_reply(reply), rest

    def refusal(self, *request: bytes, peer: Peer = OWNER) -> str:
        reply, rest = self.ask(*request, peer=peer)
        assert isinstance(reply, RefusedReply)
        assert rest == []
        assert reply.reason
        return reply.code


@pytest.fixture
def desk() -> Desk:
    desk = Desk()
    for message in slide(make_factory(), 30):
        desk.desk.record(message, [topic_of(message).encode(), encode(message)])
    return desk


def test_a_snapshot_is_the_newest_of_every_source(desk: Desk) -> None:
    other = make_factory("bench").differential(make_differential(7))
    desk.desk.record(other, [b"differential.bench", encode(other)])
    reply, _ = desk.ask(encoded(SnapshotRequest), peer=READER)
    assert isinstance(reply, SnapshotReply)
    cam, bench = reply.sources["cam"], reply.sources["bench"]
    assert (cam.session, cam.session_seq, cam.oldest_session_seq) == ("slide-1", 52, 0)
    assert cam.last_seq == {"frame": 29, "cell": 9, "differential": 9, "health": 2}
    assert cam.differential is not None
    assert cam.differential.total == 10
    assert cam.health is not None
    assert (bench.differential, bench.health, reply.run_id) == (other, None, "run-1")


def test_before_the_first_message_there_is_nothing_and_that_is_said() -> None:
    reply, _ = Desk().ask(encoded(SnapshotRequest, id="mine"))
    assert reply == SnapshotReply(id="mine", run_id=None, sources={})


def test_a_replay_gives_the_very_bytes_again(desk: Desk) -> None:
    messages = slide(make_factory(), 30)
    reply, parts = desk.ask(encoded(ReplayRequest, session="slide-1", after=9, topics=["cell.", "health."]))
    assert isinstance(reply, ReplayReply)
    wanted = [m for m in messages if m.session_seq > 9 and topic_of(m).startswith(("cell.", "health."))]
    assert parts == [part for m in wanted for part in (topic_of(m).encode(), encode(m))]
    assert reply.messages == [2] * len(wanted)
    assert (reply.through, reply.last) == (52, 52)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"session": "another"}, "unknown session"),
        ({"after": 500}, "future"),
        ({"topics": []}, "malformed"),
        ({"topics": [""] * 33}, "malformed"),
        ({"after": -2}, "malformed"),
        ({"session": "x" * 129}, "malformed"),
    ],
)
def test_replays_that_can_not_be(desk: Desk, fields: dict[str, Any], code: str) -> None:
    assert desk.refusal(encoded(ReplayRequest, **{"session": "slide-1", "after": 0, "topics": [""], **fields})) == code
    assert desk.desk.refused == {code: 1}


@pytest.mark.parametrize(
    ("kind", "fields"),
    [(Pause, {}), (Resume, {}), (NewSlide, {}), (StopAt, {"cells": 100})],
)
def test_commands_are_carried_out_and_acknowledged(desk: Desk, kind: Any, fields: dict[str, Any]) -> None:
    reply, _ = desk.ask(encoded(kind, id="one", **fields))
    assert reply == DoneReply(id="one", run_id="run-1", state=desk.controls.state, repeated=False)
    assert [(type(command), by) for command, by in desk.controls.done] == [(kind, "owner")]


def test_commands_need_the_right(desk: Desk) -> None:
    assert desk.refusal(encoded(Pause), peer=READER) == "not permitted"
    assert desk.controls.done == []


def test_a_command_given_again_is_carried_out_once(desk: Desk) -> None:
    command = encoded(Pause)
    first, again = desk.ask(command)[0], desk.ask(command)[0]
    assert (first.repeated, again.repeated) == (False, True)
    assert len(desk.controls.done) == 1
    assert desk.desk.refused == {"repeated": 1}


def test_a_refusal_is_repeated_too(desk: Desk) -> None:
    command = encoded(StopAt, cells=13)
    assert [desk.refusal(command), desk.refusal(command)] == ["not possible"] * 2


def test_an_id_is_for_one_command(desk: Desk) -> None:
    desk.ask(encoded(Pause, id="one"))
    assert desk.refusal(encoded(Resume, id="one")) == "id reused"
    assert desk.refusal(encoded(Pause, id="one", source="bench")) == "id reused"
    assert len(desk.controls.done) == 1


def test_a_command_to_an_earlier_run_is_refused(desk: Desk) -> None:
    assert desk.refusal(encoded(Pause, run_id="run-0")) == "another run"


def test_commands_come_at_a_bounded_rate(desk: Desk) -> None:
    codes = [desk.ask(encoded(Pause))[0] for _ in range(COMMANDS_PER_S + 5)]
    assert sum(isinstance(reply, DoneReply) for reply in codes) == COMMANDS_PER_S
    assert desk.desk.refused == {"too many": 5}
    desk.clock.now_ns += 1_000_000_000
    assert isinstance(desk.ask(encoded(Pause))[0], DoneReply)


def test_status_says_what_may_be_done(desk: Desk) -> None:
    reply, _ = desk.ask(encoded(StatusRequest), peer=READER)
    assert reply == StatusReply(id=reply.id, run_id="run-1", may_control=False, sources={"cam": desk.controls.state})
    assert desk.ask(encoded(StatusRequest))[0].may_control


def test_without_controls_commands_are_refused(desk: Desk) -> None:
    desk.desk.controls = None
    assert desk.refusal(encoded(Pause)) == "no control"


MALFORMED = [
    (),
    (b"",),
    (b"hello",),
    (b"[]",),
    (b"{}",),
    (b"\xff\xfe",),
    (b'{"request": "snapshot"}',),
    (b'{"request": "snapshot", "id": "1"}',),
    (b'{"request": "erase", "id": "1"}',),
    (b'{"request": "snapshot", "id": ""}',),
    (b'{"request": "snapshot", "id": 7}',),
    (b"[" * 4000,),
    (b'{"id":' * 600,),
    (b'{"request": "snapshot", "id": "1"}', b"more"),
    (b'{"request": "snapshot", "id": "1", "x": "' + b"x" * REQUEST_MAX_BYTES + b'"}',),
]


@pytest.mark.parametrize("request_", MALFORMED)
def test_what_is_no_request(desk: Desk, request_: tuple[bytes, ...]) -> None:
    assert desk.refusal(*request_) == "malformed"


def test_another_major_is_refused_and_unknown_fields_of_a_minor_are_ignored(desk: Desk) -> None:
    assert desk.refusal(b'{"request": "snapshot", "id": "1", "version": "3.0"}') == "version"
    reply, _ = desk.ask(b'{"request": "snapshot", "id": "1", "version": "1.7", "colour": "red"}')
    assert isinstance(reply, SnapshotReply)


def test_the_refusal_carries_the_id_where_it_can_be_read(desk: Desk) -> None:
    assert desk.ask(b'{"request": "erase", "id": "mine", "version": "1.0"}')[0].id == "mine"


VALID = [
    {"request": name, "version": "1.0", "id": "1", "run_id": "run-1", "source": "cam", "session": "slide-1",
     "after": 3, "topics": ["cell."], "cells": 20, "cell_id": 1, "class": "monocyte"}
    for name in REQUEST_TYPES
]  # fmt: skip
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20), lambda v: st.lists(v, max_size=3)
)


@settings(deadline=None)
@given(base=st.sampled_from(VALID), changes=st.dictionaries(st.sampled_from(sorted(VALID[0])), values, max_size=3))
def test_every_mutated_request_gets_one_reply(base: dict[str, Any], changes: dict[str, Any]) -> None:
    desk = Desk()
    for message in one_of_each(make_factory()):
        desk.desk.record(message, [topic_of(message).encode(), encode(message)])
    reply: AnyReply = desk.ask(json.dumps({**base, **changes}).encode())[0]
    assert reply.version == "2.0"


def test_a_command_that_an_earlier_run_carried_out_is_not_carried_out_again(desk: Desk) -> None:
    command = encoded(Pause, id="before", run_id="run-0")
    assert desk.refusal(command) == "another run"
    desk.controls.earlier.add(("before", "owner"))
    reply, _ = desk.ask(command)
    assert isinstance(reply, DoneReply)
    assert (reply.repeated, reply.run_id, desk.controls.done) == (True, "run-1", [])
    assert desk.refusal(command, peer=Peer("another", True)) == "another run"
