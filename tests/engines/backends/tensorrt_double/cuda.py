"""The double of pycuda.driver."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .refusals import Refused

if TYPE_CHECKING:
    from .world import Queue, World


class Cuda:
    """Stands for the module `pycuda.driver`: classes and functions of one world."""

    class Error(Exception):
        """Base class of all PyCuda errors."""

    class MemoryError(Error):
        """Thrown when mem_alloc or related functionality fails."""

    class LogicError(Error):
        """The programmer has likely made a mistake; pycuda maps unknown codes, lost devices among them, here."""

    class LaunchError(Error):
        """Thrown when kernel invocation has failed."""

    class event_flags:
        DEFAULT = 0
        BLOCKING_SYNC = 1
        DISABLE_TIMING = 2

    def __init__(self, world: World) -> None:
        self._world = world
        cuda = self

        class Context:
            def __init__(self, device: int) -> None:
                self.device = device

            def push(self) -> None:
                world.stack.append(self)

            @staticmethod
            def pop() -> None:
                if not world.stack:
                    raise cuda.LogicError(
                        "context::pop failed: invalid device context - cannot pop non-current context"
                    )
                world.stack.pop()

        class Device:
            def __init__(self, number: int) -> None:
                if not 0 <= number < world.gpus:
                    raise cuda.LogicError("cuDeviceGet failed: invalid device ordinal")
                self._number = number

            @staticmethod
            def count() -> int:
                return world.gpus

            def name(self) -> str:
                return world.gpu

            def compute_capability(self) -> tuple[int, int]:
                return world.compute_capability

            def retain_primary_context(self) -> Context:
                return Context(self._number)

        class Stream:
            def __init__(self, flags: int = 0) -> None:
                world.require_context("Stream")
                self.flags = flags
                self._queue = world.new_queue()
                self.handle = self._queue.handle
                self._finalizer = weakref.finalize(self, _destroy_stream, world, self._queue)

            def synchronize(self) -> None:
                world.require_context("Stream.synchronize")
                world.advance(self._queue)

        class Event:
            def __init__(self, flags: int = 0) -> None:
                world.require_context("Event")
                self._timed = not flags & cuda.event_flags.DISABLE_TIMING
                self._reached: float | None = None
                self._queue: Queue | None = None
                self._finalizer = weakref.finalize(self, _destroy_event, world)

            def record(self, stream: Stream) -> Event:
                from .world import Work

                world.require_context("Event.record")
                self._reached, self._queue = None, world.queue_of(stream.handle)
                world.enqueue(self._queue, Work(self._reach, [], "event"))
                return self

            def _reach(self) -> None:
                world.clock += 1
                self._reached = float(world.clock)

            def synchronize(self) -> Event:
                world.require_context("Event.synchronize")
                if self._queue is not None:
                    while self._reached is None:
                        world.advance(self._queue, 1)
                return self

            def time_since(self, event: Event) -> float:
                world.require_context("Event.time_since")
                if self._reached is None or event._reached is None or not (self._timed and event._timed):
                    raise Refused("event not reached", "time_since was asked of an event that has no time")
                return self._reached - event._reached

        class DeviceAllocation:
            def __init__(self, size: int) -> None:
                self._block = world.allocate(size)
                self._finalizer = weakref.finalize(self, _free_late, world, self._block)

            def __int__(self) -> int:
                self._block.check()
                return self._block.address

            def free(self) -> None:
                world.require_context("DeviceAllocation.free")
                world.free(self._block)
                self._finalizer.detach()

        class PagelockedHostAllocation:
            """Owns the memory of an array that `pagelocked_empty` made."""

            def __init__(self, block: Any, shape: Any, dtype: Any) -> None:
                self._block = block
                self._finalizer = weakref.finalize(self, _free_late, world, block)
                address = block.data.__array_interface__["data"]
                kind = np.dtype(dtype).str
                self.__array_interface__ = {"shape": tuple(shape), "typestr": kind, "data": address, "version": 3}

            def free(self) -> None:
                world.require_context("PagelockedHostAllocation.free")
                world.free(self._block)
                self._finalizer.detach()

        self.Context, self.Device, self.Stream, self.Event = Context, Device, Stream, Event
        self._device_allocation, self._host_allocation = DeviceAllocation, PagelockedHostAllocation

    def get_version(self) -> tuple[int, int, int]:
        return (13, 0, 0)

    def get_driver_version(self) -> int:
        return self._world.driver

    def mem_get_info(self) -> tuple[int, int]:
        self._world.require_context("mem_get_info")
        return self._world.total_bytes - self._world.used_bytes, self._world.total_bytes

    def mem_alloc(self, size: int) -> Any:
        self._world.require_context("mem_alloc")
        return self._device_allocation(size)

    def pagelocked_empty(self, shape: Any, dtype: Any, order: str = "C", mem_flags: int = 0) -> npt.NDArray[Any]:
        """An array whose `base` is the allocation, as pycuda's."""
        world = self._world
        world.require_context("pagelocked_empty")
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if world.counted_failure("pagelocked_empty"):
            raise self.MemoryError("cuMemHostAlloc failed: out of memory")
        owner = self._host_allocation(world.allocate(size), shape, dtype)
        world.pin(owner._block)
        return np.asarray(owner)

    def memcpy_htod_async(self, dest: Any, src: npt.NDArray[Any], stream: Any = None) -> None:
        from .world import Work

        world = self._world
        world.require_context("memcpy_htod_async")
        host, device = world.pinned_block(src), world.block_of(int(dest))
        queue = world.queue_of(stream.handle if stream is not None else 0)
        if src.nbytes > device.data.nbytes:
            raise Refused("size", f"{src.nbytes} bytes were copied into {device.data.nbytes}")
        before = src.tobytes()

        def run() -> None:
            if src.tobytes() != before:
                raise Refused("running", "a host buffer was changed before its copy had run")
            device.data[: src.nbytes] = np.frombuffer(before, np.uint8)

        world.enqueue(queue, Work(run, [host, device], "copy in"))

    def memcpy_dtoh_async(self, dest: npt.NDArray[Any], src: Any, stream: Any = None) -> None:
        from .world import Work

        world = self._world
        world.require_context("memcpy_dtoh_async")
        host, device = world.pinned_block(dest), world.block_of(int(src))
        queue = world.queue_of(stream.handle if stream is not None else 0)
        if dest.nbytes > device.data.nbytes:
            raise Refused("size", f"{dest.nbytes} bytes were copied out of {device.data.nbytes}")

        def run() -> None:
            dest.reshape(-1).view(np.uint8)[:] = device.data[: dest.nbytes]

        world.enqueue(queue, Work(run, [host, device], "copy out"))


def _destroy_stream(world: World, queue: Queue) -> None:
    if queue.work:
        world.violations.append(Refused("running", "a stream was destroyed with work on it"))
    world.queues.pop(queue.handle, None)
    _needs_context(world, "a stream")


def _destroy_event(world: World) -> None:
    _needs_context(world, "an event")


def _free_late(world: World, block: Any) -> None:
    """Memory that nobody freed goes with its object: fine with a context, a leak without."""
    if not block.freed:
        _needs_context(world, f"memory at {block.address:#x}")
        block.users = 0
        world.free(block)


def _needs_context(world: World, what: str) -> None:
    if not world.stack:
        world.violations.append(Refused("leaked", f"{what} was destroyed in a thread without the context"))
