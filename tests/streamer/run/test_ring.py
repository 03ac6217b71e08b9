from __future__ import annotations

import threading
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.records import QUEUE_FULL
from streamer.run.ring import Policy, Ring

STEPS = st.lists(st.sampled_from(["put", "put", "get", "peek", "clear", "close"]), max_size=60)


@given(steps=STEPS, capacity=st.integers(1, 5), policy=st.sampled_from(["block", "drop_oldest"]))
def test_any_order_of_calls_matches_the_model(steps: list[str], capacity: int, policy: Policy) -> None:
    ring: Ring[int] = Ring(capacity, policy)
    model: deque[int] = deque()
    closed = False
    taken: list[int] = []
    full = cleared = refused = 0
    for number, step in enumerate(steps):
        if step == "put":
            accepted = ring.put(number, timeout=0)
            if closed or (policy == "block" and len(model) == capacity):
                assert not accepted
                refused += 1
                continue
            assert accepted
            if len(model) == capacity:
                model.popleft()
                full += 1
            model.append(number)
        elif step == "get":
            got = ring.get(timeout=0)
            assert got == (model.popleft() if model else None)
            if got is not None:
                taken.append(got)
        elif step == "peek":
            assert ring.peek() == (model[0] if model else None)
        elif step == "clear":
            assert ring.clear("stopped") == len(model)
            cleared += len(model)
            model.clear()
        else:
            ring.close()
            closed = True
        assert len(ring) == len(model) <= capacity
        assert ring.full == (len(model) == capacity)
        assert ring.closed == closed
        assert ring.drained == (closed and not model)
    assert taken == sorted(taken)
    assert ring.dropped == {reason: n for reason, n in ((QUEUE_FULL, full), ("stopped", cleared)) if n}
    assert steps.count("put") == len(taken) + len(model) + full + cleared + refused


def test_block_loses_nothing_between_real_threads() -> None:
    ring: Ring[tuple[int, int]] = Ring(3, "block")
    got: list[list[tuple[int, int]]] = [[], []]

    def produce(who: int) -> None:
        for number in range(200):
            assert ring.put((who, number))

    def consume(into: list[tuple[int, int]]) -> None:
        while (item := ring.get()) is not None:
            into.append(item)

    producers = [threading.Thread(target=produce, args=(who,)) for who in range(2)]
    consumers = [threading.Thread(target=consume, args=(into,)) for into in got]
    for thread in producers + consumers:
        thread.start()
    for thread in producers:
        thread.join(30)
    ring.close()
    for thread in consumers:
        thread.join(30)
    assert sorted(got[0] + got[1]) == [(who, number) for who in range(2) for number in range(200)]
    assert ring.dropped == {}
    for into in got:
        for who in range(2):
            numbers = [number for source, number in into if source == who]
            assert numbers == sorted(numbers)


def test_drop_oldest_keeps_the_newest_of_a_burst() -> None:
    ring: Ring[int] = Ring(2, "drop_oldest")
    assert all(ring.put(number) for number in range(100))
    assert [ring.get(0), ring.get(0), ring.get(0)] == [98, 99, None]
    assert ring.dropped == {QUEUE_FULL: 98}


@pytest.mark.parametrize("waiting", ["put", "get"])
def test_close_wakes_who_waits(waiting: str) -> None:
    ring: Ring[int] = Ring(1, "block")
    if waiting == "put":
        ring.put(0)
    answers: list[object] = []
    thread = threading.Thread(target=lambda: answers.append(ring.put(1) if waiting == "put" else ring.get()))
    thread.start()
    ring.close()
    thread.join(30)
    assert answers == [False if waiting == "put" else None]
    assert ring.get(0) == (0 if waiting == "put" else None)


def test_listeners_hear_of_items_and_the_end() -> None:
    ring: Ring[int] = Ring(1, "drop_oldest")
    heard: list[int] = []
    ring.listen(lambda: heard.append(len(ring)))
    ring.put(1)
    ring.put(2)
    ring.close()
    assert not ring.put(3)
    assert heard == [1, 1, 1]


def test_a_ring_holds_at_least_one() -> None:
    with pytest.raises(ValueError, match="capacity: got 0"):
        Ring(0, "block")
