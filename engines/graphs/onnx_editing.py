"""Tools for editing ONNX graphs: emit nodes, fold what follows from fixed shapes, read shapes, rename tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper, shape_inference

from engines.base import Array, ModelFormatError

MIN_OPSET = 17
_FOLD_LIMIT = 4096  # elements; larger constants are left to the backend's own folding


class Emitter:
    """Collects nodes and constants under names of their own, then puts them into the graph."""

    def __init__(self, model: ModelProto, prefix: str) -> None:
        self._model = model
        self._opset = _opset(model)
        used = {name for node in model.graph.node for name in (*node.input, *node.output)}
        while any(name.startswith(f"{prefix}/") for name in used):
            prefix += "_"
        self._prefix = prefix
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[TensorProto] = []

    def name(self, what: str) -> str:
        return f"{self._prefix}/{what}_{len(self._nodes) + len(self._constants)}"

    def constant(self, array: Array | np.generic) -> str:
        name = self.name("constant")
        self._constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def op(self, kind: str, inputs: Sequence[str], *, out: str | None = None, **attributes: Any) -> str:
        """Emit a node of one output and return that output's name."""
        name = out or self.name(kind.lower())
        self.ops(kind, inputs, [name], **attributes)
        return name

    def ops(self, kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> None:
        self._nodes.append(helper.make_node(kind, inputs, outputs, name=self.name(kind), **attributes))

    def slice(self, x: str, start: int, stop: int, *, axis: int) -> str:
        ends = [self.constant(np.array([value])) for value in (start, stop, axis)]
        return self.op("Slice", [x, *ends])

    def reduce_max(self, x: str, *, axis: int) -> str:
        if self._opset >= 18:
            return self.op("ReduceMax", [x, self.constant(np.array([axis]))], keepdims=1)
        return self.op("ReduceMax", [x], axes=[axis], keepdims=1)

    def as_float32(self, output: ValueInfoProto) -> str:
        """Scores and boxes are float32 whatever the network's precision: float16 holds px only to 0.5 above 512."""
        if output.type.tensor_type.elem_type == TensorProto.FLOAT:
            name: str = output.name
            return name
        return self.op("Cast", [output.name], to=TensorProto.FLOAT)

    def rename_inputs(self, old: str, new: str) -> None:
        for node in self._nodes:
            if old in node.output:
                continue
            node.input[:] = [new if name == old else name for name in node.input]

    def insert(self, *, first: bool = False) -> None:
        """Put the nodes before or after those of the graph."""
        graph = self._model.graph
        nodes = [*self._nodes, *graph.node] if first else [*graph.node, *self._nodes]
        del graph.node[:]
        graph.node.extend(nodes)
        graph.initializer.extend(self._constants)


def modern(model: ModelProto) -> ModelProto:
    """A copy of `model` at opset 17 or above, without inputs that are really initializers."""
    if _opset(model) < MIN_OPSET:
        from onnx import version_converter  # heavy, and only old files need it

        try:
            model = version_converter.convert_version(model, MIN_OPSET)
        except (RuntimeError, version_converter.ConvertError) as error:
            raise ModelFormatError(
                f"opset: got {_opset(model)}, expected {MIN_OPSET} or above, and it can't be converted ({error}); "
                f"export with opset {MIN_OPSET}"
            ) from error
    copy = ModelProto()
    copy.CopyFrom(model)
    inputs = real_inputs(copy)
    del copy.graph.input[:]
    copy.graph.input.extend(inputs)
    return copy


def checked(model: ModelProto) -> ModelProto:
    """The model with all shapes inferred; ModelFormatError where operators, types and shapes contradict one another."""
    try:
        model = shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        onnx.checker.check_model(model)
    except (shape_inference.InferenceError, onnx.checker.ValidationError) as error:
        raise ModelFormatError(f"the graph's operators don't fit its input: {str(error).strip()}") from error
    return model


def fold_shapes(model: ModelProto) -> None:
    """Replace what can be computed from fixed shapes and small constants by constants, in place."""
    from onnx.reference import ReferenceEvaluator

    graph = model.graph
    inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {value.name: dims_of(value) for value in (*inferred.input, *inferred.value_info, *inferred.output)}
    known: dict[str, Array] = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in graph.initializer
        if np.prod(tensor.dims, dtype=np.int64) <= _FOLD_LIMIT
    }
    outputs = {value.name for value in graph.output}
    folded: dict[str, Array] = {}
    kept = []
    for node in graph.node:
        values: list[Array] | None = None
        if node.op_type == "Shape" and node.domain == "":
            dims = shapes.get(node.input[0], [None])
            attributes = {attribute.name: attribute.i for attribute in node.attribute}
            part = dims[attributes.get("start", 0) : attributes.get("end", len(dims))]
            if None not in part:
                values = [np.array(part, np.int64)]
        elif node.op_type in _FOLDABLE and all(name in known for name in node.input if name):
            values = ReferenceEvaluator(node).run(None, {name: known[name] for name in node.input if name})  # type: ignore[assignment]
        if values is None or outputs & set(node.output) or any(value.size > _FOLD_LIMIT for value in values):
            kept.append(node)
            continue
        new = dict(zip(node.output, (np.asarray(value) for value in values), strict=True))
        known |= new
        folded |= new
    used = _names_read(kept) | outputs
    constants = [tensor for tensor in graph.initializer if tensor.name in used]
    constants += [numpy_helper.from_array(value, name) for name, value in folded.items() if name in used]
    del graph.node[:]
    graph.node.extend(kept)
    del graph.initializer[:]
    graph.initializer.extend(constants)


