from __future__ import annotations

import threading
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.records import Frame
from streamer.run.batcher import Batcher, Gathering, InOrder, SequencedFrame, Wait
from streamer.run.ring import Ring
from tests.streamer.sources.scripted import frame

MS = 1_000_000


def rings(*sizes: int, capacity: int = 8) -> dict[str, Ring[Frame]]:
    """Rings "a", "b" … with so many frames each, captured at 0, 1, 2 … ms."""
    made: dict[str, Ring[Frame]] = {}
    for name, size in zip("abcdef", sizes, strict=False):
        made[name] = Ring(capacity, "block")
        for number in range(size):
            assert made[name].put(frame(number, number * MS, name), timeout=0)
    return made


def shown(batch: list[SequencedFrame[Frame]] | Wait | None) -> list[str]:
    assert isinstance(batch, list), batch
    return [f"{item.frame.source}{item.order}" for item in batch]


def test_a_full_batch_is_ready_at_once_and_sources_take_turns() -> None:
    gathering = Gathering(rings(8, 2, 3), max_frames=4, max_wait_ms=1000)
    assert shown(gathering.step(0)) == ["a0", "b0", "c0", "a1"]
    assert shown(gathering.step(0)) == ["b1", "c1", "a2", "c2"]
    assert shown(gathering.step(0)) == ["a3", "a4", "a5", "a6"]


def test_a_part_of_a_batch_waits_for_its_oldest_frame() -> None:
    made = rings(0, 2)
    gathering = Gathering(made, max_frames=4, max_wait_ms=5)
    assert gathering.step(2 * MS) == Wait(3 * MS)
    made["a"].put(frame(0, 2 * MS, "a"))
    assert gathering.step(4 * MS) == Wait(1 * MS)
    assert shown(gathering.step(5 * MS)) == ["a0", "b0", "b1"]
    assert gathering.step(6 * MS) == Wait(None)


def test_no_wait_where_nothing_more_can_come() -> None:
    full = Gathering(rings(2, 2, capacity=2), max_frames=8, max_wait_ms=1000)
    assert shown(full.step(0)) == ["a0", "b0", "a1", "b1"]
    made = rings(2, 0)
    closed = Gathering(made, max_frames=8, max_wait_ms=1000)
    assert isinstance(closed.step(0), Wait)
    for ring in made.values():
        ring.close()
    assert shown(closed.step(0)) == ["a0", "a1"]
    assert closed.step(0) is None


def test_no_wait_at_all() -> None:
    gathering = Gathering(rings(1), max_frames=8, max_wait_ms=0)
    assert shown(gathering.step(0)) == ["a0"]


def by_letter(frame: Frame) -> str:
    """ "a" and "c" are of one size, "b" and "d" of another."""
    return "odd" if frame.source in "ac" else "even"


def test_a_batch_is_of_one_group() -> None:
    gathering = Gathering(rings(3, 3, 3, 1), max_frames=4, max_wait_ms=1000, group=by_letter)
    assert shown(gathering.step(0)) == ["a0", "c0", "a1", "c1"]
    assert shown(gathering.step(0)) == ["d0", "b0", "b1", "b2"]
    assert gathering.step(2 * MS) == Wait(1000 * MS)
    assert shown(gathering.step(1002 * MS)) == ["c2", "a2"]


def test_the_oldest_frame_that_is_due_goes_before_a_full_group() -> None:
    made = rings(6, 0)
    made["b"].put(frame(0, -10 * MS, "b"))
    gathering = Gathering(made, max_frames=3, max_wait_ms=5, group=by_letter)
    assert shown(gathering.step(0)) == ["b0"]
    assert shown(gathering.step(0)) == ["a0", "a1", "a2"]


