"""The runtime on the double: numbers, slots, splitting, errors and every order of shutting down."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.backends.tensorrt.errors import DeviceLostError, OutOfMemoryError, PlanError
from engines.backends.tensorrt.libraries import Libraries
from engines.backends.tensorrt.log import LogLines, says_no_memory
from engines.backends.tensorrt.runtime import TensorRTEngine, Ticket
from engines.base import Engine, EngineError, ModelFormatError, TensorMismatchError
from tests.engines.networks import Array, run
from tests.engines.small_detector import detector, pictures

from ..tensorrt_double import World
from ..tensorrt_double.trt import pack

MODEL = detector()
FRAMES = pictures(9)
EXPECTED = run(MODEL, {"images": FRAMES})


def plan(world: World, *, batches: tuple[int, int, int] = (1, 2, 4), **header: object) -> bytes:
    profile = {"images": [(batch, *FRAMES.shape[1:]) for batch in batches]}
    defaults = {
        "version": world.version,
        "gpu": [world.gpu, list(world.compute_capability)],
        "profile": profile,
        "version_compatible": False,
        "hardware_compatible": False,
        "detailed": False,
    }
    return pack({**defaults, **header}, MODEL.SerializeToString())


def load(world: World, *, slots: int = 2, batches: tuple[int, int, int] = (1, 2, 4), **options: Any) -> TensorRTEngine:
    libraries = Libraries(world.trt, world.cuda)
    return TensorRTEngine(plan(world, batches=batches), libraries=libraries, slots=slots, **options)


@pytest.fixture(params=["pycuda", "cuda-bindings"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """A machine with a GPU, through each of the two bindings of CUDA."""
    world = World(binding=request.param)
    yield world
    world.check_clean()


def check(outputs: dict[str, Array], start: int, stop: int) -> None:
    for name, expected in zip(("boxes", "scores", "classes"), EXPECTED, strict=True):
        np.testing.assert_array_equal(outputs[name], expected[start:stop])


def test_is_an_engine_and_says_what_it_is(world: World) -> None:
    engine = load(world, slots=3, precision="fp16")
    assert isinstance(engine, Engine)
    assert (engine.backend, engine.concurrency, engine.max_batch) == ("tensorrt fp16", 3, 4)
    assert [(spec.name, spec.shape, spec.dtype) for spec in engine.inputs] == [("images", (None, 64, 96, 3), np.uint8)]
    assert [(spec.name, spec.shape, spec.dtype) for spec in engine.outputs] == [
        ("boxes", (None, 50, 4), np.float32),
        ("scores", (None, 50), np.float32),
        ("classes", (None, 50), np.int64),
    ]
    assert engine.device_memory_bytes == 3 * ((1 << 20) + 4 * (64 * 96 * 3 + 50 * (16 + 4 + 8)))
    engine.close()


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 8, 9])
def test_any_batch_gives_the_numbers_of_the_model(world: World, rows: int) -> None:
    engine = load(world)
    check(engine.infer({"images": FRAMES[:rows]}), 0, rows)
    check(engine.infer({"images": FRAMES[9 - rows :]}), 9 - rows, 9)
    engine.close()


def test_outputs_belong_to_the_caller(world: World) -> None:
    engine = load(world, slots=1)
    first = engine.infer({"images": FRAMES[:2]})
    engine.infer({"images": FRAMES[2:4]})
    engine.close()
    check(first, 0, 2)
    assert all(array.base is None for array in first.values())


def test_a_batch_under_the_smallest_of_the_profile_is_filled_up(world: World) -> None:
    engine = load(world, batches=(3, 4, 4))
    check(engine.infer({"images": FRAMES[:1]}), 0, 1)
    check(engine.infer({"images": FRAMES[:5]}), 0, 5)
    engine.close()


def test_slots_are_on_their_streams_at_once(world: World) -> None:
    engine = load(world, slots=3)
    tickets = [engine.submit({"images": FRAMES[i : i + 1]}) for i in range(3)]
    assert world.most_queued_streams == 3
    for i in (2, 0, 1):
        check(engine.collect(tickets[i]), i, i + 1)
    engine.close()


def test_splitting_uses_the_slots_side_by_side(world: World) -> None:
    engine = load(world, slots=2)
    engine.infer({"images": FRAMES[:8]})
    assert world.most_queued_streams == 2
    engine.close()


def test_feeds_are_free_after_submit(world: World) -> None:
    engine = load(world)
    frames = FRAMES[:2].copy()
    ticket = engine.submit({"images": frames})
    frames[:] = 0
    check(engine.collect(ticket), 0, 2)
    engine.close()


def test_a_ticket_is_collected_once(world: World) -> None:
    engine, other = load(world), load(world)
    ticket = engine.submit({"images": FRAMES[:1]})
    with pytest.raises(EngineError, match="got one that was collected or is another engine's"):
        other.collect(ticket)
    engine.collect(ticket)
    for again in (engine.collect, engine.discard):
        with pytest.raises(EngineError, match="expected each one once"):
            again(ticket)
    with pytest.raises(EngineError, match="expected each one once"):
        engine.collect(Ticket(9, 1, 1))
    engine.close()
    other.close()


def test_discard_frees_the_slot(world: World) -> None:
    engine = load(world, slots=1)
    engine.discard(engine.submit({"images": FRAMES[:1]}))
    check(engine.infer({"images": FRAMES[:3]}), 0, 3)
    engine.close()


def test_times_of_the_streams(world: World) -> None:
    engine = load(world, record_times=True)
    tickets = [engine.submit({"images": FRAMES[:1]}) for _ in range(2)]
    for ticket in tickets:
        outputs, times = engine.collect_timed(ticket)
        check(outputs, 0, 1)
        marks = [*times.copy_in, *times.compute, *times.copy_out]
        assert marks == sorted(marks)
        assert marks[0] < marks[-1]
    engine.close()
    plain = load(world)
    with pytest.raises(EngineError, match="expected one with record_times=True"):
        plain.collect_timed(plain.submit({"images": FRAMES[:1]}))
    plain.close()


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({"images": FRAMES[:0]}, r"batch: got \{'images': 0\}, expected one size of 1 or more"),
        ({"images": FRAMES[:1, :32]}, r"input 'images': got uint8 \(1, 32, 96, 3\), expected uint8 \(N,64,96,3\)"),
        ({"images": FRAMES[:1].astype(np.float32)}, "got float32"),
        ({}, r"inputs: got \[\]"),
    ],
)
def test_wrong_feeds(world: World, feeds: dict[str, Array], message: str) -> None:
    engine = load(world)
    with pytest.raises(TensorMismatchError, match=message):
        engine.infer(feeds)
    check(engine.infer({"images": FRAMES[:1]}), 0, 1)
    engine.close()


def test_submit_does_not_split(world: World) -> None:
    engine = load(world)
    with pytest.raises(TensorMismatchError, match="batch: got 5, expected at most 4 in one submit"):
        engine.submit({"images": FRAMES[:5]})
    engine.close()


def test_many_threads_share_the_slots(world: World) -> None:
    engine = load(world, slots=2)

    def work(i: int) -> None:
        start = i % 4
        check(engine.infer({"images": FRAMES[start : start + 1 + i % 6]}), start, start + 1 + i % 6)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(60)))
    engine.close()


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1 << 30),
    slots=st.integers(1, 3),
    script=st.lists(st.tuples(st.sampled_from("scdi"), st.integers(0, 8), st.integers(1, 9)), max_size=14),
)
def test_any_interleaving_gives_the_right_numbers(seed: int, slots: int, script: list[tuple[str, int, int]]) -> None:
    """Submit, collect in any order, discard and infer, while streams work early or late as they like."""
    world = World(seed=seed)
    engine = load(world, slots=slots)
    waiting: list[tuple[Ticket, int, int]] = []
    for action, where, size in script:
        start, stop = min(where, 8), min(9, where + size)
        if action == "s" and len(waiting) < slots:
            stop = min(stop, start + 4)
            waiting.append((engine.submit({"images": FRAMES[start:stop]}), start, stop))
        elif action == "c" and waiting:
            ticket, start, stop = waiting.pop(where % len(waiting))
            check(engine.collect(ticket), start, stop)
        elif action == "d" and waiting:
            engine.discard(waiting.pop(where % len(waiting))[0])
        elif action == "i" and len(waiting) < slots:
            check(engine.infer({"images": FRAMES[start:stop]}), start, stop)
    engine.close()
    world.check_clean()


# Shutting down


def test_close_twice_and_use_after(world: World) -> None:
    engine = load(world)
    ticket = engine.submit({"images": FRAMES[:1]})
    engine.close()
    engine.close()
    for call in (lambda: engine.infer({"images": FRAMES[:1]}), lambda: engine.collect(ticket)):
        with pytest.raises(EngineError, match="got a call after close"):
            call()


def test_an_engine_that_nobody_closed_frees_itself(world: World) -> None:
    load(world).infer({"images": FRAMES[:1]})
    gc.collect()
    assert world.used_bytes == 0


def test_closing_from_another_thread(world: World) -> None:
    engine = load(world)
    engine.submit({"images": FRAMES[:1]})
    closer = threading.Thread(target=engine.close)
    closer.start()
    closer.join()
    assert world.used_bytes == 0


def test_closing_wakes_those_who_wait_for_a_slot(world: World) -> None:
    engine = load(world, slots=1)
    engine.submit({"images": FRAMES[:1]})
    caught: list[str] = []
    entered = threading.Event()

    def wait() -> None:
        entered.set()
        try:
            engine.infer({"images": FRAMES[:1]})
        except EngineError as error:
            caught.append(str(error))

    waiter = threading.Thread(target=wait)
    waiter.start()
    entered.wait()
    engine.close()
    waiter.join()
    assert caught == ["engine: got a call after close, expected none; load the model again"]


def test_two_engines_close_in_any_order(world: World) -> None:
    first, second = load(world), load(world)
    first.infer({"images": FRAMES[:1]})
    first.close()
    check(second.infer({"images": FRAMES[:2]}), 0, 2)
    second.close()


def test_another_librarys_context_stays_current(world: World) -> None:
    """A thread in which PyTorch, say, has made its context current."""
    torchs = world.cuda.Device(0).retain_primary_context()
    torchs.push()
    pushed = list(world.stack)
    engine = load(world)
    engine.infer({"images": FRAMES[:6]})
    engine.close()
    assert world.stack == pushed
    world.cuda.Context.pop()


# What fails


def test_a_full_gpu(world: World) -> None:
    world.total_bytes = 200_000
    with pytest.raises(OutOfMemoryError, match=r"GPU 0: no memory for .*MiB are free.*fewer slots, a smaller batch"):
        load(world, slots=8)
    assert world.used_bytes == 0


@pytest.mark.parametrize("after", range(8))
def test_memory_that_ends_at_any_allocation_leaks_nothing(world: World, after: int) -> None:
    world.fail["mem_alloc"] = after
    with pytest.raises(OutOfMemoryError):
        load(world, slots=2)
    assert world.used_bytes == 0


def test_a_context_that_can_not_be_made(world: World) -> None:
    world.fail["create_execution_context"] = 1
    with pytest.raises(OutOfMemoryError, match=r"no memory for an execution context .*OutOfMemory \(Requested size"):
        load(world)


@pytest.mark.parametrize(
    "line",
    [
        "Error Code 2: OutOfMemory (Requested size was 1 bytes.)",
        "Requested amount of GPU memory (1073741824 bytes) could not be allocated.",
        "Error Code 1: Cuda Runtime (out of memory)",
        "cudaErrorMemoryAllocation",
        "(cudaError 2: out of memory)",
        "Insufficient GPU memory",
    ],
)
def test_tensorrts_words_for_no_memory(line: str) -> None:
    assert says_no_memory(line)
    assert not says_no_memory("Error Code 1: Cuda Runtime (cudaError 35: CUDA driver version is insufficient)")


def test_a_refused_batch_leaves_the_engine_working(world: World) -> None:
    engine = load(world, slots=1)
    world.fail["execute_async_v3"] = 0
    with pytest.raises(EngineError, match=r"TensorRT refused a batch of 1: .*enqueueV3"):
        engine.infer({"images": FRAMES[:1]})
    del world.fail["execute_async_v3"]
    check(engine.infer({"images": FRAMES[1:4]}), 1, 4)
    engine.close()


def test_a_failure_in_the_middle_of_a_split_batch_gives_all_slots_back(world: World) -> None:
    engine = load(world, slots=2)
    world.fail["execute_async_v3"] = 2
    with pytest.raises(EngineError, match="TensorRT refused"):
        engine.infer({"images": FRAMES})
    del world.fail["execute_async_v3"]
    for ticket in [engine.submit({"images": FRAMES[:1]}) for _ in range(2)]:
        check(engine.collect(ticket), 0, 1)
    engine.close()


def test_a_lost_gpu_says_so_from_then_on(world: World) -> None:
    engine = load(world)
    ticket = engine.submit({"images": FRAMES[:1]})
    world.lost = "an illegal memory access was encountered"
    with pytest.raises(DeviceLostError, match=r"GPU 0: running a batch failed .*illegal memory access.*start again"):
        engine.collect(ticket)
    with pytest.raises(DeviceLostError, match="start again"):
        engine.infer({"images": FRAMES[:1]})
    world.lost = None  # so that the double can look at what is left
    engine.close()


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (b"garbage", r"plan of 7 bytes: TensorRT 11\.4\.0\.106 can't load it \(.*Magic tag does not match\)"),
        (b"", "plan of 0 bytes"),
        (plan(World())[:-500], "the plan is truncated"),
        (plan(World(version="11.3.0.99")), "not compatible with this version of TensorRT"),
        (plan(World(gpu="Another GPU")), "generated on an incompatible device"),
        (plan(World(compute_capability=(8, 6))), "generated on an incompatible device"),
    ],
    ids=["garbage", "empty", "truncated", "version", "gpu", "capability"],
)
def test_plans_that_do_not_load(world: World, broken: bytes, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        TensorRTEngine(broken, libraries=Libraries(world.trt, world.cuda))


def test_a_version_compatible_plan_of_an_older_release_loads(world: World) -> None:
    old = plan(World(version="11.0.0.114"), version_compatible=True)
    engine = TensorRTEngine(old, libraries=Libraries(world.trt, world.cuda), host_code_allowed=True)
    check(engine.infer({"images": FRAMES[:1]}), 0, 1)
    engine.close()


def test_a_runtime_that_does_not_start(world: World) -> None:
    world.fail["Runtime"] = 0
    with pytest.raises(PlanError, match=r"TensorRT does not start .*nullptr.*doctor"):
        load(world)


def test_no_memory_to_load_a_plan(world: World) -> None:
    world.fail["deserialize_cuda_engine"] = 0
    with pytest.raises(OutOfMemoryError, match=r"no memory for loading the plan \(Requested amount of GPU memory"):
        load(world)


def test_another_engine_hears_of_its_own_failures(world: World) -> None:
    """TensorRT keeps the first logger it was given, whatever it is given later."""
    first = load(world)
    with pytest.raises(PlanError, match="Magic tag does not match"):
        TensorRTEngine(b"garbage", libraries=Libraries(world.trt, world.cuda))
    first.close()


def test_errors_are_told_however_many_warnings_follow() -> None:
    lines = LogLines()
    lines.add(True, "the error")
    for number in range(200):
        lines.add(False, f"warning {number}")
    assert lines.errors() == "the error"
    assert lines.warnings()[-1] == "warning 199"
    lines.clear()
    assert (lines.errors(), lines.warnings()) == ("no message", ())


# Before the first frame


def test_every_slot_is_warm_before_the_first_batch(world: World) -> None:
    """Each size of the profile, on each slot; else a camera's first frames would wait for kernels to be loaded."""
    engine = load(world, slots=2)
    assert world.launches == 2 * 3
    check(engine.infer({"images": FRAMES[:3]}), 0, 3)
    assert world.launches == 2 * 3 + 1
    assert not engine.captured
    engine.close()


