"""From a model to a plan on disk: sizes, precision, parity, build, manifest. Built once for all processes."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from onnx import ModelProto

from engines.backends.conversion import Converted, Say, convert, fingerprint
from engines.backends.tensorrt.builder import (
    BuildOptions,
    LayerReport,
    Progress,
    build,
    check_batch,
    check_options,
    layer_report,
)
from engines.backends.tensorrt.device import Device, Environment
from engines.backends.tensorrt.errors import DamagedPlanError, FlavourUnavailableError, PlanError
from engines.backends.tensorrt.flavour import PORTABLE, targets_of
from engines.backends.tensorrt.libraries import Libraries
from engines.backends.tensorrt.manifest import Manifest, PlanSpec, PlanStore
from engines.backends.tensorrt.operators import check_operators
from engines.backends.tensorrt.runtime import TensorRTEngine
from engines.backends.tensorrt.sizes import with_sizes
from engines.base import ModelFormatError
from engines.geometry import Image, input_size
from engines.graphs.onnx_editing import dims_of, only_input
from engines.zoo.card import Card, DetectorInput


@dataclass(frozen=True, slots=True)
class CompileResult:
    plan_path: Path
    manifest: Manifest
    reused: bool
    """True where a plan was there already, or another process built it meanwhile."""
    reason: str
    """Why it was built, in one line; empty where it was reused."""
    converted: Converted | None
    """None where the plan was reused."""
    layers: LayerReport | None
    """None where the plan was reused, or built for other GPUs than any that is here."""


def sized(card: Card, proto: ModelProto, frame_size: tuple[int, int], *, dynamic: bool = True) -> ModelProto:
    """`proto` for frames (width, height) of a detector, or for the card's crops; the batch stays open if it may."""
    batch, height, width = dims_of(only_input(proto))[:3]
    if isinstance(card.input, DetectorInput) and (height is None or width is None):
        width, height = input_size(*frame_size, card.input.long_side_px, card.input.stride_px)
    elif not isinstance(card.input, DetectorInput):
        height, width = card.input.size
    return with_sizes(proto, batch if batch is not None or dynamic else 1, height, width)


def digest(proto: ModelProto) -> str:
    """SHA-256 of a model before its sizes are fixed; the same for the same bytes."""
    return hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest()


def compile_model(
    card: Card,
    proto: ModelProto,
    precision: str,
    frames: Sequence[Image],
    *,
    libraries: Libraries,
    store: PlanStore,
    options: BuildOptions | None = None,
    frame_size: tuple[int, int] = (640, 480),
    device: int = 0,
    accept_parity_loss: bool = False,
    force: bool = False,
    say: Say = lambda line: None,
    progress: Progress | None = None,
) -> CompileResult:
    """A plan for `proto` (uint8 input, compact head or probabilities), built unless the store has it.

    `frames` are real frames of a detector, cell pictures of a classifier: fp16 is compared on them, int8 calibrated
    too. Errors: ModelFormatError (an operator or size that TensorRT can't take), CalibrationError, ParityError,
    BuildError, PlanError (no space), OutOfMemoryError, UsageError. TensorRT for RTX builds a portable plan, and needs
    no GPU for it.
    """
    options = options or BuildOptions()
    portable = libraries.flavour.portable
    if portable:
        options = replace(options, compute_capabilities=options.compute_capabilities or PORTABLE)
    model = sized(card, proto, frame_size)
    _, height, width, _ = dims_of(only_input(model))
    if height is None or width is None:
        raise ModelFormatError(f"model {card.name!r}: got an input of open size, expected one size for a plan")
    check_batch(options.batch, model)
    check_options(options, libraries)
    check_operators(model, libraries.flavour)
    spec = PlanSpec(
        model=card.name,
        model_sha256=digest(proto),
        precision=precision,
        height=height,
        width=width,
        batch=options.batch,
        calibration_sha256=fingerprint(frames) if precision == "int8" else "",
        version_compatible=options.version_compatible,
        hardware_compatible=options.hardware_compatible,
        backend=libraries.flavour.name,
        compute_capabilities=options.compute_capabilities,
    )
    environment = Environment.portable(libraries) if portable else Device(libraries, device).environment()
    wanted = Manifest(spec, environment, workspace_mib=options.workspace_mib)
    with store.building(wanted):
        plan, reason = store.find(wanted)
        if plan is not None and not force:
            return CompileResult(store.plan_path(wanted), wanted, True, "", None, None)
        reason = reason or "asked for anew"
        say(f"building {wanted.stem}: {reason}")
        converted = convert(card, model, precision, frames, accept_parity_loss=accept_parity_loss, say=say)
        if converted.parity is not None:
            say(f"{precision}: {converted.parity}")
        check_operators(converted.model, libraries.flavour)
        built = build(
            converted.model,
            options,
            libraries,
            device=device,
            timing_cache=store.timing_cache(environment),
            progress=progress,
        )
        parity = "" if converted.parity is None else str(converted.parity)
        manifest = store.save(built.plan, replace(wanted, parity=parity, notes={"graph": converted.summary}))
        if built.timing_cache:
            store.save_timing_cache(environment, built.timing_cache)
    layers = None
    if not portable:
        layers = layer_report(built.plan, libraries, device=device, host_code_allowed=options.version_compatible)
    return CompileResult(store.plan_path(manifest), manifest, False, reason, converted, layers)


