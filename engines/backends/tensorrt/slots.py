"""A plan on the GPU, and the slots on which batches of it run: each a stream with all that it needs."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from engines.backends.tensorrt.device import Device
from engines.backends.tensorrt.flavour import Flavour
from engines.backends.tensorrt.log import LogLines, says_no_memory
from engines.base import Array, EngineError, TensorSpec

_NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING: no waiting for the default stream, on which PyTorch and others work. pycuda has no name
for it."""


class State(Enum):
    FREE = auto()
    LAUNCHING = auto()
    RUNNING = auto()
    """Launched; its ticket was not collected yet."""
    COLLECTING = auto()


@dataclass(slots=True, eq=False)
class Slot:
    """One stream with all it needs. Host arrays are page-locked: only from such memory do copies run beside kernels."""

    stream: Any
    context: Any
    host: dict[str, Array]
    """Inputs and outputs at the largest batch."""
    device: dict[str, Any]
    events: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    """Input shapes that the execution context has now."""
    graph: Any = None
    """The captured CUDA graph of the plan's one batch; None where its batches vary, or nothing here can capture."""
    state: State = State.FREE
    use: int = 0
    """Counts the batches that went through, so that an old ticket is known."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A plan on the GPU: how its slots are made, and how a batch is put on the stream of one. The context of `device`
    is active in every call."""

    engine: Any
    device: Device
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batches: tuple[int, int, int]
    """Smallest, usual and largest."""
    largest: Mapping[str, tuple[int, ...]]
    """Shapes of the inputs at the largest batch."""
    log: LogLines
    runtime_config: Any = None
    """TensorRT for RTX only: see `runtime_config_of`."""
    cuda_graphs: bool = True
    """Whether a static batch is captured."""

    def make_slot(self, record_times: bool) -> Slot:
        """A slot with its buffers at the largest batch. OutOfMemoryError: no room; nothing is left of it then."""
        cuda, engine = self.device.cuda, self.engine
        self.log.clear()
        given = () if self.runtime_config is None else (self.runtime_config,)
        context = engine.create_execution_context(*given)
        if context is None:
            self.require(False, "an execution context")
        names = ("start", "copied", "computed", "done") if record_times else ("done",)
        slot = Slot(
            stream=cuda.Stream(_NON_BLOCKING),
            context=context,
            host={},
            device={},
            events={name: new_event(self.device, timed=record_times) for name in names},
            shapes={},
        )
        try:
            for spec in self.inputs:
                shape = self.largest[spec.name]
                self.require(context.set_input_shape(spec.name, shape), f"input {spec.name!r} of shape {shape}")
                slot.shapes[spec.name] = shape
            for spec in (*self.inputs, *self.outputs):
                shape = self.largest.get(spec.name) or tuple(int(n) for n in context.get_tensor_shape(spec.name))
                host = slot.host[spec.name] = cuda.pagelocked_empty(shape, spec.dtype)
                size = host.nbytes
                if spec.name not in self.largest:
                    size = max(size, int(context.get_max_output_size(spec.name)))
                memory = slot.device[spec.name] = cuda.mem_alloc(size)
                self.require(context.set_tensor_address(spec.name, int(memory)), f"a buffer for {spec.name!r}")
        except BaseException:
            free_slot(slot)
            raise
        return slot

    def warm_up(self, slot: Slot) -> None:
        """Run an empty batch of each size of the profile, and capture the CUDA graph where there is only one.

        CUDA loads kernels when they are first launched, and TensorRT for RTX makes them then: without this the first
        frames of a camera would wait for that, and be stale.
        """
        for spec in self.inputs:
            slot.host[spec.name][:] = 0
        for rows in sorted(set(self.batches), reverse=True):
            self.queue(slot, rows)
            slot.events["done"].synchronize()
        capture = getattr(self.device.cuda, "capture", None)
        static = len(set(self.batches)) == 1
        if capture is None or not (self.cuda_graphs and static) or self.runtime_config is not None:
            return
        # A network that can't be captured is run as before: CUDA says so when the capture ends, and nothing has run.
        with contextlib.suppress(self.device.cuda.Error, EngineError):
            slot.graph = capture(slot.stream, lambda: self._execute(slot, self.batches[2]))
            self.queue(slot, self.batches[2])
            slot.events["done"].synchronize()

    def queue(self, slot: Slot, rows: int) -> None:
        """Queue copy in, run and copy out on the slot's stream; nothing here waits for the GPU."""
        cuda, stream = self.device.cuda, slot.stream
        timed = "start" in slot.events
        if timed:
            slot.events["start"].record(stream)
        for spec in self.inputs:
            shape = (rows, *self.largest[spec.name][1:])
            if slot.shapes.get(spec.name) != shape:
                self.require(slot.context.set_input_shape(spec.name, shape), f"input {spec.name!r} of shape {shape}")
                slot.shapes[spec.name] = shape
            cuda.memcpy_htod_async(slot.device[spec.name], slot.host[spec.name][:rows], stream)
        if timed:
            slot.events["copied"].record(stream)
        if slot.graph is not None:
            slot.graph.launch(stream)
        else:
            self._execute(slot, rows)
        if timed:
            slot.events["computed"].record(stream)
        for spec in self.outputs:
            cuda.memcpy_dtoh_async(slot.host[spec.name][:rows], slot.device[spec.name], stream)
        slot.events["done"].record(stream)

    def _execute(self, slot: Slot, rows: int) -> None:
        self.require(slot.context.execute_async_v3(slot.stream.handle), f"a batch of {rows}")

    def require(self, ok: bool, doing: str) -> None:
        """TensorRT says no by False and a line in its log."""
        if ok:
            return
        why = self.log.errors()
        self.log.clear()
        if says_no_memory(why):
            raise self.device.out_of_memory(doing, why)
        raise EngineError(f"TensorRT refused {doing}: {why}; expected what its plan was built for, build it again")


def runtime_config_of(
    trt: Any, engine: Any, flavour: Flavour, cache: bytes, *, cuda_graphs: bool = True
) -> tuple[Any, Any]:
    """TensorRT for RTX: how contexts are to run, with whole networks captured as CUDA graphs, and the cache of the
    kernels made on this GPU, filled with `cache` if that is of this machine. (None, None) for TensorRT."""
    if not flavour.portable:
        return None, None
    config = engine.create_runtime_config()
    strategies = trt.CudaGraphStrategy
    config.cuda_graph_strategy = strategies.WHOLE_GRAPH_CAPTURE if cuda_graphs else strategies.DISABLED
    kernels = config.create_runtime_cache()
    if cache:
        kernels.deserialize(cache)  # False for one of another driver or release: it stays empty, and is filled anew
    config.set_runtime_cache(kernels)
    return config, kernels


def new_event(device: Device, *, timed: bool) -> Any:
    """Waiting threads sleep: a spinning one would take a core that reads cameras."""
    flags = device.cuda.event_flags
    return device.cuda.Event(flags.BLOCKING_SYNC if timed else flags.BLOCKING_SYNC | flags.DISABLE_TIMING)


def free_slot(slot: Slot) -> None:
    """Give back all that a slot holds, in the order in which one thing may still use another."""
    slot.graph = None  # it knows the addresses, and what the context launches
    slot.context = None  # before the memory that it knows the addresses of
    slot.events.clear()
    slot.stream = None
    for memory in slot.device.values():
        memory.free()
    slot.device.clear()
    for array in slot.host.values():
        allocation: Any = array.base
        allocation.free()
    slot.host.clear()
