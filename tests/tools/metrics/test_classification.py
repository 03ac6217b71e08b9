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
    rows = measures.per_class(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0]), ("a", "b", "c"))
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


def limits_of(hits: np.ndarray, clusters: list[str] | None) -> tuple[float, float]:
    found = measures.share_of(hits, clusters).as_dict()
    return found["low"], found["high"]  # type: ignore[return-value]


def test_cells_of_a_slide_say_less_than_as_many_slides() -> None:
    hits = np.repeat([True, True, True, True, False, True], 10)
    alone = limits_of(hits, None)
    assert limits_of(hits, [str(i) for i in range(60)]) == alone
    low, high = limits_of(hits, [str(i // 10) for i in range(60)])
    assert low < alone[0] - 0.1
    assert high > alone[1] + 0.05
    assert limits_of(hits, [str(i // 10) for i in range(60)]) == (low, high)  # seeded


def test_slides_that_are_alike_within_and_without_cost_little() -> None:
    hits = np.tile([True] * 8 + [False] * 2, 30)
    low, high = limits_of(hits, [str(i // 10) for i in range(300)])
    alone = limits_of(hits, None)
    assert (low, high) == pytest.approx(alone, abs=0.01)


def test_where_nothing_is_wrong_a_slide_counts_once() -> None:
    assert limits_of(np.ones(50, bool), [str(i // 10) for i in range(50)]) == measures.clopper_pearson(5, 5)
    assert limits_of(np.ones(4, bool), ["one"] * 4) == measures.clopper_pearson(1, 1)
    assert measures.share_of(np.ones(0, bool), []).as_dict()["low"] is None


def test_limits_of_clusters_hold_as_often_as_they_say_where_those_of_single_cells_do_not() -> None:
    """300 draws of nine slides that differ (intraclass correlation .09) with some sixty cells each."""
    rng = np.random.default_rng(0)
    truth, held, held_alone = 0.7, 0, 0
    for _ in range(300):
        shares = rng.beta(10 * truth, 10 * (1 - truth), 9)
        sizes = rng.poisson(60, 9) + 1
        hits = rng.random(sizes.sum()) < np.repeat(shares, sizes)
        clusters = np.repeat(np.arange(9), sizes).astype(str).tolist()
        (low, high), (low_alone, high_alone) = limits_of(hits, clusters), limits_of(hits, None)
        held += low <= truth <= high
        held_alone += low_alone <= truth <= high_alone
    assert held >= 0.93 * 300
    assert held_alone < 0.7 * 300


def test_every_share_of_the_figures_knows_the_clusters() -> None:
    p = np.array([[0.9, 0.1]] * 12 + [[0.2, 0.8]] * 8)
    truth = np.array([0] * 10 + [1] * 10)
    clusters = [str(i // 5) for i in range(20)]
    together = measures.figures(p, truth, ("a", "b"), 0.5, clusters=clusters)
    alone = measures.figures(p, truth, ("a", "b"), 0.5)
    for name in ("accuracy", "accuracy_classified"):
        assert together[name]["value"] == alone[name]["value"]
        assert together[name]["low"] < alone[name]["low"]
    assert together["classes"]["b"]["recall"]["low"] < alone["classes"]["b"]["recall"]["low"]


def test_thresholds_are_those_that_other_groups_choose() -> None:
    rng = np.random.default_rng(1)
    n = 400
    confidence = rng.uniform(0.5, 1, n)
    p = np.stack([confidence, 1 - confidence], 1)
    truth = (rng.random(n) > confidence).astype(int)
    groups = [str(i // 2) for i in range(n)]
    found = measures.thresholds_of_others(p, truth, groups, 0.1, 0.9)
    assert len(set(found.tolist())) > 1
    assert all(found[2 * i] == found[2 * i + 1] for i in range(n // 2))
    changed = truth.copy()
    changed[:2] = 1 - changed[:2]  # what is measured has no part in its own threshold
    again = measures.thresholds_of_others(p, changed, groups, 0.1, 0.9)
    assert (again[:2] == found[:2]).all()
    assert (again != found).any()
    all_wrong = np.ones(n, int)
    assert measures.thresholds_of_others(p, all_wrong, groups, 0.1, 0.9).tolist() == [0.9] * n
