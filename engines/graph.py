"""ONNX surgery: a uint8 NHWC input, the compact detection head, fixed input shapes.

Every function takes a ModelProto, leaves it as it was and returns a new one. Only standard operators that TensorRT's
parser takes as well are emitted (no NonZero, NonMaxSuppression, If or Loop). What they expect of the files is in
their docstrings; anything else raises ModelFormatError.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper, shape_inference

from engines.base import Array, ModelFormatError

INPUT = "images"
"""Name of the uint8 (N, H, W, 3) input of every model that leukostream runs."""
BOXES, SCORES, CLASSES = "boxes", "scores", "classes"
"""Outputs of the compact head: float32 (N,K,4) xyxy in input px, float32 (N,K) descending, int64 (N,K)."""
TOP_K = 1000
MIN_OPSET = 17
_MAX_TOP_K = 3840  # TensorRT's limit for TopK
_FOLD_LIMIT = 4096  # elements; larger constants are left to the backend's own folding
_NUMBER = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16"}


def add_uint8_input(
    model: ModelProto,
    *,
    scale: float = 1 / 255,
    mean: Sequence[float] = (0, 0, 0),
    std: Sequence[float] = (1, 1, 1),
    channels: str = "bgr",
) -> ModelProto:
    """Put Cast, Transpose and `(x * scale - mean) / std` before a network, so that it takes uint8 (N,H,W,3) BGR `images`.

    The network must have one input, float32 or float16 (N,3,H,W); sizes that it leaves open stay open. `mean` and
    `std` are in the network's own channel order; channels="rgb" says that this order is RGB, and swaps in the graph.
    """
    if channels not in ("bgr", "rgb"):
        raise ModelFormatError(f"channels: got {channels!r}, expected 'bgr' or 'rgb'")
    model = _modern(model)
    graph = model.graph
    source = _only_input(model)
    dims = _dims(source)
    number = source.type.tensor_type.elem_type
    if len(dims) != 4 or number not in _NUMBER or dims[1] not in (3, None):
        raise ModelFormatError(
            f"input {source.name!r}: got {_spell(source)}, expected float32 or float16 (N,3,H,W); "
            "export the network without its own preprocessing"
        )
    emit = _Emitter(model, "input")
    factors = np.asarray([scale / s for s in std], np.float32).reshape(1, 3, 1, 1)
    shifts = np.asarray([-m / s for m, s in zip(mean, std, strict=True)], np.float32).reshape(1, 3, 1, 1)
    # TensorRT takes uint8 only as a network input that a Cast reads: the Cast comes first.
    x = emit.op("Cast", [INPUT], to=TensorProto.FLOAT)
    x = emit.op("Transpose", [x], perm=[0, 3, 1, 2])
    if channels == "rgb":
        x = emit.op("Gather", [x, emit.constant(np.array([2, 1, 0]))], axis=1)
    uniform = np.all(factors == factors.flat[0])
    x = emit.op("Mul", [x, emit.constant(factors.reshape(-1)[:1].reshape(()) if uniform else factors)])
    if shifts.any():
        x = emit.op("Add", [x, emit.constant(shifts)])
    if number == TensorProto.FLOAT16:
        x = emit.op("Cast", [x], to=TensorProto.FLOAT16)

    _rename_uses(graph, source.name, x)
    batch, _, height, width = dims
    graph.input.remove(source)
    graph.input.insert(0, _value(INPUT, TensorProto.UINT8, [batch or "N", height or "H", width or "W", 3]))
    emit.insert_first()
    return _checked(model)


def add_yolov5_head(
    model: ModelProto,
    *,
    anchors_px: Sequence[Sequence[Sequence[float]]] | npt.NDArray[np.floating[Any]],
    strides: Sequence[int] = (8, 16, 32),
    top_k: int = TOP_K,
) -> ModelProto:
    """Replace the raw logit maps of a YOLOv5 network by the compact head.

    The outputs must be one map per stride, float (N, A*(5+C), h, w), channel = anchor*(5+C) + (x, y, w, h,
    objectness, classes...). `anchors_px` is (levels, A, 2), width and height. The new outputs are the `top_k` best
    candidates, or all where there are fewer: `boxes`, `scores` = objectness * best class, `classes`. Selection comes
    before decoding, so that only `top_k` boxes are decoded.
    """
    anchors = np.asarray(anchors_px, np.float32)
    levels = len(strides)
    maps = [value.name for value in model.graph.output]
    if anchors.ndim != 3 or anchors.shape[0] != levels or anchors.shape[2] != 2:
        raise ModelFormatError(f"anchors_px: got shape {anchors.shape}, expected ({levels}, A, 2) for strides {strides}")
    if len(maps) != levels:
        raise ModelFormatError(f"outputs: got {len(maps)} ({', '.join(maps)}), expected {levels} raw maps, one per stride")
    model = _modern(model)
    shapes = {name: _shape_of(model, name) for name in maps}
    per_cell = len(anchors[0])
    depth = {shape[1] if len(shape) == 4 else None for shape in shapes.values()}
    channels = next(iter(depth))
    if len(depth) != 1 or channels is None or channels % per_cell or channels // per_cell < 6:
        raise ModelFormatError(
            f"outputs: got {shapes}, expected maps (N, {per_cell}*(5+C), h, w) with the same number of channels"
        )
    features = channels // per_cell
    emit = _Emitter(model, "head")
    batch = shapes[maps[0]][0]

    # (N, 5+C, candidates): candidates run over level, anchor, row, column.
    tables, planes, widths = [], [], []
    for output in model.graph.output:
        raw = emit.as_float32(output)
        split = emit.op("Reshape", [raw, emit.constant(np.array([0, per_cell, features, -1]))])
        swapped = emit.op("Transpose", [split], perm=[0, 2, 1, 3])
        tables.append(emit.op("Reshape", [swapped, emit.constant(np.array([0, features, -1]))]))
        size = emit.op("Shape", [raw])
        width = emit.op("Gather", [size, emit.constant(np.array([3]))], axis=0)
        height = emit.op("Gather", [size, emit.constant(np.array([2]))], axis=0)
        planes.append(emit.op("Mul", [height, width]))
        widths.append(width)
    table = emit.op("Concat", tables, axis=2) if levels > 1 else tables[0]
    objectness = emit.op("Sigmoid", [emit.slice(table, 4, 5, axis=1)])
    best_class = emit.op("Sigmoid", [emit.reduce_max(emit.slice(table, 5, features, axis=1), axis=1)])
    candidates = emit.op("Reshape", [emit.op("Mul", [objectness, best_class]), emit.constant(np.array([0, -1]))])
    index = _select(emit, candidates, top_k)
    kept = _gather_candidates(emit, table, index, features, axis=2)
    emit.op("ArgMax", [emit.slice(kept, 5, features, axis=1)], axis=1, keepdims=0, out=CLASSES)

    # Where each kept candidate comes from, by arithmetic on its index: no grid of all candidates is ever stored.
    counts = [emit.op("Mul", [plane, emit.constant(np.array([per_cell]))]) for plane in planes]
    starts = [emit.constant(np.array([0]))]
    for count in counts[:-1]:
        starts.append(emit.op("Add", [starts[-1], count]))
    level = emit.op("Sub", [index, index])
    for start in starts[1:]:
        level = emit.op("Add", [level, emit.op("Cast", [emit.op("GreaterOrEqual", [index, start])], to=TensorProto.INT64)])

    def of_level(vectors: list[str]) -> str:
        return emit.op("Gather", [emit.op("Concat", vectors, axis=0), level], axis=0)

    local = emit.op("Sub", [index, of_level(starts)])
    plane, width = of_level(planes), of_level(widths)
    anchor = emit.op("Div", [local, plane])
    cell = emit.op("Sub", [local, emit.op("Mul", [anchor, plane])])
    row = emit.op("Div", [cell, width])
    column = emit.op("Sub", [cell, emit.op("Mul", [row, width])])
    last = emit.constant(np.array([-1]))
    place = emit.op("Concat", [emit.op("Unsqueeze", [value, last]) for value in (column, row)], axis=-1)
    place = emit.op("Cast", [place], to=TensorProto.FLOAT)
    stride = emit.op("Gather", [emit.constant(np.asarray(strides, np.float32)[:, None]), level], axis=0)
    kind = emit.op("Add", [emit.op("Mul", [level, emit.constant(np.array([per_cell]))]), anchor])
    anchor_px = emit.op("Gather", [emit.constant(2 * anchors.reshape(-1, 2)), kind], axis=0)

    # xy = (2 s - 0.5 + cell) * stride and wh = (2 s)^2 * anchor, hence half of wh = s^2 * (2 anchor).
    shape = emit.op("Transpose", [emit.op("Sigmoid", [emit.slice(kept, 0, 4, axis=1)])], perm=[0, 2, 1])
    centre, spread = emit.slice(shape, 0, 2, axis=2), emit.slice(shape, 2, 4, axis=2)
    centre = emit.op("Sub", [emit.op("Mul", [centre, emit.constant(np.float32(2))]), emit.constant(np.float32(0.5))])
    centre = emit.op("Mul", [emit.op("Add", [centre, place]), stride])
    half = emit.op("Mul", [emit.op("Mul", [spread, spread]), anchor_px])
    corners = [emit.op("Sub", [centre, half]), emit.op("Add", [centre, half])]
    emit.op("Concat", corners, axis=2, out=BOXES)
    return _with_compact_outputs(model, emit, batch)


def adapt_ultralytics(model: ModelProto, *, top_k: int = TOP_K) -> ModelProto:
    """Give a YOLOv5 file as Ultralytics exports it the uint8 BGR input and the compact head.

    Expected: one float input (N,3,H,W), RGB 0 to 1, and one output (N, candidates, 5+C) of decoded rows: centre x,
    centre y, width, height in input px, objectness, class scores. float16 or float32, sizes fixed or open, any names.
    """
    outputs = [value.name for value in model.graph.output]
    if len(outputs) != 1:
        raise ModelFormatError(
            f"outputs: got {len(outputs)} ({', '.join(outputs)}), expected one (N, candidates, 5+C) as YOLOv5 exports it; "
            "export again with `export.py --include onnx` and without NMS"
        )
    model = add_uint8_input(model, channels="rgb")
    shape = _shape_of(model, outputs[0])
    features = shape[2] if len(shape) == 3 else None
    if features is None or features < 6:
        raise ModelFormatError(
            f"output {outputs[0]!r}: got shape {shape}, expected (N, candidates, 5+C) as YOLOv5 exports it; "
            "other families of detectors are not adapted"
        )
    emit = _Emitter(model, "head")
    table = emit.as_float32(model.graph.output[0])
    objectness = emit.slice(table, 4, 5, axis=2)
    best_class = emit.reduce_max(emit.slice(table, 5, features, axis=2), axis=2)
    candidates = emit.op("Reshape", [emit.op("Mul", [objectness, best_class]), emit.constant(np.array([0, -1]))])
    index = _select(emit, candidates, top_k)
    kept = _gather_candidates(emit, table, index, features, axis=1)
    emit.op("ArgMax", [emit.slice(kept, 5, features, axis=2)], axis=2, keepdims=0, out=CLASSES)
    centre = emit.slice(kept, 0, 2, axis=2)
    half = emit.op("Mul", [emit.slice(kept, 2, 4, axis=2), emit.constant(np.float32(0.5))])
    emit.op("Concat", [emit.op("Sub", [centre, half]), emit.op("Add", [centre, half])], axis=2, out=BOXES)
    return _with_compact_outputs(model, emit, shape[0])


def fix_input_shape(model: ModelProto, batch: int | None, height: int | None, width: int | None) -> ModelProto:
    """Fix the sizes of the input to numbers, and fold everything that depended on them alone.

    The input is uint8 (N,H,W,3) or float (N,3,H,W); None leaves a size as it is. A size that the file itself fixes
    to another number raises ModelFormatError.
    """
    fixed = ModelProto()
    fixed.CopyFrom(model)
    value = _only_input(fixed)
    dims = _dims(value)
    if len(dims) != 4:
        raise ModelFormatError(f"input {value.name!r}: got {_spell(value)}, expected an image of four dimensions")
    nhwc = value.type.tensor_type.elem_type == TensorProto.UINT8
    wanted = (batch, height, width, None) if nhwc else (batch, None, height, width)
    for axis, want in enumerate(wanted):
        if want is None:
            continue
        if dims[axis] is not None and dims[axis] != want:
            raise ModelFormatError(
                f"input {value.name!r}: got a file fixed to {_spell(value)}, expected size {want} at axis {axis}; "
                "export the model with dynamic axes"
            )
        value.type.tensor_type.shape.dim[axis].dim_value = want
    del fixed.graph.value_info[:]
    for output in fixed.graph.output:
        rank = len(output.type.tensor_type.shape.dim)
        output.type.tensor_type.shape.CopyFrom(onnx.TensorShapeProto(dim=[onnx.TensorShapeProto.Dimension()] * rank))
    _fold_shapes(fixed)
    return _checked(fixed)


def _select(emit: _Emitter, candidates: str, top_k: int) -> str:
    """Emit the K best of `candidates` (N, candidates) as `scores`; returns their index, int64 (N,K)."""
    if not 1 <= top_k <= _MAX_TOP_K:
        raise ModelFormatError(f"top_k: got {top_k}, expected 1 to {_MAX_TOP_K}")
    count = emit.op("Gather", [emit.op("Shape", [candidates]), emit.constant(np.array([1]))], axis=0)
    k = emit.op("Min", [count, emit.constant(np.array([top_k]))])
    return emit.op("TopK", [candidates, k], axis=1, largest=1, sorted=1, outs=[SCORES, emit.name("index")])[1]


def _gather_candidates(emit: _Emitter, table: str, index: str, features: int, *, axis: int) -> str:
    """Pick the columns (axis 2) or rows (axis 1) of `table` named by `index` (N,K)."""
    other = 3 - axis
    wide = emit.op("Unsqueeze", [index, emit.constant(np.array([other]))])
    shape = np.ones(3, np.int64)
    shape[other] = features
    wide = emit.op("Expand", [wide, emit.constant(shape)])
    return emit.op("GatherElements", [table, wide], axis=axis)


def _with_compact_outputs(model: ModelProto, emit: _Emitter, batch: int | None) -> ModelProto:
    taken = {BOXES, SCORES, CLASSES} & {name for node in model.graph.node for name in node.output}
    for name in taken:
        _rename(model.graph, name, f"network/{name}")
        emit.rename_inputs(name, f"network/{name}")
    emit.insert_last()
    del model.graph.output[:]
    del model.graph.value_info[:]
    n = batch if batch is not None else "N"
    model.graph.output.extend(
        [
            _value(BOXES, TensorProto.FLOAT, [n, None, 4]),
            _value(SCORES, TensorProto.FLOAT, [n, None]),
            _value(CLASSES, TensorProto.INT64, [n, None]),
        ]
    )
    return _checked(model)


class _Emitter:
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

    def op(self, kind: str, inputs: Sequence[str], *, out: str | None = None, **attributes: Any) -> Any:
        """Emit one node and return the name of its output (of all outputs where `outs` names them)."""
        outs = attributes.pop("outs", None)
        names = outs or [out or self.name(kind.lower())]
        self._nodes.append(helper.make_node(kind, list(inputs), names, name=self.name(kind), **attributes))
        return names if outs else names[0]

    def slice(self, x: str, start: int, stop: int, *, axis: int) -> str:
        ends = [self.constant(np.array([value])) for value in (start, stop, axis)]
        return str(self.op("Slice", [x, *ends]))

    def reduce_max(self, x: str, *, axis: int) -> str:
        if self._opset >= 18:
            return str(self.op("ReduceMax", [x, self.constant(np.array([axis]))], keepdims=1))
        return str(self.op("ReduceMax", [x], axes=[axis], keepdims=1))

    def as_float32(self, output: ValueInfoProto) -> str:
        """Scores and boxes are float32 whatever the network's precision: float16 holds px only to 0.5 above 512."""
        if output.type.tensor_type.elem_type == TensorProto.FLOAT:
            return str(output.name)
        return str(self.op("Cast", [output.name], to=TensorProto.FLOAT))

    def rename_inputs(self, old: str, new: str) -> None:
        for node in self._nodes:
            if old in node.output:
                continue
            node.input[:] = [new if name == old else name for name in node.input]

    def insert_first(self) -> None:
        rest = list(self._model.graph.node)
        del self._model.graph.node[:]
        self._model.graph.node.extend([*self._nodes, *rest])
        self._model.graph.initializer.extend(self._constants)

    def insert_last(self) -> None:
        self._model.graph.node.extend(self._nodes)
        self._model.graph.initializer.extend(self._constants)


