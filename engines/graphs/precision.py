"""fp16 by ONNX surgery: which nodes run in half precision is written into the graph, and every backend obeys it.

TensorRT 11 knows no FP16 flag any more: its networks are strongly typed, so the graph's own types decide. What is
converted here runs in ONNX Runtime too, where its results are compared with those of fp32 before anything is built.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference

from engines.base import ModelFormatError
from engines.graphs.onnx_editing import checked

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""The operators whose speed is worth another type; what lies between them follows."""

_ANCHORS = WEIGHTED | {"QuantizeLinear", "DequantizeLinear"}
"""Q/DQ nodes belong to the operator they feed; a Cast between them would keep TensorRT from fusing them."""

_T = TypeVar("_T")


def _each(names: str, value: _T) -> dict[str, _T]:
    return dict.fromkeys(names.split(), value)


_ALL = -1
_FLOAT_INPUTS: Mapping[str, tuple[int, ...]] = {
    **_each(
        "Conv ConvTranspose Gemm MatMul Add Sub Mul Div Max Min Relu LeakyRelu PRelu Elu Celu Selu Sigmoid HardSigmoid "
        "HardSwish Tanh Softplus Softsign Mish Clip Concat Identity MaxPool AveragePool GlobalMaxPool Neg Abs "
        "BatchNormalization Dropout",
        (_ALL,),
    ),
    **_each(
        "Flatten Transpose Squeeze Unsqueeze Reshape Slice Expand Tile Gather GatherElements Split DepthToSpace "
        "SpaceToDepth Resize",
        (0,),
    ),
    "Pad": (0, 2),
    "Where": (1, 2),
    "QuantizeLinear": (0, 1),
    "DequantizeLinear": (1,),
}
"""Operators that may run in half precision, with those of their inputs that change type (`Resize` keeps its scales in
float32). What is not listed stays in fp32: sums over many values and functions with a steep slope (Softmax, Exp, Log,
Pow, Sqrt, the Reduce family, GlobalAveragePool, the normalisations)."""

_FP16_MAX = float(np.finfo(np.float16).max)
_ACTIVATION_HEADROOM = 2.0
"""A tensor whose largest value seen on frames comes within this factor of the fp16 limit stays in fp32."""


@dataclass(frozen=True, slots=True)
class Fp16Report:
    """What `to_fp16` did."""

    half: int
    """Nodes that run in fp16."""
    single: int
    """Nodes with float tensors that stay in fp32."""
    kept: tuple[str, ...]
    """Nodes between converted ones that stay in fp32, as "name (operator): why"."""


def to_fp16(model: ModelProto, *, ranges: Mapping[str, float] | None = None) -> tuple[ModelProto, Fp16Report]:
    """`model` with everything from its first to its last weighted operator in fp16; inputs and outputs as they were.

    What comes before (normalisation of uint8 images) and after (decoding of boxes in px, of which fp16 resolves only
    0.5 above 512; softmax) stays in fp32. `ranges` are the largest absolute values of tensors seen on real frames:
    nodes that go beyond fp16 stay in fp32. ModelFormatError where there is nothing to convert.
    """
    half = ModelProto()
    half.CopyFrom(model)
    floats = _float_tensors(half)
    nodes = list(half.graph.node)
    between = _between_weighted(nodes)
    constants = {tensor.name: tensor for tensor in half.graph.initializer}
    chosen: set[int] = set()
    kept: list[str] = []
    for index, node in enumerate(nodes):
        touched = [name for name in (*node.input, *node.output) if name in floats]
        if index not in between or not touched or node.op_type in ("Cast", "Constant", "Shape"):
            continue
        why = _reason_to_keep(node, constants, ranges or {})
        if why is None:
            chosen.add(index)
        else:
            kept.append(f"{node.name or node.output[0]} ({node.op_type}): {why}")
    if not any(nodes[index].op_type in WEIGHTED for index in chosen):
        raise ModelFormatError(
            "fp16: got a graph without a convolution or matrix product in float32, expected a network in fp32; "
            "start from the fp32 file"
        )
    _convert(half, chosen, floats, constants)
    single = sum(
        1 for index, node in enumerate(nodes) if index not in chosen and any(name in floats for name in node.output)
    )
    return checked(half), Fp16Report(len(chosen), single, tuple(kept))


