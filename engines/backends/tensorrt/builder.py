"""ONNX to a plan: one strongly typed network, one optimisation profile, progress that can be stopped."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any, Protocol

from onnx import ModelProto

from engines.backends.tensorrt.device import Device
from engines.backends.tensorrt.errors import BuildCancelledError, BuildError
from engines.backends.tensorrt.libraries import Libraries, LogLines, make_logger
from engines.backends.tensorrt.operators import check_operators
from engines.base import ModelFormatError
from engines.graphs.onnx_editing import dims_of, only_input, spell

_POLL_S = 0.1
"""How often the waiting thread looks for Ctrl-C; Python handles signals in the main thread, between such waits."""


class Progress(Protocol):
    """What a build tells of itself. Called from TensorRT's own threads."""

    def started(self, phase: str, parent: str | None, steps: int) -> None: ...

    def stepped(self, phase: str, done: int) -> None: ...

    def finished(self, phase: str) -> None: ...


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How to build, apart from what."""

    batch: tuple[int, int, int] = (1, 4, 8)
    """Smallest, usual, largest."""
    workspace_mib: int = 1024
    """Most GPU memory that a layer may use for its own work."""
    version_compatible: bool = False
    hardware_compatible: bool = False
    optimization_level: int = 3
    """0 (fast build) to 5 (fast engine)."""


@dataclass(frozen=True, slots=True)
class Built:
    plan: bytes
    timing_cache: bytes
    """What this build and earlier ones measured; for the next."""


def check_batch(batch: tuple[int, int, int], model: ModelProto) -> tuple[int, int, int]:
    """The profile's batches for `model`: a file of fixed batch has only its own. ModelFormatError otherwise."""
    low, usual, high = batch
    if not 1 <= low <= usual <= high:
        raise ModelFormatError(
            f"batch: got {low},{usual},{high}, expected MIN,OPT,MAX with 1 <= MIN <= OPT <= MAX, for example 1,4,8"
        )
    fixed = dims_of(only_input(model))[0]
    if fixed is not None and batch != (fixed, fixed, fixed):
        raise ModelFormatError(
            f"input {only_input(model).name!r}: got {spell(only_input(model))}, a file of fixed batch, expected "
            f"an open one for {low},{usual},{high}; say --batch {fixed},{fixed},{fixed} or export it again"
        )
    return batch


def build(
    model: ModelProto,
    options: BuildOptions,
    libraries: Libraries,
    *,
    device: int = 0,
    timing_cache: bytes = b"",
    progress: Progress | None = None,
) -> Built:
    """Build a plan of `model`, whose input has only its batch open. KeyboardInterrupt stops TensorRT, then goes on.

    ModelFormatError names nodes that TensorRT can't take; BuildError says what its log says. The builder works in a
    thread of its own: an exception raised by Ctrl-C inside a callback would have to cross TensorRT's C++ frames.
    """
    check_batch(options.batch, model)
    check_operators(model)
    gpu = Device(libraries, device)
    cancelled, finished = Event(), Event()
    result: list[Built] = []
    failure: list[BaseException] = []

    def work() -> None:
        try:
            if not cancelled.is_set():
                with gpu.active(), gpu.failures("building the plan"):
                    result.append(_build(model, options, libraries, timing_cache, progress, cancelled))
        except BaseException as error:
            failure.append(error)
        finally:
            finished.set()

    worker = Thread(target=work, name="tensorrt-build")
    try:
        worker.start()  # Ctrl-C may come in here already
        while not finished.wait(_POLL_S):
            pass
    except BaseException:
        cancelled.set()
        # Not join: one that Ctrl-C interrupts takes a running thread for an ended one (CPython 3.11, bpo-45274).
        if worker.ident is not None:
            finished.wait()
        raise
    if failure:
        raise failure[0]
    return result[0]


