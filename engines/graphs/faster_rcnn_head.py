"""ONNX surgery for Faster R-CNN: proposals, RoI align, the box head and the compact head in one graph.

Everything is a standard operator with the same sizes for every picture: the best `BEFORE` candidates are decoded,
NonMaxSuppression marks those to keep, and the `AFTER` best of these are looked at. Only what lies between
NonMaxSuppression and the marks has a size that depends on the picture, and no output does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto, compose

from engines.base import ModelFormatError
from engines.graphs.graph import (
    BOXES,
    CLASS_SCORES,
    CLASSES,
    INPUT,
    SCORES,
    gather_candidates,
    places_of,
    with_compact_outputs,
)
from engines.graphs.onnx_editing import Emitter, modern, only_input, rename_uses, shape_of, spell

STRIDE = 16
BEFORE, AFTER = 512, 128
"""Proposals before suppression, and those that the box head looks at: some white cells a frame, not 300 cells."""
NMS_IOU = 0.7
POOLED, SAMPLES = 7, 2
BOX_SCALE = (0.1, 0.1, 0.2, 0.2)
"""What a correction of 1 means: a tenth of the box's side, e^0.2 of its size."""
LARGEST_LOG_SCALE = 4.0
"""exp() of what a network that was never trained says must stay finite."""
_PREFIX = "box_head/"


def add_faster_rcnn_head(
    body: ModelProto,
    box_head: ModelProto,
    *,
    anchors_px: Sequence[Sequence[float]] | npt.NDArray[np.floating[Any]],
    before: int = BEFORE,
    after: int = AFTER,
) -> ModelProto:
    """One graph of the two parts of a Faster R-CNN, with the outputs of a compact head.

    `body`: uint8 `images` -> features (N,F,h,w) and the raw map of proposals (N,A*5,h,w) of stride 16, channel =
    anchor*5 + (objectness, x, y, w, h). `box_head`: float (M,F,7,7) -> logits (M,1+C), background first, and
    corrections (M,4). `anchors_px` is (A,2). `scores` is the best class's probability, 0 for a proposal that was
    suppressed; `class_scores` are the classes' shares of what is no background.
    """
    anchors = np.asarray(anchors_px, np.float32)
    if anchors.ndim != 2 or anchors.shape[1] != 2:
        raise ModelFormatError(f"anchors_px: got shape {anchors.shape}, expected (A, 2)")
    given = only_input(body)
    if given.type.tensor_type.elem_type != TensorProto.UINT8 or len(body.graph.output) != 2:
        raise ModelFormatError(
            f"body: got input {given.name!r} {spell(given)} and {len(body.graph.output)} outputs, expected {INPUT!r} "
            "uint8 (N,H,W,3), features and a raw map"
        )
    model = modern(body)
    features, raw = (value.name for value in model.graph.output)
    map_shape, head_width = shape_of(model, raw), _classes(box_head)
    if len(map_shape) != 4 or map_shape[1] != 5 * len(anchors):
        raise ModelFormatError(f"output {raw!r}: got {map_shape}, expected (N, {len(anchors)}*5, h, w)")
    emit = Emitter(model, "head")
    rois, real, count = _proposals(emit, raw, anchors, before, after)
    pictures = emit.op("Gather", [emit.op("Shape", [raw]), emit.constant(np.array([0]))], axis=0)
    flat = emit.op("Reshape", [rois, emit.constant(np.array([-1, 4]))])
    scalar = emit.op("Squeeze", [pictures, emit.constant(np.array([0]))])
    numbers = emit.op("Range", [emit.constant(np.int64(0)), scalar, emit.constant(np.int64(1))])
    both = emit.op("Concat", [pictures, count], axis=0)
    numbers = emit.op("Expand", [emit.op("Unsqueeze", [numbers, emit.constant(np.array([1]))]), both])
    numbers = emit.op("Reshape", [numbers, emit.constant(np.array([-1]))])
    cut = emit.op(
        "RoiAlign",
        [features, flat, numbers],
        mode="avg",
        output_height=POOLED,
        output_width=POOLED,
        sampling_ratio=SAMPLES,
        spatial_scale=1 / STRIDE,
        coordinate_transformation_mode="half_pixel",
    )
    emit.insert()
    logits, corrections = _append(model, box_head, cut)

    emit = Emitter(model, "found")
    logits = emit.op("Reshape", [logits, emit.op("Concat", [both, emit.constant(np.array([1 + head_width]))], axis=0)])
    corrections = emit.op("Reshape", [corrections, emit.op("Concat", [both, emit.constant(np.array([4]))], axis=0)])
    boxes = _clipped(emit, _applied(emit, corrections, rois))
    probabilities = emit.slice(emit.op("Softmax", [logits], axis=2), 1, 1 + head_width, axis=2)
    best = emit.op("Reshape", [emit.reduce_max(probabilities, axis=2), both])
    index = emit.name("index")
    emit.ops("TopK", [emit.op("Mul", [best, real]), count], [SCORES, index], axis=1, largest=1, sorted=1)
    kept = gather_candidates(emit, emit.slice(logits, 1, 1 + head_width, axis=2), index, head_width, axis=1)
    emit.op("ArgMax", [kept], axis=2, keepdims=0, out=CLASSES)
    emit.op("Softmax", [kept], axis=2, out=CLASS_SCORES)
    picked = gather_candidates(emit, boxes, index, 4, axis=1)
    emit.op("Identity", [picked], out=BOXES)
    return with_compact_outputs(model, emit, map_shape[0], classes=head_width)