def _float_tensors(model: ModelProto) -> set[str]:
    """Names of all float32 tensors, constants included."""
    graph = shape_inference.infer_shapes(model, data_prop=True).graph
    names = {
        value.name
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    return names | {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}


def _between_weighted(nodes: list[NodeProto]) -> set[int]:
    """Nodes with a weighted one at or before them, and one at or after them. Nodes are in topological order."""
    weighted = [node.op_type in _ANCHORS for node in nodes]

    def reach(order: Iterable[int], reads: str, gives: str) -> set[int]:
        touched: set[str] = set()
        found: set[int] = set()
        for index in order:
            node = nodes[index]
            if weighted[index] or any(name in touched for name in getattr(node, reads)):
                found.add(index)
                touched.update(name for name in getattr(node, gives) if name)
        return found

    after = reach(range(len(nodes)), "input", "output")
    before = reach(reversed(range(len(nodes))), "output", "input")
    return after & before


def _reason_to_keep(node: NodeProto, constants: Mapping[str, TensorProto], ranges: Mapping[str, float]) -> str | None:
    if node.op_type not in _FLOAT_INPUTS:
        return "numerically delicate"
    for name in node.input:
        tensor = constants.get(name)
        if tensor is not None and tensor.data_type == TensorProto.FLOAT:
            largest = float(np.abs(numpy_helper.to_array(tensor)).max(initial=0))
            if largest > _FP16_MAX:
                return f"constant up to {largest:.3g}, fp16 ends at {_FP16_MAX:.0f}"
    for name in (*node.input, *node.output):
        if ranges.get(name, 0) * _ACTIVATION_HEADROOM > _FP16_MAX:
            return f"values up to {ranges[name]:.3g} on frames, fp16 ends at {_FP16_MAX:.0f}"
    return None


def _convert(model: ModelProto, chosen: set[int], floats: set[str], constants: Mapping[str, TensorProto]) -> None:
    graph = model.graph
    nodes = list(graph.node)
    produced_half = {
        name
        for index in chosen
        for name in nodes[index].output
        if name in floats  # integer outputs, those of QuantizeLinear for one, keep type and name
    }
    half_of: dict[str, str] = {name: f"{name}/fp16" for name in produced_half}
    emitted: list[NodeProto] = []
    new_constants: list[TensorProto] = []

    def as_half(name: str) -> str:
        if name in half_of:
            return half_of[name]
        half_of[name] = f"{name}/fp16"
        if name in constants:
            array = numpy_helper.to_array(constants[name]).astype(np.float16)
            new_constants.append(numpy_helper.from_array(array, half_of[name]))
        else:
            emitted.append(
                helper.make_node("Cast", [name], [half_of[name]], name=f"{name}/to_fp16", to=TensorProto.FLOAT16)
            )
        return half_of[name]

    needed_single = {value.name for value in graph.output} | {
        name for index, node in enumerate(nodes) if index not in chosen for name in _names_read(node)
    }
    for index, node in enumerate(nodes):
        if index in chosen:
            places = _FLOAT_INPUTS[node.op_type]
            inputs = [
                as_half(name) if name in floats and (places == (_ALL,) or place in places) else name
                for place, name in enumerate(node.input)
            ]
            node.input[:] = inputs
            outputs = list(node.output)
            node.output[:] = [half_of[name] if name in produced_half else name for name in outputs]
            emitted.append(node)
            emitted.extend(
                helper.make_node("Cast", [half_of[name]], [name], name=f"{name}/to_fp32", to=TensorProto.FLOAT)
                for name in outputs
                if name in produced_half and name in needed_single
            )
        else:
            emitted.append(node)
    del graph.node[:]
    graph.node.extend(emitted)
    del graph.value_info[:]
    read = {name for node in emitted for name in _names_read(node)} | {value.name for value in graph.output}
    used = [tensor for tensor in (*graph.initializer, *new_constants) if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(used)


def _names_read(node: NodeProto) -> set[str]:
    names = set(node.input)
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            for inner_node in inner.node:
                names |= _names_read(inner_node)
            names |= {value.name for value in inner.output}
    return names


def emulated(model: ModelProto) -> ModelProto:
    """A float32 graph that rounds to fp16 wherever `model` holds an fp16 tensor: what fp16 costs, seen on any CPU.

    ONNX Runtime's CPU provider computes fp16 graphs in float32 and drops the roundings between their nodes (seen in
    1.31 on x86-64, whatever the optimisation level), so that running `model` there shows only the rounding of its
    weights. A pair of casts, float32 to fp16 and back, it keeps. Sums are in float32, as on tensor cores.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    inferred = shape_inference.infer_shapes(copy, data_prop=True).graph
    half = {
        value.name
        for value in (*inferred.value_info, *inferred.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16
    }
    if any(value.type.tensor_type.elem_type == TensorProto.FLOAT16 for value in (*graph.input, *graph.output)):
        raise ModelFormatError("emulated: got fp16 inputs or outputs, expected fp16 inside the graph only")
    emitted: list[NodeProto] = []
    for node in graph.node:
        if node.op_type == "Constant" and any(name in half for name in node.output):
            raise ModelFormatError(f"emulated: got an fp16 Constant {node.output[0]!r}, expected initializers")
        gives = [name for name in node.output if name in half]
        if node.op_type == "Cast":
            if gives:
                emitted += _rounding(node.input[0], gives[0])
            elif node.input[0] in half and helper.get_node_attr_value(node, "to") == TensorProto.FLOAT:
                emitted.append(helper.make_node("Identity", node.input, node.output, name=node.name))
            else:
                emitted.append(node)
            continue
        node.output[:] = [f"{name}/exact" if name in half else name for name in node.output]
        emitted.append(node)
        for name in gives:
            emitted += _rounding(f"{name}/exact", name)
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    del graph.node[:]
    graph.node.extend(emitted)
    del graph.value_info[:]
    return checked(copy)


def _rounding(source: str, out: str) -> list[NodeProto]:
    return [
        helper.make_node("Cast", [source], [f"{out}/rounded"], name=f"{out}/round", to=TensorProto.FLOAT16),
        helper.make_node("Cast", [f"{out}/rounded"], [out], name=f"{out}/back", to=TensorProto.FLOAT),
    ]


def float_types(model: ModelProto) -> dict[str, int]:
    """How many nodes give float32, float16 and int8, by type: what "precision" of a graph really means."""
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
    counts: dict[str, int] = {}
    for node in graph.node:
        for name in node.output[:1]:
            kind = TensorProto.DataType.Name(types.get(name, TensorProto.UNDEFINED)).lower()
            counts[kind] = counts.get(kind, 0) + 1
    return counts