def _modern(model: ModelProto) -> ModelProto:
    """A copy of `model` at opset 17 or above, without inputs that are really initializers."""
    if _opset(model) < MIN_OPSET:
        from onnx import version_converter  # heavy, and only old files need it

        try:
            model = version_converter.convert_version(model, MIN_OPSET)
        except Exception as error:
            raise ModelFormatError(
                f"opset: got {_opset(model)}, expected {MIN_OPSET} or above, and it can't be converted ({error}); "
                f"export with opset {MIN_OPSET}"
            ) from error
    copy = ModelProto()
    copy.CopyFrom(model)
    stored = {tensor.name for tensor in copy.graph.initializer}
    inputs = [value for value in copy.graph.input if value.name not in stored]
    del copy.graph.input[:]
    copy.graph.input.extend(inputs)
    return copy


def _checked(model: ModelProto) -> ModelProto:
    try:
        model = shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        onnx.checker.check_model(model)
    except (shape_inference.InferenceError, onnx.checker.ValidationError) as error:
        raise ModelFormatError(f"the graph's operators don't fit its input: {str(error).strip()}") from error
    return model


def _fold_shapes(model: ModelProto) -> None:
    """Replace what can be computed from fixed shapes and small constants by constants, in place."""
    from onnx.reference import ReferenceEvaluator

    graph = model.graph
    inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {value.name: _dims(value) for value in (*inferred.input, *inferred.value_info, *inferred.output)}
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
    used = {name for node in kept for name in node.input} | outputs
    constants = [tensor for tensor in graph.initializer if tensor.name in used]
    constants += [numpy_helper.from_array(value, name) for name, value in folded.items() if name in used]
    del graph.node[:]
    graph.node.extend(kept)
    del graph.initializer[:]
    graph.initializer.extend(constants)


