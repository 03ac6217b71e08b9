"""A classifier with two convolutions before its last layer, so that there is something to quantise."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from engines.graphs.graph import add_uint8_input

from .networks import model_of


def classifier(classes: int = 3, *, size: int = 16, channels: int = 8, seed: int = 0) -> ModelProto:
    """uint8 (N,size,size,3) -> class_probabilities (N,classes)."""
    rng = np.random.default_rng(seed)
    shapes = {
        "first": (channels, 3, 3, 3),
        "second": (channels, channels, 3, 3),
        "last": (channels, classes),
    }
    constants = [
        numpy_helper.from_array(rng.normal(0, 2 / np.sqrt(np.prod(shape[1:])), shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Conv", ["images", "first"], ["a"], name="first", kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "second"], ["c"], name="second", kernel_shape=[3, 3], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["e"]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("MatMul", ["f", "last"], ["g"], name="last"),
        helper.make_node("Softmax", ["g"], ["class_probabilities"], axis=1),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, size, size])
    output = helper.make_tensor_value_info("class_probabilities", TensorProto.FLOAT, ["N", classes])
    return add_uint8_input(model_of(nodes, [images], [output], constants))
