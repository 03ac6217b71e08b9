"""What is passed on, what waits, and what is given up where too much waits."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from streamer.bridge.buffer import Buffer
from streamer.bridge.events import Event, Selection, kinds_of
from tests.streamer.bridge.bridge_cases import KINDS, differential, event, factory, received, session
from tests.streamer.protocol.message_cases import frame_message, make_cell, make_health


def kinds(events: list[Event | None]) -> list[str | None]:
    return [None if one is None else one.kind for one in events]


def test_frames_and_what_a_target_does_not_want_are_not_passed_on() -> None:
    make = factory()
    selection = Selection(kinds_of(cells=False), health_every_s=0.0)
    messages = [frame_message(make), make.cell(make_cell()), differential(make), make.health(make_health())]
    assert kinds([selection.take(received(one), 0.0) for one in messages]) == [None, None, "differential", "health"]


def test_health_is_thinned_by_source_and_comes_at_once_after_an_end() -> None:
    cam, bench = factory(), factory("bench")
    selection = Selection(KINDS, health_every_s=10.0)
    taken = [
        selection.take(received(make.health(make_health())), now_s)
        for make, now_s in [(cam, 0.0), (cam, 9.9), (bench, 9.9), (cam, 10.0)]
    ]
    assert kinds(taken) == ["health", None, "health", "health"]
    selection.take(received(cam.end("finished", "")), 11.0)
    assert selection.take(received(cam.health(make_health())), 11.0) is not None


def test_an_end_has_the_result_of_its_own_session() -> None:
    make = factory()
    selection = Selection(KINDS, health_every_s=0.0)
    last = differential(make, 7, final=True)
    selection.take(received(last), 0.0)
    end = selection.take(received(make.end("finished", "")), 0.0)
    assert end is not None
    assert end.result == last
    other = selection.take(received(msgspec.structs.replace(make.end("finished", ""), session="slide-2")), 0.0)
    assert other is not None
    assert other.result is None


def test_a_source_falls_silent_once_unless_it_has_ended() -> None:
    cam, bench = factory(), factory("bench")
    selection = Selection(KINDS, health_every_s=0.0, silent_after_s=30.0, going_on=["gone"], now_s=0.0)
    selection.take(received(cam.health(make_health())), 10.0)
    selection.take(received(bench.end("finished", "")), 10.0)
    assert [one.source for one in selection.silent(29.9)] == []
    assert [one.source for one in selection.silent(30.0)] == ["gone"]
    assert [one.source for one in selection.silent(1000.0)] == ["cam"]
    assert selection.silent(2000.0) == []
    selection.take(received(cam.health(make_health())), 2000.0)
    assert [one.source for one in selection.silent(2030.0)] == ["cam"]


def test_a_source_with_a_name_that_is_no_part_of_a_topic_is_refused_and_counted() -> None:
    selection = Selection(KINDS, health_every_s=0.0)
    message = msgspec.structs.replace(differential(factory()), source="a/#")
    assert selection.take(replace(received(message)), 0.0) is None
    assert selection.refused == 1


def test_only_the_newest_state_waits_and_cells_ends_and_final_results_all_do() -> None:
    make = factory()
    buffer = Buffer()
    for message in session(make, cells=3):
        buffer.put(event(message))
    waiting = []
    while (one := buffer.pop()) is not None:
        waiting.append((one.kind, one.message.session_seq))
    assert waiting == [
        ("cell", 1),
        ("cell", 3),
        ("cell", 5),
        ("differential", 6),
        ("differential", 7),
        ("health", 8),
        ("end", 9),
    ]
    assert buffer.superseded == 3
    assert not buffer.lost


def test_a_full_buffer_gives_up_the_oldest_cell_and_an_end_last() -> None:
    make = factory()
    buffer = Buffer(most=3)
    for message in [
        make.end("finished", ""),
        make.cell(make_cell(1)),
        make.cell(make_cell(2)),
        make.cell(make_cell(3)),
    ]:
        buffer.put(event(message))
    assert buffer.lost == {"buffer full": 1}
    assert [one.message.session_seq for one in iter(buffer.pop, None)] == [0, 2, 3]
    ends = [make.end("finished", "") for _ in range(4)]
    for message in ends:
        buffer.put(event(message))
    assert [one.message for one in iter(buffer.pop, None)] == ends[1:]
    assert buffer.lost == {"buffer full": 2}
