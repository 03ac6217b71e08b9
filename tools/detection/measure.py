"""Measure a predictor on fields: average precision where a class is labelled completely, recall alone where it is
not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from engines.geometry import iou_matrix
from tools.detection.average_precision import ClassTally
from tools.detection.fields import Field
from tools.detection.predict import Found, Predictor


def tally(
    fields: Iterable[Field], predict: Predictor, n_classes: int
) -> tuple[list[ClassTally], list[tuple[Field, Found]]]:
    """Run over `fields`; one tally a class, and what was found. Detections inside places to ignore are left out."""
    tallies = [ClassTally() for _ in range(n_classes)]
    results = []
    for item in fields:
        found = predict(item.load())
        results.append((item, found))
        kept = np.ones(len(found.scores), bool)
        if len(item.ignore_px):
            kept = iou_matrix(found.boxes_px, item.ignore_px).max(1, initial=0) < 0.5
        for label, counts in enumerate(tallies):
            mine = kept & (found.classes == label)
            counts.add(found.boxes_px[mine], found.scores[mine], item.boxes_px[item.classes == label])
    return tallies, results


def summary(
    tallies: Sequence[ClassTally], class_names: Sequence[str], complete: np.ndarray, threshold: float
) -> dict[str, Any]:
    """Figures per class, and their mean over completely labelled classes (`map50`, `map50_95`; null without such
    a class)."""
    classes: dict[str, dict[str, float | int | None]] = {}
    means50, means = [], []
    for name, counts, whole in zip(class_names, tallies, complete, strict=True):
        if not counts.positives:
            continue
        hits, others = counts.at(threshold)
        entry: dict[str, float | int | None] = {
            "positives": counts.positives,
            "found": hits,
            "recall": hits / counts.positives,
            "false_alarms": others if whole else None,
            "precision": (hits / (hits + others) if hits + others else None) if whole else None,
            "unlabelled_detections": None if whole else others,
        }
        if whole:
            ap = counts.average_precisions()
            best_threshold, f1 = counts.best_f1()
            entry |= {
                "ap50": float(ap[0]),
                "ap50_95": float(ap.mean()),
                "best_f1": f1,
                "best_f1_threshold": best_threshold,
            }
            means50.append(float(ap[0]))
            means.append(float(ap.mean()))
        classes[name] = {
            key: (round(value, 4) if value == value else None) if isinstance(value, float) else value
            for key, value in entry.items()
        }
    return {
        "pictures": max((t.pictures for t in tallies), default=0),
        "threshold": threshold,
        "map50": round(float(np.mean(means50)), 4) if means50 else None,
        "map50_95": round(float(np.mean(means)), 4) if means else None,
        "classes": classes,
    }
