"""Checkpoints of detectors as graphs, so that they are measured and exported alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from onnx import ModelProto

from engines.graphs.graph import add_uint8_input
from engines.graphs.yolov2_head import add_yolov2_head
from tools.architectures.yolov2 import YOLOv2
from tools.graphs.conversion import to_onnx
from tools.graphs.detector import to_zoo_graph
from tools.train.loop import load_checkpoint
from tools.train.yolov5 import load_averaged


def graph_of(checkpoint: Path) -> tuple[ModelProto, dict[str, Any], int]:
    """The graph with class scores of a checkpoint of tools.train leukocyte-detector or tools.train yolov2, what it says
    of itself, and its step."""
    state = load_checkpoint(checkpoint)
    description: dict[str, Any] = state["description"]
    if description.get("architecture") == "yolov2-onnx":
        network = YOLOv2(len(description["class_names"]), anchors_px=state["network"]["anchors_px"].tolist())
        network.load_state_dict(state["network"])
        raw = to_onnx(network, torch.zeros(1, 3, 64, 64), ("raw",), {0: "N", 2: "H", 3: "W"})
        graph = add_uint8_input(raw, scale=1 / 255, channels="bgr")
        anchors_px = network.anchors_px.numpy()
        return add_yolov2_head(graph, anchors_px=anchors_px, class_scores=True), description, state["step"]
    return to_zoo_graph(load_averaged(checkpoint)[0], class_scores=True), description, state["step"]
