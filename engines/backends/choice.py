"""Which backend runs a model here: TensorRT where it can, else that for RTX, else ONNX Runtime on CUDA or the CPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

import onnxruntime
from onnx import ModelProto

from engines.backends.conversion import parity_of
from engines.backends.onnxruntime import OnnxRuntimeEngine, Threads
from engines.backends.shadow import ShadowedEngine, ShadowTally
from engines.backends.tensorrt.errors import FlavourUnavailableError, NoDriverError
from engines.backends.tensorrt.flavour import FLAVOURS, Flavour, Name
from engines.base import BackendUnavailableError, Elsewhere, Engine, EngineId, near
from engines.graphs.graph import fix_input_shape
from engines.graphs.onnx_editing import dims_of, only_input
from engines.zoo.card import Card
from engines.zoo.crops import CropInput

Backend = Literal["auto", "onnxruntime", "tensorrt", "tensorrt-rtx"]
BACKENDS: tuple[Backend, ...] = ("auto", "onnxruntime", "tensorrt", "tensorrt-rtx")
_TENSORRTS: dict[str, tuple[Name, ...]] = {
    "auto": ("tensorrt", "tensorrt-rtx"),
    "onnxruntime": (),
    "tensorrt": ("tensorrt",),
    "tensorrt-rtx": ("tensorrt-rtx",),
}
Say = Callable[[str], None]

GPU_BATCH = 8
"""Frames of one run of ONNX Runtime on CUDA. On a CPU it is one: eight in a run take 17.3 ms of processor time a frame
instead of 17.5 (YOLOv5n, 512x384; docs/benchmarks/batch-cpu.json), for which no frame need wait."""

CPU_CROPS = 8
"""Crops of one run of ONNX Runtime on the CPU. Of up to 32, EfficientNet-Lite0 took 147 MB beside its weights, with two
threads; of up to 8 it takes 71 MB, without memory patterns (onnxruntime.py) 47 MB, and 3.5 ms of processor time a crop
with any of them. Of less than 4 the last bits of its results are others."""


class EngineMaker:
    """Makes the engines of one model, one for each input size, all on the first backend that works.

    "auto" tries TensorRT, TensorRT for RTX, ONNX Runtime with CUDA and ONNX Runtime on the CPU; "onnxruntime" the last
    two; "tensorrt" and "tensorrt-rtx" themselves alone. `say` is told in one line what runs, how long loading took,
    and why nothing faster does. With `shadow` an engine on a GPU is compared with the CPU now and then.
    """

    def __init__(
        self,
        card: Card,
        model: ModelProto,
        *,
        backend: Backend = "auto",
        threads: Threads | None = None,
        batch: int | None = None,
        shadow: ShadowTally | None = None,
        say: Say = lambda line: None,
        elsewhere: Elsewhere | None = None,
        maps: bool = False,
    ) -> None:
        """`batch`: images of one run; None: as many as suit the backend. `elsewhere`: what runs them on other machines
        while it can; None: nothing does. `maps`: whether Grad-CAM was added to the graph. BackendUnavailableError for
        TensorRT asked for by name where it is missing, at once rather than at the first frame."""
        if backend not in BACKENDS:
            raise BackendUnavailableError(
                f"backend: got {backend!r}, expected {', '.join(BACKENDS)}{near(backend, BACKENDS)}"
            )
        self._card, self._model = card, model
        self._backend = backend
        self._threads = threads
        self._shadow = shadow
        self._say = say
        self._elsewhere, self._maps = elsewhere, maps
        self._fixed_batch = dims_of(only_input(model))[0]
        self._asked = batch
        if backend in FLAVOURS:
            from engines.backends.tensorrt.libraries import load

            load(FLAVOURS[backend])
        self.batch = self._fixed_batch or batch or self._usual_batch()
        """Images that one run takes to advantage."""

    def __call__(self, height: int | None, width: int | None) -> Engine:
        """An engine for that input size; None for a size that the file fixes itself."""
        started = time.perf_counter()
        engine, reasons = self._load(height, width)
        why = f": {'; '.join(reasons)}" if reasons else ""
        runs = "runs on" if self._elsewhere is None else "runs elsewhere; on this machine on"
        self._say(f"{self._card.name}: {runs} {engine.backend}, loaded in {time.perf_counter() - started:.1f} s{why}")
        if self._shadow is not None and engine.backend != "onnxruntime cpu":
            reference = self._on_cpu(height, width, Threads(1), 1)
            engine = ShadowedEngine(engine, reference, lambda *pair: parity_of(self._card, *pair), self._shadow)
        if self._elsewhere is None or self._card.sha256 is None:
            return engine
        return self._elsewhere(EngineId(self._card.sha256, height, width, self._maps), engine)

    def _load(self, height: int | None, width: int | None) -> tuple[Engine, list[str]]:
        """The first engine of the chain that works, and why those before it don't."""
        reasons: list[str] = []
        for name in _TENSORRTS[self._backend]:
            try:
                return self._on_tensorrt(height, width, FLAVOURS[name]), reasons
            except BackendUnavailableError as error:
                if self._backend in FLAVOURS:
                    raise
                why = error.reason if isinstance(error, FlavourUnavailableError) else error
                reason = "no NVIDIA driver here" if isinstance(error, NoDriverError) else f"no {FLAVOURS[name]} ({why})"
                if reason not in reasons:
                    reasons.append(reason)
        if onnxruntime_has_cuda():
            try:
                return self._on_cuda(height, width), reasons
            except BackendUnavailableError as error:
                reasons.append(f"no CUDA ({error})")
        elif not reasons:
            reasons.append("this ONNX Runtime has no CUDA")
        return self._on_cpu(height, width, self._threads, self._asked or 1), reasons

    def _on_tensorrt(self, height: int | None, width: int | None, flavour: Flavour) -> Engine:
        from engines.backends.tensorrt.choice import SLOTS, tensorrt_engine

        rows, columns = _size(self._card, self._model, height, width)
        slots = max(SLOTS, self._threads.concurrent if self._threads else 1)
        return tensorrt_engine(self._card, self._model, rows, columns, flavour=flavour, slots=slots)

    def _on_cuda(self, height: int | None, width: int | None) -> Engine:
        model = fix_input_shape(self._model, None, height, width)
        return OnnxRuntimeEngine(model, threads=self._threads, device="cuda", max_batch=self.batch)

    def _on_cpu(self, height: int | None, width: int | None, threads: Threads | None, batch: int) -> Engine:
        is_detector = not isinstance(self._card.input, CropInput)
        one = is_detector and batch == 1 and self._fixed_batch is None
        model = fix_input_shape(self._model, 1 if one else None, height, width)
        return OnnxRuntimeEngine(model, threads=threads, device="cpu", max_batch=batch if is_detector else CPU_CROPS)

    def _usual_batch(self) -> int:
        if self._backend != "onnxruntime":
            from engines.backends.tensorrt.choice import largest_batch

            planned = largest_batch(self._card.name, _TENSORRTS[self._backend])
            if planned is not None:
                return planned
        return GPU_BATCH if onnxruntime_has_cuda() else 1


def onnxruntime_has_cuda() -> bool:
    """Whether the package that is installed has the CUDA provider; it may still not start."""
    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def _size(card: Card, model: ModelProto, height: int | None, width: int | None) -> tuple[int, int]:
    """(height, width) of the input; the card's where the file leaves it open."""
    own = dims_of(only_input(model))[1:3]
    height, width = height or own[0], width or own[1]
    if isinstance(card.input, CropInput):
        return height or card.input.height_px, width or card.input.width_px
    assert height is not None
    assert width is not None
    return height, width
