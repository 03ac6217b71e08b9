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
from onnx import ModelProto, TensorProto

from engines.base import ModelFormatError
from engines.graphs.onnx_editing import (
    Emitter,
    checked,
    dims_of,
    fold_shapes,
    modern,
    only_input,
    real_inputs,
    rename,
    rename_uses,
    shape_of,
    spell,
    tensor_value,
)

INPUT = "images"
"""Name of the uint8 (N, H, W, 3) input of every model that leukostream runs."""
BOXES, SCORES, CLASSES = "boxes", "scores", "classes"
"""Outputs of the compact head: float32 (N,K,4) xyxy in input px, float32 (N,K) descending, int64 (N,K)."""
CLASS_PROBABILITIES, SUBCLASS_PROBABILITIES = "class_probabilities", "subclass_probabilities"
"""Outputs of a classifier: float32 (N, classes) and (N, subclasses)."""
ATTRIBUTE_PROBABILITIES = "attribute_probabilities"
"""(N, values of all attributes side by side), a softmax within each; of models whose card has [[attributes]]."""
NOVELTY = "novelty"
"""(N,) 0 to 1; of models whose card has a threshold for it."""
CLASS_SCORES = "class_scores"
"""Output of a compact head that gives every class's score of each candidate: float32 (N,K,C), 0 to 1."""
TOP_K = 3840
"""Candidates that leave the network. YOLOv5 gives 7 to 9 for each cell, so that 1000 hold only some 130 cells; this
is the most that TensorRT's TopK takes, and costs 0.5 ms more than 1000 on a CPU core."""


def add_uint8_input(
    model: ModelProto,
    *,
    scale: float = 1 / 255,
    mean: Sequence[float] = (0, 0, 0),
    std: Sequence[float] = (1, 1, 1),
    channels: str = "bgr",
) -> ModelProto:
    """Put Cast, Transpose and `(x * scale - mean) / std` before a network: its input becomes uint8 (N,H,W,3) BGR.

    The new input is called `images`. The network must have one input, float32 or float16 (N,3,H,W); sizes that it
    leaves open stay open. `mean` and `std` are in the network's own channel order; channels="rgb" says that this
    order is RGB, and swaps in the graph.
    """
    if channels not in ("bgr", "rgb"):
        raise ModelFormatError(f"channels: got {channels!r}, expected 'bgr' or 'rgb'")
    model = modern(model)
    graph = model.graph
    source = only_input(model)
    dims = dims_of(source)
    number = source.type.tensor_type.elem_type
    known_number = number in (TensorProto.FLOAT, TensorProto.FLOAT16)
    if len(dims) != 4 or not known_number or dims[1] not in (3, None):
        raise ModelFormatError(
            f"input {source.name!r}: got {spell(source)}, expected float32 or float16 (N,3,H,W); "
            "export the network without its own preprocessing"
        )
    emit = Emitter(model, "input")
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

    rename_uses(graph, source.name, x)
    batch, _, height, width = dims
    graph.input.remove(source)
    graph.input.insert(0, tensor_value(INPUT, TensorProto.UINT8, [batch or "N", height or "H", width or "W", 3]))
    emit.insert(first=True)
    return checked(model)


