"""Make the files that ship from a checkpoint of tools.train detector: NAME.onnx and its card NAME.toml.

    python -m tools.export detector runs/yolov5n-blood/best.pt --name yolov5n-blood --long-side-px 416 \\
        --figures runs/evaluation/figures.json

The figures are those that tools.evaluate, tools.evaluate found-cells and tools.evaluate magnification wrote, with
the commands that made them. Weights are stored in half precision. --small-checkpoint also writes a resumable checkpoint
of a quarter of the size.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from engines.graphs.storage import narrowed
from engines.zoo.figures import MeasuredOn
from tools.commands import command_parser
from tools.export.cards import ZOO, card_values, frame_input, write_figures, write_files
from tools.export.figures import figures_tables
from tools.graphs.detector import to_zoo_graph
from tools.metrics.predict import NMS_IOU
from tools.train.loop import load_checkpoint
from tools.train.pack import pack
from tools.train.yolov5 import load_averaged

KINDS = {"WBC": "white", "RBC": "red", "platelet": "platelet"}


def values_of(description: dict[str, Any], step: int, file: bytes, options: argparse.Namespace) -> dict[str, Any]:
    """The card as nested mappings, without figures."""
    settings = description["settings"]
    shares = {name: share for name, share in description["shares"].items() if share > 0}
    return card_values(
        options.name,
        "detector",
        f"yolov5{description['size']}",
        options.summary,
        file,
        input=frame_input(options.long_side_px, options.rbc_diameter_px or settings["rbc_diameter_px"]),
        classes=[{"name": label, "kind": KINDS.get(label, "white")} for label in description["class_names"]],
        thresholds={"operating": options.threshold, "nms_iou": options.nms_iou},
        training={
            "data": list(shares),
            "tile_shares": [round(share, 3) for share in shares.values()],
            "fields": [description["fields"][name] for name in shares],
            "split": "tools.data: by picture content, slides of chula_wbc whole",
            "seed": settings["seed"],
            "steps": step,
            "batch": settings["batch"],
            "tile_side_px": settings["side_px"],
            "command": options.training_command,
            "notes": options.notes,
        },
    )


def main(argv: Sequence[str]) -> int:
    parser = command_parser("tools.export detector", __doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--name", default="yolov5n-blood")
    parser.add_argument("--out", type=Path, default=ZOO)
    parser.add_argument("--long-side-px", type=int, default=640)
    parser.add_argument("--threshold", type=float, default=0.35)
    parser.add_argument("--nms-iou", type=float, default=NMS_IOU)
    parser.add_argument(
        "--rbc-diameter-px",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="of red cells that the model reads well (tools.evaluate magnification); else those it trained on",
    )
    parser.add_argument(
        "--figures", type=Path, action="append", default=[], help="what a measuring command wrote, in order"
    )
    parser.add_argument("--summary", default="White cells, red cells and platelets of stained blood smears")
    parser.add_argument("--training-command", default="", help="the command that trained the checkpoint")
    parser.add_argument("--notes", default="", help="what else a reader of the card should know of the training")
    parser.add_argument("--small-checkpoint", type=Path, help="also write a small resumable checkpoint here")
    options = parser.parse_args(argv)
    network, description = load_averaged(options.checkpoint)
    state = load_checkpoint(options.checkpoint)
    model = to_zoo_graph(network)
    file = narrowed(model).SerializeToString()
    figures: dict[MeasuredOn, dict[str, Any]] = {}
    for path in options.figures:
        figures |= figures_tables(json.loads(path.read_text()), options.long_side_px)
    values = values_of(description, state["step"], file, options)
    path, card = write_files(values, file, options.out)
    write_figures(card, values, figures)
    if options.small_checkpoint:
        pack(options.checkpoint, options.small_checkpoint)
    Console(stderr=True).print(f"{path}: {len(file) / 1e6:.1f} MB, step {state['step']}")
    return 0
