"""What fp16 and int8 cost on labelled validation data: mean average precision of detectors, accuracy of classifiers.

    python -m tools.bench precision yolov5n-blood mobilenetv3-small --json docs/benchmarks/precision.json

The graphs are those that `leukostream compile` builds. int8 is calibrated on pictures of the training part, and leaves
the operators out that `compile` would. Every rounding of fp16 is made, in float32, on the CPU: the figures hold for any
backend that obeys the graph. fp16 may lose .002 and int8 .01 against fp32; the exit status is 1 where one loses more.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnxruntime
from onnx import ModelProto
from rich.console import Console
from rich.table import Table

from engines.backends.conversion import convert
from engines.backends.onnxruntime import OnnxRuntimeEngine
from engines.backends.tensorrt.compiler import sized
from engines.base import ModelNotFoundError
from engines.graphs.precision import emulated, to_fp16
from engines.graphs.quantization import calibrate, to_int8
from engines.models.classifier import Classifier
from engines.zoo.card import Card
from engines.zoo.crops import CropInput
from engines.zoo.registry import Model, compact, find
from streamer.commands.compile import CROPS, FRAMES
from tools.commands import command_parser
from tools.data import CELL_CLASSES, CellPicture, data_root, load_splits, read_cells, sets
from tools.data.crops import class_crop
from tools.data.fields import CLASS_NAMES, Field
from tools.metrics.detection import summary, tally
from tools.metrics.predict import OnnxPredictor, letterboxed

MAY_LOSE: Mapping[str, float] = {"fp32": 0.0, "fp16": 0.002, "int8": 0.01}
TOGETHER = "all sets"
_ENOUGH = 500
"""Cells from which on one of them is no more than what fp16 may lose."""
_THREADS = 2

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Row:
    """One model in one precision on one set."""

    model: str
    set: str
    pictures: int
    precision: str
    measure: str
    """mAP@.5, accuracy, or recall of white cells where not every cell is labelled."""
    value: float
    lost: float
    """Against fp32; below zero where it is better."""
    limit: float | None
    """What it may lose; None where the set is too small, or not labelled enough, for a limit to mean anything."""
    map50_95: float | None = None

    @property
    def within(self) -> bool:
        return self.limit is None or self.lost <= self.limit


def spread(items: Sequence[T], count: int) -> list[T]:
    """Up to `count` of the items, evenly over them."""
    return list(items[:: max(1, len(items) // count)][:count])


# Detectors -------------------------------------------------------------------------------------------------------


def detector_graphs(card: Card, proto: ModelProto, calibration: Sequence[Field], long_side_px: int) -> list[ModelProto]:
    """fp32, fp16 and int8, their sizes open, runnable on any CPU."""
    pictures = [item.load() for item in calibration]
    height, width = pictures[0].shape[:2]
    left = convert(card, sized(card, proto, (width, height)), "int8", pictures, accept_parity_loss=True, say=print).left
    ranges = calibrate(proto, (letterboxed(picture, long_side_px)[0] for picture in pictures))
    return [proto, emulated(to_fp16(proto)[0]), emulated(to_int8(proto, ranges, leave=set(left))[0])]


def detector_rows(model: Model, names: Sequence[str], part: str, limit: int, long_side_px: int | None) -> Iterator[Row]:
    """A row for each set and precision."""
    calibration = spread(sets.fields_of(names[0], "train"), FRAMES)
    card_side = getattr(model.card.input, "long_side_px", 640)
    side = long_side_px or sets.VALIDATION_LONG_SIDE_PX.get(names[0], card_side)
    graphs = detector_graphs(model.card, compact(model), calibration, side)
    for name in names:
        fields = sets.fields_of(name, part)[:limit]
        side = long_side_px or sets.VALIDATION_LONG_SIDE_PX.get(name, card_side)
        exact = 0.0
        for precision, proto in zip(MAY_LOSE, graphs, strict=True):
            tallies, _ = tally(fields, OnnxPredictor(proto, side, threads=_THREADS), len(CLASS_NAMES))
            figures = summary(tallies, CLASS_NAMES, fields[0].complete, model.card.thresholds.operating)
            whole = figures["map50"] is not None
            value = figures["map50"] if whole else figures["classes"]["WBC"]["recall"]
            exact = value if precision == "fp32" else exact
            yield Row(
                model.card.name,
                f"{name} at {side} px",
                len(fields),
                precision,
                "mAP@.5" if whole else "recall of white cells",
                round(value, 4),
                round(exact - value, 4),
                MAY_LOSE[precision] if whole else None,
                figures["map50_95"],
            )


# Classifiers -----------------------------------------------------------------------------------------------------


def classifier_graphs(card: Card, proto: ModelProto, calibration: Sequence[np.ndarray]) -> list[ModelProto]:
    """fp32, fp16 and int8, the batch open, runnable on any CPU."""
    model = sized(card, proto, (0, 0))
    int8 = convert(card, model, "int8", calibration, accept_parity_loss=True, say=print).model
    return [model, emulated(to_fp16(model)[0]), emulated(int8)]


def classifier_rows(model: Model, part: str, limit: int) -> Iterator[Row]:
    """A row for each set and precision, and for all sets together; few cells have no limit."""
    card = model.card
    assert isinstance(card.input, CropInput)
    side, margin = card.input.height_px, card.input.crop_margin
    root = data_root()
    parts = load_splits(root)
    cells = read_cells(root)
    training = spread([cell for cell in cells if parts[cell.key] == "train"], CROPS)
    graphs = classifier_graphs(card, model.proto, [class_crop(cell, side, margin) for cell in training])
    by_set: dict[str, list[CellPicture]] = {}
    for cell in cells:
        if parts[cell.key] == part:
            by_set.setdefault(cell.dataset, []).append(cell)
    chosen = [cell for members in by_set.values() for cell in members[:limit]]
    crops = np.stack([class_crop(cell, side, margin) for cell in chosen])
    truth = np.array([CELL_CLASSES.index(cell.cell_class) for cell in chosen])
    members = {TOGETHER: np.ones(len(chosen), bool)}
    members |= {name: np.array([cell.dataset == name for cell in chosen]) for name in by_set}
    right: dict[str, np.ndarray] = {}
    for precision, proto in zip(MAY_LOSE, graphs, strict=True):
        classifier = Classifier(card, OnnxRuntimeEngine(proto, device="cpu"))
        right[precision] = classifier.classify_batch(crops).probabilities.argmax(1) == truth
        classifier.close()
    for name, mask in members.items():
        exact = float(right["fp32"][mask].mean())
        for precision, hits in right.items():
            value = float(hits[mask].mean())
            limit_here = MAY_LOSE[precision] if mask.sum() >= _ENOUGH else None
            yield Row(
                card.name,
                name,
                int(mask.sum()),
                precision,
                "accuracy",
                round(value, 4),
                round(exact - value, 4),
                limit_here,
            )


# Command line ----------------------------------------------------------------------------------------------------


def find_any(name: str) -> Model:
    """The detector or classifier of that name or path."""
    try:
        return find(name, "detector")
    except ModelNotFoundError as error:
        if "got a classifier" not in str(error):
            raise
    return find(name, "classifier")


def table_of(rows: Sequence[Row]) -> Table:
    table = Table(
        "model", "set", "pictures", "precision", "measure", "value", "lost", "may lose", box=None, pad_edge=False
    )
    for row in rows:
        limit = "" if row.limit is None or row.precision == "fp32" else f"{row.limit:g}" + ("" if row.within else " !")
        lost = "" if row.precision == "fp32" else f"{row.lost:.4f}"
        table.add_row(
            row.model, row.set, str(row.pictures), row.precision, row.measure, f"{row.value:.4f}", lost, limit
        )
    return table


def main(argv: Sequence[str]) -> int:
    parser = command_parser("tools.bench precision", __doc__)
    parser.add_argument("models", nargs="+", metavar="NAME|FILE")
    parser.add_argument(
        "--sets", default="txl_pbc,chula_wbc", help="of detectors, comma-separated; the first calibrates"
    )
    parser.add_argument("--part", choices=("validation", "holdout"), default="validation")
    parser.add_argument("--long-side", type=int, help="longer side of a detector's input in px; default: the set's")
    parser.add_argument("--limit", type=int, default=sys.maxsize, help="pictures a set at most")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(argv)
    rows: list[Row] = []
    for name in options.models:
        model = find_any(name)
        if model.card.task == "detector":
            found = detector_rows(model, options.sets.split(","), options.part, options.limit, options.long_side)
        else:
            found = classifier_rows(model, options.part, options.limit)
        rows += found
    Console().print(table_of(rows))
    if options.json is not None:
        document = {
            "command": "python -m tools.bench precision " + " ".join(argv),
            "onnxruntime": onnxruntime.__version__,
            "machine": platform.machine(),
            "results": [asdict(row) for row in rows],
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    return int(not all(row.within for row in rows))
