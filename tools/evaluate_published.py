"""Measure a published classifier on the cells of its classes: every set, as the stream crops them and as pictures.

    python -m tools.evaluate_published ml-cnn --part validation
    python -m tools.evaluate_published runs/zoo/resnet50.onnx --part holdout --json figures.json

The model is a name or an ONNX file with its card. Cells of classes that it does not name are left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from engines.classifier import Classifier
from engines.registry import load_classifier, load_detector
from tools.classification import measures
from tools.classification.blasts import BLAST_CLASSES, FINDER, FINDER_PX, blast_parts, read_blasts
from tools.classification.crops import part_of_cell, read_image, set_name
from tools.datasets import PARTS, VALIDATION, CellPicture, data_root, load_splits, read_cells

PICTURES_OF_CELLS = ("pbc", "bccd_crops", "all_idb2")
"""Sets that are measured as whole pictures too, as `leukostream classify` takes them."""


def probabilities_of(classifier: Classifier, cells: Sequence[CellPicture], *, whole: bool = False) -> np.ndarray:
    """float32 (n, classes) of cells, cropped by their boxes, or of the whole pictures."""
    found = []
    for cell in cells:
        image = read_image(cell.path)
        looks = (
            classifier.classify_crops([image])
            if whole
            else classifier.classify(image, np.array([cell.box_px], np.float32))
        )
        found.append(looks.probabilities[0])
    return np.array(found, np.float32).reshape(len(cells), len(classifier.class_names))


def figures(probabilities: np.ndarray, truth: np.ndarray, names: tuple[str, ...], threshold: float) -> dict[str, Any]:
    """The card's figures of one set."""
    table = measures.confusion(truth, probabilities.argmax(1), len(names))
    accuracy = measures.Share(int(np.trace(table)), len(truth))
    low, high = measures.clopper_pearson(accuracy.hits, accuracy.trials) or (None, None)
    kept = probabilities.max(1) >= threshold
    right = probabilities.argmax(1) == truth
    entry: dict[str, Any] = {
        "cells": len(truth),
        "accuracy": accuracy.value,
        "accuracy_low": low,
        "accuracy_high": high,
        "balanced_accuracy": measures.balanced_accuracy(table),
        "calibration_error": measures.calibration_error(probabilities, truth),
        "classified": float(kept.mean()),
        "accuracy_classified": float(right[kept].mean()) if kept.any() else None,
    }
    for name, row in measures.per_class(table, names).items():
        key = name.replace(" ", "_")
        entry |= {f"{key}_recall": row["recall"]["value"], f"{key}_precision": row["precision"]["value"]}  # type: ignore[index]
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in entry.items()}


def cells_of(names: Sequence[str], part: str) -> list[CellPicture]:
    """The cells of a part whose class is one of `names`; of ALL-IDB2 where these are its classes."""
    root = data_root()
    if set(names) <= set(BLAST_CLASSES):
        cells = read_blasts(root, load_detector(FINDER, long_side_px=FINDER_PX))
        return [cell for cell, own in zip(cells, blast_parts(cells, root), strict=True) if own == part]
    splits = load_splits(root)
    return [cell for cell in read_cells(root) if part_of_cell(cell, splits) == part and cell.cell_class in names]


def evaluate(classifier: Classifier, part: str, *, limit: int | None = None) -> dict[str, dict[str, Any]]:
    """Figures by set, "NAME whole" for whole pictures; at most `limit` cells a set."""
    names = classifier.class_names
    by_set: dict[str, list[CellPicture]] = {}
    for cell in cells_of(names, part):
        by_set.setdefault(set_name(cell), []).append(cell)
    out = {}
    for name, members in sorted(by_set.items()):
        chosen = members if limit is None else members[:: max(1, len(members) // limit)]
        truth = np.array([names.index(cell.cell_class) for cell in chosen])
        for whole in (False, True) if name in PICTURES_OF_CELLS else (False,):
            found = probabilities_of(classifier, chosen, whole=whole)
            out[f"{name} whole" if whole else name] = figures(found, truth, names, classifier.threshold)
    return out


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--part", choices=PARTS, default=VALIDATION)
    parser.add_argument("--limit", type=int, help="cells a set at most")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args(argv)
    found = evaluate(load_classifier(options.model), options.part, limit=options.limit)
    shown = Table("set", "cells", "accuracy", "balanced", "calibration error", "classified", "right of those")
    for name, entry in found.items():
        keys = ("accuracy", "balanced_accuracy", "calibration_error", "classified", "accuracy_classified")
        shown.add_row(name, str(entry["cells"]), *("-" if entry[k] is None else f"{entry[k]:.3f}" for k in keys))
    Console(stderr=True, width=None if sys.stderr.isatty() else 120).print(shown)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
