from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from tools.metrics import classification as measures


def test_confusion_rows_are_the_truth() -> None:
    table = measures.confusion(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0]), 3)
    assert table.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
    assert measures.balanced_accuracy(table) == pytest.approx((0.5 + 1 + 0) / 3)
    rows = measures.per_class(table, ("a", "b", "c"))
    assert rows["a"]["recall"]["hits"] == 1  # type: ignore[index]
    assert rows["a"]["precision"]["trials"] == 2  # type: ignore[index]
    assert rows["c"]["precision"]["value"] is None  # type: ignore[index]


def test_balanced_accuracy_leaves_out_classes_that_do_not_occur() -> None:
    assert measures.balanced_accuracy(np.array([[4, 0, 0], [0, 0, 0], [0, 1, 1]])) == 0.75
    assert measures.balanced_accuracy(np.zeros((3, 3), int)) is None


def test_log_loss_is_of_the_true_class() -> None:
    probabilities = np.array([[0.5, 0.5, 0.0], [0.0, 0.25, 0.75]], np.float32)
    assert measures.log_loss(probabilities, np.array([0, 1])) == pytest.approx((np.log(2) + np.log(4)) / 2)
    assert 20 < measures.log_loss(probabilities[:1], np.array([2])) < 40  # never infinite


# Published limits for a count of 100 (see the differential), in percent rounded outward.
@pytest.mark.parametrize(("hits", "low", "high"), [(0, 0, 4), (1, 0, 6), (10, 4, 18), (20, 12, 30), (50, 39, 61)])
def test_clopper_pearson_agrees_with_rumkes_table(hits: int, low: int, high: int) -> None:
    limits = measures.clopper_pearson(hits, 100)
    assert limits is not None
    assert (np.floor(100 * limits[0]), np.ceil(100 * limits[1])) == (low, high)


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_clopper_pearson_leaves_a_fortieth_on_each_side(case: tuple[int, int]) -> None:
    hits, trials = case
    limits = measures.clopper_pearson(hits, trials)
    assert limits is not None
    low, high = limits
    assert low <= hits / trials <= high
    if hits:
        assert binom.sf(hits - 1, trials, low) == pytest.approx(0.025, abs=1e-6)
    if hits < trials:
        assert binom.cdf(hits, trials, high) == pytest.approx(0.025, abs=1e-6)


def test_without_trials_nothing_is_measured() -> None:
    assert measures.Share(0, 0).as_dict() == {"value": None, "low": None, "high": None, "hits": 0, "trials": 0}
    with pytest.raises(ValueError, match="no samples"):
        measures.reliability(np.empty((0, 3)), np.empty(0, int))


def test_calibration_error_of_known_bins() -> None:
    p = np.array([[0.95, 0.05]] * 10 + [[0.65, 0.35]] * 10)
    truth = np.array([0] * 9 + [1] + [0] * 4 + [1] * 6)
    assert measures.calibration_error(p, truth, bins=10) == pytest.approx(0.5 * 0.05 + 0.5 * 0.25)


def test_temperature_of_overconfident_logits_is_found() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20_000, 4))
    p = measures.softmax(logits)
    truth = (p.cumsum(1) > rng.random((len(p), 1))).argmax(1)
    assert measures.fit_temperature(2.5 * logits, truth) == pytest.approx(2.5, rel=0.03)
    assert measures.calibration_error(measures.softmax(2.5 * logits, 2.5), truth) < 0.02
    assert measures.calibration_error(measures.softmax(2.5 * logits), truth) > 0.1


def test_weights_decide_whose_temperature_is_fitted() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (4000, 3))
    p = measures.softmax(logits)
    truth = (p.cumsum(1) > rng.random((len(p), 1))).argmax(1)
    both, twice = np.concatenate([logits, 3 * logits]), np.concatenate([truth, truth])
    first = np.repeat((1.0, 1e-9), 4000)
    assert measures.fit_temperature(both, twice, first) == pytest.approx(1, rel=0.1)
    assert measures.fit_temperature(both, twice, first[::-1]) == pytest.approx(3, rel=0.1)


def test_threshold_keeps_as_many_cells_as_the_errors_allow() -> None:
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4], [0.55, 0.45]])
    truth = np.array([0, 0, 1, 0, 0])
    assert measures.threshold_for_risk(p, truth, 0.2) == (0.55, 1.0)  # one error of five
    assert measures.threshold_for_risk(p, truth, 0.1) == (0.8, 0.4)
    assert measures.threshold_for_risk(p[2:3], truth[2:3], 0.1) is None


@given(st.integers(0, 2**32 - 1))
def test_risk_and_coverage_are_what_the_threshold_gives(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = measures.softmax(rng.normal(0, 1, (30, 3)).round(1))
    truth = rng.integers(0, 3, 30)
    for threshold, coverage, risk in zip(*measures.risk_coverage(p, truth), strict=True):
        kept = p.max(1) >= threshold
        assert coverage == pytest.approx(kept.mean())
        assert risk == pytest.approx((p.argmax(1) != truth)[kept].mean())