def add_yolov5_head(
    model: ModelProto,
    *,
    anchors_px: Sequence[Sequence[Sequence[float]]] | npt.NDArray[np.floating[Any]],
    strides: Sequence[int] = (8, 16, 32),
    top_k: int = TOP_K,
    class_scores: bool = False,
) -> ModelProto:
    """Replace the raw logit maps of a YOLOv5 network by the compact head.

    The outputs must be one map per stride, float (N, A*(5+C), h, w), channel = anchor*(5+C) + (x, y, w, h,
    objectness, classes...). `anchors_px` is (levels, A, 2), width and height. The new outputs are the `top_k` best
    candidates, or all where there are fewer: `boxes`, `scores` = objectness * best class, `classes`; with
    `class_scores` every class's score of each as well. Selection comes before decoding, so that only `top_k` boxes are
    decoded.
    """
    anchors = np.asarray(anchors_px, np.float32)
    levels = len(strides)
    maps = [value.name for value in model.graph.output]
    if anchors.ndim != 3 or anchors.shape[0] != levels or anchors.shape[2] != 2:
        raise ModelFormatError(
            f"anchors_px: got shape {anchors.shape}, expected ({levels}, A, 2) for strides {strides}"
        )
    if len(maps) != levels:
        raise ModelFormatError(
            f"outputs: got {len(maps)} ({', '.join(maps)}), expected {levels} raw maps, one per stride"
        )
    model = modern(model)
    shapes = {name: shape_of(model, name) for name in maps}
    per_cell = len(anchors[0])
    depth = {shape[1] if len(shape) == 4 else None for shape in shapes.values()}
    channels = next(iter(depth))
    if len(depth) != 1 or channels is None or channels % per_cell or channels // per_cell < 6:
        raise ModelFormatError(
            f"outputs: got {shapes}, expected maps (N, {per_cell}*(5+C), h, w) with the same number of channels"
        )
    features = channels // per_cell
    emit = Emitter(model, "head")
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
    index = select_best(emit, candidates, top_k)
    kept = gather_candidates(emit, table, index, features, axis=2)
    named = emit.slice(kept, 5, features, axis=1)
    emit.op("ArgMax", [named], axis=1, keepdims=0, out=CLASSES)
    if class_scores:
        emit.op("Transpose", [emit.op("Sigmoid", [named])], perm=[0, 2, 1], out=CLASS_SCORES)

    # Where each kept candidate comes from, by arithmetic on its index: no grid of all candidates is ever stored.
    counts = [emit.op("Mul", [plane, emit.constant(np.array([per_cell]))]) for plane in planes]
    starts = [emit.constant(np.array([0]))]
    for count in counts[:-1]:
        starts.append(emit.op("Add", [starts[-1], count]))
    level = emit.op("Sub", [index, index])
    for start in starts[1:]:
        level = emit.op(
            "Add", [level, emit.op("Cast", [emit.op("GreaterOrEqual", [index, start])], to=TensorProto.INT64)]
        )

    def of_level(vectors: list[str]) -> str:
        return emit.op("Gather", [emit.op("Concat", vectors, axis=0), level], axis=0)

    local = emit.op("Sub", [index, of_level(starts)])
    plane, width = of_level(planes), of_level(widths)
    anchor, place = places_of(emit, local, plane, width)
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
    return with_compact_outputs(model, emit, batch, classes=features - 5 if class_scores else 0)


def adapt_ultralytics(model: ModelProto, *, top_k: int = TOP_K) -> ModelProto:
    """Give a YOLOv5 file as Ultralytics exports it the uint8 BGR input and the compact head.

    Expected: one float input (N,3,H,W), RGB 0 to 1, and one output (N, candidates, 5+C) of decoded rows: centre x,
    centre y, width, height in input px, objectness, class scores. float16 or float32, sizes fixed or open, any names.
    """
    outputs = [value.name for value in model.graph.output]
    if len(outputs) != 1:
        raise ModelFormatError(
            f"outputs: got {len(outputs)} ({', '.join(outputs)}), expected one (N, candidates, 5+C) as YOLOv5 "
            "exports it; export again with `export.py --include onnx` and without NMS"
        )
    model = add_uint8_input(model, channels="rgb")
    shape = shape_of(model, outputs[0])
    features = shape[2] if len(shape) == 3 else None
    if features is None or features < 6:
        raise ModelFormatError(
            f"output {outputs[0]!r}: got shape {shape}, expected (N, candidates, 5+C) as YOLOv5 exports it; "
            "other families of detectors are not adapted"
        )
    emit = Emitter(model, "head")
    table = emit.as_float32(model.graph.output[0])
    objectness = emit.slice(table, 4, 5, axis=2)
    best_class = emit.reduce_max(emit.slice(table, 5, features, axis=2), axis=2)
    candidates = emit.op("Reshape", [emit.op("Mul", [objectness, best_class]), emit.constant(np.array([0, -1]))])
    index = select_best(emit, candidates, top_k)
    kept = gather_candidates(emit, table, index, features, axis=1)
    emit.op("ArgMax", [emit.slice(kept, 5, features, axis=2)], axis=2, keepdims=0, out=CLASSES)
    centre = emit.slice(kept, 0, 2, axis=2)
    half = emit.op("Mul", [emit.slice(kept, 2, 4, axis=2), emit.constant(np.float32(0.5))])
    emit.op("Concat", [emit.op("Sub", [centre, half]), emit.op("Add", [centre, half])], axis=2, out=BOXES)
    return with_compact_outputs(model, emit, shape[0])


