"""Grad-CAM as a part of a classifier's graph: where on the crop the evidence for a class lies.

Grad-CAM (Selvaraju 2017, arXiv:1610.02391) weighs the feature maps of the last convolution by the mean gradient of a
class's score and keeps what is positive. Between that convolution and the score a classifier has a pooling and a few
layers whose gradient can be written down, so no backward pass is needed: the surgery below walks from the
probabilities back to the feature maps and emits each layer's gradient in closed form. Behind global pooling and one
linear layer (ResNet-50) it is a weighted sum with constant weights; behind a hard-swish (MobileNetV3) or ReLU
(VGG-19) the weights depend on the crop.

A system of several networks that each name some of the classes (ML-CNN) is explained by the network that names the
class.

It is done when a model is loaded to be explained: a classifier that only classifies pays nothing for it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, shape_inference

from engines.base import ModelFormatError
from engines.graphs.graph import CLASS_PROBABILITIES
from engines.graphs.onnx_editing import Emitter, checked, constants_of, dims_of, modern, tensor_value

CAM = "cam"
"""The output: float32 (N, R, h, w), zero or more, in the resolution of the last feature maps; R is 1 for the likeliest
class, or the number of classes. Its unit is that of the class's score (before any temperature)."""

_PASSED = frozenset({"Identity", "Dropout", "Cast"})
_Constants = Mapping[str, npt.NDArray[np.generic]]


def add_gradcam(model: ModelProto, *, every_class: bool = False) -> ModelProto:
    """A copy of a classifier with the output `cam` for the likeliest class of each crop, or for all classes.

    ModelFormatError where a layer between the last convolution and the class probabilities has no closed form here.
    """
    model = modern(model)
    walk = _Walk(model)
    branches = walk.branches()
    classes = sum(len(columns) for _, columns in branches)
    rows = classes if every_class else 1
    emit = Emitter(model, "gradcam")
    if not every_class:
        best = emit.op("ArgMax", [CLASS_PROBABILITIES], axis=1, keepdims=0)
        values = emit.constant(np.array([0, 1], np.float32))
        row = emit.op("OneHot", [best, emit.constant(np.array(classes)), values], axis=-1)
        likeliest = emit.op("Unsqueeze", [row, emit.constant(np.array([1]))])
    total = ""
    for score, columns in branches:
        if every_class:
            chosen = emit.constant(np.eye(classes, dtype=np.float32)[None, :, columns])
        else:
            chosen = emit.op("Gather", [likeliest, emit.constant(np.array(columns))], axis=2)
        cam = _weighed_maps(emit, *walk.back_to_maps(emit, score, chosen), rows)
        total = emit.op("Add", [total, cam]) if total else cam
    emit.op("Identity", [total], out=CAM)
    emit.insert()
    n = dims_of(model.graph.output[0])[0]
    model.graph.output.append(tensor_value(CAM, TensorProto.FLOAT, [n or "N", rows, None, None]))
    return checked(model)


def _weighed_maps(emit: Emitter, weights: str, maps: str, rows: int) -> str:
    """What is positive of maps (N, K, h, w) weighed by `weights` (N|1, rows, K) over h * w: (N, rows, h, w)."""
    flat = emit.op("Reshape", [maps, emit.constant(np.array([0, 0, -1]))])
    size = emit.op("Shape", [maps])
    batch, plane = emit.slice(size, 0, 1, axis=0), emit.slice(size, 2, 4, axis=0)
    count = emit.op("ReduceProd", [emit.op("Cast", [plane], to=TensorProto.FLOAT)], keepdims=0)
    mean = emit.op("Div", [emit.op("MatMul", [weights, flat]), count])
    shape = emit.op("Concat", [batch, emit.constant(np.array([rows])), plane], axis=0)
    return emit.op("Reshape", [emit.op("Relu", [mean]), shape])