def _proposals(
    emit: Emitter, raw: str, anchors: npt.NDArray[np.float32], before: int, after: int
) -> tuple[str, str, str]:
    """RoIs (N,R,4) inside the picture; float (N,R), 1 for a proposal, 0 for what was suppressed; R as int64 (1,).

    R is computed from the size of the map alone, so that it becomes a number when the input's size does."""
    size = emit.op("Shape", [raw])
    width = emit.op("Gather", [size, emit.constant(np.array([3]))], axis=0)
    height = emit.op("Gather", [size, emit.constant(np.array([2]))], axis=0)
    plane = emit.op("Mul", [height, width])
    split = emit.op("Reshape", [raw, emit.constant(np.array([0, len(anchors), 5, -1]))])
    table = emit.op("Transpose", [split], perm=[0, 2, 1, 3])
    table = emit.op("Reshape", [table, emit.constant(np.array([0, 5, -1]))])
    objectness = emit.op("Sigmoid", [emit.slice(table, 0, 1, axis=1)])
    objectness = emit.op("Reshape", [objectness, emit.constant(np.array([0, -1]))])
    total = emit.op("Mul", [plane, emit.constant(np.array([len(anchors)]))])
    first = emit.op("Min", [total, emit.constant(np.array([before]))])
    score, index = _top(emit, objectness, first)
    kept = emit.op("Transpose", [gather_candidates(emit, table, index, 5, axis=2)], perm=[0, 2, 1])

    anchor, place = places_of(emit, index, plane, width)
    middle = emit.op("Add", [place, emit.constant(np.float32(0.5))])
    centre = emit.op("Mul", [middle, emit.constant(np.float32(STRIDE))])
    half = emit.op("Gather", [emit.constant(anchors / 2), anchor], axis=0)
    boxes = emit.op("Concat", [emit.op("Sub", [centre, half]), emit.op("Add", [centre, half])], axis=2)
    boxes = _clipped(emit, _applied(emit, emit.slice(kept, 1, 5, axis=2), boxes))

    sides = emit.op("Sub", [emit.slice(boxes, 2, 4, axis=2), emit.slice(boxes, 0, 2, axis=2)])
    area = emit.op("Mul", [emit.slice(sides, 0, 1, axis=2), emit.slice(sides, 1, 2, axis=2)])
    solid = emit.op("Cast", [emit.op("Greater", [area, emit.constant(np.float32(0))])], to=TensorProto.FLOAT)
    score = emit.op("Mul", [score, emit.op("Squeeze", [solid, emit.constant(np.array([2]))])])
    chosen = emit.op(
        "NonMaxSuppression",
        [
            boxes,
            emit.op("Unsqueeze", [score, emit.constant(np.array([1]))]),
            emit.constant(np.array([before])),
            emit.constant(np.array([NMS_IOU], np.float32)),
            emit.constant(np.array([0], np.float32)),
        ],
    )
    places = emit.op("Gather", [chosen, emit.constant(np.array([0, 2]))], axis=1)
    how_many = emit.op("Gather", [emit.op("Shape", [chosen]), emit.constant(np.array([0]))], axis=0)
    ones = emit.op("Expand", [emit.constant(np.array([1], np.float32)), how_many])
    marks = emit.op("ScatterND", [emit.op("Sub", [score, score]), places, ones])
    second = emit.op("Min", [total, emit.constant(np.array([min(before, after)]))])
    best, order = _top(emit, emit.op("Mul", [score, marks]), second)
    real = emit.op("Cast", [emit.op("Greater", [best, emit.constant(np.float32(0))])], to=TensorProto.FLOAT)
    return gather_candidates(emit, boxes, order, 4, axis=1), real, second