def _build(
    model: ModelProto,
    options: BuildOptions,
    libraries: Libraries,
    timing_cache: bytes,
    progress: Progress | None,
    cancelled: Event,
) -> Built:
    trt = libraries.trt
    log = LogLines()
    logger = make_logger(trt, log)
    try:
        builder = trt.Builder(logger)
    except (TypeError, RuntimeError) as error:  # pybind11 where the library gives a null pointer
        raise BuildError(
            f"TensorRT's builder does not start ({error}; {log.errors()}), expected a working GPU and driver; "
            "see what `nvidia-smi` and `leukostream doctor` say"
        ) from error
    # TensorRT 11 has no other networks and ignores the flag, TensorRT 10 needs it.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model.SerializeToString()):
        why = "; ".join(str(parser.get_error(index).desc()) for index in range(parser.num_errors)) or log.errors()
        raise ModelFormatError(
            f"TensorRT can't take this graph: {why}; change these operators, or use --backend onnxruntime"
        )
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    config.builder_optimization_level = options.optimization_level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # for the layer report
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    _add_profile(builder, network, config, options.batch)
    cache = config.create_timing_cache(timing_cache)
    if not config.set_timing_cache(cache, False):  # of another GPU or release: begin anew
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    monitor = _make_monitor(trt, progress, cancelled)
    config.progress_monitor = monitor
    log.clear()
    plan = builder.build_serialized_network(network, config)
    if cancelled.is_set():
        raise BuildCancelledError("build: cancelled, nothing was written")
    if plan is None:
        raise BuildError(
            f"TensorRT could not build the plan: {log.errors()}; expected a graph that fits this GPU, try fp32, "
            "a smaller batch or more --workspace"
        )
    kept = config.get_timing_cache()
    return Built(bytes(plan), bytes(kept.serialize()) if kept is not None else b"")


def _add_profile(builder: Any, network: Any, config: Any, batch: tuple[int, int, int]) -> None:
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        rest = tuple(int(size) for size in tensor.shape)[1:]
        if any(size < 0 for size in rest):
            raise ModelFormatError(
                f"input {tensor.name!r}: got shape {tuple(tensor.shape)}, expected every size but the batch as a number"
            )
        profile.set_shape(tensor.name, *((size, *rest) for size in batch))
    if config.add_optimization_profile(profile) < 0:
        raise BuildError(f"TensorRT refused the profile for batches {batch}; expected MIN <= OPT <= MAX")


def _make_monitor(trt: Any, progress: Progress | None, cancelled: Event) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if progress is not None:
                progress.started(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if progress is not None:
                progress.stepped(phase_name, step + 1)
            return not cancelled.is_set()

        def phase_finish(self, phase_name: str) -> None:
            if progress is not None:
                progress.finished(phase_name)

    return Monitor()


@dataclass(frozen=True, slots=True)
class LayerReport:
    """What TensorRT made of the graph."""

    layers: int
    by_type: Mapping[str, int]
    document: str
    """TensorRT's own description, JSON."""


def layer_report(plan: bytes, libraries: Libraries, *, device: int = 0, host_code_allowed: bool = False) -> LayerReport:
    """Load `plan` and ask for its layers. Layers appear fused, so they are fewer than the graph's nodes."""
    gpu = Device(libraries, device)
    trt, log = libraries.trt, LogLines()
    logger = make_logger(trt, log)
    with gpu.active(), gpu.failures("loading the plan"):
        runtime = trt.Runtime(logger)
        if host_code_allowed:
            runtime.engine_host_code_allowed = True
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise BuildError(f"the plan just built does not load: {log.errors()}; build it again")
        document = str(engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON))
        del engine, runtime
    kinds: Counter[str] = Counter()
    try:
        layers = json.loads(document).get("Layers", [])
    except (ValueError, AttributeError):
        layers = []
    for layer in layers:
        kinds[str(layer.get("LayerType", "?")) if isinstance(layer, dict) else "?"] += 1
    return LayerReport(len(layers), dict(kinds.most_common()), document)
