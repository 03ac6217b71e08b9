"""How well a detector of white cells in two groups does: cells found, and the group of those found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from engines.geometry import iou_matrix
from tools.data.fields import Field
from tools.metrics.average_precision import ClassTally
from tools.metrics.classification import clopper_pearson
from tools.metrics.predict import Found, Predictor


def measured(fields: Sequence[Field], predict: Predictor, threshold: float) -> dict[str, Any]:
    """White cells found, whatever their group, and the group of those found, over fields of one set.

    `ap50` (null where not every white cell is labelled) is that of white cells; `group_accuracy` is over the labelled
    cells that a box of at least `threshold` covers by IoU .5, `group_recall` over those of each group.
    """
    tally = ClassTally()
    complete = all(item.complete.all() for item in fields)
    table = np.zeros((2, 3), np.int64)
    for item in fields:
        found = predict(item.load())
        outside = np.ones(len(found.scores), bool)
        if len(item.ignore_px):
            outside = iou_matrix(found.boxes_px, item.ignore_px).max(1, initial=0) < 0.5
        tally.add(found.boxes_px[outside], found.scores[outside], item.boxes_px)
        sure = found.scores >= threshold
        for truth, called in zip(item.classes, _called(item.boxes_px, found, sure), strict=True):
            table[truth, called] += 1
    hits, others = tally.at(threshold)
    low, high = clopper_pearson(hits, tally.positives) or (None, None)
    seen = int(table[:, :2].sum())
    right = int(table[0, 0] + table[1, 1])
    group_low, group_high = clopper_pearson(right, seen) or (None, None)
    return {
        "pictures": tally.pictures,
        "cells": tally.positives,
        "threshold": threshold,
        "recall": _rounded(hits / max(1, tally.positives)),
        "recall_low": _rounded(low),
        "recall_high": _rounded(high),
        "precision": _rounded(hits / max(1, hits + others)) if complete else None,
        "ap50": _rounded(float(tally.average_precisions()[0])) if complete else None,
        "ap50_95": _rounded(float(tally.average_precisions().mean())) if complete else None,
        "group_accuracy": _rounded(right / max(1, seen)),
        "group_accuracy_low": _rounded(group_low),
        "group_accuracy_high": _rounded(group_high),
        "group_recall": [_rounded(float(row[i] / max(1, row[:2].sum()))) for i, row in enumerate(table)],
        "groups": table.tolist(),
    }


def _called(truth_px: np.ndarray, found: Found, sure: np.ndarray) -> list[int]:
    """The group of the best box over each true one; 2 for a cell that was not found."""
    boxes, groups = found.boxes_px[sure], found.classes[sure]
    if not len(boxes):
        return [2] * len(truth_px)
    overlap = iou_matrix(truth_px, boxes)
    return [int(groups[row.argmax()]) if row.max() >= 0.5 else 2 for row in overlap]


def _rounded(value: float | None) -> float | None:
    return None if value is None or value != value else round(float(value), 4)
