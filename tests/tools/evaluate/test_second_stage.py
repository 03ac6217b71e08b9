"""A classifier as the second stage of a detector of kinds of leukocyte: every nucleated box, every class."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="the tools of the detectors need PyTorch")

from engines.base import Classifications, Detections
from tools.evaluate.leukocyte_detector import SecondStage

NAMES = ("band neutrophil", "lymphocyte", "myelocyte", "platelet", "red blood cell", "segmented neutrophil")
KINDS = ("white", "white", "white", "platelet", "red", "white")


class Scripted:
    """Says of every cell: a neutrophil for .8, of it a band for .25; notes at which width of red cells it looked."""

    def classify(self, picture, boxes_px, rbc_px=None):
        n, self.rbc_px = len(boxes_px), rbc_px
        return Classifications(
            probabilities=np.tile(np.array([0.2, 0.8], np.float32), (n, 1)),
            class_names=("lymphocyte", "neutrophil"),
            subclass_probabilities=np.tile(np.array([0.25, 0.75], np.float32), (n, 1)),
            subclass_names=("band neutrophil", "segmented neutrophil"),
            subclass_parents=("neutrophil", "neutrophil"),
        )


def found(labels, scores):
    boxes = np.array([[10 * i, 0, 10 * i + 8, 8] for i in range(len(labels))], np.float32)
    return Detections(boxes, np.array(scores, np.float32), np.array(labels), NAMES, KINDS, False)


def test_a_white_box_counts_for_each_class_by_score_times_probability_and_others_stay():
    classifier = Scripted()
    detections = found([1, 4, 3], [0.9, 0.7, 0.6])
    named = SecondStage(classifier, NAMES).named(np.zeros((20, 60, 3), np.uint8), detections)
    rows = zip(named.classes.tolist(), named.scores.tolist(), named.boxes_px[:, 0].tolist(), strict=True)
    got = sorted((label, round(score, 3), left) for label, score, left in rows)
    assert got == [(0, 0.18, 0), (1, 0.18, 0), (3, 0.6, 20), (4, 0.7, 10), (5, 0.54, 0)]
    assert list(named.scores) == sorted(named.scores, reverse=True)
    assert classifier.rbc_px == 8


def test_red_cells_alone_stay_as_they_are():
    detections = found([4], [0.7])
    named = SecondStage(Scripted(), NAMES).named(np.zeros((9, 9, 3), np.uint8), detections)
    assert named.classes.tolist() == [4]
