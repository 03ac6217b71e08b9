"""Threads on one engine while another closes it, in whatever order: right numbers or our error, nothing left."""

from __future__ import annotations

import threading
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from engines.backends.tensorrt import runtime
from engines.backends.tensorrt.runtime import TensorRTEngine
from engines.base import EngineError

from ..tensorrt_double import World
from .test_runtime import FRAMES, check, load

AFTER_CLOSE = "engine: got a call after close, expected none; load the model again"
JOIN_S = 60.0
"""A thread that has not ended by then waits for ever."""

Script = list[tuple[str, int, int]]
scripts = st.lists(
    st.lists(st.tuples(st.sampled_from("sid"), st.integers(0, 5), st.integers(1, 6)), min_size=1, max_size=4),
    min_size=1,
    max_size=3,
)


def follow(engine: TensorRTEngine, script: Script, after: Callable[[], None], faults: list[str]) -> None:
    """One thread's calls: (s)ubmit and collect, (i)nfer, submit and (d)iscard, each on `size` frames from `start`."""
    try:
        for action, start, size in script:
            stop = min(start + size, len(FRAMES))
            if action == "i":
                check(engine.infer({"images": FRAMES[start:stop]}), start, stop)
            else:
                stop = min(stop, start + engine.max_batch)
                ticket = engine.submit({"images": FRAMES[start:stop]})
                if action == "s":
                    check(engine.collect(ticket), start, stop)
                else:
                    engine.discard(ticket)
            after()
    except EngineError as error:
        faults.append(str(error))
    except BaseException as error:
        faults.append(f"{type(error).__name__}: {error}")


def run_all(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(JOIN_S)
    assert [thread.name for thread in threads if thread.is_alive()] == []


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1 << 30), slots=st.integers(1, 3), parts=scripts, close_after=st.integers(0, 8))
def test_closing_while_others_work(seed: int, slots: int, parts: list[Script], close_after: int) -> None:
    """The engine is closed when `close_after` calls are done, or all of them, by a thread of its own."""
    world = World(seed=seed)
    engine = load(world, slots=slots)
    done = threading.Semaphore(0)
    faults: list[str] = []
    workers = [threading.Thread(target=follow, args=(engine, part, done.release, faults)) for part in parts]
    calls = min(close_after, sum(map(len, parts)))

    def close() -> None:
        for _ in range(calls):
            done.acquire()
        engine.close()

    closers = [threading.Thread(target=close, name="closer")]
    run_all([*workers, *closers])
    assert set(faults) <= {AFTER_CLOSE}
    if calls == sum(map(len, parts)):
        assert faults == []
    world.check_clean()


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 1 << 30),
    order=st.permutations(["first", "second", "third"]),
    pending=st.sets(st.sampled_from(["first", "second", "third"])),
    how=st.lists(st.sampled_from(["close", "drop", "exit"]), min_size=3, max_size=3),
)
def test_engines_end_in_any_order_and_way(seed: int, order: list[str], pending: set[str], how: list[str]) -> None:
    """Closed, dropped, or left for the end of the program; with batches still on their streams or not."""
    world = World(seed=seed)
    engines = {name: load(world) for name in ("first", "second", "third")}
    for name in pending:
        engines[name].submit({"images": FRAMES[:2]})
    for name, way in zip(order, how, strict=True):
        engine = engines.pop(name)
        if way == "close":
            engine.close()
        elif way == "exit":
            runtime._close_all()  # closes all that are open; those left find themselves closed
        del engine
    world.check_clean()  # collects what only a cycle still holds
    assert world.used_bytes == 0


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1 << 30), lost_after=st.integers(0, 6), parts=scripts)
def test_a_gpu_that_is_lost_while_others_work(seed: int, lost_after: int, parts: list[Script]) -> None:
    world = World(seed=seed)
    engine = load(world, slots=2)
    done = threading.Semaphore(0)
    faults: list[str] = []
    calls = min(lost_after, sum(map(len, parts)))

    def lose() -> None:
        for _ in range(calls):
            done.acquire()
        world.lost = "an illegal memory access was encountered"

    workers = [threading.Thread(target=follow, args=(engine, part, done.release, faults)) for part in parts]
    run_all([*workers, threading.Thread(target=lose, name="loser")])
    assert all("illegal memory access" in fault and "start again" in fault for fault in faults)
    world.lost = None  # so that the double can look at what is left
    engine.close()
    world.check_clean()


def test_a_thread_that_waits_for_a_slot_while_the_gpu_is_lost_is_told() -> None:
    world = World()
    engine = load(world, slots=1)
    ticket = engine.submit({"images": FRAMES[:1]})
    faults: list[str] = []
    waiter = threading.Thread(target=follow, args=(engine, [("i", 0, 1)], lambda: None, faults))
    waiter.start()
    world.lost = "unspecified launch failure"
    follow_up: list[str] = []
    try:
        engine.collect(ticket)
    except EngineError as error:
        follow_up.append(str(error))
    waiter.join(JOIN_S)
    assert not waiter.is_alive()
    assert len(faults) == len(follow_up) == 1
    assert "unspecified launch failure" in faults[0]
    world.lost = None
    engine.close()
    world.check_clean()
