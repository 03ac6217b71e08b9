"""Measure a detector of mononuclear and polymorphonuclear cells: white cells found, and the group of those found.

    python -m tools.evaluate faster-rcnn-two-level --part validation
    python -m tools.evaluate runs/zoo/faster-rcnn-two-level.onnx --part holdout --out runs/measured

Pictures go the way of the stream: letterbox, graph in ONNX Runtime, suppression as the card says. AP is COCO's (101
recalls) of white cells, whatever their group; chula_wbc labels some of its white cells, so that it has recall alone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from engines.zoo.figures import MeasuredOn
from tools import data as datasets
from tools.commands import command_parser
from tools.data.groups import SETS, group_fields
from tools.metrics.groups import measured
from tools.metrics.predict import StreamPredictor


def evaluate(model: str, part: str, *, limit: int | None = None, threads: int = 1) -> dict[str, dict[str, Any]]:
    """The figures of each set's pictures of one part, at most `limit` a set, at the card's operating threshold."""
    predict = StreamPredictor(model, threads=threads)
    threshold = predict.detector.card.thresholds.operating
    parts = datasets.load_splits()
    inside = [one.field for one in group_fields() if parts.get(one.field.name) == part]
    by_set = {name: [item for item in inside if item.source == name] for name in SETS}
    return {
        name: measured(members[:: max(1, len(members) // (limit or len(members)))], predict, threshold)
        for name, members in by_set.items()
        if members
    }


def table(figures: Mapping[str, Mapping[str, Any]]) -> Table:
    """The figures for people."""
    shown = Table("set", "pictures", "cells", "recall", "precision", "AP@.5", "AP@[.5:.95]", "group", "of each")
    for name, entry in figures.items():
        numbers = (entry[key] for key in ("recall", "precision", "ap50", "ap50_95", "group_accuracy"))
        cells = ("-" if value is None else f"{value:.3f}" for value in numbers)
        each = " ".join(f"{value:.3f}" for value in entry["group_recall"])
        shown.add_row(name, str(entry["pictures"]), str(entry["cells"]), *cells, each)
    return shown


def tables(figures: Mapping[str, Mapping[str, Any]], command: str, part: str) -> dict[MeasuredOn, dict[str, Any]]:
    """The figures for a card."""
    kept = {name: {key: value for key, value in entry.items() if key != "groups"} for name, entry in figures.items()}
    return {MeasuredOn(name, "", part): {"command": command, **entry} for name, entry in kept.items()}


def main(argv: Sequence[str]) -> int:
    parser = command_parser("tools.evaluate", __doc__)
    parser.add_argument("model", help="a name, or an ONNX file with its card")
    parser.add_argument("--part", choices=datasets.PARTS, default=datasets.VALIDATION)
    parser.add_argument("--limit", type=int, help="pictures a set at most")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="folder for figures.json")
    options = parser.parse_args(argv)
    figures = evaluate(options.model, options.part, limit=options.limit, threads=options.threads)
    Console(stderr=True, width=None if sys.stderr.isatty() else 140).print(table(figures))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        command = f"python -m tools.evaluate {options.model} --part {options.part}"
        document = {"model": options.model, "part": options.part, "command": command, "sets": figures}
        (options.out / "figures.json").write_text(json.dumps(document, indent=1))
    return 0