_FOLDABLE = frozenset(
    ["Add", "Cast", "Concat", "Constant", "ConstantOfShape", "Div", "Equal", "Expand", "Floor", "Gather", "Identity", "Min", "Mul", "Range", "Reshape", "Slice", "Split", "Squeeze", "Sub", "Unsqueeze", "Where"]
)
"""What exporters build shapes with."""


def _opset(model: ModelProto) -> int:
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def _only_input(model: ModelProto) -> ValueInfoProto:
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise ModelFormatError(f"inputs: got {len(inputs)} ({names}), expected one image input")
    return inputs[0]


def _dims(value: ValueInfoProto) -> list[int | None]:
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in dims]


def _shape_of(model: ModelProto, name: str) -> list[int | None]:
    """Inferred shape of an output; exporters often leave a number open that follows from the graph."""
    for graph in (shape_inference.infer_shapes(model, data_prop=True).graph, model.graph):
        for value in graph.output:
            if value.name == name and value.type.tensor_type.shape.dim:
                return _dims(value)
    return []


def _spell(value: ValueInfoProto) -> str:
    kind = TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
    return f"{kind} ({','.join('?' if size is None else str(size) for size in _dims(value))})"


def _value(name: str, kind: int, shape: Sequence[int | str | None]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, list(shape))


def _rename_uses(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _rename_uses(inner, old, new)


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    _rename_uses(graph, old, new)
    for node in graph.node:
        node.output[:] = [new if name == old else name for name in node.output]
