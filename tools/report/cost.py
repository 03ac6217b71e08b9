"""What a network costs, read off its graph: parameters, arithmetic, and processor time on this machine."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime
from onnx import ModelProto, TensorProto, ValueInfoProto

from engines.backends.onnxruntime import OnnxRuntimeEngine, Threads
from engines.graphs.onnx_editing import dims_of, only_input
from engines.zoo.card import Card, DetectorInput

BATCHES = (1, 16)
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class Cost:
    """parameters: floating-point constants of the graph, normalisation folded in; flops: of one picture of
    `height_px` x `width_px`, two a multiplication with its addition, of convolutions and matrix products."""

    parameters: int
    flops: int
    height_px: int
    width_px: int


def input_size(card: Card, model: ModelProto) -> tuple[int, int]:
    """Height and width in px that a model is measured at: the file's own where fixed, else the card's."""
    _, height, width, _ = dims_of(only_input(model))
    if isinstance(card.input, DetectorInput):
        side = card.input.long_side_px
        return height or side, width or side
    return height or card.input.height_px, width or card.input.width_px


def parameters_of(model: ModelProto) -> int:
    """Floating-point constants of a graph, whatever they are stored as."""
    return sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer if tensor.data_type in _FLOATS)


def flops_of(model: ModelProto, height: int, width: int) -> int:
    """Of one picture, from the shapes that the graph's tensors have when it runs on a grey one. Loops inside the graph
    (none of our networks has any) are not looked into."""
    graph = ModelProto()
    graph.CopyFrom(model)
    constants = {tensor.name: tuple(tensor.dims) for tensor in graph.graph.initializer}
    products = [node for node in graph.graph.node if node.op_type in _PRODUCTS]
    wanted = {name for node in products for name in (node.output[0], node.input[0], node.input[1])} - set(constants)
    value = only_input(graph)
    wanted -= {value.name, *(output.name for output in graph.graph.output)}
    graph.graph.output.extend(ValueInfoProto(name=name) for name in sorted(wanted))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    found = session.run(names, {value.name: np.full((1, height, width, 3), 128, np.uint8)})
    shapes = constants | {name: np.shape(array) for name, array in zip(names, found, strict=True)}
    total = 0
    for node in products:
        first, second, out = (shapes[name] for name in (node.input[0], node.input[1], node.output[0]))
        if node.op_type == "Conv":  # weights (out, in / groups, height, width)
            total += int(np.prod(out)) * int(np.prod(second[1:]))
        elif node.op_type == "ConvTranspose":  # weights (in, out / groups, height, width)
            total += int(np.prod(first)) * int(np.prod(second[1:]))
        else:
            turned = node.op_type == "Gemm" and any(a.name == "transA" and a.i for a in node.attribute)
            total += int(np.prod(out)) * int(first[0] if turned else first[-1])
    return 2 * total


def cost_of(card: Card, model: ModelProto) -> Cost:
    """Parameters and arithmetic of a model of the zoo, detectors with their compact head."""
    height, width = input_size(card, model)
    return Cost(parameters_of(model), flops_of(model, height, width), height, width)


def milliseconds(run: Callable[[], object], pictures: int, rounds: int) -> float:
    """Median processor time of the calling thread for one of the pictures that a run looks at."""
    run()  # the first run allocates
    spent = []
    for _ in range(rounds):
        started = time.thread_time()
        run()
        spent.append(1000 * (time.thread_time() - started) / pictures)
    return round(median(spent), 2)


def cpu_times(card: Card, model: ModelProto, rounds: int) -> dict[str, float | None]:
    """ "batch_1_ms" and "batch_16_ms" of one picture on one core, of the network alone; None where the file's batch is
    fixed to another number."""
    height, width = input_size(card, model)
    engine = OnnxRuntimeEngine(model, threads=Threads(1), device="cpu")
    name, fixed = engine.inputs[0].name, engine.inputs[0].shape[0]
    rng = np.random.default_rng(0)
    found: dict[str, float | None] = {}
    for batch in BATCHES:
        key = f"batch_{batch}_ms"
        found[key] = None
        if fixed in (None, batch):
            images = rng.integers(0, 256, (batch, height, width, 3), np.uint8)
            found[key] = milliseconds(lambda images=images: engine.infer({name: images}), batch, rounds)  # type: ignore[misc]
    engine.close()
    return found


def machine() -> dict[str, str | int]:
    """What the times were measured on."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    return {"processor": model, "onnxruntime": onnxruntime.__version__, "threads": 1}
