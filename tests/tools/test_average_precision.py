"""Average precision against cases computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tools.detection.average_precision import ClassTally, average_precision, bootstrapped_ap50, match


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
