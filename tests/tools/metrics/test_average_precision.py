"""Average precision against cases computed by hand, and against COCO's own evaluation."""

from __future__ import annotations

import contextlib
import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tools.metrics.average_precision import (
    IOU_THRESHOLDS,
    RECALL_POINTS,
    ClassTally,
    average_precision,
    bootstrapped_ap50,
    match,
)


def boxes(*rows: tuple[float, float, float, float]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 4)


@pytest.mark.parametrize(
    ("correct", "positives", "expected"),
    [
        ([True, True], 2, 1.0),
        ([False, False], 2, 0.0),
        ([], 2, 0.0),
        # hit, miss, hit of 2: precision 1 up to recall .5 (51 points), then 2/3 (50 points)
        ([True, False, True], 2, (51 + 50 * 2 / 3) / 101),
        # one of two found: precision 1 at the 51 points 0 … .50
        ([True], 2, 51 / 101),
        # miss, hit of 1: precision 1/2 everywhere
        ([False, True], 1, 0.5),
    ],
)
def test_ap_by_hand(correct: list[bool], positives: int, expected: float) -> None:
    scores = np.linspace(0.9, 0.1, len(correct))
    assert average_precision(scores, np.array(correct, bool), positives) == pytest.approx(expected)


def test_ap_without_positives_is_not_a_number() -> None:
    assert math.isnan(average_precision(np.array([0.5]), np.array([False]), 0))


def test_a_true_box_is_taken_once() -> None:
    found = boxes((0, 0, 10, 10), (0, 0, 10, 9))
    assert match(found, boxes((0, 0, 10, 10)))[0].tolist() == [True, False]


def test_a_detection_takes_the_nearest_free_box() -> None:
    truth = boxes((0, 0, 10, 10), (2, 0, 12, 10))
    found = boxes((2, 0, 12, 10), (1, 0, 11, 10))
    assert match(found, truth, np.array([0.5])).tolist() == [[True, True]]


def test_tighter_thresholds_need_tighter_boxes() -> None:
    taken = match(boxes((0, 0, 10, 8)), boxes((0, 0, 10, 10)))[:, 0]  # IoU .8
    assert taken.tolist() == [True] * 7 + [False] * 3


def test_tally_over_pictures() -> None:
    counts = ClassTally()
    counts.add(boxes((0, 0, 10, 10), (50, 50, 60, 60)), np.array([0.9, 0.6]), boxes((0, 0, 10, 10)))
    counts.add(boxes((0, 0, 10, 10)), np.array([0.8]), boxes((0, 0, 10, 10), (30, 30, 40, 40)))
    assert counts.positives == 3
    assert counts.at(0.5) == (2, 1)
    assert counts.at(0.85) == (1, 0)
    threshold, f1 = counts.best_f1()  # after two hits: precision 1, recall 2/3
    assert threshold == pytest.approx(0.8)
    assert f1 == pytest.approx(0.8)
    np.testing.assert_allclose(counts.average_precisions(), 67 / 101)  # precision 1 at recalls 0 … .66


def test_a_class_that_is_never_there() -> None:
    counts = ClassTally()
    counts.add(boxes(), np.zeros(0), boxes())
    assert np.isnan(counts.average_precisions()).all()
    assert math.isnan(counts.best_f1()[0])


def test_drawn_pictures_count_as_often_as_they_are_named() -> None:
    counts = ClassTally()
    counts.add(boxes((0, 0, 10, 10)), np.array([0.9]), boxes((0, 0, 10, 10)))
    counts.add(boxes((50, 50, 60, 60)), np.array([0.8]), boxes((0, 0, 10, 10)))
    assert counts.ap50() == pytest.approx(51 / 101)
    assert counts.drawn(np.array([0, 0])).ap50() == 1
    assert counts.drawn(np.array([1, 1, 1])).ap50() == 0
    assert counts.drawn(np.array([1, 1, 1])).positives == 3


