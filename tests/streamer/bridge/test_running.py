"""From a streamer to a target: at least once, in order, and on where an earlier bridge ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.base import LeukostreamError
from streamer.bridge.base import RejectedError, UnavailableError
from streamer.bridge.buffer import Buffer
from streamer.bridge.cursor import Cursor
from tests.streamer.bridge.bridge_cases import ScriptedTarget, differential, factory, run_bridge, session, streamer
from tests.streamer.protocol.message_cases import frame_message, make_cell, make_health


def seqs(target: ScriptedTarget) -> list[int]:
    return [one.message.session_seq for one in target.taken]


def test_a_session_from_its_beginning_though_the_bridge_came_late(tmp_path: Path) -> None:
    target = ScriptedTarget()
    with streamer() as server:
        server.publish(*session(factory(), cells=4))
        bridge = run_bridge(server.endpoint, target, tmp_path / "cursor")
    # A differential may be replaced by a newer one while it waits; nothing else is.
    assert [one.message.session_seq for one in target.taken if one.kind == "cell"] == [1, 3, 5, 7]
    assert seqs(target) == sorted(set(seqs(target)))
    assert (target.taken[-1].kind, target.taken[-1].message.session_seq) == ("end", 11)
    assert len(target.taken) + bridge.buffer.superseded == 12
    assert target.closed
    assert bridge.lost() == {}


def test_a_restarted_bridge_goes_on_where_it_was(tmp_path: Path) -> None:
    make, first, second = factory(), ScriptedTarget(), ScriptedTarget()
    with streamer() as server:
        server.publish(*(make.cell(make_cell(number)) for number in range(5)), make.health(make_health()))
        run_bridge(server.endpoint, first, tmp_path / "cursor", until=lambda: len(first.taken) == 6)
        server.publish(
            *(make.cell(make_cell(number)) for number in range(5, 9)),
            differential(make, 9, final=True),
            make.end("finished", ""),
        )
        bridge = run_bridge(server.endpoint, second, tmp_path / "cursor")
    assert seqs(first) == [0, 1, 2, 3, 4, 5]
    assert seqs(second) == [6, 7, 8, 9, 10, 11]
    assert bridge.lost() == {}


def test_a_restarted_bridge_has_the_rest_of_the_slide_before_too(tmp_path: Path) -> None:
    old, first, second = factory(), ScriptedTarget(), ScriptedTarget()
    with streamer() as server:
        server.publish(old.cell(make_cell(0)), old.health(make_health()))
        run_bridge(server.endpoint, first, tmp_path / "cursor", until=lambda: len(first.taken) == 2)
        server.publish(old.cell(make_cell(1)), old.end("finished", "new slide"))
        new = factory()
        new.go_on_from(old)
        new.session = "slide-2"
        server.publish(new.cell(make_cell(0)), new.health(make_health()), new.end("finished", ""))
        run_bridge(server.endpoint, second, tmp_path / "cursor")
    assert second.keys == ["slide-1.2", "slide-1.3", "slide-2.0", "slide-2.1", "slide-2.2"]


def test_what_was_not_delivered_is_delivered_after_a_restart(tmp_path: Path) -> None:
    first = ScriptedTarget([UnavailableError("got nothing, expected a broker")] * 100_000)
    second = ScriptedTarget()
    remarks: list[str] = []
    with streamer() as server:
        server.publish(*session(factory(), cells=2))
        run_bridge(
            server.endpoint, first, tmp_path / "cursor", until=lambda: remarks, remark=remarks.append, linger_s=0.0
        )
        run_bridge(server.endpoint, second, tmp_path / "cursor")
    assert first.taken == []
    assert remarks[0] == "got nothing, expected a broker; trying again, what comes waits meanwhile"
    assert "the next start asks the streamer for them again" in remarks[-1]
    assert [one.kind for one in second.taken if one.kind in ("cell", "end")] == ["cell", "cell", "end"]


def test_a_target_that_is_away_for_a_while_gets_all_and_is_told_of_once(tmp_path: Path) -> None:
    target = ScriptedTarget([UnavailableError("away")] * 5)
    remarks: list[str] = []
    with streamer() as server:
        server.publish(*session(factory(), cells=2))
        run_bridge(server.endpoint, target, tmp_path / "cursor", remark=remarks.append)
    assert [one.kind for one in target.taken if one.kind in ("cell", "end")] == ["cell", "cell", "end"]
    assert len(remarks) == 1


def test_what_a_target_does_not_take_is_counted_and_the_rest_goes_on(tmp_path: Path) -> None:
    target = ScriptedTarget([RejectedError("not this one")])
    remarks: list[str] = []
    with streamer() as server:
        server.publish(*session(factory(), cells=2))
        bridge = run_bridge(server.endpoint, target, tmp_path / "cursor", remark=remarks.append)
    assert bridge.lost() == {"rejected": 1}
    assert remarks == ["not this one"]
    assert target.taken[-1].kind == "end"


def test_what_no_retry_can_mend_ends_the_bridge(tmp_path: Path) -> None:
    target = ScriptedTarget([LeukostreamError("got our password refused")])
    with streamer() as server:
        server.publish(*session(factory()))
        with pytest.raises(LeukostreamError, match="our password refused"):
            run_bridge(server.endpoint, target, tmp_path / "cursor")
    assert target.closed


def test_a_full_buffer_loses_the_oldest_cells_counted_and_never_the_end(tmp_path: Path) -> None:
    make, buffer = factory(), Buffer(most=4)
    target = ScriptedTarget([UnavailableError("away")] * 100_000)
    remarks: list[str] = []

    def is_full() -> bool:
        if buffer.lost["buffer full"] >= 5:
            target.faults.clear()
        return "end" in [one.kind for one in target.taken]

    with streamer() as server:
        server.publish(
            make.health(make_health()), *(make.cell(make_cell(n)) for n in range(9)), make.end("finished", "")
        )
        bridge = run_bridge(
            server.endpoint, target, tmp_path / "cursor", until=is_full, buffer=buffer, remark=remarks.append
        )
    lost = bridge.lost()["buffer full"]
    assert lost >= 5
    assert len([one for one in target.taken if one.kind == "cell"]) == 9 - lost
    assert sum("buffer is full" in line for line in remarks) == 1


def test_a_streamer_without_an_end_is_left_when_it_is_told_to(tmp_path: Path) -> None:
    target = ScriptedTarget()
    make = factory()
    with streamer() as server:
        server.publish(frame_message(make), differential(make))
        run_bridge(server.endpoint, target, tmp_path / "cursor", until=lambda: target.taken)
    assert Cursor(tmp_path / "cursor").going_on == ["cam"]


def test_after_an_end_nothing_goes_on(tmp_path: Path) -> None:
    with streamer() as server:
        server.publish(*session(factory()))
        run_bridge(server.endpoint, ScriptedTarget(), tmp_path / "cursor")
    assert Cursor(tmp_path / "cursor").going_on == []


def test_a_cursor_that_is_none_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "cursor").write_text("[1, 2")
    with pytest.raises(LeukostreamError, match=r"expected what a bridge has delivered; remove it to begin anew"):
        Cursor(tmp_path / "cursor")
