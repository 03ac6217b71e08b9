"""Measure a predictor on fields: average precision where a class is labelled completely, recall alone where it is
not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from engines.geometry import iou_matrix
from tools.data.fields import Field
from tools.metrics.average_precision import ClassTally, bootstrapped_ap50
from tools.metrics.classification import clopper_pearson
from tools.metrics.predict import Found, Predictor


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
            of_class = kept & (found.classes == label)
            counts.add(found.boxes_px[of_class], found.scores[of_class], item.boxes_px[item.classes == label])
    return tallies, results


def summary(
    tallies: Sequence[ClassTally],
    class_names: Sequence[str],
    complete: np.ndarray,
    threshold: float,
    *,
    draws: int = 0,
    seed: int = 0,
) -> dict[str, Any]:
    """Figures per class, and their mean over completely labelled classes (`map50`, `map50_95`; null without such
    a class).

    Recall has its 95 % Clopper-Pearson limits. With `draws`, AP@0.5 and mAP@0.5 have the 2.5th and 97.5th percentile
    over so many draws of pictures (`ap50_low` …).
    """
    classes: dict[str, dict[str, float | int | None]] = {}
    means50, means = [], []
    drawn = bootstrapped_ap50(tallies, draws, seed) if draws and tallies[0].pictures else np.zeros((0, len(tallies)))
    averaged = [bool(whole) and counts.positives > 0 for counts, whole in zip(tallies, complete, strict=True)]
    for label, (name, counts, whole) in enumerate(zip(class_names, tallies, complete, strict=True)):
        if not counts.positives:
            continue
        hits, others = counts.at(threshold)
        low, high = clopper_pearson(hits, counts.positives) or (None, None)
        entry: dict[str, float | int | None] = {
            "positives": counts.positives,
            "found": hits,
            "recall": hits / counts.positives,
            "recall_low": low,
            "recall_high": high,
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
                **limits("ap50", drawn[:, label]),
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
        **limits("map50", drawn[:, averaged].mean(1) if any(averaged) else drawn[:, 0]),
        "map50_95": round(float(np.mean(means)), 4) if means else None,
        "classes": classes,
    }


def limits(name: str, values: np.ndarray) -> dict[str, float]:
    """{name_low, name_high}: the middle 95 % of the values that are numbers; nothing where there are none."""
    values = values[np.isfinite(values)]
    if not len(values):
        return {}
    low, high = np.percentile(values, (2.5, 97.5))
    return {f"{name}_low": round(float(low), 4), f"{name}_high": round(float(high), 4)}


def confusion(results: Iterable[tuple[Field, Found]], classes: int, threshold: float) -> np.ndarray:
    """int64 (classes+1, classes+1): rows are labels, columns detections of at least `threshold`, the last of each
    "nothing". Pairs of IoU .5 and more are joined, the best overlap first, whatever their classes."""
    table = np.zeros((classes + 1, classes + 1), np.int64)
    for item, found in results:
        sure = found.scores >= threshold
        detected = found.classes[sure]
        partner = np.full(len(item.classes), classes)
        alone = np.ones(len(detected), bool)
        overlap = iou_matrix(item.boxes_px, found.boxes_px[sure])
        while overlap.size and overlap.max() >= 0.5:
            row, column = np.unravel_index(int(overlap.argmax()), overlap.shape)
            partner[row], alone[column] = detected[column], False
            overlap[row], overlap[:, column] = -1, -1
        np.add.at(table, (item.classes, partner), 1)
        np.add.at(table, (np.full(int(alone.sum()), classes), detected[alone]), 1)
    return table