def test_a_static_batch_is_one_graph_launch() -> None:
    world = World(binding="cuda-bindings")
    engine = load(world, slots=2, batches=(4, 4, 4), record_times=True)
    assert engine.captured
    launched = world.launches
    for rows in (4, 2, 9):
        check(engine.infer({"images": FRAMES[:rows]}), 0, rows)
    assert (world.launches, world.graph_launches) == (launched, 2 + 1 + 1 + 3)
    outputs, times = engine.collect_timed(engine.submit({"images": FRAMES[4:8]}))
    check(outputs, 4, 8)
    assert times.compute[0] <= times.compute[1]
    engine.close()
    world.check_clean()


@pytest.mark.parametrize("binding", ["pycuda", "cuda-bindings"])
def test_where_nothing_can_be_captured_batches_run_as_before(binding: str) -> None:
    world = World(binding=binding)
    world.fail["cuStreamEndCapture"] = 0
    engine = load(world, slots=1, batches=(4, 4, 4))
    assert not engine.captured
    check(engine.infer({"images": FRAMES[:4]}), 0, 4)
    assert world.graph_launches == 0
    engine.close()
    world.check_clean()


def test_tensors_that_are_no_batch_are_refused(world: World) -> None:
    world.host_tensors.add("scores")
    with pytest.raises(ModelFormatError, match=r"tensor 'scores': got .*expected a batch of numbers on the GPU"):
        load(world)
    assert world.used_bytes == 0


def test_no_slots_are_refused(world: World) -> None:
    with pytest.raises(ValueError, match="slots: got 0"):
        load(world, slots=0)


def test_a_gpu_that_is_not_there(world: World) -> None:
    with pytest.raises(EngineError, match="device 3: got 1 GPUs, expected a number from 0 to 0"):
        load(world, device=3)