def fix_input_shape(model: ModelProto, batch: int | None, height: int | None, width: int | None) -> ModelProto:
    """Fix the sizes of the input to numbers, and fold everything that depended on them alone.

    The input is uint8 (N,H,W,3) or float (N,3,H,W); None leaves a size as it is. A size that the file itself fixes
    to another number raises ModelFormatError.
    """
    fixed = ModelProto()
    fixed.CopyFrom(model)
    value = only_input(fixed)
    dims = dims_of(value)
    if len(dims) != 4:
        raise ModelFormatError(f"input {value.name!r}: got {spell(value)}, expected an image of four dimensions")
    nhwc = value.type.tensor_type.elem_type == TensorProto.UINT8
    wanted = (batch, height, width, None) if nhwc else (batch, None, height, width)
    for axis, want in enumerate(wanted):
        if want is None:
            continue
        if dims[axis] is not None and dims[axis] != want:
            raise ModelFormatError(
                f"input {value.name!r}: got a file fixed to {spell(value)}, expected size {want} at axis {axis}; "
                "export the model with dynamic axes"
            )
        value.type.tensor_type.shape.dim[axis].dim_value = want
    del fixed.graph.value_info[:]
    for output in fixed.graph.output:
        rank = len(output.type.tensor_type.shape.dim)
        output.type.tensor_type.shape.CopyFrom(onnx.TensorShapeProto(dim=[onnx.TensorShapeProto.Dimension()] * rank))
    fold_shapes(fixed)
    return checked(fixed)


def is_compact(model: ModelProto) -> bool:
    """Whether a file has the uint8 input and the compact head already."""
    inputs = real_inputs(model)
    return (
        [value.name for value in inputs] == [INPUT]
        and inputs[0].type.tensor_type.elem_type == TensorProto.UINT8
        and {BOXES, SCORES, CLASSES} <= {value.name for value in model.graph.output}
    )


def select_best(emit: Emitter, candidates: str, top_k: int) -> str:
    """Emit the K best of `candidates` (N, candidates) as `scores`; returns their index, int64 (N,K)."""
    if not 1 <= top_k <= TOP_K:
        raise ModelFormatError(f"top_k: got {top_k}, expected 1 to {TOP_K}")
    count = emit.op("Gather", [emit.op("Shape", [candidates]), emit.constant(np.array([1]))], axis=0)
    k = emit.op("Min", [count, emit.constant(np.array([top_k]))])
    index = emit.name("index")
    emit.ops("TopK", [candidates, k], [SCORES, index], axis=1, largest=1, sorted=1)
    return index


def gather_candidates(emit: Emitter, table: str, index: str, features: int, *, axis: int) -> str:
    """Pick the columns (axis 2) or rows (axis 1) of `table` named by `index` (N,K)."""
    other = 3 - axis
    wide = emit.op("Unsqueeze", [index, emit.constant(np.array([other]))])
    shape = np.ones(3, np.int64)
    shape[other] = features
    wide = emit.op("Expand", [wide, emit.constant(shape)])
    return emit.op("GatherElements", [table, wide], axis=axis)


def places_of(emit: Emitter, index: str, plane: str, width: str) -> tuple[str, str]:
    """Of candidates (N,K), by their index over anchor, row and column of a map of `plane` cells, `width` a row: the
    anchor as int64 (N,K), and the cell as float (N,K,2), column and row."""
    anchor = emit.op("Div", [index, plane])
    cell = emit.op("Sub", [index, emit.op("Mul", [anchor, plane])])
    row = emit.op("Div", [cell, width])
    column = emit.op("Sub", [cell, emit.op("Mul", [row, width])])
    last = emit.constant(np.array([-1]))
    place = emit.op("Concat", [emit.op("Unsqueeze", [value, last]) for value in (column, row)], axis=-1)
    return anchor, emit.op("Cast", [place], to=TensorProto.FLOAT)


def with_compact_outputs(model: ModelProto, emit: Emitter, batch: int | None, classes: int = 0) -> ModelProto:
    """`classes`: width of the output of class scores, 0 where there is none."""
    taken = {BOXES, SCORES, CLASSES, CLASS_SCORES} & {name for node in model.graph.node for name in node.output}
    for name in taken:
        rename(model.graph, name, f"network/{name}")
        emit.rename_inputs(name, f"network/{name}")
    emit.insert()
    del model.graph.output[:]
    del model.graph.value_info[:]
    n = batch if batch is not None else "N"
    model.graph.output.extend(
        [
            tensor_value(BOXES, TensorProto.FLOAT, [n, None, 4]),
            tensor_value(SCORES, TensorProto.FLOAT, [n, None]),
            tensor_value(CLASSES, TensorProto.INT64, [n, None]),
        ]
    )
    if classes:
        model.graph.output.append(tensor_value(CLASS_SCORES, TensorProto.FLOAT, [n, None, classes]))
    return checked(model)
