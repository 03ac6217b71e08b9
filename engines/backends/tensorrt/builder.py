"""ONNX to a plan: one strongly typed network, one optimisation profile, progress that can be stopped."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any, Protocol

from onnx import ModelProto

from engines.backends.tensorrt.device import Device
from engines.backends.tensorrt.errors import BuildCancelledError, BuildError, PlanError
from engines.backends.tensorrt.flavour import PORTABLE, target, targets_of
from engines.backends.tensorrt.libraries import Libraries, version_of
from engines.backends.tensorrt.log import LogLines, make_logger
from engines.backends.tensorrt.operators import check_operators
from engines.backends.tensorrt.plan import deserialize, init_plugins
from engines.base import ModelFormatError, UsageError
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
    compute_capabilities: tuple[str, ...] = ()
    """TensorRT for RTX only: the GPUs that the plan is for, as "8.6"; none: `flavour.PORTABLE`."""


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


def check_options(options: BuildOptions, libraries: Libraries) -> None:
    """Whether this library can build so: said before minutes of comparing and building, not after.

    UsageError: an option that is the other library's. BuildError: `version_compatible` without the lean runtime, which
    the plan is to carry.
    """
    flavour = libraries.flavour
    if flavour.portable:
        if options.version_compatible or options.hardware_compatible:
            raise UsageError(
                f"--version-compatible, --hardware-compatible: got one of them with {flavour}, expected neither: its "
                "plans run on every GPU that they are built for, and on no other release; leave them out"
            )
        known = targets_of(libraries.trt)
        for capability in options.compute_capabilities:
            if capability not in known:
                raise UsageError(
                    f"--compute-capability: got {capability!r}, expected of {', '.join(known)}, of {flavour}"
                )
    elif options.compute_capabilities:
        raise UsageError(
            f"--compute-capability: got {', '.join(options.compute_capabilities)} with {flavour}, expected none: it "
            "builds for the GPU that is here; leave it out, or say --backend tensorrt-rtx"
        )
    if options.version_compatible:
        _check_lean(libraries)


def _check_lean(libraries: Libraries) -> None:
    """BuildError unless the builder will find the lean runtime: in its wheel, or where the system keeps libraries."""
    major = version_of(libraries.trt)[0]
    soname = f"libnvinfer_lean.so.{major}"
    with contextlib.suppress(ImportError, OSError):
        importlib.import_module("tensorrt_lean_libs")  # loads it, and then it is found by name
    try:
        ctypes.CDLL(soname)
    except OSError as error:
        raise BuildError(
            f"--version-compatible: got no lean runtime ({soname}: {error}), expected it, since the plan carries it; "
            f"pip install tensorrt-lean of version {libraries.trt.__version__}, or build without --version-compatible"
        ) from error


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
    check_options(options, libraries)
    check_operators(model, libraries.flavour)
    gpu = None if libraries.flavour.portable else Device(libraries, device)
    cancelled, finished = Event(), Event()
    result: list[Built] = []
    failure: list[BaseException] = []

    def work() -> None:
        try:
            if not cancelled.is_set():
                with contextlib.ExitStack() as stack:
                    if gpu is not None:
                        stack.enter_context(gpu.active())
                        stack.enter_context(gpu.failures("building the plan"))
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
    trt, flavour = libraries.trt, libraries.flavour
    log = LogLines()
    logger = make_logger(trt, log)
    init_plugins(trt, logger)
    try:
        builder = trt.Builder(logger)
    except (TypeError, RuntimeError) as error:  # pybind11 where the library gives a null pointer
        raise BuildError(
            f"{flavour}'s builder does not start ({error}; {log.errors()}), expected a working GPU and driver; "
            "see what `nvidia-smi` and `leukostream doctor` say"
        ) from error
    # TensorRT 11 has no other networks and ignores the flag, TensorRT 10 needs it.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model.SerializeToString()):
        why = "; ".join(_parse_error(parser.get_error(i)) for i in range(parser.num_errors)) or log.errors()
        raise ModelFormatError(
            f"{flavour} can't take this graph: {why}; change these operators, or use --backend onnxruntime"
        )
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    config.builder_optimization_level = options.optimization_level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # for the layer report
    # On by default, it rounds the factors of every product to 10 bits: fp32 would not be "as trained".
    config.clear_flag(trt.BuilderFlag.TF32)
    if flavour.portable:
        _set_targets(config, options.compute_capabilities or PORTABLE, trt)
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        plugins = parser.get_used_vc_plugin_libraries()
        if plugins:
            config.plugins_to_serialize = list(plugins)
    if options.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    _add_profile(builder, network, config, options.batch)
    if not flavour.portable:  # which times nothing: its kernels are made on the user's GPU
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
            f"{flavour} could not build the plan: {log.errors()}; expected a graph that fits "
            f"{'the GPUs it is for' if flavour.portable else 'this GPU'}, try fp32 or fp16, a smaller batch or more "
            "--workspace-mib"
        )
    kept = None if flavour.portable else config.get_timing_cache()
    return Built(bytes(plan), bytes(kept.serialize()) if kept is not None else b"")


def _parse_error(error: Any) -> str:
    """One of the parser's complaints, with the node that it is about."""
    name, operator = str(error.node_name()), str(error.node_operator())
    node = f"node {name!r} ({operator}): " if name or operator else ""
    return f"{node}{error.desc()}"


def _set_targets(config: Any, capabilities: tuple[str, ...], trt: Any) -> None:
    config.num_compute_capabilities = len(capabilities)
    for index, capability in enumerate(capabilities):
        if not config.set_compute_capability(getattr(trt.ComputeCapability, target(capability)), index):
            raise BuildError(f"TensorRT for RTX refused compute capability {capability} as a target; choose others")


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
        try:
            runtime, engine = deserialize(plan, libraries, gpu, logger, log, host_code_allowed=host_code_allowed)
        except PlanError as error:
            raise BuildError(f"the plan just built does not load: {error}") from error
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
