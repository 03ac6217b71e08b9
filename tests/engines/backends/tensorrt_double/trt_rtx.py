"""The double of the module `tensorrt_rtx`: what TensorRT for RTX has beside, or in place of, TensorRT's.

A plan is built anywhere, for the compute capabilities it names; kernels are made when it is first run, and kept.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

from .refusals import Refused
from .trt import TensorRT
from .trt_build import Config, TimingCache

if TYPE_CHECKING:
    from .world import World


class ComputeCapability(enum.Enum):
    NONE = 0
    CURRENT = 1
    SM75 = 75
    SM80 = 80
    SM86 = 86
    SM89 = 89
    SM120 = 120
    SM121 = 121


class CudaGraphStrategy(enum.Enum):
    DISABLED = 0
    WHOLE_GRAPH_CAPTURE = 1


class RtxConfig(Config):
    """IBuilderConfig with targets, and without timings."""

    __slots__ = ("_targets", "num_compute_capabilities")

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._targets: list[str] = []
        self.num_compute_capabilities = 0

    def set_compute_capability(self, compute_capability: ComputeCapability, index: int) -> bool:
        if compute_capability is ComputeCapability.NONE or index >= self.num_compute_capabilities:
            return False
        self._targets.append(compute_capability.name)
        return True

    def create_timing_cache(self, serialized_timing_cache: bytes) -> TimingCache:
        raise Refused("timing", "a timing cache was made for TensorRT for RTX")


class RuntimeCache:
    """IRuntimeCache: kernels, as lines of text."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.kernels: list[str] = []

    @property
    def _owner(self) -> str:
        return f"kernels of {self._world.gpu} {self._world.version}"

    def serialize(self) -> bytes:
        self._world.require_context("RuntimeCache.serialize")
        return "\n".join([self._owner, *self.kernels]).encode()

    def deserialize(self, blob: bytes) -> bool:
        self._world.require_context("RuntimeCache.deserialize")
        owner, *kernels = bytes(blob).decode().split("\n")
        if owner != self._owner:
            return False
        self.kernels = kernels
        return True


class RuntimeConfig:
    """IRuntimeConfig."""

    __slots__ = ("_cache", "_world", "cuda_graph_strategy")

    def __init__(self, world: World) -> None:
        self._world = world
        self._cache: RuntimeCache | None = None
        self.cuda_graph_strategy = CudaGraphStrategy.DISABLED

    def create_runtime_cache(self) -> RuntimeCache:
        return RuntimeCache(self._world)

    def set_runtime_cache(self, cache: RuntimeCache | None = None) -> bool:
        self._cache = cache
        return True

    def make_kernels(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """The double's own: what a run at new shapes does."""
        name = f"{sorted(shapes.items())}"
        if self._cache is not None and name not in self._cache.kernels:
            self._cache.kernels.append(name)
            self._world.kernels_made += 1


class TensorRTForRtx(TensorRT):
    """Stands for the module `tensorrt_rtx`."""

    ComputeCapability = ComputeCapability
    CudaGraphStrategy = CudaGraphStrategy
    _builds_anywhere = True

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.Config = RtxConfig

        def create_runtime_config(self: Any) -> RuntimeConfig:
            return RuntimeConfig(world)

        self.Engine.create_runtime_config = create_runtime_config  # type: ignore[attr-defined]
