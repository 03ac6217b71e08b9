"""The models of an inference server by the hash of their file, and their engines, loaded when first asked for."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from engines.backends.choice import Backend, EngineMaker, Say
from engines.backends.onnxruntime import Threads
from engines.base import Array, Engine, EngineError, EngineId, UsageError
from engines.graphs.gradcam import add_gradcam
from engines.zoo.card import DetectorInput
from engines.zoo.registry import Model, WrongTaskError, compact, find, naming_model
from streamer.inference.wire import ServedModel

ENGINES_KEPT = 8
"""Of one model, by input size: a camera model has one size, a hospital a few camera models."""

INPUT_MAX_PX = 4096
"""Longest side of an input: what `--long-side-px` takes at most."""

USUAL_GPU_ROWS = 8
"""Images of several requests that one run on a GPU takes, where its engine names no limit."""

Precision = Literal["fp32", "fp16", "int8"]


class UnknownModelError(EngineError):
    """No model of that hash is served here."""


class Shelf(Protocol):
    """What a server runs; any thread calls it."""

    @property
    def models(self) -> tuple[ServedModel, ...]: ...

    def engine(self, id_: EngineId) -> Engine:
        """Loaded if it is not yet. UnknownModelError, EngineError."""

    def joined_rows(self, id_: EngineId) -> int:
        """How many rows of several requests one run takes; 1: a request runs alone. Never loads anything."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Entry:
    model: Model
    make: EngineMaker


class ModelShelf:
    """Models by name or file, on one backend.

    A request runs alone on a CPU: nothing is gained there by joining, and a run of fewer than four crops has other last
    bits than a larger one, so that a result would depend on who else asks. On a GPU runs are joined.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        backend: Backend = "auto",
        precision: Precision | None = None,
        threads: Threads | None = None,
        max_batch: int | None = None,
        say: Say = lambda line: None,
    ) -> None:
        """`precision`: what engines have to compute in; None: as they do. `max_batch`: rows of one run; 1: a request
        runs alone; None: as suits the backend. ModelNotFoundError and its like for models that can't be served."""
        self._precision = precision
        self._max_batch = max_batch
        self._threads, self._say = threads, say
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._loading: dict[EngineId, threading.Lock] = {}
        self._loaded: OrderedDict[EngineId, Engine] = OrderedDict()
        for name in dict.fromkeys(names):
            model = find_any(name)
            proto = compact(model) if model.card.task == "detector" else model.proto
            make = EngineMaker(model.card, proto, backend=backend, threads=threads, batch=max_batch, say=say)
            self._entries[_hash_of(model)] = _Entry(model, make)

    @property
    def models(self) -> tuple[ServedModel, ...]:
        return tuple(
            ServedModel(sha256, entry.model.card.name, entry.model.card.task) for sha256, entry in self._entries.items()
        )

    def engine(self, id_: EngineId) -> Engine:
        with self._lock:
            engine = self._loaded.get(id_)
            if engine is not None:
                self._loaded.move_to_end(id_)
                return engine
            self._entry(id_)
            loading = self._loading.setdefault(id_, threading.Lock())
        with loading:  # who asks for the same engine waits, and nobody else
            with self._lock:
                engine = self._loaded.get(id_)
            return engine or self._load(id_)

    def joined_rows(self, id_: EngineId) -> int:
        if self._max_batch == 1:
            return 1
        with self._lock:
            engine = self._loaded.get(id_)
        if engine is None or (engine.backend == "onnxruntime cpu" and self._max_batch is None):
            return 1
        return min(self._max_batch or USUAL_GPU_ROWS, engine.max_batch or USUAL_GPU_ROWS)

    def close(self) -> None:
        with self._lock:
            for engine in self._loaded.values():
                engine.close()
            self._loaded.clear()

    def _entry(self, id_: EngineId) -> _Entry:
        entry = self._entries.get(id_.sha256)
        if entry is None:
            served = ", ".join(f"{one.name} {one.sha256[:12]}…" for one in self.models)
            raise UnknownModelError(f"model {id_.sha256[:12]}…: not served here, which has {served}")
        return entry

    def _load(self, id_: EngineId) -> Engine:
        entry = self._entry(id_)
        if max(id_.height or 0, id_.width or 0) > INPUT_MAX_PX:
            raise EngineError(f"input: got {id_.width} x {id_.height} px, expected at most {INPUT_MAX_PX}")
        open_size = isinstance(entry.model.card.input, DetectorInput)
        if open_size and (id_.height is None or id_.width is None):
            raise EngineError(f"{entry.model.where}: got no input size, expected one")
        with naming_model(entry.model.where):
            make = self._explaining(entry.model) if id_.maps else entry.make
            engine = make(id_.height, id_.width)
        computes = engine.backend.split()[-1] if engine.backend.startswith("tensorrt") else "fp32"
        if self._precision not in (None, computes):
            engine.close()
            name = entry.model.card.name
            raise EngineError(
                f"{entry.model.where}: got an engine in {computes}, expected {self._precision} as --precision says: "
                f"leukostream compile {name} --precision {self._precision}"
            )
        with self._lock:
            self._loaded[id_] = engine
            own = [one for one in self._loaded if one.sha256 == id_.sha256]
            if len(own) > ENGINES_KEPT:
                del self._loaded[own[0]]  # not closed: another thread may be inside it
                self._loading.pop(own[0], None)
        return engine

    def _explaining(self, model: Model) -> EngineMaker:
        if model.card.task != "classifier":
            raise EngineError(f"{model.where}: got a {model.card.task} asked for maps, expected a classifier")
        graph = add_gradcam(model.proto, every_class=True)
        return EngineMaker(model.card, graph, backend="onnxruntime", threads=self._threads, say=self._say, maps=True)


def find_any(name_or_path: str) -> Model:
    """The model of that name or path, whatever its task; errors as of `find`."""
    try:
        return find(name_or_path, "detector")
    except WrongTaskError as error:
        return find(name_or_path, error.got)


def run_rows(engine: Engine, feeds: dict[str, Array]) -> dict[str, Array]:
    """`infer`, in as many runs as the engine's batch wants; a fixed batch is filled up with zeros."""
    rows = len(next(iter(feeds.values())))
    fixed = engine.inputs[0].shape[0]
    step = fixed or engine.max_batch or rows
    if rows == step or (fixed is None and rows < step):
        return engine.infer(feeds)
    parts = []
    for start in range(0, rows, step):
        part = {name: array[start : start + step] for name, array in feeds.items()}
        count = min(step, rows - start)
        if fixed is not None and count < fixed:
            part = {
                name: np.concatenate([array, np.zeros((fixed - count, *array.shape[1:]), array.dtype)])
                for name, array in part.items()
            }
        parts.append({name: array[:count] for name, array in engine.infer(part).items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _hash_of(model: Model) -> str:
    if model.card.sha256 is None:
        raise UsageError(f"{model.where}: got a model without a hash, expected a file; give its path")
    return model.card.sha256
