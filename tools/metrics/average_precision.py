"""Average precision of detections, COCO style: greedy matching by score, precision interpolated at 101 recalls.

AP@0.5 uses one IoU threshold, AP@[.5:.95] is the mean over 0.50, 0.55 … 0.95. (Lin 2014, arXiv:1405.0312.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from engines.geometry import iou_matrix

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_POINTS = np.linspace(0, 1, 101)


def match(boxes: np.ndarray, truth: np.ndarray, iou_thresholds: np.ndarray = IOU_THRESHOLDS) -> np.ndarray:
    """Detections (n,4) of one class in one picture, best score first, against its true boxes (m,4).

    Each detection takes the true box of largest IoU that no better detection took. bool (T, n): taken at threshold T.
    """
    taken = np.zeros((len(iou_thresholds), len(boxes)), bool)
    if not len(boxes) or not len(truth):
        return taken
    iou = iou_matrix(boxes, truth)
    for t, threshold in enumerate(iou_thresholds):
        free = np.ones(len(truth), bool)
        for d in range(len(boxes)):
            candidates = np.where(free, iou[d], -1)
            best = int(candidates.argmax())
            if candidates[best] >= threshold:
                taken[t, d] = True
                free[best] = False
    return taken


def precision_recall(scores: np.ndarray, correct: np.ndarray, positives: int) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall after each detection (n,), detections taken from the best score down."""
    order = np.argsort(-scores, kind="stable")
    hits = correct[order].cumsum()
    return hits / np.arange(1, len(hits) + 1), hits / max(positives, 1)


def average_precision(scores: np.ndarray, correct: np.ndarray, positives: int) -> float:
    """AP in 0..1 of detections (n,) with their correctness (n,) bool; nan where the class has no true box."""
    if positives == 0:
        return float("nan")
    if not len(scores):
        return 0.0
    precision, recall = precision_recall(scores, correct, positives)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    index = np.searchsorted(recall, RECALL_POINTS, side="left")
    return float(np.where(index < len(envelope), envelope[np.minimum(index, len(envelope) - 1)], 0).mean())


@dataclass
class ClassTally:
    """What was found of one class over many pictures; filled by `add`, one picture at a time."""

    positives: int = 0
    pictures: int = 0
    positives_by_picture: list[int] = field(default_factory=list)
    scores: list[np.ndarray] = field(default_factory=list)
    correct: list[np.ndarray] = field(default_factory=list)

    def add(self, boxes: np.ndarray, scores: np.ndarray, truth: np.ndarray) -> None:
        """Detections (n,4), (n,) of this class in one picture, and its true boxes (m,4)."""
        order = np.argsort(-scores, kind="stable")
        self.pictures += 1
        self.positives += len(truth)
        self.positives_by_picture.append(len(truth))
        self.scores.append(scores[order])
        self.correct.append(match(boxes[order], truth))

    def joined(self) -> tuple[np.ndarray, np.ndarray]:
        """Scores (n,) and correctness (T, n) over all pictures."""
        if not self.scores:
            return np.zeros(0), np.zeros((len(IOU_THRESHOLDS), 0), bool)
        return np.concatenate(self.scores), np.concatenate(self.correct, axis=1)

    def average_precisions(self) -> np.ndarray:
        """AP at each of `IOU_THRESHOLDS`, float (10,), nan without positives."""
        scores, correct = self.joined()
        return np.array([average_precision(scores, row, self.positives) for row in correct])

    def at(self, threshold: float) -> tuple[int, int]:
        """(true boxes found at IoU .5, detections that are not one) with scores >= threshold."""
        scores, correct = self.joined()
        kept = scores >= threshold
        hits = int(correct[0][kept].sum())
        return hits, int(kept.sum()) - hits

    def best_f1(self) -> tuple[float, float]:
        """(threshold, F1) where F1 at IoU .5 is best; (nan, nan) without positives or detections."""
        scores, correct = self.joined()
        if not len(scores) or not self.positives:
            return float("nan"), float("nan")
        precision, recall = precision_recall(scores, correct[0], self.positives)
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        best = int(f1.argmax())
        return float(np.sort(scores)[::-1][best]), float(f1[best])

    def drawn(self, pictures: np.ndarray) -> ClassTally:
        """The tally of these pictures (n,) by number, each as often as it is named."""
        return ClassTally(
            positives=int(np.array(self.positives_by_picture, int)[pictures].sum()),
            pictures=len(pictures),
            positives_by_picture=[self.positives_by_picture[i] for i in pictures],
            scores=[self.scores[i] for i in pictures],
            correct=[self.correct[i] for i in pictures],
        )

    def ap50(self) -> float:
        """AP at IoU .5, nan without positives."""
        scores, correct = self.joined()
        return average_precision(scores, correct[0], self.positives)


def bootstrapped_ap50(tallies: Sequence[ClassTally], draws: int, seed: int) -> np.ndarray:
    """AP@0.5 of each class, float (draws, classes), nan without positives: pictures drawn with replacement, the same
    for every class."""
    rng = np.random.default_rng(seed)
    pictures = tallies[0].pictures
    found = np.empty((draws, len(tallies)))
    for draw in range(draws):
        chosen = rng.integers(pictures, size=pictures)
        found[draw] = [tally.drawn(chosen).ap50() for tally in tallies]
    return found
