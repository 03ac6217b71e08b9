"""Weights stored in half precision: half the file, the same arithmetic.

A stored file keeps large float32 constants as float16, each widened by a Cast, so that any runtime takes it as it is;
`widened` gives the float32 constants back when a model is loaded, so that no other surgery meets the Casts.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from engines.graphs.onnx_editing import checked

LEAST_ELEMENTS = 256
"""Smaller constants (biases, scales, anchors) stay as they are: they save nothing."""

_HALF = "/half"


def halved(model: ModelProto) -> ModelProto:
    """A copy whose large float32 constants are stored as float16. What float16 can't hold (above 65504) stays."""
    stored = ModelProto()
    stored.CopyFrom(model)
    casts = []
    for tensor in stored.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < LEAST_ELEMENTS:
            continue
        with np.errstate(over="ignore"):
            half = numpy_helper.to_array(tensor).astype(np.float16)
        if not np.isfinite(half).all():
            continue
        casts.append(helper.make_node("Cast", [tensor.name + _HALF], [tensor.name], to=TensorProto.FLOAT))
        tensor.CopyFrom(numpy_helper.from_array(half, tensor.name + _HALF))
    nodes = [*casts, *stored.graph.node]
    del stored.graph.node[:]
    stored.graph.node.extend(nodes)
    return checked(stored)


def widened(model: ModelProto) -> ModelProto:
    """`model` with constants that `halved` stored as float32 again, in place; others are left as they are."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    kept = []
    for node in graph.node:
        source = constants.get(node.input[0]) if node.op_type == "Cast" and node.input else None
        if source is None or source.name != node.output[0] + _HALF:
            kept.append(node)
            continue
        source.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(source).astype(np.float32), node.output[0]))
    if len(kept) < len(graph.node):
        del graph.node[:]
        graph.node.extend(kept)
    return model
