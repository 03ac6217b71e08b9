"""The GPU of the double: memory with addresses, streams that work late, a context stack for each thread."""

from __future__ import annotations

import gc
import random
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .refusals import Refused

Bytes = npt.NDArray[np.uint8]


@dataclass(eq=False)
class Block:
    """A piece of memory with an address; `users` counts queued work that touches it."""

    address: int
    data: Bytes
    freed: bool = False
    users: int = 0

    def check(self) -> None:
        if self.freed:
            raise Refused("freed", f"memory at {self.address:#x} was used after it had been freed")


@dataclass(eq=False)
class Work:
    run: Callable[[], None]
    blocks: list[Block]
    what: str


@dataclass(eq=False)
class Queue:
    """What a stream holds: work in order, done when someone waits."""

    handle: int
    work: deque[Work] = field(default_factory=deque)
    captured: list[Work] | None = None
    """While the stream is being captured: what was put on it."""


class World:
    """One machine with one GPU. `trt` and `cuda` are what engines.backends.tensorrt.libraries.Libraries wants.

    `seed` makes streams do some of their work early, at random, as a GPU does; None leaves it all until something
    waits. `total_bytes` is the size of GPU memory, `fail` makes the named call fail once or from a count on. `binding`
    is what `cuda` doubles, "pycuda" or "cuda-bindings"; with `rtx`, `trt` is the double of TensorRT for RTX.
    """

    def __init__(
        self,
        *,
        seed: int | None = None,
        total_bytes: int = 1 << 30,
        version: str = "",
        gpu: str = "NVIDIA Double",
        compute_capability: tuple[int, int] | None = None,
        driver: int = 13000,
        gpus: int = 1,
        binding: str = "pycuda",
        rtx: bool = False,
    ) -> None:
        from engines.backends.tensorrt.cuda_bindings import CudaBindings

        from .bindings_driver import BindingsDriver
        from .cuda import Cuda
        from .trt import TensorRT
        from .trt_rtx import TensorRTForRtx

        version = version or ("1.7.1.116" if rtx else "11.4.0.106")
        compute_capability = compute_capability or ((8, 6) if rtx else (9, 0))

        self.lock = threading.RLock()
        self.random = None if seed is None else random.Random(seed)
        self.total_bytes, self.used_bytes = total_bytes, 0
        self.version, self.gpu, self.compute_capability = version, gpu, compute_capability
        self.driver, self.gpus = driver, gpus
        self.blocks: dict[int, Block] = {}
        self.pinned: list[tuple[int, int, Block]] = []
        self.queues: dict[int, Queue] = {}
        self.violations: list[Refused] = []
        self.lost: str | None = None
        self.fail: dict[str, int] = {}
        """Name of a call -> calls until it fails; at 0 it fails."""
        self.host_tensors: set[str] = set()
        """Outputs that TensorRT would want in host memory: those of shape tensors."""
        self.clock = 0
        """Pieces of work done so far; what events call their time."""
        self.most_queued_streams = 0
        self._next_address = 0x7F0000000000
        self._next_handle = 0x5000
        self._stacks = threading.local()
        self.stacks: list[list[object]] = []
        self.launches = 0
        """Batches that were started by themselves, and not as part of a graph."""
        self.graph_launches = 0
        self.warnings = 0
        """How many warnings a build gives."""
        self.plugins_registered = False
        self.kernels_made = 0
        """TensorRT for RTX: kernels made for shapes that its runtime cache did not have."""
        self.pycuda = Cuda(self)
        self.cuda: Any = CudaBindings(BindingsDriver(self)) if binding == "cuda-bindings" else self.pycuda
        self.trt: Any = TensorRTForRtx(self) if rtx else TensorRT(self)

    # Contexts

    @property
    def stack(self) -> list[object]:
        if not hasattr(self._stacks, "contexts"):
            self._stacks.contexts = []
            self.stacks.append(self._stacks.contexts)
        contexts: list[object] = self._stacks.contexts
        return contexts

    def require_context(self, call: str) -> None:
        if not self.stack:
            raise Refused("no context", f"{call} was called by a thread that has no current context")
        if self.lost is not None:
            raise self.pycuda.LogicError(f"{call} failed: {self.lost}")

    def counted_failure(self, call: str) -> bool:
        """Whether this call is the one that is to fail."""
        if call not in self.fail:
            return False
        self.fail[call] -= 1
        return self.fail[call] < 0

    # Memory

    def allocate(self, size: int) -> Block:
        with self.lock:
            if self.used_bytes + size > self.total_bytes or self.counted_failure("mem_alloc"):
                raise self.pycuda.MemoryError("cuMemAlloc failed: out of memory")
            block = Block(self._next_address, np.full(size, 0xA5, np.uint8))
            self._next_address += (size + 511) // 256 * 256
            self.used_bytes += size
            self.blocks[block.address] = block
            return block

    def block_of(self, address: int) -> Block:
        block = self.blocks.get(address)
        if block is None:
            raise Refused("size", f"no allocation begins at address {address:#x}")
        block.check()
        return block

    def free(self, block: Block) -> None:
        with self.lock:
            block.check()
            if block.users:
                raise Refused("running", f"memory at {block.address:#x} was freed while a stream still uses it")
            block.freed = True
            block.data[:] = 0x5A  # whoever still looks sees rubbish
            self.used_bytes -= block.data.nbytes

    def pin(self, block: Block) -> None:
        start = block.data.__array_interface__["data"][0]
        self.pinned.append((start, start + block.data.nbytes, block))

    def pinned_block(self, array: npt.NDArray[np.generic]) -> Block:
        start = array.__array_interface__["data"][0]
        for low, high, block in self.pinned:
            if low <= start and start + array.nbytes <= high:
                block.check()
                return block
        raise Refused("pageable", "an asynchronous copy was given host memory that is not page-locked")

    # Streams

    def new_queue(self) -> Queue:
        with self.lock:
            self._next_handle += 16
            queue = self.queues[self._next_handle] = Queue(self._next_handle)
            return queue

    def queue_of(self, handle: int) -> Queue:
        if handle == 0:
            raise Refused("default stream", "work was put on the default stream")
        queue = self.queues.get(handle)
        if queue is None:
            raise Refused("freed", f"stream {handle:#x} was used after it had been destroyed")
        return queue

    def enqueue(self, queue: Queue, work: Work) -> None:
        with self.lock:
            if queue.captured is not None:
                queue.captured.append(work)
                return
            for block in work.blocks:
                block.check()
                block.users += 1
            queue.work.append(work)
            busy = sum(1 for other in self.queues.values() if other.work)
            self.most_queued_streams = max(self.most_queued_streams, busy)
            if self.random is not None:
                for other in list(self.queues.values()):
                    self.advance(other, self.random.randint(0, 2))

    def advance(self, queue: Queue, steps: int | None = None) -> None:
        """Do the next `steps` pieces of work, or all."""
        with self.lock:
            while queue.work and (steps is None or steps > 0):
                work = queue.work.popleft()
                for block in work.blocks:
                    block.users -= 1
                work.run()
                if steps is not None:
                    steps -= 1

    def check_clean(self) -> None:
        """Raise what destructors found, and complain of what is left."""
        if self.used_bytes or self.queues:
            gc.collect()  # what only a cycle, of an exception and its frames say, still holds
        if self.violations:
            raise self.violations[0]
        left = [stack for stack in self.stacks if stack]
        if left:
            raise Refused("context left", f"{len(left)} threads still have a context on their stack")
        assert self.used_bytes == 0, f"{self.used_bytes} bytes of GPU and page-locked memory were not freed"
        assert not self.queues, f"{len(self.queues)} streams were not destroyed"
