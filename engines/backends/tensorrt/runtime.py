"""A plan on CUDA streams: slots that each copy in, run and copy out on a stream of their own, side by side."""

from __future__ import annotations

import atexit
import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from engines.backends.tensorrt.device import Device
from engines.backends.tensorrt.errors import DeviceLostError
from engines.backends.tensorrt.libraries import Libraries, load
from engines.backends.tensorrt.log import LogLines, make_logger
from engines.backends.tensorrt.plan import deserialize, read_tensors
from engines.backends.tensorrt.slots import Loaded, Slot, State, free_slot, new_event, runtime_config_of
from engines.base import Array, EngineClosedError, EngineError, TensorMismatchError, check_feeds

_OPEN: weakref.WeakSet[TensorRTEngine] = weakref.WeakSet()


@dataclass(frozen=True, slots=True)
class StreamTimes:
    """When the parts of one batch ran on the GPU, in ms since the engine was loaded: (start, end) each."""

    copy_in: tuple[float, float]
    compute: tuple[float, float]
    copy_out: tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Ticket:
    """A batch on its way; give it to `collect` or `discard`, once. Until then it holds one of the engine's slots."""

    slot: int
    use: int
    rows: int


class TensorRTEngine:
    """An Engine over a serialized plan whose first dimensions are the batch. Any number of threads may call it.

    `infer` takes any batch: what is larger than the profile's maximum is split and sent through several slots at
    once. `submit` and `collect` leave the waiting to the caller.
    """

    def __init__(
        self,
        plan: bytes,
        *,
        libraries: Libraries | None = None,
        slots: int = 2,
        device: int = 0,
        precision: str = "",
        host_code_allowed: bool = False,
        record_times: bool = False,
        runtime_cache: bytes = b"",
        cuda_graphs: bool = True,
    ) -> None:
        """Load `plan`, allocate everything it will ever need, and run it once so that the first frame need not wait.

        `precision` is for people, in `backend`. `host_code_allowed` is needed for version-compatible plans, which
        carry a runtime with them: allow it for plans of your own only. `runtime_cache` is what an earlier engine of a
        plan of TensorRT for RTX gave under that name. `cuda_graphs=False` launches kernel by kernel, to measure what
        graphs are worth. DamagedPlanError: not a plan. PlanError: it can't be loaded here.
        OutOfMemoryError: the GPU is too full.
        """
        if slots < 1:
            raise ValueError(f"slots: got {slots}, expected 1 or more")
        self._slots: list[Slot] = []
        self._closed = True  # until there is something to close
        self._closing = False
        self._lost: str | None = None
        """Why the GPU is lost. Not the error itself: its frames would keep what they touched alive."""
        self._changed = threading.Condition()
        self._libraries = libraries or load()
        self._kernels: Any = None
        self._device = Device(self._libraries, device)
        self.backend = f"{self._libraries.flavour.name} {precision}".strip()
        self._log = LogLines()
        with self._device.active(), self._device.failures("loading the plan"):
            self._runtime, self._engine = deserialize(
                plan,
                self._libraries,
                self._device,
                make_logger(self._libraries.trt, self._log),
                self._log,
                host_code_allowed=host_code_allowed,
            )
            self._closed = False
            _OPEN.add(self)
            try:
                self.inputs, self.outputs = read_tensors(self._libraries.trt, self._engine)
                self._plan = self._load(runtime_cache, cuda_graphs)
                self._batches = self._plan.batches
                self._epoch = new_event(self._device, timed=True) if record_times else None
                for _ in range(slots):
                    self._slots.append(self._plan.make_slot(record_times))
                for slot in self._slots:
                    self._plan.warm_up(slot)
                if self._epoch is not None:
                    self._epoch.record(self._slots[0].stream)
            except BaseException:
                self._free()
                raise

    @property
    def concurrency(self) -> int:
        """How many batches are on the GPU at once: one a slot."""
        return len(self._slots)

    @property
    def max_batch(self) -> int:
        """The largest batch of one `submit`; `infer` takes larger ones in parts."""
        return self._batches[2]

    @property
    def captured(self) -> bool:
        """Whether batches are launched as CUDA graphs: those captured here, or TensorRT for RTX's own."""
        if self._plan.runtime_config is not None:
            return self._plan.cuda_graphs
        return all(slot.graph is not None for slot in self._slots)

    @property
    def runtime_cache(self) -> bytes:
        """TensorRT for RTX: the kernels that were made for this GPU so far, for the next engine of this plan. Empty for
        TensorRT, whose plans hold them."""
        if self._kernels is None:
            return b""
        with self._device.active(), self._failures("reading the runtime cache"):
            return bytes(self._kernels.serialize())

    @property
    def device_memory_bytes(self) -> int:
        """GPU memory of the execution contexts and the buffers; the weights and CUDA's own come on top."""
        buffers = sum(array.nbytes for slot in self._slots for array in slot.host.values())
        return len(self._slots) * int(self._engine.device_memory_size_v2) + buffers

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the model; safe from several threads at once. Outputs are new arrays."""
        rows = self._check(feeds)
        most = self.max_batch
        if rows <= most:
            return self.collect(self._launch(self._take(), feeds, 0, rows))
        parts: list[dict[str, Array]] = []
        waiting: deque[Ticket] = deque()
        try:
            for start in range(0, rows, most):
                # Never wait for a slot while holding one: two such callers would wait for each other.
                slot = self._take(wait=not waiting)
                while slot is None:
                    parts.append(self.collect(waiting.popleft()))
                    slot = self._take(wait=not waiting)
                waiting.append(self._launch(slot, feeds, start, min(rows, start + most)))
            while waiting:
                parts.append(self.collect(waiting.popleft()))
        finally:
            for ticket in waiting:
                with contextlib.suppress(EngineError):
                    self.discard(ticket)
        return {spec.name: np.concatenate([part[spec.name] for part in parts]) for spec in self.outputs}

    def submit(self, feeds: Mapping[str, Array]) -> Ticket:
        """Copy `feeds` and start the batch; waits while every slot is taken. The arrays are free again on return."""
        rows = self._check(feeds)
        if rows > self.max_batch:
            raise TensorMismatchError(
                f"batch: got {rows}, expected at most {self.max_batch} in one submit; infer splits larger ones"
            )
        return self._launch(self._take(), feeds, 0, rows)

    def collect(self, ticket: Ticket) -> dict[str, Array]:
        """Wait for the batch of `ticket`; its outputs, as new arrays."""
        slot = self._claim(ticket)
        try:
            with self._device.active(), self._failures("running a batch"):
                slot.events["done"].synchronize()
            return {spec.name: slot.host[spec.name][: ticket.rows].copy() for spec in self.outputs}
        finally:
            self._release(slot)

    def collect_timed(self, ticket: Ticket) -> tuple[dict[str, Array], StreamTimes]:
        """`collect`, with when each part ran; the engine must have been made with `record_times`."""
        if self._epoch is None:
            raise EngineError("stream times: got an engine that records none, expected one with record_times=True")
        slot = self._claim(ticket)
        try:
            with self._device.active(), self._failures("running a batch"):
                slot.events["done"].synchronize()
                at = {name: float(event.time_since(self._epoch)) for name, event in slot.events.items()}
            outputs = {spec.name: slot.host[spec.name][: ticket.rows].copy() for spec in self.outputs}
        finally:
            self._release(slot)
        return outputs, StreamTimes(
            (at["start"], at["copied"]), (at["copied"], at["computed"]), (at["computed"], at["done"])
        )

    def discard(self, ticket: Ticket) -> None:
        """Give up the outputs of `ticket`; waits until its stream has finished with the buffers."""
        slot = self._claim(ticket)
        try:
            with self._device.active(), self._failures("running a batch"):
                slot.events["done"].synchronize()
        finally:
            self._release(slot)

    def close(self) -> None:
        """Free everything, after the work that other threads are waiting for; tickets not collected yet are void."""
        with self._changed:
            if self._closing:
                while not self._closed:
                    self._changed.wait()
                return
            self._closing = True
            self._changed.notify_all()
            while any(slot.state in (State.LAUNCHING, State.COLLECTING) for slot in self._slots):
                self._changed.wait()
        try:
            if not self._closed:
                with self._device.active():
                    self._free()
        finally:
            with self._changed:
                self._closed = True
                self._changed.notify_all()

    def __del__(self) -> None:
        if not self.__dict__.get("_closed", True):
            with contextlib.suppress(Exception):
                self.close()

    # Slots ------------------------------------------------------------------------------------------------------

    def _take(self, *, wait: bool = True) -> Any:
        """A free slot, now the caller's; None if there is none and `wait` is false."""
        with self._changed:
            while True:
                self._check_usable()
                for slot in self._slots:
                    if slot.state is State.FREE:
                        slot.state = State.LAUNCHING
                        return slot
                if not wait:
                    return None
                self._changed.wait()

    def _claim(self, ticket: Ticket) -> Slot:
        """The slot of `ticket`, from now on being collected."""
        with self._changed:
            self._check_usable()
            slot = self._slots[ticket.slot] if ticket.slot < len(self._slots) else None
            if slot is None or slot.use != ticket.use or slot.state is not State.RUNNING:
                raise EngineError("ticket: got one that was collected or is another engine's, expected each one once")
            slot.state = State.COLLECTING
            return slot

    def _release(self, slot: Slot) -> None:
        with self._changed:
            slot.state = State.FREE
            self._changed.notify_all()

    def _check_usable(self) -> None:
        if self._lost is not None:
            raise DeviceLostError(self._lost)
        if self._closing or self._closed:
            raise EngineClosedError

    # One batch --------------------------------------------------------------------------------------------------

    def _check(self, feeds: Mapping[str, Array]) -> int:
        check_feeds(self.inputs, feeds)
        batches = {array.shape[0] for array in feeds.values()}
        rows = batches.pop()
        if batches or rows == 0:
            sizes = {name: array.shape[0] for name, array in feeds.items()}
            raise TensorMismatchError(f"batch: got {sizes}, expected one size of 1 or more for all inputs")
        return int(rows)

    def _launch(self, slot: Slot, feeds: Mapping[str, Array], start: int, stop: int) -> Ticket:
        """Queue copy in, run and copy out on the slot's stream; nothing here waits for the GPU."""
        rows = stop - start
        run_rows = max(rows, self._batches[0])
        try:
            for name, array in feeds.items():
                slot.host[name][:rows] = array[start:stop]
                slot.host[name][rows:run_rows] = 0
            with self._device.active(), self._failures("starting a batch"):
                try:
                    self._plan.queue(slot, run_rows)
                except BaseException:
                    # What was queued still uses the buffers: it must end before the slot is anyone else's.
                    with contextlib.suppress(self._device.cuda.Error):
                        slot.stream.synchronize()
                    raise
        except BaseException:
            self._release(slot)
            raise
        with self._changed:
            slot.use += 1
            slot.state = State.RUNNING
            self._changed.notify_all()
            return Ticket(self._slots.index(slot), slot.use, rows)

    @contextlib.contextmanager
    def _failures(self, doing: str) -> Any:
        try:
            with self._device.failures(doing):
                yield
        except DeviceLostError as error:
            with self._changed:
                self._lost = str(error)
                self._changed.notify_all()
            raise

    # Setting up and taking down ----------------------------------------------------------------------------------

    def _load(self, runtime_cache: bytes, cuda_graphs: bool) -> Loaded:
        profile = {spec.name: self._engine.get_tensor_profile_shape(spec.name, 0) for spec in self.inputs}
        rows = [[int(next(iter(shape))) for shape in shapes] for shapes in profile.values()]
        config, self._kernels = runtime_config_of(
            self._libraries.trt, self._engine, self._libraries.flavour, runtime_cache, cuda_graphs=cuda_graphs
        )
        return Loaded(
            self._engine,
            self._device,
            self.inputs,
            self.outputs,
            (max(low for low, _, _ in rows), min(usual for _, usual, _ in rows), min(high for _, _, high in rows)),
            {name: tuple(int(size) for size in high) for name, (_, _, high) in profile.items()},
            self._log,
            config,
            cuda_graphs,
        )

    def _free(self) -> None:
        """Free all, with the context active: what is destroyed without it leaks."""
        errors = self._device.cuda.Error
        for slot in self._slots:
            with contextlib.suppress(errors):
                slot.stream.synchronize()
            with contextlib.suppress(errors):
                free_slot(slot)
        self._slots.clear()
        self._epoch = None
        self._plan = self._kernels = None  # type: ignore[assignment]
        self._engine = None  # before its runtime
        self._runtime = None
        self._closed = True
        _OPEN.discard(self)


@atexit.register
def _close_all() -> None:
    for engine in list(_OPEN):
        with contextlib.suppress(Exception):
            engine.close()
