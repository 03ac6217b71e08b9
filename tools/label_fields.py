"""Let a trained detector label what people left out in the training frames of chula_wbc: red cells and platelets.

    python -m tools.label_fields --checkpoint runs/first/best.pt --out runs/labels.json

A red cell or platelet of at least --sure becomes a box; what the detector is unsure of (down to --possible), and
every white cell that it sees where none is labelled, becomes a place that teaches nothing; the rest of the frame is
then background. People's boxes of white cells stay as they are. Only frames of the training split are read.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from engines.geometry import iou_matrix
from tools.detection import sets
from tools.detection.fields import WBC, Field
from tools.detection.predict import Found, TorchPredictor
from tools.detection.training import load_averaged


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


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--long-side-px", type=int, default=640)
    parser.add_argument("--sure", type=float, default=0.4)
    parser.add_argument("--possible", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    model, _ = load_averaged(options.checkpoint)
    predictor = TorchPredictor(model, options.long_side_px, least_score=options.possible)
    labels: dict[str, dict[str, Any]] = {}
    for item in sets.training_fields({"chula_wbc"}, sys.maxsize, 0, None)["chula_wbc"]:
        boxes, classes, ignore = complete_labels(item, predictor(item.load()), options.sure)
        labels[item.name] = {
            "boxes_px": boxes.round(1).tolist(),
            "classes": classes.tolist(),
            "ignore_px": ignore.round(1).tolist(),
        }
    options.out.write_text(json.dumps({"checkpoint": str(options.checkpoint), "chula_wbc": labels}))
    n_boxes = sum(len(entry["classes"]) for entry in labels.values())
    Console(stderr=True).print(f"{len(labels)} frames, {n_boxes} boxes added -> {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