def test_frames_of_one_source_that_change_their_group_stay_in_order() -> None:
    gathering = Gathering(rings(6), max_frames=4, max_wait_ms=0, group=lambda frame: frame.frame_id // 2)
    assert [shown(gathering.step(9 * MS)) for _ in range(3)] == [["a0", "a1"], ["a2", "a3"], ["a4", "a5"]]


def test_a_live_source_that_has_just_given_a_frame_is_not_waited_for() -> None:
    made = rings(1, 1)
    gathering = Gathering(made, max_frames=8, max_wait_ms=1000, live=["a", "b"])
    assert shown(gathering.step(0)) == ["a0", "b0"]
    made["a"].put(frame(1, 0, "a"))
    assert gathering.step(0) == Wait(1000 * MS)  # the other camera may give one


def test_a_batch_holds_at_least_one_frame() -> None:
    with pytest.raises(ValueError, match="max_frames: got 0"):
        Gathering(rings(1), max_frames=0, max_wait_ms=0)


@given(
    sizes=st.lists(st.integers(0, 8), min_size=1, max_size=4),
    max_frames=st.integers(1, 9),
    live=st.booleans(),
    groups=st.integers(1, 3),
    times_ms=st.lists(st.integers(0, 5), max_size=20),
)
def test_every_frame_comes_once_in_order(
    sizes: list[int], max_frames: int, live: bool, groups: int, times_ms: list[int]
) -> None:
    made = rings(*sizes)

    def group(frame: Frame) -> int:
        return "abcd".index(frame.source) % groups

    gathering = Gathering(made, max_frames=max_frames, max_wait_ms=3, live=["a"] if live else [], group=group)
    for ring in made.values():
        ring.close()
    now_ms = 0
    taken: list[SequencedFrame[Frame]] = []
    for step_ms in [*times_ms, *[0] * sum(sizes), 0]:
        now_ms += step_ms
        batch = gathering.step(now_ms * MS)
        if batch is None:
            break
        assert isinstance(batch, list)
        assert 1 <= len(batch) <= max_frames
        assert len({group(item.frame) for item in batch}) == 1
        spread = Counter(item.frame.source for item in batch)
        assert all(
            len(made[name]) == 0 or spread[name] >= max(spread.values()) - 1
            for name in made
            if "abcd".index(name) % groups == group(batch[0].frame)
        )
        taken += batch
    assert gathering.step(now_ms * MS) is None
    for name, size in zip(made, sizes, strict=True):
        mine = [item for item in taken if item.frame.source == name]
        assert [item.order for item in mine] == list(range(len(mine)))
        ids = [item.frame.frame_id for item in mine]
        assert ids == sorted(ids)
        assert len(ids) == size


def test_the_front_tells_a_timeout_from_the_end() -> None:
    made = rings(1)
    batcher = Batcher(made, now_ns=lambda: 10 * MS, max_frames=1, max_wait_ms=0)
    assert shown(batcher.next_batch(0)) == ["a0"]
    assert batcher.next_batch(0) == []
    made["a"].close()
    assert batcher.next_batch() is None


def test_several_workers_get_every_frame_once() -> None:
    made = rings(0, 0, capacity=3)
    batcher = Batcher(made, now_ns=lambda: 10**15, max_frames=4, max_wait_ms=0)
    got: list[list[SequencedFrame[Frame]]] = [[], [], []]

    def produce(name: str) -> None:
        for number in range(150):
            assert made[name].put(frame(number, 0, name))
        made[name].close()

    def work(into: list[SequencedFrame[Frame]]) -> None:
        while (batch := batcher.next_batch()) is not None:
            into.extend(batch)

    threads = [threading.Thread(target=produce, args=(name,)) for name in made]
    threads += [threading.Thread(target=work, args=(into,)) for into in got]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    every = sorted((item.frame.source, item.order, item.frame.frame_id) for into in got for item in into)
    assert every == [(name, number, number) for name in "ab" for number in range(150)]


def test_a_waiting_worker_hears_of_the_end() -> None:
    made = rings(0)
    batcher = Batcher(made, now_ns=lambda: 0, max_frames=1, max_wait_ms=0)
    answers: list[object] = []
    worker = threading.Thread(target=lambda: answers.append(batcher.next_batch()))
    worker.start()
    made["a"].close()
    worker.join(30)
    assert answers == [None]


def test_a_frame_that_is_not_ready_holds_up_its_source_alone() -> None:
    ready = {"b"}
    gathering = Gathering(rings(2, 3), max_frames=2, max_wait_ms=0, is_ready=lambda one: one.source in ready)
    assert shown(gathering.step(9 * MS)) == ["b0", "b1"]
    assert gathering.is_held_up
    assert shown(gathering.step(9 * MS)) == ["b2"]
    assert gathering.step(9 * MS) == Wait(None)
    ready.add("a")
    assert shown(gathering.step(9 * MS)) == ["a0", "a1"]
    assert not gathering.is_held_up


def test_workers_that_wait_for_a_frame_to_become_ready_look_again() -> None:
    made, asked, ready = rings(1), threading.Event(), threading.Event()

    def is_ready(one: Frame) -> bool:
        asked.set()
        return ready.is_set()

    batcher = Batcher(made, now_ns=lambda: 0, max_frames=1, max_wait_ms=0, is_ready=is_ready)
    answers: list[list[SequencedFrame[Frame]] | None] = []
    worker = threading.Thread(target=lambda: answers.append(batcher.next_batch()), daemon=True)
    worker.start()
    assert asked.wait(30)
    ready.set()
    batcher.look_again()  # it waits by now: it asks and begins to wait under one lock
    worker.join(30)
    assert [shown(one) for one in answers] == [["a0"]]


@given(st.permutations([(name, order) for name in "ab" for order in range(6)]))
def test_results_come_back_in_order(finished: list[tuple[str, int]]) -> None:
    back: InOrder[int] = InOrder()
    out: dict[str, list[int]] = {"a": [], "b": []}
    for name, order in finished:
        out[name] += back.put(name, order, order)
        assert out[name] == list(range(len(out[name])))
    assert out == {"a": list(range(6)), "b": list(range(6))}
    assert back.waiting == 0


def test_a_result_comes_once() -> None:
    back: InOrder[str] = InOrder()
    assert back.put("a", 1, "x") == []
    assert back.waiting == 1
    with pytest.raises(ValueError, match="got order 1 twice"):
        back.put("a", 1, "x")
    assert back.put("a", 0, "y") == ["y", "x"]
    with pytest.raises(ValueError, match="got order 0 twice"):
        back.put("a", 0, "y")
