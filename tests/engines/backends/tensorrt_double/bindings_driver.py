"""The double of the module `cuda.bindings.driver`: functions that answer with a status, over the double of pycuda.

Handles stand for the objects of that double, so that one set of rules holds for both bindings.
"""

from __future__ import annotations

import ctypes
import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .world import Queue, Work, World


class CUresult(enum.IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_ILLEGAL_ADDRESS = 700
    CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED = 900


class CUdevice_attribute(enum.IntEnum):
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76


class CUstreamCaptureMode(enum.IntEnum):
    CU_STREAM_CAPTURE_MODE_GLOBAL = 0
    CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1
    CU_STREAM_CAPTURE_MODE_RELAXED = 2


@dataclass(eq=False)
class Handle:
    """CUstream, CUevent and the like; `int` of it is what the driver knows it by."""

    number: int
    thing: Any

    def __int__(self) -> int:
        return self.number


@dataclass(eq=False)
class _Graph:
    work: list[Work] = field(default_factory=list)


class BindingsDriver:
    CUresult = CUresult
    CUdevice_attribute = CUdevice_attribute
    CUstreamCaptureMode = CUstreamCaptureMode
    CUDA_VERSION = 13000

    def __init__(self, world: World) -> None:
        self._world, self._cuda = world, world.pycuda
        self._message = "invalid argument"

    def _answer(self, work: Callable[[], Any], *, gives: bool = True) -> tuple[Any, ...]:
        cuda = self._cuda
        try:
            value = work()
        except cuda.MemoryError as error:
            self._message = str(error).rpartition(": ")[2]
            return (CUresult.CUDA_ERROR_OUT_OF_MEMORY, None) if gives else (CUresult.CUDA_ERROR_OUT_OF_MEMORY,)
        except cuda.Error as error:
            self._message = str(error).rpartition(": ")[2]
            return (CUresult.CUDA_ERROR_ILLEGAL_ADDRESS, None) if gives else (CUresult.CUDA_ERROR_ILLEGAL_ADDRESS,)
        return (CUresult.CUDA_SUCCESS, value) if gives else (CUresult.CUDA_SUCCESS,)

    def cuInit(self, Flags: int) -> tuple[Any, ...]:
        return self._answer(lambda: None, gives=False)

    def cuGetErrorString(self, error: CUresult) -> tuple[Any, ...]:
        return CUresult.CUDA_SUCCESS, self._message.encode()

    def cuDriverGetVersion(self) -> tuple[Any, ...]:
        return self._answer(self._cuda.get_driver_version)

    def cuDeviceGetCount(self) -> tuple[Any, ...]:
        return self._answer(self._cuda.Device.count)

    def cuDeviceGet(self, ordinal: int) -> tuple[Any, ...]:
        return self._answer(lambda: Handle(ordinal, self._cuda.Device(ordinal)))

    def cuDeviceGetName(self, length: int, dev: Handle) -> tuple[Any, ...]:
        return self._answer(lambda: dev.thing.name().encode().ljust(length, b"\0"))

    def cuDeviceGetAttribute(self, attrib: CUdevice_attribute, dev: Handle) -> tuple[Any, ...]:
        minor = attrib == CUdevice_attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR
        return self._answer(lambda: dev.thing.compute_capability()[int(minor)])

    def cuDevicePrimaryCtxRetain(self, dev: Handle) -> tuple[Any, ...]:
        return self._answer(lambda: Handle(id(dev), dev.thing.retain_primary_context()))

    def cuCtxPushCurrent(self, ctx: Handle) -> tuple[Any, ...]:
        return self._answer(ctx.thing.push, gives=False)

    def cuCtxPopCurrent(self) -> tuple[Any, ...]:
        return self._answer(self._cuda.Context.pop)

    def cuMemGetInfo(self) -> tuple[Any, ...]:
        status, values = self._answer(self._cuda.mem_get_info)
        return (status, *(values or (None, None)))

    def cuMemAlloc(self, bytesize: int) -> tuple[Any, ...]:
        def make() -> Handle:
            self._no_capture("cuMemAlloc")
            memory = self._cuda.mem_alloc(bytesize)
            return Handle(int(memory), memory)

        return self._answer(make)

    def cuMemFree(self, dptr: Handle) -> tuple[Any, ...]:
        return self._answer(dptr.thing.free, gives=False)

    def cuMemHostAlloc(self, bytesize: int, Flags: int) -> tuple[Any, ...]:
        def make() -> Handle:
            array = self._cuda.pagelocked_empty((bytesize,), np.uint8)
            return Handle(array.__array_interface__["data"][0], array)

        return self._answer(make)

    def cuMemFreeHost(self, p: Handle) -> tuple[Any, ...]:
        return self._answer(lambda: p.thing.base.free(), gives=False)

    def cuStreamCreate(self, Flags: int) -> tuple[Any, ...]:
        def make() -> Handle:
            stream = self._cuda.Stream(Flags)
            return Handle(stream.handle, stream)

        return self._answer(make)

    def cuStreamDestroy(self, hStream: Handle) -> tuple[Any, ...]:
        return self._answer(lambda: hStream.__dict__.pop("thing"), gives=False)

    def cuStreamSynchronize(self, hStream: Handle) -> tuple[Any, ...]:
        def wait() -> None:
            self._no_capture("cuStreamSynchronize")
            hStream.thing.synchronize()

        return self._answer(wait, gives=False)

    def cuEventCreate(self, Flags: int) -> tuple[Any, ...]:
        return self._answer(lambda: Handle(0, self._cuda.Event(Flags)))

    def cuEventDestroy(self, hEvent: Handle) -> tuple[Any, ...]:
        return self._answer(lambda: hEvent.__dict__.pop("thing"), gives=False)

    def cuEventRecord(self, hEvent: Handle, hStream: Handle) -> tuple[Any, ...]:
        return self._answer(lambda: hEvent.thing.record(hStream.thing), gives=False)

    def cuEventSynchronize(self, hEvent: Handle) -> tuple[Any, ...]:
        return self._answer(hEvent.thing.synchronize, gives=False)

    def cuEventElapsedTime(self, hStart: Handle, hEnd: Handle) -> tuple[Any, ...]:
        return self._answer(lambda: hEnd.thing.time_since(hStart.thing))

    def cuMemcpyHtoDAsync(self, dstDevice: int, srcHost: int, ByteCount: int, hStream: Handle) -> tuple[Any, ...]:
        source = _memory(srcHost, ByteCount)
        return self._answer(lambda: self._cuda.memcpy_htod_async(dstDevice, source, hStream.thing), gives=False)

    def cuMemcpyDtoHAsync(self, dstHost: int, srcDevice: int, ByteCount: int, hStream: Handle) -> tuple[Any, ...]:
        target = _memory(dstHost, ByteCount)
        return self._answer(lambda: self._cuda.memcpy_dtoh_async(target, srcDevice, hStream.thing), gives=False)

    def cuStreamBeginCapture(self, hStream: Handle, mode: CUstreamCaptureMode) -> tuple[Any, ...]:
        def begin() -> None:
            self._world.require_context("cuStreamBeginCapture")
            self._queue(hStream).captured = []

        return self._answer(begin, gives=False)

    def cuStreamEndCapture(self, hStream: Handle) -> tuple[Any, ...]:
        queue = self._queue(hStream)
        graph, queue.captured = _Graph(queue.captured or []), None
        if self._world.counted_failure("cuStreamEndCapture"):
            self._message = "operation not permitted when stream is capturing"
            return CUresult.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, None
        return CUresult.CUDA_SUCCESS, graph

    def cuGraphInstantiate(self, hGraph: _Graph, flags: int) -> tuple[Any, ...]:
        return CUresult.CUDA_SUCCESS, _Graph(list(hGraph.work))

    def cuGraphLaunch(self, hGraphExec: _Graph, hStream: Handle) -> tuple[Any, ...]:
        def launch() -> None:
            self._world.require_context("cuGraphLaunch")
            self._world.graph_launches += 1
            for work in hGraphExec.work:
                self._world.enqueue(self._queue(hStream), work)

        return self._answer(launch, gives=False)

    def cuGraphDestroy(self, hGraph: _Graph) -> tuple[Any, ...]:
        hGraph.work.clear()
        return (CUresult.CUDA_SUCCESS,)

    def cuGraphExecDestroy(self, hGraphExec: _Graph) -> tuple[Any, ...]:
        hGraphExec.work.clear()
        return (CUresult.CUDA_SUCCESS,)

    def _queue(self, stream: Handle) -> Queue:
        return self._world.queue_of(int(stream))

    def _no_capture(self, call: str) -> None:
        if any(queue.captured is not None for queue in self._world.queues.values()):
            raise self._cuda.LogicError(f"{call} failed: operation not permitted when stream is capturing")


def _memory(address: int, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.frombuffer((ctypes.c_uint8 * size).from_address(address), np.uint8)
