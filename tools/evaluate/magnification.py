"""Which sizes of cells a detector can read: whole fields shown at many magnifications, measured by the diameter of
their red cells in the input.

    python -m tools.evaluate magnification yolov5n-blood --out runs/sweep

Every field is scaled until its red cells have each of --diameters-px; figures.json and magnification.png show recall
and precision at --threshold, and AP@0.5, of each class. Cells whose labels became narrower than 4 px are not asked for.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from rich.console import Console

from engines.zoo.card import DetectorInput
from engines.zoo.registry import models
from tools.commands import command_parser
from tools.data import sets
from tools.data.fields import CLASS_NAMES, Field
from tools.evaluate.detector import make_predictor
from tools.metrics.detection import summary, tally
from tools.metrics.plots import plot_by_size
from tools.metrics.predict import Found, Predictor

STRIDE_PX = 32
PAD = 114
LEAST_SIDE_PX = 4.0


def shown_at(item: Field, diameter_px: float) -> Field:
    """The field scaled until its red cells have a diameter, padded to whole strides, so that it is its own input."""
    factor = diameter_px / item.rbc_diameter_px

    def load() -> np.ndarray:
        method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        picture = cv2.resize(item.load(), None, fx=factor, fy=factor, interpolation=method)
        bottom, right = (-side % STRIDE_PX for side in picture.shape[:2])
        return cv2.copyMakeBorder(picture, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=(PAD, PAD, PAD))

    boxes = item.boxes_px * np.float32(factor)
    asked = (boxes[:, 2:] - boxes[:, :2]).min(1, initial=np.inf) >= LEAST_SIDE_PX
    ignored = np.concatenate((item.ignore_px * np.float32(factor), boxes[~asked]))
    return replace(item, load=load, boxes_px=boxes[asked], classes=item.classes[asked], ignore_px=ignored)


def unscaled(predictor: Any, picture: np.ndarray) -> Found:
    """What the predictor finds in a picture that is its input as it stands."""
    predictor.long_side_px = max(picture.shape[:2])
    found: Found = predictor(picture)
    return found


def main(argv: Sequence[str]) -> int:
    parser = command_parser("tools.evaluate magnification", __doc__)
    parser.add_argument("model")
    parser.add_argument("--sets", default="txl_pbc,chula_wbc", help="names, comma-separated")
    parser.add_argument("--part", choices=("train", "validation", "holdout"), default="validation")
    parser.add_argument("--limit", type=int, default=sys.maxsize, help="pictures a set at most, evenly taken")
    parser.add_argument("--diameters-px", default="6,8,10,12,16,22,32,45,64,90,128,180")
    parser.add_argument("--largest-side-px", type=int, default=1280, help="larger inputs are left out")
    parser.add_argument("--threshold", type=float, default=0.4)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    predict: Predictor = partial(unscaled, make_predictor(options.model, 416, options.threads))
    results: list[dict[str, Any]] = []
    curves: dict[str, list[tuple[float, float]]] = {}
    for name in options.sets.split(","):
        fields = sets.fields_of(name, options.part)
        fields = fields[:: max(1, len(fields) // options.limit)][: options.limit]
        for diameter in map(float, options.diameters_px.split(",")):
            shown = [shown_at(item, diameter) for item in fields]
            sides = [max(item.load().shape) for item in shown]
            shown = [item for item, side in zip(shown, sides, strict=True) if side <= options.largest_side_px]
            if not shown:
                continue
            tallies, _ = tally(shown, predict, len(CLASS_NAMES))
            figures = summary(tallies, CLASS_NAMES, fields[0].complete, options.threshold)
            results.append({"set": name, "part": options.part, "rbc_diameter_px": diameter, **figures})
            for label, entry in figures["classes"].items():
                curves.setdefault(f"{name} {label}", []).append((diameter, entry["recall"]))
            line = ", ".join(
                f"{label} {entry['recall']:.3f}" + (f" AP {entry['ap50']:.3f}" if "ap50" in entry else "")
                for label, entry in figures["classes"].items()
            )
            Console(stderr=True).print(f"{name} {diameter:g} px ({len(shown)} fields): {line}")
    inputs = (card.input for card in models() if card.name == options.model)
    trained = next((known.rbc_diameter_px for known in inputs if isinstance(known, DetectorInput)), None)
    options.out.mkdir(parents=True, exist_ok=True)
    command = "python -m tools.evaluate magnification " + " ".join(map(str, argv))
    (options.out / "figures.json").write_text(
        json.dumps(
            {"measure": "magnification", "model": options.model, "command": command, "results": results}, indent=1
        )
    )
    plot_by_size(curves, trained, options.out / "magnification.png", f"recall at score {options.threshold:g}")
    return 0