def load_plan(
    card: Card,
    proto: ModelProto,
    *,
    libraries: Libraries,
    store: PlanStore,
    height: int,
    width: int,
    slots: int = 2,
    device: int = 0,
) -> tuple[TensorRTEngine, Manifest]:
    """The engine of the newest plan in the store for this model, image size and machine.

    PlanError says in one line why there is none, and what to type. A plan whose bytes are damaged in spite of its
    manifest is removed, so that the next compilation builds it again; one that can't be loaded for want of memory or a
    driver stays. OutOfMemoryError: the GPU is too full for it. BackendUnavailableError: TensorRT for RTX has no target
    for this GPU.
    """
    flavour, here = libraries.flavour, Device(libraries, device).environment()
    if flavour.portable:
        check_target(libraries, here)
    environment = Environment.portable(libraries) if flavour.portable else here
    model_sha256 = digest(proto)
    reasons: list[str] = []
    for kept in store.of_model(card.name):
        if kept.spec.backend != flavour.name:
            continue
        if kept.spec.compute_capabilities and _dotted(here) not in kept.spec.compute_capabilities:
            reasons.append(f"{kept.stem}: for {', '.join(kept.spec.compute_capabilities)}, not {_dotted(here)}")
            continue
        spec = replace(kept.spec, model_sha256=model_sha256, height=height, width=width)
        plan, reason = store.find(replace(kept, spec=spec, environment=environment))
        if plan is None:
            reasons.append(f"{kept.stem}: {reason}")
            continue
        try:
            engine = TensorRTEngine(
                plan,
                libraries=libraries,
                slots=slots,
                device=device,
                precision=kept.spec.precision,
                host_code_allowed=kept.spec.version_compatible,
                runtime_cache=store.runtime_cache(kept, here.gpu),
            )
        except DamagedPlanError as error:
            store.remove(kept)
            reasons.append(f"{kept.stem}: {error}")
            continue
        except PlanError as error:
            reasons.append(f"{kept.stem}: {error}")
            continue
        _keep_kernels(engine, store, kept, here.gpu)
        return engine, kept
    why = "; ".join(reasons) or "no plan was built yet"
    backend = " --backend tensorrt-rtx" if flavour.portable else ""
    raise PlanError(
        f"model {card.name!r} at {width}x{height}: got no plan for {here.gpu} (sm_{here.compute_capability}), "
        f"{flavour} {here.tensorrt} ({why}); "
        f"build one: leukostream compile {card.name}{backend} --precision fp16 --size {width}x{height}"
    )


def _dotted(environment: Environment) -> str:
    """The compute capability as "8.6"."""
    return f"{environment.compute_capability[:-1]}.{environment.compute_capability[-1]}"


def check_target(libraries: Libraries, here: Environment) -> None:
    """BackendUnavailableError where TensorRT for RTX builds nothing for the GPU that is here."""
    targets = targets_of(libraries.trt)
    if _dotted(here) not in targets:
        raise FlavourUnavailableError(
            libraries.flavour,
            f"got {here.gpu} of compute capability {_dotted(here)}, expected one of {', '.join(targets)}, the targets "
            f"of {libraries.flavour} {here.tensorrt}",
            "use --backend tensorrt",
        )


def _keep_kernels(engine: TensorRTEngine, store: PlanStore, kept: Manifest, gpu: str) -> None:
    """The kernels that loading made, so that the next start need not make them; without room it does."""
    kernels = engine.runtime_cache
    if kernels and kernels != store.runtime_cache(kept, gpu):
        with contextlib.suppress(PlanError):
            store.save_runtime_cache(kept, gpu, kernels)
