"""The last layer of a classifier's graph: what it reads, what it computes, and another one in its place.

A classifier ends in one linear layer, a softmax, and between them what was fitted after training: offsets of the
classes and a temperature. All of that together is `softmax(features @ weights.T + bias)`. Another layer of that kind
is put into the same nodes, so that whatever runs, converts or explains the one graph does so with the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from engines.base import ModelFormatError
from engines.graphs.graph import CLASS_PROBABILITIES
from engines.graphs.onnx_editing import Emitter, checked, constants_of, dims_of, tensor_value

FEATURES = "features"
"""The output that `with_features` adds: float32 (N, F), what the last layer reads."""

_PASSED = frozenset({"Identity", "Dropout"})

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class LastLayer:
    """softmax(features @ weights.T + bias) are the class probabilities."""

    weights: Floats
    """(classes, F)"""
    bias: Floats
    """(classes,)"""


def last_layer(model: ModelProto) -> LastLayer:
    """That of a classifier. ModelFormatError for one that does not end in a linear layer and a softmax."""
    return _Ending(model).layer


def with_features(model: ModelProto) -> ModelProto:
    """A copy of a classifier with the output `FEATURES`; errors as of `last_layer`."""
    ending = _Ending(model)
    copy = ModelProto()
    copy.CopyFrom(model)
    emit = Emitter(copy, "site")
    emit.op("Identity", [ending.node.input[0]], out=FEATURES)
    emit.insert()
    n = dims_of(copy.graph.output[0])[0]
    copy.graph.output.append(tensor_value(FEATURES, TensorProto.FLOAT, [n or "N", ending.layer.weights.shape[1]]))
    return checked(copy)


def with_last_layer(model: ModelProto, layer: LastLayer) -> ModelProto:
    """A copy of a classifier that ends in `layer`; offsets and temperature of the graph stay and are allowed for.
    ModelFormatError as of `last_layer`, ValueError for a layer of another size."""
    ending = _Ending(model)
    if layer.weights.shape != ending.layer.weights.shape or layer.bias.shape != ending.layer.bias.shape:
        raise ValueError(f"last layer: got {layer.weights.shape}, expected {ending.layer.weights.shape}")
    copy = ModelProto()
    copy.CopyFrom(model)
    node = copy.graph.node[ending.index]
    weights, bias = f"{node.output[0]}/site_weights", f"{node.output[0]}/site_bias"
    new = helper.make_node("Gemm", [node.input[0], weights, bias], list(node.output), name=node.name, transB=1)
    node.CopyFrom(new)
    values = {
        weights: layer.weights / ending.factor,
        bias: (layer.bias - ending.offset) / ending.factor,
    }
    copy.graph.initializer.extend(numpy_helper.from_array(v.astype(np.float32), name) for name, v in values.items())
    used = {name for one in copy.graph.node for name in one.input}
    kept = [tensor for tensor in copy.graph.initializer if tensor.name in used]
    del copy.graph.initializer[:]
    copy.graph.initializer.extend(kept)
    return checked(copy)


class _Ending:
    """From the class probabilities back to the linear layer: logits = factor * (features @ weights + bias) + offset."""

    def __init__(self, model: ModelProto) -> None:
        graph = model.graph
        self._producer = {name: (i, node) for i, node in enumerate(graph.node) for name in node.output}
        self._constants = constants_of(graph)
        _, node = self._behind(CLASS_PROBABILITIES)
        while node.op_type in _PASSED:
            _, node = self._behind(node.input[0])
        if node.op_type != "Softmax":
            raise _other(node)
        self.factor, self.offset = 1.0, np.zeros(1)
        name = node.input[0]
        while True:
            self.index, self.node = self._behind(name)
            if self.node.op_type in ("Gemm", "MatMul"):
                break
            name = self._passed(self.node)
        weights, bias = self._linear(self.node)
        self.offset = np.broadcast_to(self.offset, bias.shape)
        self.layer = LastLayer(self.factor * weights, self.factor * bias + self.offset)

    def _behind(self, name: str) -> tuple[int, NodeProto]:
        if name not in self._producer:
            raise ModelFormatError(
                f"last layer: got to {name!r}, expected a linear layer and a softmax before {CLASS_PROBABILITIES}"
            )
        return self._producer[name]

    def _passed(self, node: NodeProto) -> str:
        """The input of a node between layer and softmax, whose factor and offset are taken in."""
        if node.op_type in _PASSED:
            return str(node.input[0])
        known = [name for name in node.input if name in self._constants]
        others = [str(name) for name in node.input if name not in self._constants]
        if len(known) != 1 or len(others) != 1 or node.op_type not in ("Add", "Sub", "Mul", "Div"):
            raise _other(node)
        value = self._constants[known[0]].astype(np.float64).reshape(-1)
        scales = node.op_type in ("Mul", "Div")
        if (scales and value.size != 1) or (node.op_type in ("Sub", "Div") and node.input[0] != others[0]):
            raise _other(node)
        if scales:
            self.factor *= float(value[0]) if node.op_type == "Mul" else 1 / float(value[0])
        else:
            self.offset = self.offset + self.factor * (value if node.op_type == "Add" else -value)
        return others[0]

    def _linear(self, node: NodeProto) -> tuple[Floats, Floats]:
        """(classes, F) and (classes,) of a Gemm or MatMul."""
        given = {attribute.name: attribute for attribute in node.attribute}
        weights = self._constants.get(node.input[1])
        if weights is None or weights.ndim != 2 or ("transA" in given and given["transA"].i):
            raise _other(node)
        if weights.dtype != np.float32:
            raise ModelFormatError(
                f"last layer {node.name or node.output[0]!r}: got {weights.dtype} weights, expected float32; "
                "give the model that was not converted, and convert what comes of it"
            )
        matrix = weights.astype(np.float64)
        matrix = matrix if "transB" in given and given["transB"].i else matrix.T
        matrix = matrix * (given["alpha"].f if "alpha" in given else 1.0)
        bias = np.zeros(len(matrix))
        if len(node.input) > 2 and node.input[2]:
            if node.input[2] not in self._constants:
                raise _other(node)
            beta = given["beta"].f if "beta" in given else 1.0
            bias = bias + beta * self._constants[node.input[2]].astype(np.float64).reshape(-1)
        return matrix, bias


def _other(node: NodeProto) -> ModelFormatError:
    return ModelFormatError(
        f"last layer: got {node.op_type} ({node.name or node.output[0]}), expected one linear layer, then offsets, a "
        f"temperature and a softmax before {CLASS_PROBABILITIES}; this kind of classifier can't be adapted"
    )
