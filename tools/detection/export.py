"""From the trained network to the ONNX file that ships: raw maps first, then the uint8 prefix and the compact
head."""

from __future__ import annotations

import copy
import io
import json
import warnings
from collections.abc import Mapping
from typing import Any

import onnx
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from engines.graph import add_uint8_input, add_yolov5_head
from tools.architectures.yolov5 import STRIDES, YOLOv5

RAW_OUTPUTS = ("p3", "p4", "p5")


def fuse_normalisation(network: YOLOv5) -> YOLOv5:
    """A copy with every batch normalisation folded into the convolution before it."""
    fused = copy.deepcopy(network).cpu().float().eval()
    for module in fused.modules():
        if isinstance(module, nn.Sequential) and len(module) >= 2:
            conv, norm = module[0], module[1]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                module[0], module[1] = fuse_conv_bn_eval(conv, norm), nn.Identity()
    return fused


def export_raw(network: YOLOv5) -> onnx.ModelProto:
    """Input `images` float32 (N,3,H,W) in 0..1, outputs the raw logit maps p3, p4, p5; N, H, W free (H, W
    multiples of 32)."""
    free = {0: "N", 2: "H", 3: "W"}
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the trace exporter keeps the maps' names and free axes
        torch.onnx.export(
            fuse_normalisation(network),
            (torch.zeros(1, 3, 64, 64),),
            buffer,
            input_names=["images"],
            output_names=list(RAW_OUTPUTS),
            dynamic_axes=dict.fromkeys(("images", *RAW_OUTPUTS), free),
            opset_version=17,
            dynamo=False,
        )
    model = onnx.load_from_string(buffer.getvalue())
    onnx.checker.check_model(model)
    return model


def to_zoo_graph(network: YOLOv5) -> onnx.ModelProto:
    """The graph that ships: uint8 (N,H,W,3) BGR `images` in; `boxes`, `scores`, `classes` of the compact head out."""
    model = add_uint8_input(export_raw(network), scale=1 / 255, channels="bgr")
    return add_yolov5_head(model, anchors_px=network.anchors_px.cpu().numpy(), strides=STRIDES)


def toml_value(value: Any) -> str:
    """A string, number, bool or list of them as TOML; TypeError for what TOML can't hold (None among it)."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    raise TypeError(f"card value: got {type(value).__name__}, expected a string, number, bool or list")


def toml(tables: Mapping[str, Any]) -> str:
    """TOML text: top-level values first, then [tables] and [[arrays of tables]], nested ones by dotted names; values
    that are None are left out."""
    lines: list[str] = []

    def write(table: Mapping[str, Any], name: str) -> None:
        for key, value in table.items():
            if value is not None and not _is_table(value):
                lines.append(f"{key} = {toml_value(value)}")
        for key, value in table.items():
            path = f"{name}.{key}" if name else key
            if isinstance(value, Mapping):
                if any(not _is_table(v) for v in value.values()):
                    lines.extend(("", f"[{path}]"))
                write(value, path)
            elif _is_table(value):
                for row in value:
                    lines.extend(("", f"[[{path}]]"))
                    write(row, path)

    write(tables, "")
    return "\n".join(lines) + "\n"


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping) or (
        isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)
    )


def figures_tables(figures: Mapping[str, Any], command: str) -> dict[str, dict[str, Any]]:
    """The figures of tools.evaluate_detector as the card's tables, one a set, part and input size."""
    tables: dict[str, dict[str, Any]] = {}
    for result in figures["results"]:
        entry: dict[str, Any] = {
            "command": command,
            "pictures": result["pictures"],
            "long_side_px": result["long_side_px"],
            "threshold": result["threshold"],
            "map50": result["map50"],
            "map50_95": result["map50_95"],
            "network_ms_one_core": result["network_ms"],
        }
        for name, values in result["classes"].items():
            for key in ("positives", "recall", "precision", "ap50", "ap50_95", "best_f1", "best_f1_threshold"):
                entry[f"{name.lower()}_{key}"] = values.get(key)
            entry[f"{name.lower()}_unlabelled_detections"] = values["unlabelled_detections"]
        tables[f"{result['set']}_{result['part']}_{result['long_side_px']}px"] = entry
    return tables
