"""The double's builder, parser and timing cache."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import onnx
from google.protobuf.message import DecodeError

from engines.backends.tensorrt.operators import problems_of

from .refusals import Refused

if TYPE_CHECKING:
    from .trt import ILogger, TensorRT
    from .world import World


class ParserError:
    """Of a line of `problems_of`: "node 'NAME' (OPERATOR): WHY"."""

    def __init__(self, text: str) -> None:
        found = re.fullmatch(r"node '(.*)' \((\w+)\): (.*)", text)
        self._name, self._operator, self._text = found.groups() if found else ("", "", text)

    def desc(self) -> str:
        return self._text

    def node_name(self) -> str:
        return self._name

    def node_operator(self) -> str:
        return self._operator


class Tensor:
    """ITensor."""

    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        self.name, self.shape = name, shape


class Network:
    """INetworkDefinition."""

    def __init__(self, builder: Any, flags: int) -> None:
        self.builder, self.flags = builder, flags
        self.model: bytes = b""
        self.tensors: list[Tensor] = []

    @property
    def num_inputs(self) -> int:
        return len(self.tensors)

    def get_input(self, index: int) -> Tensor:
        return self.tensors[index]


class Profile:
    """IOptimizationProfile."""

    def __init__(self) -> None:
        self.shapes: dict[str, list[tuple[int, ...]]] = {}

    def set_shape(self, input: str, min: Sequence[int], opt: Sequence[int], max: Sequence[int]) -> None:
        if not all(0 <= a <= b <= c for a, b, c in zip(min, opt, max, strict=True)):
            raise Refused("profile order", f"profile of {input!r}: {tuple(min)}, {tuple(opt)}, {tuple(max)}")
        self.shapes[input] = [tuple(min), tuple(opt), tuple(max)]


class TimingCache:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def serialize(self) -> bytes:
        return self.data


class Config:
    """IBuilderConfig. Its slots refuse a misspelt property, as pybind11's classes do."""

    __slots__ = (
        "_cache",
        "_flags",
        "_pools",
        "_profiles",
        "_world",
        "builder_optimization_level",
        "hardware_compatibility_level",
        "plugins_to_serialize",
        "profiling_verbosity",
        "progress_monitor",
    )

    def __init__(self, world: World) -> None:
        from .trt import BuilderFlag, HardwareCompatibilityLevel, ProfilingVerbosity

        self._world = world
        self._flags: set[int] = {int(BuilderFlag.TF32)}  # on by default
        self.plugins_to_serialize: list[str] = []
        self._pools: dict[Any, int] = {}
        self._profiles: list[Profile] = []
        self.hardware_compatibility_level = HardwareCompatibilityLevel.NONE
        self.profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY
        self.progress_monitor: Any = None
        self.builder_optimization_level = 3
        self._cache: TimingCache | None = None

    def set_flag(self, flag: int) -> None:
        self._flags.add(int(flag))

    def clear_flag(self, flag: int) -> None:
        self._flags.discard(int(flag))

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self._pools[pool] = pool_size

    def add_optimization_profile(self, profile: Profile) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> TimingCache:
        return TimingCache(bytes(serialized_timing_cache))

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        owner = f"timings of {self._world.gpu} {self._world.version}".encode()
        if cache.data and not cache.data.startswith(owner):
            return False
        self._cache = cache
        return True

    def get_timing_cache(self) -> TimingCache | None:
        return self._cache


