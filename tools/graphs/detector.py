"""From a trained YOLOv5 to the ONNX graph that ships."""

from __future__ import annotations

import onnx
import torch

from engines.graphs.graph import add_uint8_input, add_yolov5_head
from tools.architectures.yolov5 import STRIDES, YOLOv5
from tools.graphs.conversion import to_onnx

RAW_OUTPUTS = ("p3", "p4", "p5")


def export_raw(network: YOLOv5) -> onnx.ModelProto:
    """Input `images` float32 (N,3,H,W) in 0..1, outputs the raw logit maps p3, p4, p5; N, H, W free (H, W multiples
    of 32)."""
    return to_onnx(network, torch.zeros(1, 3, 64, 64), RAW_OUTPUTS, {0: "N", 2: "H", 3: "W"})


def to_zoo_graph(network: YOLOv5, *, class_scores: bool = False) -> onnx.ModelProto:
    """The graph that ships: uint8 (N,H,W,3) BGR `images` in; `boxes`, `scores`, `classes` of the compact head out, and
    on demand the scores of every class."""
    model = add_uint8_input(export_raw(network), scale=1 / 255, channels="bgr")
    anchors_px = network.anchors_px.cpu().numpy()
    return add_yolov5_head(model, anchors_px=anchors_px, strides=STRIDES, class_scores=class_scores)
