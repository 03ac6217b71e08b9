"""Figures of a classifier of white cells, abnormal ones among them, by laboratory, patient and cells painted over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engines.models.classifier import Classifier
from tools.classification.abnormal import Predicted, choose, figures, predict_with
from tools.datasets import VALIDATION, data_root, load_splits, read_cells
from tools.datasets.located import laboratory, locate
from tools.train.classifier import NEVER_TAUGHT, SETS


def predictions(classifier: Classifier, part: str, left_out: Sequence[str] = ()) -> dict[str, Predicted]:
    """Of the cells of a part by laboratory, boxed by the detector and looked at as in the stream; laboratories that no
    model was taught, and those that are `left_out`, are validation as a whole."""
    root = data_root()
    cells = locate(read_cells(root, SETS))
    splits = load_splits(root)
    unseen = (*NEVER_TAUGHT, *left_out)
    parts = [VALIDATION if laboratory(one.cell) in unseen else splits[one.cell.key] for one in cells]
    return {name: predict_with(classifier, some) for name, some in choose(cells, parts, part).items()}


def evaluate(classifier: Classifier, part: str, left_out: Sequence[str] = ()) -> dict[str, Any]:
    """The figures of a part, ready for JSON."""
    return figures(predictions(classifier, part, left_out))


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The figures as lines for people."""
    lines = []
    for name, row in found.items():
        shown = [
            f"{key.replace('_', ' ')} {value:.3f}" if isinstance(value, float) else f"{key.replace('_', ' ')} {value}"
            for key, value in row.items()
            if key != "recall" and value is not None
        ]
        lines.append(f"{name:24} {'  '.join(shown)}")
        recalls = row.get("recall", {})
        if recalls:
            lines.append(" " * 25 + "  ".join(f"{label} {share:.2f} of {n}" for label, (share, n) in recalls.items()))
    return "\n".join(lines)
