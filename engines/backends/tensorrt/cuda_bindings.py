"""NVIDIA's cuda-bindings as a device.Cuda: the driver's functions, which answer with a status, as objects that raise.

It is a wheel for every machine, where pycuda has to be compiled, and it can capture CUDA graphs, which pycuda can't.
Objects free what they hold when they go; like pycuda's they must do so in a thread in which their context is current.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.base import Array


class CudaError(Exception):
    """A function of the driver failed: its name, CUDA's name of the error and its sentence."""


class CudaMemoryError(CudaError):
    """CUDA_ERROR_OUT_OF_MEMORY, of the GPU or of page-locked memory."""


class EventFlags:
    DEFAULT = 0
    BLOCKING_SYNC = 1
    DISABLE_TIMING = 2


class CudaBindings:
    """Stands where `pycuda.driver` does. `driver` is the module `cuda.bindings.driver`."""

    Error = CudaError
    MemoryError = CudaMemoryError
    event_flags = EventFlags

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        call = self.call

        class Context:
            """The primary context of a device."""

            def __init__(self, handle: Any) -> None:
                self._handle = handle

            def push(self) -> None:
                call("cuCtxPushCurrent", self._handle)

            @staticmethod
            def pop() -> None:
                call("cuCtxPopCurrent")

        class Device:
            def __init__(self, number: int) -> None:
                self._handle = call("cuDeviceGet", number)

            @staticmethod
            def count() -> int:
                return int(call("cuDeviceGetCount"))

            def name(self) -> str:
                return bytes(call("cuDeviceGetName", 256, self._handle)).split(b"\0")[0].decode()

            def compute_capability(self) -> tuple[int, int]:
                kinds = driver.CUdevice_attribute
                major = call("cuDeviceGetAttribute", kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, self._handle)
                minor = call("cuDeviceGetAttribute", kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, self._handle)
                return int(major), int(minor)

            def retain_primary_context(self) -> Context:
                return Context(call("cuDevicePrimaryCtxRetain", self._handle))

        class Stream:
            def __init__(self, flags: int = 0) -> None:
                self._handle = call("cuStreamCreate", flags)
                self.handle = int(self._handle)

            def synchronize(self) -> None:
                call("cuStreamSynchronize", self._handle)

            def __del__(self) -> None:
                _release(self, "_handle", call, "cuStreamDestroy")

        class Event:
            def __init__(self, flags: int = 0) -> None:
                self._handle = call("cuEventCreate", flags)

            def record(self, stream: Stream) -> Event:
                call("cuEventRecord", self._handle, stream._handle)
                return self

            def synchronize(self) -> Event:
                call("cuEventSynchronize", self._handle)
                return self

            def time_since(self, event: Event) -> float:
                return float(call("cuEventElapsedTime", event._handle, self._handle))

            def __del__(self) -> None:
                _release(self, "_handle", call, "cuEventDestroy")

        class DeviceAllocation:
            """GPU memory; `int` of it is its address."""

            def __init__(self, size: int) -> None:
                self._handle = call("cuMemAlloc", size)

            def __int__(self) -> int:
                return int(self._handle)

            def free(self) -> None:
                handle, self._handle = self._handle, None
                call("cuMemFree", handle)

            def __del__(self) -> None:
                _release(self, "_handle", call, "cuMemFree")

        class PagelockedHostAllocation:
            """Owns the memory of an array that `pagelocked_empty` made: the array's `base`."""

            def __init__(self, shape: Sequence[int], dtype: npt.DTypeLike) -> None:
                kind = np.dtype(dtype)
                self._handle = call("cuMemHostAlloc", max(1, int(np.prod(shape)) * kind.itemsize), 0)
                self.__array_interface__ = {
                    "shape": tuple(shape), "typestr": kind.str, "data": (int(self._handle), False), "version": 3,
                }  # fmt: skip

            def free(self) -> None:
                handle, self._handle = self._handle, None
                call("cuMemFreeHost", handle)

            def __del__(self) -> None:
                _release(self, "_handle", call, "cuMemFreeHost")

        class Graph:
            """A captured graph, ready to be launched."""

            def __init__(self, handle: Any) -> None:
                self._handle = handle

            def launch(self, stream: Stream) -> None:
                call("cuGraphLaunch", self._handle, stream._handle)

            def __del__(self) -> None:
                _release(self, "_handle", call, "cuGraphExecDestroy")

        self.Context, self.Device, self.Stream, self.Event = Context, Device, Stream, Event
        self._device_allocation, self._host_allocation, self._graph = DeviceAllocation, PagelockedHostAllocation, Graph

    def call(self, name: str, *arguments: Any) -> Any:
        """What a function of the driver gives, None where it gives its status alone. CudaError otherwise."""
        try:
            status, *values = getattr(self.driver, name)(*arguments)
        except RuntimeError as error:  # no driver library: cuda-bindings looks for it at the first call
            raise CudaError(f"{name} failed: {error}") from error
        if int(status):
            kind = CudaMemoryError if status == self.driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY else CudaError
            raise kind(f"{name} failed: {self._sentence(status)}")
        return values[0] if len(values) == 1 else tuple(values) or None

    def _sentence(self, status: Any) -> str:
        with contextlib.suppress(Exception):
            _, text = self.driver.cuGetErrorString(status)
            return f"{text.decode()} ({getattr(status, 'name', int(status))})"
        return str(getattr(status, "name", int(status)))

    def init(self) -> None:
        self.call("cuInit", 0)

    def get_version(self) -> tuple[int, int, int]:
        """The CUDA release that the binding is of."""
        version = int(self.driver.CUDA_VERSION)
        return version // 1000, version % 1000 // 10, version % 10

    def get_driver_version(self) -> int:
        return int(self.call("cuDriverGetVersion"))

    def mem_get_info(self) -> tuple[int, int]:
        free, total = self.call("cuMemGetInfo")
        return int(free), int(total)

    def mem_alloc(self, size: int) -> Any:
        return self._device_allocation(size)

    def pagelocked_empty(self, shape: Sequence[int], dtype: npt.DTypeLike) -> Array:
        return np.asarray(self._host_allocation(shape, dtype))

    def memcpy_htod_async(self, dest: Any, src: Array, stream: Any) -> None:
        self.call("cuMemcpyHtoDAsync", int(dest), src.ctypes.data, src.nbytes, stream._handle)

    def memcpy_dtoh_async(self, dest: Array, src: Any, stream: Any) -> None:
        self.call("cuMemcpyDtoHAsync", dest.ctypes.data, int(src), dest.nbytes, stream._handle)

    def capture(self, stream: Any, queue: Callable[[], None]) -> Any:
        """The graph of what `queue` puts on `stream`, with `launch(stream)`. Nothing of it runs here.

        What other threads call meanwhile may not break the capture, and is not in it: mode "thread local".
        """
        mode = self.driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self.call("cuStreamBeginCapture", stream._handle, mode)
        try:
            queue()
        except BaseException:
            with contextlib.suppress(CudaError):
                self.call("cuGraphDestroy", self.call("cuStreamEndCapture", stream._handle))
            raise
        graph = self.call("cuStreamEndCapture", stream._handle)
        try:
            return self._graph(self.call("cuGraphInstantiate", graph, 0))
        finally:
            self.call("cuGraphDestroy", graph)


def _release(owner: Any, attribute: str, call: Callable[..., Any], name: str) -> None:
    """Free what `owner` holds, in its destructor, which may not raise."""
    handle = owner.__dict__.pop(attribute, None)
    if handle is not None:
        with contextlib.suppress(Exception):
            call(name, handle)
