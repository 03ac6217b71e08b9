"""Figures of a classifier of white cells, abnormal ones among them, by laboratory, patient and cells painted over.

python -m tools.evaluate efficientnet-lite0 --part validation --json figures.json
python -m tools.evaluate runs/short/mobilenet.onnx --left-out krd
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engines.models.classifier import Classifier
from engines.models.loading import load_classifier
from tools.commands import command_parser
from tools.data import PARTS, VALIDATION, data_root, load_splits, read_cells
from tools.data.crops import part_of_cell
from tools.data.located import locate
from tools.metrics.abnormal import Chosen, Predicted, choose, figures, predict_with
from tools.train.classifier import NEVER_TAUGHT, SETS


def chosen_cells(part: str, left_out: Sequence[str] = ()) -> dict[str, Chosen]:
    """The cells of a part by laboratory, boxed by the detector; laboratories that no model was taught, and those that
    are `left_out`, are validation as a whole."""
    root = data_root()
    cells = locate(read_cells(root, SETS))
    splits = load_splits(root)
    unseen = (*NEVER_TAUGHT, *left_out)
    parts = [part_of_cell(one.cell, splits, unseen) for one in cells]
    return choose(cells, parts, part)


def predictions(classifier: Classifier, part: str, left_out: Sequence[str] = ()) -> dict[str, Predicted]:
    """Of the cells of a part (`chosen_cells`) by laboratory, looked at as in the stream."""
    return {name: predict_with(classifier, some) for name, some in chosen_cells(part, left_out).items()}


def evaluate(classifier: Classifier, part: str, left_out: Sequence[str] = ()) -> dict[str, Any]:
    """The figures of a part, ready for JSON."""
    thresholds = classifier.card.thresholds
    return figures(predictions(classifier, part, left_out), thresholds.operating, thresholds.novelty)


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The figures as lines for people."""
    lines = []
    for name, row in found.items():
        shown = [
            f"{key.replace('_', ' ')} {value:.3f}" if isinstance(value, float) else f"{key.replace('_', ' ')} {value}"
            for key, value in row.items()
            if key not in ("recall", "by_patient") and value is not None
        ]
        lines.append(f"{name:24} {'  '.join(shown)}")
        for patient, (hidden, cells) in row.get("by_patient", {}).items():
            lines.append(" " * 25 + f"{patient}: {hidden} of {cells} blasts given a mature type")
        recalls = row.get("recall", {})
        if recalls:
            lines.append(" " * 25 + "  ".join(f"{label} {share:.2f} of {n}" for label, (share, n) in recalls.items()))
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Command line."""
    parser = command_parser("tools.evaluate", __doc__)
    parser.add_argument("model")
    parser.add_argument("--part", choices=PARTS, default=VALIDATION)
    parser.add_argument("--left-out", nargs="+", default=[], metavar="LABORATORY", help="those that did not train it")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    args = parser.parse_args(arguments)
    found = evaluate(load_classifier(args.model, backend="onnxruntime"), args.part, args.left_out)
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"model": args.model, "part": args.part, "figures": found}, indent=1) + "\n")
    print(table(found))
    return 0
