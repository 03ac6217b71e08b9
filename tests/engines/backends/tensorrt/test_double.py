"""That the double refuses what it says it refuses: each rule broken once, on purpose."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from tests.engines.small_detector import detector, pictures

from ..tensorrt_double import ANSWERS, REFUSALS, Refused, World
from ..tensorrt_double.trt import ILogger, pack

FRAMES = pictures(2)


class Logger(ILogger):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def log(self, severity: object, msg: str) -> None:
        self.lines.append(msg)


class Bench:
    """One context by hand, as a careless program would use it."""

    def __init__(self, version_compatible: bool = False) -> None:
        self.world = World()
        self.cuda = self.world.cuda
        self.cuda.Device(0).retain_primary_context().push()
        header = {
            "version": self.world.version,
            "gpu": [self.world.gpu, list(self.world.compute_capability)],
            "profile": {"images": [(1, 64, 96, 3), (2, 64, 96, 3), (2, 64, 96, 3)]},
            "version_compatible": version_compatible,
            "hardware_compatible": False,
            "detailed": False,
        }
        self.plan = pack(header, detector().SerializeToString())
        self.logger = Logger()
        self.world.trt.init_libnvinfer_plugins(self.logger, "")
        runtime = self.world.trt.Runtime(self.logger)
        self.engine = runtime.deserialize_cuda_engine(self.plan)
        assert self.engine is not None
        self.context = self.engine.create_execution_context()
        self.context.set_input_shape("images", FRAMES.shape)
        self.stream = self.cuda.Stream(1)
        self.buffers = {}
        for name in self.engine.names:
            size = FRAMES.nbytes if name == "images" else self.context.get_max_output_size(name)
            self.buffers[name] = self.cuda.mem_alloc(size)
            self.context.set_tensor_address(name, int(self.buffers[name]))
        self.host = self.cuda.pagelocked_empty(FRAMES.shape, np.uint8)
        self.host[:] = FRAMES


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.world.stack.clear()


def refused(rule: str, text: str) -> pytest.RaisesExc[Refused]:
    def is_rule(error: Refused) -> bool:
        return error.rule == rule and REFUSALS[rule][0] in str(error)

    return pytest.RaisesExc(Refused, match=text, check=is_rule)


def test_an_address_not_set(bench: Bench) -> None:
    del bench.context._addresses["scores"]
    with refused("address", "tensor 'scores' has no address"):
        bench.context.execute_async_v3(bench.stream.handle)


def test_an_address_that_is_not_aligned(bench: Bench) -> None:
    with refused("alignment", "is not aligned"):
        bench.context.set_tensor_address("images", int(bench.buffers["images"]) + 4)


def test_a_buffer_too_small(bench: Bench) -> None:
    small = bench.cuda.mem_alloc(100)
    bench.context.set_tensor_address("images", int(small))
    with refused("size", "'images' needs 36864 bytes, got 100"):
        bench.context.execute_async_v3(bench.stream.handle)


def test_a_host_buffer_written_while_its_copy_is_queued(bench: Bench) -> None:
    bench.cuda.memcpy_htod_async(bench.buffers["images"], bench.host, bench.stream)
    bench.host[:] = 0
    with refused("running", "a host buffer was changed before its copy had run"):
        bench.stream.synchronize()


def test_memory_freed_while_its_stream_runs(bench: Bench) -> None:
    bench.context.execute_async_v3(bench.stream.handle)
    with refused("running", "was freed while a stream still uses it"):
        bench.buffers["boxes"].free()


def test_memory_used_after_it_was_freed(bench: Bench) -> None:
    bench.buffers["boxes"].free()
    with refused("freed", "was used after it had been freed"):
        bench.context.execute_async_v3(bench.stream.handle)
    bench.host.base.free()
    with refused("freed", "was used after it had been freed"):
        bench.cuda.memcpy_htod_async(bench.buffers["images"], bench.host, bench.stream)


def test_pageable_memory(bench: Bench) -> None:
    with refused("pageable", "host memory that is not page-locked"):
        bench.cuda.memcpy_htod_async(bench.buffers["images"], FRAMES, bench.stream)


def test_the_default_stream(bench: Bench) -> None:
    with refused("default stream", "work was put on the default stream"):
        bench.context.execute_async_v3(0)


def test_one_context_on_two_streams(bench: Bench) -> None:
    bench.context.execute_async_v3(bench.stream.handle)
    other = bench.cuda.Stream(1)
    with refused("two streams", "while it runs on another"):
        bench.context.execute_async_v3(other.handle)


def test_a_running_context_called_from_another_thread(bench: Bench) -> None:
    bench.context.execute_async_v3(bench.stream.handle)
    caught: list[str] = []

    def call() -> None:
        try:
            bench.context.set_input_shape("images", FRAMES.shape)
        except Refused as error:
            caught.append(error.rule)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert caught == ["two streams"]


def test_a_thread_without_the_context(bench: Bench) -> None:
    bench.cuda.Context.pop()
    with refused("no context", "mem_alloc was called by a thread that has no current context"):
        bench.cuda.mem_alloc(1)
    with pytest.raises(bench.cuda.LogicError, match="cannot pop non-current context"):
        bench.cuda.Context.pop()


def test_a_destructor_without_the_context(bench: Bench) -> None:
    stream = bench.cuda.Stream(1)
    bench.cuda.Context.pop()
    del stream
    with refused("leaked", "a stream was destroyed in a thread without the context"):
        bench.world.check_clean()


def test_a_context_left_on_the_stack(bench: Bench) -> None:
    with refused("context left", "1 threads still have a context"):
        bench.world.check_clean()


def test_an_event_that_was_not_reached(bench: Bench) -> None:
    first, second = bench.cuda.Event(), bench.cuda.Event()
    first.record(bench.stream)
    with refused("event not reached", "time_since was asked"):
        second.time_since(first)


def test_a_shape_outside_the_profile(bench: Bench) -> None:
    assert bench.context.set_input_shape("images", (3, 64, 96, 3)) is False
    assert "outside of profile dimensions" in bench.logger.lines[-1]


def test_host_code_needs_to_be_allowed() -> None:
    with refused("host code", "without engine_host_code_allowed"):
        Bench(version_compatible=True)


def test_plugins_come_first() -> None:
    world = World()
    world.cuda.Device(0).retain_primary_context().push()
    for thing in (world.trt.Runtime, world.trt.Builder):
        with refused("plugins", "before the plugins were registered"):
            thing(Logger())
    world.stack.clear()


def test_tensorrt_for_rtx_times_nothing() -> None:
    trt = World(rtx=True).trt
    trt.init_libnvinfer_plugins(Logger(), "")
    with refused("timing", "a timing cache was made"):
        trt.Builder(Logger()).create_builder_config().create_timing_cache(b"")


def test_building_rules(bench: Bench) -> None:
    trt = bench.world.trt
    builder = trt.Builder(bench.logger)
    network = builder.create_network(1 << 1)
    assert trt.OnnxParser(network, bench.logger).parse(detector().SerializeToString())
    config = builder.create_builder_config()
    with refused("profile missing", r"input 'images' of shape \(-1, 64, 96, 3\) has no profile"):
        builder.build_serialized_network(network, config)
    profile = builder.create_optimization_profile()
    with refused("profile order", "profile of 'images'"):
        profile.set_shape("images", (2, 64, 96, 3), (1, 64, 96, 3), (4, 64, 96, 3))
    profile.set_shape("images", (1, 64, 64, 3), (1, 64, 64, 3), (4, 64, 64, 3))
    config.add_optimization_profile(profile)
    with refused("profile order", "profile of 'images'"):
        builder.build_serialized_network(network, config)
    caught: list[str] = []

    def build() -> None:
        try:
            builder.build_serialized_network(network, config)
        except Refused as error:
            caught.append(error.rule)

    thread = threading.Thread(target=build)
    thread.start()
    thread.join()
    assert caught == ["builder threads"]


def test_what_the_library_itself_refuses_is_answered_as_it_answers(bench: Bench) -> None:
    """Not raised: the code has to look at each answer."""
    trt, world = bench.world.trt, bench.world
    builder = trt.Builder(bench.logger)
    network, config = builder.create_network(1 << 1), builder.create_builder_config()
    stale = config.create_timing_cache(b"timings of another GPU")
    fresh = bench.engine.create_execution_context()
    given: dict[str, object] = {
        "set_input_shape": bench.context.set_input_shape("images", (3, 64, 96, 3)),
        "execute_async_v3": fresh.execute_async_v3(bench.stream.handle),
        "get_max_output_size": fresh.get_max_output_size("boxes"),
        "deserialize_cuda_engine": trt.Runtime(bench.logger).deserialize_cuda_engine(b"garbage"),
        "parse": trt.OnnxParser(network, bench.logger).parse(b"garbage"),
        "set_timing_cache": config.set_timing_cache(stale, False),
    }
    assert trt.OnnxParser(network, bench.logger).parse(detector(2).SerializeToString())
    world.fail = {"create_execution_context": 0, "build": 0}
    given["create_execution_context"] = bench.engine.create_execution_context()
    given["build_serialized_network"] = builder.build_serialized_network(network, config)
    assert given == {call: answer for call, (answer, _, _) in ANSWERS.items()}


def test_every_rule_has_a_test() -> None:
    """The rules that no line of the double can break are not in the table."""
    import inspect

    from ..tensorrt_double import cuda, trt, trt_build, trt_rtx, world

    used = "".join(inspect.getsource(module) for module in (cuda, trt, trt_build, trt_rtx, world))
    assert [rule for rule in REFUSALS if f'"{rule}"' not in used] == []
