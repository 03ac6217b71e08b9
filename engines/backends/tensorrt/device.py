"""One GPU: its primary context, made current for the length of a call, and the names of its failures."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from engines.backends.tensorrt.errors import DeviceLostError, OutOfMemoryError
from engines.backends.tensorrt.libraries import Libraries
from engines.base import Array, BackendUnavailableError

ANY = "any"
_RETAINED: weakref.WeakKeyDictionary[Any, dict[int, Any]] = weakref.WeakKeyDictionary()
_LOCK = threading.Lock()


class Cuda(Protocol):
    """What is needed of CUDA's driver, by the names that `pycuda.driver` has for it.

    Two things are one: the module `pycuda.driver` itself and `cuda_bindings.CudaBindings`. Each call but those of
    `Device` and the versions needs a context that is current in the calling thread. A destructor frees what its object
    holds. Beside these, one that can capture has `capture(stream, queue)`, which gives a graph with `launch(stream)`.
    """

    Error: type[Exception]
    MemoryError: type[Exception]
    event_flags: Any
    """With BLOCKING_SYNC and DISABLE_TIMING."""
    Context: Any
    """With `push`, and `pop` of the class."""
    Device: Any
    """Of a number: `count()` of the class, `name`, `compute_capability`, `retain_primary_context`."""
    Stream: Any
    """Of flags: `handle`, `synchronize`."""
    Event: Any
    """Of flags: `record(stream)`, `synchronize`, `time_since(event)` in ms."""

    def get_version(self) -> tuple[int, int, int]: ...

    def get_driver_version(self) -> int: ...

    def mem_get_info(self) -> tuple[int, int]:
        """Bytes of the GPU: (free, all)."""

    def mem_alloc(self, size: int) -> Any:
        """GPU memory: `int` of it is its address; `free()`."""

    def pagelocked_empty(self, shape: Any, dtype: Any) -> Array:
        """An array in page-locked memory, its `base` the owner, with `free()`."""

    def memcpy_htod_async(self, dest: Any, src: Array, stream: Any) -> None: ...

    def memcpy_dtoh_async(self, dest: Array, src: Any, stream: Any) -> None: ...


@dataclass(frozen=True, slots=True)
class Environment:
    """What a plan is good for."""

    tensorrt: str
    """Release of the library that built it."""
    gpu: str
    """Name of the GPU; "any" for a portable plan."""
    compute_capability: str
    """As "86"; "any" for a portable plan, whose targets are in its PlanSpec."""
    cuda: str
    """For people: the plan itself says whether a driver takes it."""
    driver: str
    """Likewise."""

    @classmethod
    def portable(cls, libraries: Libraries) -> Environment:
        """Of plans that are built ahead of time, on any machine."""
        return cls(str(libraries.trt.__version__), ANY, ANY, "", "")

    def __str__(self) -> str:
        if self.gpu == ANY:
            return f"any GPU, TensorRT for RTX {self.tensorrt}"
        return f"{self.gpu} (sm_{self.compute_capability}), TensorRT {self.tensorrt}"


class Device:
    """A GPU through its primary context, which PyTorch and ONNX Runtime use too.

    The context is retained once for the process and never given back: pycuda, for one, releases a context only in the
    thread that retained it, and other libraries rely on it until the end anyway.
    """

    def __init__(self, libraries: Libraries, index: int = 0) -> None:
        cuda: Cuda = libraries.cuda
        count = cuda.Device.count()
        if not 0 <= index < count:
            raise BackendUnavailableError(f"device {index}: got {count} GPUs, expected a number from 0 to {count - 1}")
        self.cuda = cuda
        self.index = index
        self._libraries = libraries
        with _LOCK:
            contexts = _RETAINED.setdefault(cuda, {})
            if index not in contexts:
                contexts[index] = cuda.Device(index).retain_primary_context()
            self._context = contexts[index]

    @contextmanager
    def active(self) -> Iterator[None]:
        """The context is the calling thread's inside; whatever was current before is so again after."""
        self._context.push()
        try:
            yield
        finally:
            self.cuda.Context.pop()

    @contextmanager
    def failures(self, doing: str) -> Iterator[None]:
        """CUDA's errors inside become OutOfMemoryError or DeviceLostError."""
        try:
            yield
        except self.cuda.MemoryError as error:
            raise self.out_of_memory(doing, str(error)) from error
        except self.cuda.Error as error:
            raise DeviceLostError(
                f"GPU {self.index}: {doing} failed ({error}), and a failed GPU stays so for this process; "
                "start again, and see `nvidia-smi` and the kernel log (dmesg | grep Xid) for the cause"
            ) from error

    def out_of_memory(self, doing: str, why: str) -> OutOfMemoryError:
        try:
            free, total = self.cuda.mem_get_info()
            room = f"{free / 2**20:.0f} of {total / 2**20:.0f} MiB are free"
        except self.cuda.Error:
            room = "how much is free it does not say"
        return OutOfMemoryError(
            f"GPU {self.index}: no memory for {doing} ({why}; {room}), expected enough for the engine and its buffers; "
            "use fewer slots, a smaller batch, or end other programs on this GPU"
        )

    def environment(self) -> Environment:
        device = self.cuda.Device(self.index)
        major, minor = device.compute_capability()
        driver = int(self.cuda.get_driver_version())
        return Environment(
            tensorrt=str(self._libraries.trt.__version__),
            gpu=str(device.name()),
            compute_capability=f"{major}{minor}",
            cuda=".".join(str(part) for part in self.cuda.get_version()[:2]),
            driver=f"{driver // 1000}.{driver % 1000 // 10}",
        )