class _Walk:
    """From the class probabilities back to the feature maps, along the one input of each node that is no constant."""

    def __init__(self, model: ModelProto) -> None:
        graph = shape_inference.infer_shapes(model, data_prop=True).graph
        self._values = {value.name: value for value in (*graph.input, *graph.value_info, *graph.output)}
        self._producer = {name: node for node in model.graph.node for name in node.output}
        self._constants: _Constants = constants_of(model.graph)

    def dims(self, name: str) -> list[int | None]:
        return dims_of(self._values[name]) if name in self._values else []

    def branches(self) -> list[tuple[str, list[int]]]:
        """The score of every network that names classes, with the columns of the class probabilities that it names."""
        if CLASS_PROBABILITIES not in self._producer:
            raise ModelFormatError(f"outputs: got no {CLASS_PROBABILITIES!r}, expected the graph of a classifier")
        node = self._node(CLASS_PROBABILITIES)
        order: list[int] | None = None
        while node.op_type in _PASSED or node.op_type == "Gather":
            if node.op_type == "Gather":
                order = self._constants[node.input[1]].tolist()
            node = self._node(node.input[0])
        scores = [self._score(self._node(name)) for name in (node.input if node.op_type == "Concat" else node.output)]
        found, start = [], 0
        for score in scores:
            width = self.dims(score)[1]
            if width is None:
                raise ModelFormatError(f"{CLASS_PROBABILITIES}: got an open number of classes, expected a fixed one")
            columns = range(start, start + width)
            found.append((score, [order.index(column) if order else column for column in columns]))
            start += width
        return found

    def _score(self, node: NodeProto) -> str:
        """What a softmax, perhaps weighed by another network's probability, makes probabilities of; before it was
        divided by a temperature."""
        if node.op_type == "Mul":
            softmaxes = [self._producer[n] for n in node.input if n in self._producer]
            node = next((n for n in softmaxes if n.op_type == "Softmax"), node)
        if node.op_type != "Softmax":
            raise _no_form(node, f"expected a Softmax before {CLASS_PROBABILITIES}")
        name: str = node.input[0]
        while name in self._producer:
            node = self._node(name)
            scales = node.op_type in ("Div", "Mul") and all(self._constants[n].size == 1 for n in self._known(node))
            if node.op_type not in _PASSED and not (scales and self._known(node)):
                break
            name = self._data(node)
        return name

    def back_to_maps(self, emit: Emitter, name: str, gradient: str) -> tuple[str, str]:
        """(summed gradient (N|1, R, K), feature maps (N, K, h, w)) of a `gradient` (N|1, R, C) at the score `name`.

        The gradient is summed over the places of the maps: a max pooling without overlap gives each value's gradient
        to one place, an average pooling spreads it, and neither changes the sum.
        """
        while True:
            node = self._node(name)
            source = self._data(node)
            kind = node.op_type
            if kind == "Gemm":
                gradient = emit.op("MatMul", [gradient, emit.constant(self._gemm_weights(node))])
            elif kind == "MatMul":
                gradient = emit.op("MatMul", [gradient, emit.constant(self._matrix(node.input[1]).T.copy())])
            elif kind in ("Mul", "Div"):
                factor = self._constants[self._known(node)[0]].astype(np.float32)
                if kind == "Div" and node.input[0] != source:
                    raise _no_form(node, "expected a division by a constant")
                gradient = emit.op("Mul", [gradient, emit.constant(1 / factor if kind == "Div" else factor)])
            elif kind in ("Relu", "HardSwish"):
                slope = _relu_slope(emit, source) if kind == "Relu" else _hard_swish_slope(emit, source)
                gradient = emit.op("Mul", [gradient, emit.op("Unsqueeze", [slope, emit.constant(np.array([1]))])])
            elif kind in ("GlobalAveragePool", "ReduceMean"):
                self._check_over_places(node)
                return gradient, self._before_pooling(source)
            elif kind in ("Flatten", "Reshape", "Squeeze"):
                shape = self.dims(source)
                places = shape[2:]
                if len(shape) == 4 and places != [1, 1]:
                    return self._summed(emit, node, gradient, shape), self._before_pooling(source)
            elif kind not in (*_PASSED, "Add"):
                raise _no_form(node, "expected Gemm, MatMul, Add, Mul, Relu, HardSwish, Flatten or a global mean")
            name = source

    def _summed(self, emit: Emitter, node: NodeProto, gradient: str, shape: list[int | None]) -> str:
        """A gradient (N|1, R, K*h*w) summed over the places of maps (N, K, h, w)."""
        if None in shape[1:]:
            raise _no_form(node, "expected feature maps of a fixed size before dense layers")
        split = emit.op("Reshape", [gradient, emit.constant(np.array([0, 0, shape[1], -1]))])
        return emit.op("ReduceSum", [split, emit.constant(np.array([3]))], keepdims=0)

    def _before_pooling(self, name: str) -> str:
        """The maps that `name` was pooled from, where no two of its places overlap."""
        while name in self._producer:
            node = self._producer[name]
            if node.op_type in ("MaxPool", "AveragePool"):
                given = {attribute.name: list(attribute.ints) or attribute.i for attribute in node.attribute}
                strides = given.get("strides", [1, 1])
                if given["kernel_shape"] != strides or any(given.get("pads") or []) or given.get("ceil_mode"):
                    raise _no_form(node, "expected a pooling without overlap and padding")
            elif node.op_type not in _PASSED:
                break
            name = node.input[0]
        return name

    def _check_over_places(self, node: NodeProto) -> None:
        if node.op_type == "GlobalAveragePool":
            return
        axes = [list(attribute.ints) for attribute in node.attribute if attribute.name == "axes"]
        if len(node.input) > 1:
            axes = [self._constants[node.input[1]].tolist()]
        if not axes or sorted(axis % 4 for axis in axes[0]) != [2, 3]:
            raise _no_form(node, "expected the mean over height and width")

    def _gemm_weights(self, node: NodeProto) -> npt.NDArray[np.float32]:
        """(outputs, inputs), with the factor alpha."""
        given = {attribute.name: attribute for attribute in node.attribute}
        if "transA" in given and given["transA"].i:
            raise _no_form(node, "expected rows of features")
        weights = self._matrix(node.input[1])
        if not ("transB" in given and given["transB"].i):
            weights = weights.T.copy()
        return weights * np.float32(given["alpha"].f if "alpha" in given else 1.0)

    def _matrix(self, name: str) -> npt.NDArray[np.float32]:
        weights = self._constants.get(name)
        if weights is None or weights.ndim != 2:
            raise ModelFormatError(f"Grad-CAM: weights {name!r}: got no constant matrix, expected one")
        return weights.astype(np.float32)

    def _node(self, name: str) -> NodeProto:
        if name not in self._producer:
            raise ModelFormatError(
                f"Grad-CAM: got to {name!r} without passing feature maps, expected a convolutional classifier"
            )
        node: NodeProto = self._producer[name]
        return node

    def _known(self, node: NodeProto) -> list[str]:
        return [name for name in node.input if name in self._constants]

    def _data(self, node: NodeProto) -> str:
        open_inputs = [name for name in node.input if name and name not in self._constants]
        if len(open_inputs) != 1:
            raise _no_form(node, "expected a chain of layers from the last convolution to the class probabilities")
        return str(open_inputs[0])


def _relu_slope(emit: Emitter, x: str) -> str:
    above = emit.op("Greater", [x, emit.constant(np.float32(0))])
    return emit.op("Cast", [above], to=TensorProto.FLOAT)


def _hard_swish_slope(emit: Emitter, x: str) -> str:
    """0 below -3, 1 above 3, x / 3 + 1/2 between (Howard 2019, arXiv:1905.02244)."""
    between = emit.op("Add", [emit.op("Mul", [x, emit.constant(np.float32(1 / 3))]), emit.constant(np.float32(0.5))])
    low = emit.op("Less", [x, emit.constant(np.float32(-3))])
    high = emit.op("Greater", [x, emit.constant(np.float32(3))])
    upper = emit.op("Where", [high, emit.constant(np.float32(1)), between])
    return emit.op("Where", [low, emit.constant(np.float32(0)), upper])


def _no_form(node: NodeProto, expected: str) -> ModelFormatError:
    return ModelFormatError(f"Grad-CAM: layer {node.name or node.output[0]!r}: got {node.op_type}, {expected}")