_FOLDABLE = frozenset(
    [
        "Add",
        "Cast",
        "Concat",
        "Constant",
        "ConstantOfShape",
        "Div",
        "Equal",
        "Expand",
        "Floor",
        "Gather",
        "Identity",
        "Min",
        "Mul",
        "Range",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Sub",
        "Unsqueeze",
        "Where",
    ]
)
"""What exporters build shapes with."""


def _names_read(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    """Every tensor that the nodes or their subgraphs read."""
    names: set[str] = set()
    for node in nodes:
        names.update(node.input)
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                names |= _names_read(inner.node) | {value.name for value in inner.output}
    return names


def constants_of(graph: onnx.GraphProto) -> dict[str, Array]:
    """All constants of a graph by name: initializers, Constant nodes, and what stands for one under another name."""
    constants: dict[str, Array] = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        elif node.op_type == "Identity" and node.input[0] in constants:  # equal weights are stored once
            constants[node.output[0]] = constants[node.input[0]]
    return constants


def _opset(model: ModelProto) -> int:
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def real_inputs(model: ModelProto) -> list[ValueInfoProto]:
    """Inputs that are no initializers; old files list both."""
    stored = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in stored]


def only_input(model: ModelProto) -> ValueInfoProto:
    inputs = real_inputs(model)
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise ModelFormatError(f"inputs: got {len(inputs)} ({names}), expected one image input")
    return inputs[0]


def dims_of(value: ValueInfoProto) -> list[int | None]:
    """Sizes of a tensor, None where open."""
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in dims]


def shape_of(model: ModelProto, name: str) -> list[int | None]:
    """Inferred shape of an output; exporters often leave a number open that follows from the graph."""
    for graph in (shape_inference.infer_shapes(model, data_prop=True).graph, model.graph):
        for value in graph.output:
            if value.name == name and value.type.tensor_type.shape.dim:
                return dims_of(value)
    return []


def spell(value: ValueInfoProto) -> str:
    kind = TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
    return f"{kind} ({','.join('?' if size is None else str(size) for size in dims_of(value))})"


def tensor_value(name: str, kind: int, shape: Sequence[int | str | None]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, list(shape))


def rename_uses(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                rename_uses(inner, old, new)


def rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    rename_uses(graph, old, new)
    for node in graph.node:
        node.output[:] = [new if name == old else name for name in node.output]
