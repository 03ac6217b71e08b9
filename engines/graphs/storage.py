"""Weights stored in less than single precision: a half or a quarter of the file, the same arithmetic.

A stored file keeps large float32 constants as float16, each widened by a Cast, or the weights of layers as int8 with a
scale a channel, each widened by a DequantizeLinear, so that any runtime takes it as it is; `widened` gives the float32
constants back when a model is loaded, so that no other surgery (precision, builders, Grad-CAM) meets these operators.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from engines.graphs.onnx_editing import checked

Weights = Literal["float32", "float16", "int8"]
"""How the large constants of a file are stored."""
WEIGHTS: tuple[Weights, ...] = get_args(Weights)

LEAST_ELEMENTS = 256
"""Smaller constants (biases, scales, anchors) stay as they are: they save nothing."""

_HALF = "/half"
_INT8, _SCALE = "/int8", "/scale"
_LARGEST = 127


def narrowed(
    model: ModelProto, weights: Weights = "float16", only: Collection[str] | None = None, *, int8_from: int = 0
) -> ModelProto:
    """A copy whose large float32 constants, or those named by `only`, are stored as `weights`.

    As int8 are weights of convolutions and linear layers alone, of `int8_from` elements or more, symmetric, with a
    scale for each output channel; other constants are float16 then. What float16 can't hold (above 65504) stays
    float32.
    """
    made = ModelProto()
    made.CopyFrom(model)
    widened(made)
    axes = _channel_axes(made) if weights == "int8" else {}
    widening: list[NodeProto] = []
    scales: list[TensorProto] = []
    for tensor in made.graph.initializer if weights != "float32" else ():
        name = tensor.name
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < LEAST_ELEMENTS:
            continue
        if only is not None and name not in only:
            continue
        value = numpy_helper.to_array(tensor)
        if name in axes and np.prod(tensor.dims) >= int8_from:
            whole, scale = _quantized(value, axes[name])
            scales.append(numpy_helper.from_array(scale, name + _SCALE))
            tensor.CopyFrom(numpy_helper.from_array(whole, name + _INT8))
            inputs = [name + _INT8, name + _SCALE]
            widening.append(helper.make_node("DequantizeLinear", inputs, [name], axis=axes[name]))
            continue
        with np.errstate(over="ignore"):
            half = value.astype(np.float16)
        if np.isfinite(half).all():
            tensor.CopyFrom(numpy_helper.from_array(half, name + _HALF))
            widening.append(helper.make_node("Cast", [name + _HALF], [name], to=TensorProto.FLOAT))
    made.graph.initializer.extend(scales)
    nodes = [*widening, *made.graph.node]
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    return checked(made)


def widened(model: ModelProto) -> ModelProto:
    """`model` with constants that `narrowed` stored as float32 again, in place; others are left as they are."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    kept, scales = [], set()
    for node in graph.node:
        name = _stored_name(node)
        source = constants.get(node.input[0]) if name is not None else None
        if source is None or name is None:
            kept.append(node)
            continue
        value = numpy_helper.to_array(source).astype(np.float32)
        if node.op_type == "DequantizeLinear":
            scale = numpy_helper.to_array(constants[name + _SCALE])
            value *= _along(scale, node.attribute[0].i, value.ndim)
            scales.add(name + _SCALE)
        source.CopyFrom(numpy_helper.from_array(value, name))
    if len(kept) < len(graph.node):
        del graph.node[:]
        graph.node.extend(kept)
        rest = [tensor for tensor in graph.initializer if tensor.name not in scales]
        del graph.initializer[:]
        graph.initializer.extend(rest)
    return model


def stored_names(model: ModelProto) -> frozenset[str]:
    """Names of the constants that a file stores in less than single precision."""
    constants = {tensor.name for tensor in model.graph.initializer}
    names = {node.input[0]: _stored_name(node) for node in model.graph.node if node.input}
    return frozenset(name for source, name in names.items() if name is not None and source in constants)


def _stored_name(node: NodeProto) -> str | None:
    """The constant that a node widens; None for any other node."""
    name = node.output[0] if node.output else ""
    inputs = list(node.input)
    is_half = node.op_type == "Cast" and inputs == [name + _HALF]
    is_int8 = node.op_type == "DequantizeLinear" and inputs == [name + _INT8, name + _SCALE]
    return name if is_half or is_int8 else None


def _channel_axes(model: ModelProto) -> dict[str, int]:
    """The axis of output channels of constants that are weights of layers alone, and of one axis wherever they are."""
    axes: dict[str, set[int | None]] = {}
    ranks = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name in ranks:
                axes.setdefault(name, set()).add(_channel_axis(node, ranks[name]) if place == 1 else None)
    single = {name: next(iter(found)) for name, found in axes.items() if len(found) == 1}
    return {name: axis for name, axis in single.items() if axis is not None}


def _channel_axis(node: NodeProto, rank: int) -> int | None:
    if node.op_type == "Gemm":
        transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        return 0 if transposed else 1
    if node.op_type == "MatMul":
        return rank - 1 if rank >= 2 else None
    return {"Conv": 0, "ConvTranspose": 1}.get(node.op_type)


def _quantized(value: npt.NDArray[np.float32], axis: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """int8 of the shape of `value`, and float32 (channels,): the value of one step."""
    others = tuple(i for i in range(value.ndim) if i != axis)
    largest = np.abs(value).max(axis=others)
    scale = np.where(largest > 0, largest / _LARGEST, 1).astype(np.float32)
    whole = np.rint(value / _along(scale, axis, value.ndim)).clip(-_LARGEST, _LARGEST)
    return whole.astype(np.int8), scale


def _along(scale: npt.NDArray[np.float32], axis: int, rank: int) -> npt.NDArray[np.float32]:
    """`scale` (channels,) so that it multiplies along `axis` of an array of `rank` axes."""
    return scale.reshape([-1 if i == axis else 1 for i in range(rank)])
