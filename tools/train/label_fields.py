"""Let a trained detector label what people left out in the training frames of chula_wbc: red cells and platelets.

    python -m tools.train label-fields --checkpoint runs/first/best.pt --out runs/labels.json

A red cell or platelet of at least --sure that three of four views agree on (two input sizes, plain and mirrored)
becomes a box; what the detector is unsure of (down to --possible), and
every white cell that it sees where none is labelled, becomes a place that teaches nothing; the rest of the frame is
then background. People's boxes of white cells stay as they are. Only frames of the training split are read.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from engines.geometry import iou_matrix
from tools.commands import command_parser
from tools.data import sets
from tools.data.fields import WBC, Field
from tools.metrics.predict import Found, TorchPredictor
from tools.train.yolov5 import load_averaged


def complete_labels(item: Field, found: Found, sure: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(boxes_px (n,4), classes (n,), ignore_px (m,4)) to add to the labelled white cells of `item`."""
    overlap = iou_matrix(found.boxes_px, item.boxes_px).max(1, initial=0)
    centres = (found.boxes_px[:, :2] + found.boxes_px[:, 2:]) / 2
    inside = np.zeros(len(centres), bool)
    for x1, y1, x2, y2 in item.boxes_px:
        margin_x, margin_y = 0.15 * (x2 - x1), 0.15 * (y2 - y1)
        inside |= ((centres > (x1 + margin_x, y1 + margin_y)) & (centres < (x2 - margin_x, y2 - margin_y))).all(1)
    labelled_cell = (overlap > 0.4) | inside
    taught = ~labelled_cell & (found.classes != WBC) & (found.scores >= sure)
    doubtful = ~labelled_cell & ~taught
    if taught.any():  # a second, unsure opinion of a taught place does not make it unclear, unless it says white cell
        repeated = iou_matrix(found.boxes_px, found.boxes_px[taught]).max(1) > 0.5
        doubtful &= ~(repeated & (found.classes != WBC))
    return found.boxes_px[taught], found.classes[taught], found.boxes_px[doubtful]


def agreed(views: list[Found], iou: float = 0.6) -> np.ndarray:
    """Which detections of the first view at least all but one of the others have too, by class; bool (n,)."""
    first, *others = views
    votes = np.zeros(len(first.scores), int)
    for other in others:
        overlap = iou_matrix(first.boxes_px, other.boxes_px) * (first.classes[:, None] == other.classes[None])
        votes += overlap.max(1, initial=0) >= iou
    return votes >= len(others) - 1


def mirrored(found: Found, width: int) -> Found:
    """What was found in a picture mirrored left to right, in the picture's own pixels."""
    boxes = found.boxes_px.copy()
    boxes[:, [0, 2]] = width - found.boxes_px[:, [2, 0]]
    return Found(boxes, found.scores, found.classes)


def consensus(picture: np.ndarray, predictors: list[TorchPredictor]) -> Found:
    """What the first predictor finds, with the scores of what the other views don't confirm halved."""
    flipped = np.ascontiguousarray(picture[:, ::-1])
    views = [predict(picture) for predict in predictors]
    views += [mirrored(predict(flipped), picture.shape[1]) for predict in predictors]
    scores = np.where(agreed(views), views[0].scores, views[0].scores / 2)
    return Found(views[0].boxes_px, scores, views[0].classes)


def main(argv: Sequence[str]) -> int:
    parser = command_parser("tools.train label-fields", __doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--long-side-px", type=int, nargs="+", default=[640, 576])
    parser.add_argument("--nms-iou", type=float, default=0.4)
    parser.add_argument("--sure", type=float, default=0.45)
    parser.add_argument("--possible", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    model, _ = load_averaged(options.checkpoint)
    predictors = [
        TorchPredictor(model, side_px, least_score=options.possible, nms_iou=options.nms_iou)
        for side_px in options.long_side_px
    ]
    labels: dict[str, dict[str, Any]] = {}
    for item in sets.training_fields({"chula_wbc"}, sys.maxsize, 0, None)["chula_wbc"]:
        boxes, classes, ignore = complete_labels(item, consensus(item.load(), predictors), options.sure)
        labels[item.name] = {
            "boxes_px": boxes.round(1).tolist(),
            "classes": classes.tolist(),
            "ignore_px": ignore.round(1).tolist(),
        }
    options.out.write_text(json.dumps({"checkpoint": str(options.checkpoint), "chula_wbc": labels}))
    n_boxes = sum(len(entry["classes"]) for entry in labels.values())
    Console(stderr=True).print(f"{len(labels)} frames, {n_boxes} boxes added -> {options.out}")
    return 0
