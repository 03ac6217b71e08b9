"""Make NAME.onnx and its card of a run of tools.train faster-rcnn.

    python -m tools.export faster-rcnn runs/faster-rcnn-two-level/repetition-0/last.pt

Weights are stored in half precision. The figures of the card are measured here with the file that ships.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import ModelProto
from rich.console import Console

from engines.graphs.faster_rcnn_head import POOLED, add_faster_rcnn_head
from engines.graphs.graph import add_uint8_input
from engines.graphs.storage import narrowed
from engines.zoo.figures import MeasuredOn
from tools import data as datasets
from tools.architectures.faster_rcnn import REDUCED, FasterRCNN
from tools.commands import command_parser
from tools.evaluate.groups import evaluate, table, tables
from tools.export.cards import ZOO, card_values, frame_input, write_figures, write_files
from tools.graphs.conversion import to_onnx
from tools.metrics.predict import NMS_IOU
from tools.train.faster_rcnn import THRESHOLD
from tools.train.loop import load_checkpoint

NAME = "faster-rcnn-two-level"


def load_network(checkpoint: Path) -> tuple[FasterRCNN, dict[str, Any], int]:
    """The network of a checkpoint, in evaluation mode; what the checkpoint says of itself, and its step."""
    state = load_checkpoint(checkpoint)
    description: dict[str, Any] = state["description"]
    anchors = state["network"]["anchors_px"].tolist()
    network = FasterRCNN(len(description["class_names"]), backbone=description["backbone"], anchors_px=anchors)
    network.load_state_dict(state["network"])
    return network.eval(), description, state["step"]


def graph_of(network: FasterRCNN) -> ModelProto:
    """uint8 (N,H,W,3) BGR `images` in; `boxes`, `scores`, `classes` and `class_scores` of the compact head out."""
    body = to_onnx(network.body, torch.zeros(1, 3, 64, 64), ("features", "raw"), {0: "N", 2: "H", 3: "W"})
    example = torch.zeros(2, REDUCED, POOLED, POOLED)
    head = to_onnx(network.box_head, example, ("logits", "corrections"), {0: "M"})
    images = add_uint8_input(body, scale=1 / 255, channels="bgr")
    return add_faster_rcnn_head(images, head, anchors_px=network.anchors_px.cpu().numpy())


def values_of(description: dict[str, Any], step: int, file: bytes, options: argparse.Namespace) -> dict[str, Any]:
    """The card as nested mappings, without figures."""
    settings = description["settings"]
    sets = settings["sets"].split(",")
    return card_values(
        options.name,
        "detector",
        "faster-rcnn",
        "White cells, mononuclear or polymorphonuclear: the first level of ML-CNN",
        file,
        build=options.build,
        input=frame_input(settings["long_side_px"], settings["rbc_diameter_px"]),
        classes=[{"name": name, "kind": "white"} for name in description["class_names"]],
        thresholds={"operating": options.threshold, "nms_iou": NMS_IOU, "nms_across": "kind"},
        training={
            "publication": "Cheuque et al. 2022, Ren et al. 2015",
            "backbone": description["backbone"],
            "data": sets,
            "pictures": sum(description["fields"].values()),
            "split": settings["split"],
            "seed": settings["seed"],
            "steps": step,
            "batch": settings["batch"],
            "rate": settings["rate"],
            "cosine": settings["cosine"],
            "tile_side_px": settings["side_px"],
            "anchors_a_picture": settings["anchors"],
            "proposals_a_picture": settings["rois"],
            "start_from": settings["start_from"] or None,
            "notes": options.notes,
        },
    )


def main(argv: Sequence[str]) -> int:
    parser = command_parser("tools.export faster-rcnn", __doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--name", default=NAME)
    parser.add_argument("--out", type=Path, default=ZOO)
    parser.add_argument("--threshold", type=float, default=THRESHOLD)
    parser.add_argument("--parts", nargs="*", choices=datasets.PARTS[1:], default=[datasets.VALIDATION])
    parser.add_argument("--limit", type=int, help="pictures a set at most in the figures")
    parser.add_argument("--build", nargs="*", default=[], help="the commands that make the file, for the card")
    parser.add_argument("--notes", default="")
    options = parser.parse_args(argv)
    network, description, step = load_network(options.checkpoint)
    graph = narrowed(graph_of(network))
    onnx.checker.check_model(graph)
    file = graph.SerializeToString()
    values = values_of(description, step, file, options)
    target, card = write_files(values, file, options.out)
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 140)
    figures: dict[MeasuredOn, dict[str, Any]] = {}
    for part in options.parts:
        found = evaluate(str(target), part, limit=options.limit)
        command = f"python -m tools.evaluate {options.name} --part {part}"
        command += f" --limit {options.limit}" if options.limit else ""
        figures |= tables(found, command, part)
        console.print(table(found))
    write_figures(card, values, figures)
    console.print(f"{target}: {len(file) / 1e6:.1f} MB, step {step}")
    return 0
