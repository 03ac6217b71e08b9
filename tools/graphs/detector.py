"""From the trained network to the ONNX graph that ships, and its measured figures as tables of the card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx
import torch

from engines.graphs.graph import add_uint8_input, add_yolov5_head
from tools.architectures.yolov5 import STRIDES, YOLOv5
from tools.graphs.conversion import to_onnx

FIGURES = (
    "positives",
    "recall",
    "recall_low",
    "recall_high",
    "precision",
    "ap50",
    "ap50_low",
    "ap50_high",
    "ap50_95",
    "best_f1",
    "best_f1_threshold",
)
"""What the card says of a class, in this order."""

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


def figures_tables(figures: Mapping[str, Any], long_side_px: int) -> dict[str, dict[str, Any]]:
    """What a measuring command wrote as tables of the card, by its `measure`: tools.evaluate (none given),
    tools.evaluate found-cells, tools.evaluate magnification, or a "table" with its `name` that a person wrote."""
    if figures.get("measure") == "table":
        return {figures["name"]: dict(figures["table"])}
    if figures.get("measure") == "found cells":
        return {"chula_wbc_found_cells": found_cells_table(figures)}
    if figures.get("measure") == "magnification":
        return magnification_tables(figures)
    return detection_tables(figures, long_side_px)


def found_cells_table(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Cells of unseen camera slides found at least once, and boxes found, each with its limits."""
    entry: dict[str, Any] = {"command": figures["command"], "slides": list(figures["slides"])}
    for name in ("cells_found_at_least_once", "boxes_found"):
        share = figures[name]
        entry |= {name: share["hits"], f"{name}_of": share["trials"], f"{name}_recall": round(share["value"], 4)}
        entry |= {f"{name}_low": round(share["low"], 4), f"{name}_high": round(share["high"], 4)}
    return entry


def magnification_tables(figures: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Recall by the diameter of red cells in the input, one table a set."""
    tables: dict[str, dict[str, Any]] = {}
    for result in figures["results"]:
        entry = tables.setdefault(
            f"{result['set']}_magnification", {"command": figures["command"], "rbc_diameter_px": []}
        )
        entry["rbc_diameter_px"].append(result["rbc_diameter_px"])
        for name, values in result["classes"].items():
            for key in ("recall", "ap50"):
                if values.get(key) is not None:
                    entry.setdefault(f"{name.lower()}_{key}", []).append(values[key])
    return tables


def detection_tables(figures: Mapping[str, Any], long_side_px: int) -> dict[str, dict[str, Any]]:
    """One table a set and part; those at another input size than the card's `long_side_px` are named by it."""
    tables: dict[str, dict[str, Any]] = {}
    for result in figures["results"]:
        entry: dict[str, Any] = {
            "command": figures["command"],
            "pictures": result["pictures"],
            "long_side_px": result["long_side_px"],
            "threshold": result["threshold"],
            "map50": result["map50"],
            "map50_low": result.get("map50_low"),
            "map50_high": result.get("map50_high"),
            "map50_95": result["map50_95"],
            "network_ms_p10": result["network_ms"],
        }
        for name, values in result["classes"].items():
            for key in FIGURES:
                entry[f"{name.lower()}_{key}"] = values.get(key)
            entry[f"{name.lower()}_unlabelled_detections"] = values["unlabelled_detections"]
        side = result["long_side_px"]
        size = "" if side == long_side_px else f"_{side}px" if isinstance(side, int) else f"_{side}"
        kind = "_as_labelled" if result.get("as_labelled") else ""
        tables[f"{result['set']}_{result['part']}{kind}{size}"] = entry
    return tables
