"""ONNX surgery for YOLOv2: the compact head on its one raw map. Selection comes before decoding, as for YOLOv5."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from engines.base import ModelFormatError
from engines.graphs.graph import (
    BOXES,
    CLASS_SCORES,
    CLASSES,
    TOP_K,
    gather_candidates,
    places_of,
    select_best,
    with_compact_outputs,
)
from engines.graphs.onnx_editing import Emitter, modern, shape_of

LARGEST_LOG_SCALE = 6.0
"""exp() of what a network that was never trained says must stay finite."""


def add_yolov2_head(
    model: ModelProto,
    *,
    anchors_px: Sequence[Sequence[float]] | npt.NDArray[np.floating[Any]],
    stride: int = 32,
    top_k: int = TOP_K,
    class_scores: bool = False,
) -> ModelProto:
    """Replace the raw map of a YOLOv2 network, float (N, A*(5+C), h, w), by the compact head.

    Channel = anchor*(5+C) + (x, y, w, h, objectness, classes...); `anchors_px` is (A, 2). Centre σ(x) in its cell, size
    anchor * exp(w), `scores` = σ(objectness) * best class probability (softmax); `class_scores` are the probabilities.
    Outputs as of `add_yolov5_head`.
    """
    anchors = np.asarray(anchors_px, np.float32)
    maps = [value.name for value in model.graph.output]
    if anchors.ndim != 2 or anchors.shape[1] != 2:
        raise ModelFormatError(f"anchors_px: got shape {anchors.shape}, expected (A, 2)")
    if len(maps) != 1:
        raise ModelFormatError(f"outputs: got {len(maps)} ({', '.join(maps)}), expected one raw map")
    model = modern(model)
    shape = shape_of(model, maps[0])
    channels = shape[1] if len(shape) == 4 else None
    per_cell = len(anchors)
    if channels is None or channels % per_cell or channels // per_cell < 6:
        raise ModelFormatError(f"output {maps[0]!r}: got {shape}, expected (N, {per_cell}*(5+C), h, w)")
    features = channels // per_cell
    emit = Emitter(model, "head")
    raw = emit.as_float32(model.graph.output[0])
    split = emit.op("Reshape", [raw, emit.constant(np.array([0, per_cell, features, -1]))])
    swapped = emit.op("Transpose", [split], perm=[0, 2, 1, 3])
    table = emit.op("Reshape", [swapped, emit.constant(np.array([0, features, -1]))])
    size = emit.op("Shape", [raw])
    width = emit.op("Gather", [size, emit.constant(np.array([3]))], axis=0)
    height = emit.op("Gather", [size, emit.constant(np.array([2]))], axis=0)
    plane = emit.op("Mul", [height, width])

    objectness = emit.op("Sigmoid", [emit.slice(table, 4, 5, axis=1)])
    probabilities = emit.op("Softmax", [emit.slice(table, 5, features, axis=1)], axis=1)
    best = emit.op("Mul", [objectness, emit.reduce_max(probabilities, axis=1)])
    index = select_best(emit, emit.op("Reshape", [best, emit.constant(np.array([0, -1]))]), top_k)
    kept = gather_candidates(emit, table, index, features, axis=2)
    named = emit.slice(kept, 5, features, axis=1)
    emit.op("ArgMax", [named], axis=1, keepdims=0, out=CLASSES)
    if class_scores:
        emit.op("Transpose", [emit.op("Softmax", [named], axis=1)], perm=[0, 2, 1], out=CLASS_SCORES)

    anchor, place = places_of(emit, index, plane, width)
    half_anchor = emit.op("Gather", [emit.constant(anchors / 2), anchor], axis=0)

    def of_boxes(start: int) -> str:
        return emit.op("Transpose", [emit.slice(kept, start, start + 2, axis=1)], perm=[0, 2, 1])

    centre = emit.op("Add", [emit.op("Sigmoid", [of_boxes(0)]), place])
    centre = emit.op("Mul", [centre, emit.constant(np.float32(stride))])
    logarithm = emit.op("Min", [of_boxes(2), emit.constant(np.float32(LARGEST_LOG_SCALE))])
    half = emit.op("Mul", [emit.op("Exp", [logarithm]), half_anchor])
    emit.op("Concat", [emit.op("Sub", [centre, half]), emit.op("Add", [centre, half])], axis=2, out=BOXES)
    return with_compact_outputs(model, emit, shape[0], classes=features - 5 if class_scores else 0)
