"""How many labelled cells of unseen camera slides a detector finds: at least once, and in every frame that shows them.

    python -m tools.evaluate found-cells yolov5n-blood --parts validation,holdout --json found.json

Frames of chula_wbc overlap, so that one cell has boxes in several. Where unique_cells.json places the frames of a
slide on one another, boxes whose centres are nearer than half a box are one cell; on other slides every box is taken
for a cell of its own. A box is found by a detection of its class with IoU .5 and at least --threshold.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from engines.geometry import iou_matrix
from tools import data as datasets
from tools.commands import command_parser
from tools.data import sets
from tools.data.fields import WBC, Field
from tools.data.unique import Place, same_cells
from tools.evaluate.detector import make_predictor
from tools.metrics.classification import Share
from tools.metrics.predict import Found


def cells_of(fields: Iterable[Field], places: Mapping[str, Place]) -> list[list[tuple[str, int]]]:
    """The boxes of each cell, as (field name, number of the box), given the places of frames by file name."""
    boxes = [(item, int(number)) for item in fields for number in np.flatnonzero(item.classes == WBC)]
    groups = same_cells((item.boxes_px[number], places.get(Path(item.name).name)) for item, number in boxes)
    return [[(boxes[i][0].name, boxes[i][1]) for i in group] for group in groups]


def found_boxes(item: Field, found: Found, threshold: float) -> np.ndarray:
    """Which labelled boxes of a field are found, bool (n,)."""
    sure = (found.scores >= threshold) & (found.classes == WBC)
    return np.asarray(iou_matrix(item.boxes_px, found.boxes_px[sure]).max(1, initial=0) >= 0.5)


def main(argv: Sequence[str]) -> int:
    parser = command_parser("tools.evaluate found-cells", __doc__)
    parser.add_argument("model")
    parser.add_argument("--parts", default="validation,holdout", help="comma-separated")
    parser.add_argument("--long-side-px", type=int, default=416)
    parser.add_argument("--threshold", type=float, default=0.4)
    parser.add_argument("--json", type=Path, help="file for the figures by slide")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    predictor = make_predictor(options.model, options.long_side_px, options.threads)
    registered = json.loads((datasets.data_root() / "chula_wbc" / "unique_cells.json").read_text())
    by_slide: dict[str, list[Field]] = defaultdict(list)
    for part in options.parts.split(","):
        for item in sets.fields_of("chula_wbc", part):
            by_slide[Path(item.name).name.rpartition("_")[0]].append(item)
    slides: dict[str, Any] = {}
    totals = np.zeros(4, int)
    for slide, fields in sorted(by_slide.items()):
        hits = {item.name: found_boxes(item, predictor(item.load()), options.threshold) for item in fields}
        cells = cells_of(fields, registered.get(slide, {}).get("positions", {}))
        once = sum(any(hits[name][number] for name, number in boxes) for boxes in cells)
        boxes_found, boxes = sum(int(h.sum()) for h in hits.values()), sum(len(h) for h in hits.values())
        totals += (once, len(cells), boxes_found, boxes)
        slides[slide] = {"frames": len(fields), "cells": len(cells), "cells_found": once}
        slides[slide] |= {"boxes": boxes, "boxes_found": boxes_found, "registered": slide in registered}
    figures = {
        "measure": "found cells",
        "model": options.model,
        "command": "python -m tools.evaluate found-cells " + " ".join(argv),
        "part": options.parts.replace(",", " and "),
        "cells_found_at_least_once": Share(int(totals[0]), int(totals[1])).as_dict(),
        "boxes_found": Share(int(totals[2]), int(totals[3])).as_dict(),
        "slides": slides,
    }
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(figures, indent=1))
    Console(stderr=True).print_json(json.dumps(figures))
    return 0