def _top(emit: Emitter, scores: str, k: str) -> tuple[str, str]:
    """The `k` best of scores (N, candidates), and their index."""
    values, index = emit.name("best"), emit.name("which")
    emit.ops("TopK", [scores, k], [values, index], axis=1, largest=1, sorted=1)
    return values, index


def _applied(emit: Emitter, corrections: str, boxes: str) -> str:
    """Boxes (N,R,4) moved and sized by corrections (N,R,4)."""
    low, high = emit.slice(boxes, 0, 2, axis=2), emit.slice(boxes, 2, 4, axis=2)
    size = emit.op("Sub", [high, low])
    change = emit.op("Mul", [corrections, emit.constant(np.array(BOX_SCALE, np.float32))])
    centre = emit.op("Mul", [emit.op("Add", [low, high]), emit.constant(np.float32(0.5))])
    centre = emit.op("Add", [centre, emit.op("Mul", [emit.slice(change, 0, 2, axis=2), size])])
    grown = emit.op("Min", [emit.slice(change, 2, 4, axis=2), emit.constant(np.float32(LARGEST_LOG_SCALE))])
    half = emit.op("Mul", [emit.op("Mul", [emit.op("Exp", [grown]), size]), emit.constant(np.float32(0.5))])
    return emit.op("Concat", [emit.op("Sub", [centre, half]), emit.op("Add", [centre, half])], axis=2)


def _clipped(emit: Emitter, boxes: str) -> str:
    """Boxes (N,R,4) inside the picture."""
    sides = emit.op("Gather", [emit.op("Shape", [INPUT]), emit.constant(np.array([2, 1, 2, 1]))], axis=0)
    limits = emit.op("Cast", [sides], to=TensorProto.FLOAT)
    return emit.op("Min", [emit.op("Max", [boxes, emit.constant(np.float32(0))]), limits])


def _classes(box_head: ModelProto) -> int:
    outputs = [value.name for value in box_head.graph.output]
    shapes = [shape_of(box_head, name) for name in outputs]
    widths = [shape[1] if len(shape) == 2 else None for shape in shapes]
    if len(widths) != 2 or widths[0] is None or widths[0] < 2 or widths[1] != 4:
        raise ModelFormatError(f"box head: got outputs {shapes}, expected logits (M, 1+C) and corrections (M, 4)")
    return widths[0] - 1


def _append(model: ModelProto, part: ModelProto, source: str) -> tuple[str, ...]:
    """Put the nodes of `part` behind those of `model`, fed with the tensor `source`; names of its outputs."""
    named = compose.add_prefix(modern(part), _PREFIX)
    rename_uses(named.graph, only_input(named).name, source)
    model.graph.node.extend(named.graph.node)
    model.graph.initializer.extend(named.graph.initializer)
    return tuple(value.name for value in named.graph.output)
