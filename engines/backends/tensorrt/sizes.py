"""Sizes that are numbers in spite of an open batch: TensorRT's parser wants K of TopK and the like as constants."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, numpy_helper, shape_inference

from engines.base import ModelFormatError
from engines.graphs.graph import fix_input_shape
from engines.graphs.onnx_editing import checked, dims_of, fold_shapes, only_input, spell


def with_sizes(model: ModelProto, batch: int | None, height: int | None, width: int | None) -> ModelProto:
    """`model` for images of one size: every size but the batch is a number, and the batch too unless `batch` is None.

    ModelFormatError where height or width stay open: a plan is built for one size.
    """
    fixed = fix_input_shape(model, batch, height, width)
    value = only_input(fixed)
    if None in dims_of(value)[1:]:
        raise ModelFormatError(
            f"input {value.name!r}: got {spell(value)}, expected height and width as numbers, since a plan is built "
            "for one size; say --size WIDTHxHEIGHT"
        )
    if dims_of(value)[0] is not None:
        return fixed
    _fold_known_dims(fixed)
    fold_shapes(fixed)
    return checked(fixed)


def _fold_known_dims(model: ModelProto) -> None:
    """Replace `Gather(Shape(x), i)` by a number wherever that dimension of x is one."""
    inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    dims = {value.name: dims_of(value) for value in (*inferred.input, *inferred.value_info, *inferred.output)}
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    shape_of = {node.output[0]: node for node in model.graph.node if node.op_type == "Shape" and not node.attribute}
    kept = []
    for node in model.graph.node:
        source = shape_of.get(node.input[0]) if node.op_type == "Gather" else None
        index = constants.get(node.input[1]) if source is not None else None
        known = dims.get(source.input[0]) if source is not None else None
        picked = None if index is None or not known else [known[int(i)] for i in index.reshape(-1)]
        if index is None or picked is None or None in picked:
            kept.append(node)
            continue
        values = np.array(picked, np.int64).reshape(index.shape)
        model.graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(kept)
    read = {name for node in kept for name in node.input} | {value.name for value in model.graph.output}
    alive = [node for node in kept if node.op_type != "Shape" or set(node.output) & read]
    del model.graph.node[:]
    model.graph.node.extend(alive)
