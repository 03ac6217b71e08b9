"""A detector with a body: convolutions with SiLU, a residual, a branch; small, but deep enough for Q/DQ."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from engines.backends.tensorrt.sizes import with_sizes
from engines.graphs.graph import add_uint8_input, add_yolov5_head

from .networks import ANCHORS, Array, model_of

HEIGHT, WIDTH = 64, 96


def raw_body(classes: int = 3, seed: int = 0, channels: int = 8) -> ModelProto:
    """images float (N,3,H,W) -> p3, p4, p5, each through several convolutions."""
    rng = np.random.default_rng(seed)
    nodes, constants = [], []

    def conv(source: str, out: str, given: int, taken: int, kernel: int, stride: int) -> str:
        weight = rng.normal(0, (given * kernel * kernel) ** -0.5, (taken, given, kernel, kernel)).astype(np.float32)
        constants.append(numpy_helper.from_array(weight, f"{out}_w"))
        constants.append(numpy_helper.from_array(rng.normal(0, 0.1, taken).astype(np.float32), f"{out}_b"))
        pad = kernel // 2
        nodes.append(
            helper.make_node(
                "Conv",
                [source, f"{out}_w", f"{out}_b"],
                [out],
                name=out,
                kernel_shape=[kernel] * 2,
                strides=[stride] * 2,
                pads=[pad] * 4,
            )
        )
        return out

    def silu(source: str) -> str:
        nodes.append(helper.make_node("Sigmoid", [source], [f"{source}_s"], name=f"{source}_s"))
        nodes.append(helper.make_node("Mul", [source, f"{source}_s"], [f"{source}_a"], name=f"{source}_a"))
        return f"{source}_a"

    x = silu(conv("images", "stem", 3, channels, 3, 4))
    x = silu(conv(x, "down3", channels, channels, 3, 2))
    y = silu(conv(x, "inner", channels, channels, 1, 1))
    nodes.append(helper.make_node("Add", [x, y], ["residual"], name="residual"))
    outputs = []
    x = "residual"
    for level in (3, 4, 5):
        if level > 3:
            x = silu(conv(x, f"down{level}", channels, channels, 3, 2))
        conv(x, f"p{level}", channels, 3 * (5 + classes), 1, 1)
        outputs.append(
            helper.make_tensor_value_info(f"p{level}", TensorProto.FLOAT, ["N", 3 * (5 + classes), None, None])
        )
    shape = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, "H", "W"])
    return model_of(nodes, [shape], outputs, constants)


def detector(batch: int | None = None, top_k: int = 50, seed: int = 0) -> ModelProto:
    """uint8 (N,64,96,3) -> boxes, scores, classes."""
    model = add_yolov5_head(add_uint8_input(raw_body(seed=seed)), anchors_px=ANCHORS, top_k=top_k)
    return with_sizes(model, batch, HEIGHT, WIDTH)


def pictures(count: int, seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> Array:
    """Smooth pictures with discs, uint8 (count,H,W,3): not noise, all different."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    frames = np.empty((count, height, width, 3), np.float32)
    for frame in frames:
        frame[:] = 200 + 20 * np.sin(x / rng.uniform(20, 40) + rng.uniform(0, 6))[..., None]
        for _ in range(6):
            radius = rng.uniform(4, 12)
            disc = (x - rng.uniform(0, width)) ** 2 + (y - rng.uniform(0, height)) ** 2 < radius**2
            frame[disc] = rng.uniform(40, 220, 3)
    return frames.clip(0, 255).astype(np.uint8)
