"""Support vector machines as the end of an ONNX graph, in plain operators that every runtime has."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
from onnx import ModelProto, TensorProto, helper

from engines.graphs.graph import CLASS_PROBABILITIES
from engines.graphs.onnx_editing import Emitter, checked, dims_of, modern, tensor_value
from tools.architectures.support_vectors import LOGIT_LIMIT, Constants

FEATURES = "features"


def bare_features(width: int, opset: int = 17) -> ModelProto:
    """A graph of nothing: `features` float32 (N, width) is its input and, as `same`, its output; for machines alone."""
    given, same = (tensor_value(name, TensorProto.FLOAT, ["N", width]) for name in (FEATURES, "same"))
    graph = helper.make_graph([helper.make_node("Identity", [FEATURES], ["same"])], "features", [given], [same])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def add_support_vectors(model: ModelProto, constants: Constants) -> ModelProto:
    """A copy of a network whose one output is features (N, d), ended in `class_probabilities` float32 (N, k): by
    selection, standardising, kernel, decisions of pairs, Platt's odds, coupling, temperature."""
    model = modern(model)
    graph = model.graph
    output = graph.output[0]
    width = dims_of(output)[-1]
    if width is not None and width <= int(constants.selected.max()):
        raise ValueError(
            f"features: got {width} of the network, expected more than {int(constants.selected.max())}, which the "
            "machines take; give the network that they were trained on"
        )
    emit = Emitter(model, "machines")

    def constant(array: np.ndarray | float) -> str:
        return emit.constant(np.asarray(array, np.float32))

    x = emit.op("Gather", [output.name, emit.constant(constants.selected.astype(np.int64))], axis=1)
    x = emit.op("Sub", [x, constant(constants.mean)])
    x = emit.op("Mul", [x, constant(1 / constants.deviation)])
    similar = _kernel(emit, x, constants)
    slope, shift = constants.slopes, constants.slopes * constants.offsets + constants.shifts
    weights = constants.weights * slope
    against = emit.op("MatMul", [similar, constant(np.concatenate([weights, -weights], 1))])
    against = emit.op("Add", [against, constant(np.concatenate([shift, -shift]))])
    against = emit.op("Clip", [against, constant(-LOGIT_LIMIT), constant(LOGIT_LIMIT)])
    odds = emit.op("MatMul", [emit.op("Exp", [against]), constant(_incidence(constants.classes))])
    odds = emit.op("Add", [odds, constant(1.0)])
    scores = emit.op("Mul", [emit.op("Log", [odds]), constant(-1 / constants.temperature)])
    emit.op("Softmax", [scores], out=CLASS_PROBABILITIES, axis=1)
    emit.insert()
    batch = dims_of(graph.input[0])[0]
    del graph.output[:]
    graph.output.append(tensor_value(CLASS_PROBABILITIES, TensorProto.FLOAT, [batch or "N", constants.classes]))
    return checked(model)


def _incidence(classes: int) -> np.ndarray:
    """(2P, k): which class the odds against the second (first P rows) or first class of each pair belong to."""
    pairs = list(combinations(range(classes), 2))
    table = np.zeros((2 * len(pairs), classes), np.float32)
    for row, (a, b) in enumerate(pairs):
        table[row, b] = table[len(pairs) + row, a] = 1
    return table


def _kernel(emit: Emitter, x: str, constants: Constants) -> str:
    """The kernel (N, m) of standardised features (N, s) and the support vectors."""
    kernel = constants.kernel
    vectors = constants.vectors
    transposed = emit.constant(np.ascontiguousarray(vectors.T / kernel.scale**2, np.float32))
    products = emit.op("MatMul", [x, transposed])
    if kernel.function == "polynomial":
        # (1 + u)^degree - 1 by Horner's scheme: the weights of a pair sum to 0, so that a constant changes nothing but
        # what float32 can hold
        power = products
        for k in range(1, kernel.degree):
            rest = emit.op("Add", [power, emit.constant(np.float32(comb(kernel.degree, k)))])
            power = emit.op("Mul", [products, rest])
        return power
    squares = emit.op("ReduceSum", [emit.op("Mul", [x, x]), emit.constant(np.array([1]))], keepdims=1)
    own = emit.op("Mul", [squares, emit.constant(np.float32(kernel.scale**-2))])
    theirs = emit.constant((vectors**2).sum(1).astype(np.float32) / np.float32(kernel.scale**2))
    twice = emit.op("Mul", [products, emit.constant(np.float32(2))])
    return emit.op("Exp", [emit.op("Sub", [emit.op("Sub", [twice, own]), theirs])])
