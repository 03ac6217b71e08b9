"""Make the files that ship from a checkpoint of tools.train leukocyte-detector: NAME.onnx and its card NAME.toml.

    python -m tools.export leukocyte-detector runs/yolov5n-leukocyte/best.pt --training-command "python -m …"

The weights are stored in half precision; the figures of the card are measured here with the file that ships, and
--compare says what that costs. The class list, its kinds and parents come from the checkpoint.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from rich.console import Console

from engines.graphs.storage import WEIGHTS, narrowed
from engines.zoo.figures import MeasuredOn
from tools import data as datasets
from tools.commands import command_parser
from tools.evaluate.leukocyte_detector import card_of, evaluate, load, table
from tools.export.cards import ZOO, card_values, frame_input, write_figures, write_files
from tools.export.figures import figures_tables
from tools.train.checkpoints import graph_of


def values_of(description: dict[str, Any], step: int, file: bytes, options: argparse.Namespace) -> dict[str, Any]:
    """The card as nested mappings, without figures."""
    settings = description["settings"]
    names = description["class_names"]
    card = card_of(
        options.name, names, threshold=options.threshold, naming=options.naming, long_side_px=options.long_side_px
    )
    return card_values(
        options.name,
        "detector",
        description.get("architecture") or f"yolov5{description['size']}",
        options.summary or f"{len(names)} kinds of blood cells, by their own names",
        file,
        input=frame_input(options.long_side_px, settings["rbc_diameter_px"]),
        classes=[{"name": c.name, "kind": c.kind, "parent": c.parent} for c in card.classes],
        thresholds={
            "operating": options.threshold,
            "nms_iou": card.thresholds.nms_iou,
            "nms_across": card.thresholds.nms_across,
            "naming": options.naming,
        },
        training={
            "data": list(description["shares"]),
            "fields": list(description["fields"].values()),
            "split": "tools.data: by picture content",
            "seed": settings["seed"],
            "steps": step,
            "batch": settings["batch"],
            "tile_side_px": settings["side_px"],
            "command": options.training_command,
            "notes": options.notes,
        },
    )


def tables(results: list[dict[str, Any]], name: str, long_side_px: int) -> dict[MeasuredOn, dict[str, Any]]:
    """The card's figures of `evaluate`'s results, each with its command."""
    made: dict[MeasuredOn, dict[str, Any]] = {}
    for result in results:
        command = f"python -m tools.evaluate {name} --part {result['part']}"
        entry = figures_tables({"command": command, "results": [result]}, long_side_px)
        for key, values in entry.items():
            made[key] = {**values, **{f"own_{k}": v for k, v in result["own_cells"].items()}}
    return made


def main(argv: Sequence[str]) -> int:
    parser = command_parser("tools.export leukocyte-detector", __doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--name", default="yolov5n-leukocyte")
    parser.add_argument("--out", type=Path, default=ZOO)
    parser.add_argument("--long-side-px", type=int, default=224)
    parser.add_argument("--threshold", type=float, default=0.3)
    parser.add_argument(
        "--naming", type=float, default=0.5, help="share of the class scores from which a cell is named"
    )
    parser.add_argument("--parts", nargs="*", choices=datasets.PARTS[1:], default=[datasets.VALIDATION])
    parser.add_argument("--compare", type=int, help="compare with full precision on so many pictures a class")
    parser.add_argument("--weights", choices=WEIGHTS, default="float16", help="how they are stored")
    parser.add_argument("--summary", default="")
    parser.add_argument("--training-command", default="", help="the command that trained the checkpoint")
    parser.add_argument("--notes", default="")
    options = parser.parse_args(argv)
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 140)
    graph, description, step = graph_of(options.checkpoint)
    graph = narrowed(graph, options.weights)
    onnx.checker.check_model(graph)
    file = graph.SerializeToString()
    values = values_of(description, step, file, options)
    target, card = write_files(values, file, options.out)
    results = [evaluate(load(str(target), None, 1), part) for part in options.parts]
    figures = tables(results, options.name, options.long_side_px)
    write_figures(card, values, figures)
    if results:
        console.print(table(results))
    if options.compare:
        part = (options.parts or [datasets.VALIDATION])[0]
        pair = [
            evaluate(load(model, options.long_side_px, 1, threshold=options.threshold), part, limit=options.compare)
            for model in (str(target), str(options.checkpoint))
        ]
        console.print("mAP@.5 as stored {:.4f}, in full precision {:.4f}".format(*(one["map50"] for one in pair)))
    console.print(f"{target}: {len(file) / 1e6:.1f} MB, step {values['training']['steps']}")
    return 0