def test_a_bootstrap_covers_what_pictures_differ_by() -> None:
    found, missed, alike = ClassTally(), ClassTally(), ClassTally()
    for number in range(20):
        hit = boxes((0, 0, 10, 10)) if number % 2 else boxes((50, 50, 60, 60))
        found.add(hit, np.array([0.9]), boxes((0, 0, 10, 10)))
        missed.add(boxes(), np.zeros(0), boxes())
        alike.add(boxes((0, 0, 10, 10)), np.array([0.9]), boxes((0, 0, 10, 10)))
    drawn = bootstrapped_ap50([found, missed, alike], 200, seed=1)
    assert drawn.shape == (200, 3)
    low, high = np.percentile(drawn[:, 0], (2.5, 97.5))
    assert low < found.ap50() < high
    assert np.isnan(drawn[:, 1]).all()
    assert (drawn[:, 2] == 1).all()
    assert np.array_equal(drawn, bootstrapped_ap50([found, missed, alike], 200, seed=1), equal_nan=True)


Picture = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Detections (n,4), their scores (n,) and true boxes (m,4) of one class in one picture."""


def by_pycocotools(pictures: list[Picture]) -> np.ndarray:
    """float (10,): AP at each threshold, as COCO's own evaluation finds it."""

    def xywh(box: np.ndarray) -> list[float]:
        return [float(box[0]), float(box[1]), float(box[2] - box[0]), float(box[3] - box[1])]

    truth = [(n, xywh(box)) for n, (_, _, true) in enumerate(pictures, 1) for box in true]
    found = [
        (n, xywh(box), float(s))
        for n, (b, scores, _) in enumerate(pictures, 1)
        for box, s in zip(b, scores, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": n} for n in range(1, len(pictures) + 1)],
            "categories": [{"id": 1, "name": "WBC"}],
            "annotations": [
                {"id": i, "image_id": n, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
                for i, (n, box) in enumerate(truth, 1)
            ],
        }
        coco.createIndex()
        results = coco.loadRes([{"image_id": n, "category_id": 1, "bbox": b, "score": s} for n, b, s in found])
        evaluation = COCOeval(coco, results, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return np.asarray(evaluation.eval["precision"][:, :, 0, 0, 2].mean(1))


def some_pictures(seed: int, count: int) -> list[Picture]:
    """Crowded pictures: detections near true boxes, doubles, misses and inventions, with scores that come twice."""
    rng = np.random.default_rng(seed)
    pictures = []
    for _ in range(count):
        corners = rng.uniform(0, 80, (rng.integers(0, 12), 2))
        true = np.concatenate([corners, corners + rng.uniform(10, 40, corners.shape)], 1).astype(np.float32)
        seen = true[rng.integers(0, len(true), rng.integers(0, 2 * len(true)))] if len(true) else true
        seen = seen + rng.normal(0, rng.uniform(0.3, 4), seen.shape)
        seen[:, 2:] = np.maximum(seen[:, 2:], seen[:, :2] + 1)  # COCO leaves boxes turned inside out uncounted
        wrong = rng.uniform(0, 80, (rng.integers(1, 5), 2))
        every = np.concatenate([seen, np.concatenate([wrong, wrong + rng.uniform(5, 40, wrong.shape)], 1)])
        pictures.append((every.astype(np.float32), rng.integers(1, 40, len(every)) / 40, true))
    return pictures


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), count=st.integers(1, 6))
def test_average_precision_is_that_of_pycocotools(seed: int, count: int) -> None:
    pictures = some_pictures(seed, count)
    if not sum(len(true) for *_, true in pictures):
        pictures.append((boxes((0, 0, 9, 9)), np.array([0.5]), boxes((0, 0, 9, 9))))
    tally = ClassTally()
    for found, scores, true in pictures:
        tally.add(found, scores, true)
    np.testing.assert_allclose(tally.average_precisions(), by_pycocotools(pictures), atol=1e-9)


def test_the_thresholds_and_the_recalls_are_those_of_pycocotools() -> None:
    parameters = COCOeval(iouType="bbox").params
    np.testing.assert_array_equal(IOU_THRESHOLDS, parameters.iouThrs)
    np.testing.assert_array_equal(RECALL_POINTS, parameters.recThrs)
