"""A model repository as Triton reads it: NAME/config.pbtxt and NAME/1/model.onnx, named by the hash of the model.

The layout and the fields are those of Triton's documents, "Model Repository" and "Model Configuration".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto

from engines.backends.onnxruntime import OnnxRuntimeEngine, Threads
from engines.base import EngineError, EngineId, TensorSpec
from engines.geometry import input_size
from engines.graphs.graph import fix_input_shape
from engines.zoo.card import DetectorInput
from engines.zoo.registry import Model, compact
from streamer.inference.kserve import TYPES, model_name
from streamer.inference.shelf import USUAL_GPU_ROWS, find_any

MAX_QUEUE_DELAY_US = 2000
"""How long Triton waits for requests of others to join: as `serve --max-wait-ms`."""


@dataclass(frozen=True, slots=True)
class WrittenModel:
    name: str
    """Its folder."""
    model: str
    """For people."""


def write_repository(
    folder: Path, names: Sequence[str], sizes: Sequence[tuple[int, int]], *, max_batch: int = USUAL_GPU_ROWS
) -> list[WrittenModel]:
    """Write models by name or file; a detector once for each of the (width, height) of frames. What lies there under
    another name stays: versions live side by side. Errors as of `find_any`."""
    written: dict[str, WrittenModel] = {}
    for name in names:
        model = find_any(name)
        for id_, graph in _graphs(model, sizes):
            entry = folder / model_name(id_)
            version = entry / "1"
            version.mkdir(parents=True, exist_ok=True)
            (version / "model.onnx").write_bytes(graph.SerializeToString())
            (entry / "config.pbtxt").write_text(_config(entry.name, id_, model, graph, max_batch), encoding="utf-8")
            written[entry.name] = WrittenModel(entry.name, model.card.name)
    return list(written.values())


def _graphs(model: Model, sizes: Sequence[tuple[int, int]]) -> list[tuple[EngineId, ModelProto]]:
    sha256 = model.card.sha256
    if sha256 is None:
        raise EngineError(f"{model.where}: got a model without a hash, expected a file; give its path")
    given = model.card.input
    if not isinstance(given, DetectorInput):
        return [(EngineId(sha256), model.proto)]
    graph = compact(model)
    inputs = [input_size(width, height, given.long_side_px, given.stride_px) for width, height in sizes]
    return [
        (EngineId(sha256, height, width), fix_input_shape(graph, None, height, width))
        for width, height in dict.fromkeys(inputs)
    ]


def _config(name: str, id_: EngineId, model: Model, graph: ModelProto, max_batch: int) -> str:
    engine = OnnxRuntimeEngine(graph, threads=Threads(1), device="cpu")
    fixed = engine.inputs[0].shape[0]
    rows = max_batch if fixed is None else 0  # 0: the model's own first dimension, and nothing is joined
    lines = [
        f'name: "{name}"',
        'backend: "onnxruntime"',
        f"max_batch_size: {rows}",
        *(_tensor("input", spec, rows) for spec in engine.inputs),
        *(_tensor("output", spec, rows) for spec in engine.outputs),
    ]
    if rows > 1:
        lines.append(f"dynamic_batching {{ max_queue_delay_microseconds: {MAX_QUEUE_DELAY_US} }}")
    for key, value in (("sha256", id_.sha256), ("model", model.card.name), ("task", model.card.task)):
        lines.append(f'parameters {{ key: "{key}" value {{ string_value: "{_quoted(value)}" }} }}')
    engine.close()
    return "\n".join(lines) + "\n"


def _tensor(kind: str, spec: TensorSpec, rows: int) -> str:
    """With rows, Triton puts the first dimension before `dims` itself; of a tensor of one dimension nothing is left
    then, which it calls one that is reshaped away."""
    sizes = [-1 if size is None else size for size in (spec.shape[1:] if rows else spec.shape)]
    reshape = " reshape { shape: [ ] }" if not sizes else ""
    dims = ", ".join(map(str, sizes or [1]))
    return f'{kind} {{ name: "{spec.name}" data_type: TYPE_{TYPES[spec.dtype.name]} dims: [ {dims} ]{reshape} }}'


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
