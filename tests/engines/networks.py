"""Small ONNX files built for tests: networks of one convolution a level, and files as others export them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import ModelProto, TensorProto, helper, numpy_helper

ANCHORS = np.array(
    [[[10, 13], [16, 30], [33, 23]], [[30, 61], [62, 45], [59, 119]], [[116, 90], [156, 198], [373, 326]]], np.float32
)
STRIDES = (8, 16, 32)

Array = npt.NDArray[Any]


def model_of(
    nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any], constants: Sequence[Any] = (), opset: int = 17
) -> ModelProto:
    graph = helper.make_graph(list(nodes), "test", list(inputs), list(outputs), list(constants))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def raw_network(
    classes: int = 3,
    *,
    anchors: int = 3,
    strides: Sequence[int] = STRIDES,
    number: int = TensorProto.FLOAT,
    seed: int = 0,
    shape: Sequence[int | str] = ("N", 3, "H", "W"),
    opset: int = 17,
) -> ModelProto:
    """A "network" of one convolution per level: raw maps p3, p4, p5 that depend on every input pixel."""
    rng = np.random.default_rng(seed)
    channels = anchors * (5 + classes)
    nodes, constants, outputs = [], [], []
    for level, stride in enumerate(strides):
        weight = rng.normal(0, 2.5 / stride, (channels, 3, stride, stride))
        bias = rng.normal(-0.5, 1.5, channels)
        dtype = helper.tensor_dtype_to_np_dtype(number)
        constants += [
            numpy_helper.from_array(weight.astype(dtype), f"w{level}"),
            numpy_helper.from_array(bias.astype(dtype), f"b{level}"),
        ]
        nodes.append(
            helper.make_node(
                "Conv",
                ["images", f"w{level}", f"b{level}"],
                [f"p{level + 3}"],
                strides=[stride] * 2,
                kernel_shape=[stride] * 2,
            )
        )
        outputs.append(helper.make_tensor_value_info(f"p{level + 3}", number, [shape[0], channels, None, None]))
    return model_of(nodes, [helper.make_tensor_value_info("images", number, list(shape))], outputs, constants, opset)


def run(model: ModelProto, feeds: dict[str, Array]) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x.astype(np.float64)))


def decode(
    maps: Sequence[Array], anchors: Array = ANCHORS, strides: Sequence[int] = STRIDES
) -> tuple[Array, Array, Array]:
    """Plain YOLOv5 decode of every candidate: boxes (N,M,4) xyxy, scores (N,M), classes (N,M), written cell by cell."""
    boxes, scores, classes = [], [], []
    for level, raw in enumerate(maps):
        n, _, h, w = raw.shape
        per_cell = len(anchors[level])
        s = sigmoid(raw.reshape(n, per_cell, -1, h, w))
        for a in range(per_cell):
            for y in range(h):
                for x in range(w):
                    v = s[:, a, :, y, x]
                    cx = (2 * v[:, 0] - 0.5 + x) * strides[level]
                    cy = (2 * v[:, 1] - 0.5 + y) * strides[level]
                    bw = (2 * v[:, 2]) ** 2 * anchors[level][a][0]
                    bh = (2 * v[:, 3]) ** 2 * anchors[level][a][1]
                    boxes.append(np.stack([cx - bw / 2, cy - bh / 2, cx + bw / 2, cy + bh / 2], -1))
                    scores.append(v[:, 4] * v[:, 5:].max(-1))
                    classes.append(v[:, 5:].argmax(-1))
    return np.stack(boxes, 1), np.stack(scores, 1), np.stack(classes, 1)


def named_dims(model: ModelProto) -> dict[str, list[int | str]]:
    return {
        value.name: [
            dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in value.type.tensor_type.shape.dim
        ]
        for value in (*model.graph.input, *model.graph.output)
    }


def operators(model: ModelProto) -> set[str]:
    return {node.op_type for node in model.graph.node}


def valid(model: ModelProto) -> None:
    onnx.checker.check_model(model, full_check=True)


def ultralytics_file(
    classes: int = 3,
    *,
    number: int = TensorProto.FLOAT,
    size: tuple[int, int] | None = None,
    seed: int = 0,
    names: Sequence[str] | None = ("WBC", "RBC", "Platelets"),
    opset: int = 17,
) -> ModelProto:
    """Like an export of YOLOv5: `images` float (1,3,H,W) -> `output0` (1, candidates, 5+C), rows in px and 0 to 1.

    `size` (height, width) makes a file of fixed sizes. Rows come from the input by convolutions, so that a wrong
    channel order or scale changes them.
    """
    features = 5 + classes
    rng = np.random.default_rng(seed)
    dtype = helper.tensor_dtype_to_np_dtype(number)
    shape: list[int | str] = [1, 3, *size] if size else ["batch", 3, "height", "width"]
    span = np.ones(features)
    span[:4] = 96
    constants = [
        numpy_helper.from_array(np.array([0, 3, features, -1]), "by_anchor"),
        numpy_helper.from_array(np.array([0, -1, features]), "as_rows"),
        numpy_helper.from_array(span.astype(dtype), "span"),
    ]
    nodes, rows, count = [], [], 0
    for level, stride in enumerate(STRIDES):
        weight = rng.normal(0, 6 / stride, (3 * features, 3, stride, stride)).astype(dtype)
        constants.append(numpy_helper.from_array(weight, f"w{level}"))
        steps = [
            ("Conv", ["images", f"w{level}"], {"strides": [stride] * 2, "kernel_shape": [stride] * 2}),
            ("Reshape", [f"conv{level}", "by_anchor"], {}),
            ("Transpose", [f"reshape{level}"], {"perm": [0, 1, 3, 2]}),
            ("Reshape", [f"transpose{level}", "as_rows"], {}),
        ]
        outs = [f"conv{level}", f"reshape{level}", f"transpose{level}", f"rows{level}"]
        nodes += [
            helper.make_node(kind, ins, [out], **more) for (kind, ins, more), out in zip(steps, outs, strict=True)
        ]
        rows.append(f"rows{level}")
        if size:
            count += 3 * (size[0] // stride) * (size[1] // stride)
    nodes += [
        helper.make_node("Concat", rows, ["all_rows"], axis=1),
        helper.make_node("Sigmoid", ["all_rows"], ["shares"]),
        helper.make_node("Mul", ["shares", "span"], ["output0"]),
    ]
    model = model_of(
        nodes,
        [helper.make_tensor_value_info("images", number, shape)],
        [helper.make_tensor_value_info("output0", number, [shape[0], count or "anchors", features])],
        constants,
        opset,
    )
    if names is not None:
        helper.set_model_props(model, {"stride": "32", "names": str(dict(enumerate(names)))})
    return model


def classifier_file(
    classes: int = 3, subclasses: int = 0, *, size: tuple[int, int] = (8, 8), softmax: bool = True
) -> ModelProto:
    """uint8 (N,h,w,3) -> softmax of the mean blue, green, red (times 0.1), repeated over the classes."""
    nodes = [
        helper.make_node("Cast", ["images"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("Mul", ["mean", "tenth"], ["scaled"]),
    ]
    constants = [numpy_helper.from_array(np.float32(0.1).reshape(()), "tenth")]
    outputs = []
    for name, count in (("class_probabilities", classes), ("subclass_probabilities", subclasses)):
        if count:
            constants.append(numpy_helper.from_array(np.eye(3, count, dtype=np.float32), f"{name}_weight"))
            nodes.append(helper.make_node("MatMul", ["scaled", f"{name}_weight"], [f"{name}_logits"]))
            kind = "Softmax" if softmax else "Identity"
            nodes.append(helper.make_node(kind, [f"{name}_logits"], [name]))
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", count]))
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", *size, 3])
    return model_of(nodes, [images], outputs, constants)