def make_builder(world: World, module: TensorRT) -> tuple[type, type]:
    from .trt import (
        BuilderFlag,
        HardwareCompatibilityLevel,
        NetworkDefinitionCreationFlag,
        ProfilingVerbosity,
        Severity,
        _Buffer,
        _dims,
        pack,
    )

    class Builder:
        def __init__(self, logger: ILogger) -> None:
            if not module._builds_anywhere:
                world.require_context("Builder")
            if not world.plugins_registered:
                raise Refused("plugins", "a builder was made before the plugins were registered")
            self.logger = logger
            self._thread = threading.get_ident()

        def create_network(self, flags: int = 0) -> Network:
            if not flags & 1 << int(NetworkDefinitionCreationFlag.STRONGLY_TYPED) and world.version.startswith("10"):
                raise AssertionError("a network of TensorRT 10 was made without STRONGLY_TYPED")
            return Network(self, flags)

        def create_builder_config(self) -> Config:
            return module.Config(world)  # type: ignore[no-any-return]

        def create_optimization_profile(self) -> Profile:
            return Profile()

        def build_serialized_network(self, network: Network, config: Config) -> _Buffer | None:
            if threading.get_ident() != self._thread:
                raise Refused("builder threads", "a builder was used by another thread than the one that made it")
            if not module._builds_anywhere:
                world.require_context("build_serialized_network")
            profile = config._profiles[0].shapes if config._profiles else {}
            for tensor in network.tensors:
                if -1 in tensor.shape and tensor.name not in profile:
                    raise Refused("profile missing", f"input {tensor.name!r} of shape {tensor.shape} has no profile")
                shapes = profile.setdefault(tensor.name, [tensor.shape] * 3)
                for real, *sizes in zip(tensor.shape, *shapes, strict=True):
                    if real != -1 and any(size != real for size in sizes):
                        raise Refused("profile order", f"profile of {tensor.name!r} {shapes} for {tensor.shape}")
            if not self._phases(config.progress_monitor):
                self.logger.log(Severity.ERROR, "IBuilder::buildSerializedNetwork: Error Code 1: build was cancelled")
                return None
            if world.counted_failure("build"):
                for number in range(world.warnings):
                    self.logger.log(Severity.WARNING, f"Converting conv weight scales to fp32. ({number})")
                self.logger.log(Severity.ERROR, "Error Code 10: Could not find any implementation for node /stem/Conv.")
                for number in range(world.warnings):
                    self.logger.log(Severity.WARNING, f"Converting conv activation scales to fp32. ({number})")
                return None
            if config._cache is not None:
                builds = config._cache.data.count(b"+") + 1
                config._cache.data = f"timings of {world.gpu} {world.version}".encode() + b"+" * builds
            header = {
                "version": world.version,
                "gpu": [world.gpu, list(world.compute_capability)],
                "profile": profile,
                "version_compatible": int(BuilderFlag.VERSION_COMPATIBLE) in config._flags,
                "hardware_compatible": config.hardware_compatibility_level == HardwareCompatibilityLevel.AMPERE_PLUS,
                "detailed": config.profiling_verbosity == ProfilingVerbosity.DETAILED,
                "workspace": next(iter(config._pools.values()), None),
                "tf32": int(BuilderFlag.TF32) in config._flags,
                "plugins": config.plugins_to_serialize,
                "targets": getattr(config, "_targets", []),
            }
            return _Buffer(pack(header, network.model))

        def _phases(self, monitor: Any) -> bool:
            if monitor is None:
                return True
            assert monitor.initialised, "IProgressMonitor.__init__ was not called"
            monitor.phase_start("Building the engine", None, 2)
            going = True
            for step in range(2):
                name = f"Timing {step}"
                monitor.phase_start(name, "Building the engine", 3)
                for inner in range(3):
                    going = going and monitor.step_complete(name, inner)
                monitor.phase_finish(name)
                going = going and monitor.step_complete("Building the engine", step)
            monitor.phase_finish("Building the engine")
            return going

    class OnnxParser:
        def __init__(self, network: Network, logger: ILogger) -> None:
            self._network, self._logger = network, logger
            self._errors: list[ParserError] = []

        def get_used_vc_plugin_libraries(self) -> list[str]:
            return ["libnvinfer_vc_plugin.so"]

        @property
        def num_errors(self) -> int:
            return len(self._errors)

        def get_error(self, index: int) -> ParserError:
            return self._errors[index]

        def parse(self, model: bytes, path: str | None = None) -> bool:
            try:
                proto = onnx.load_model_from_string(bytes(model))
            except DecodeError:
                self._errors = [ParserError("Failed to parse ONNX model")]
                return False
            self._errors = [ParserError(problem) for problem in problems_of(proto)]
            self._network.model = bytes(model)
            self._network.tensors = [Tensor(value.name, _dims(value)) for value in proto.graph.input]
            return not self._errors

    return Builder, OnnxParser
