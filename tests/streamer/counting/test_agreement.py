import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, fisher_exact

from streamer.counting.agreement import bland_altman, cohen_kappa, within_sampling


@pytest.mark.parametrize(
    ("count", "total", "other_total", "expected"),
    [
        (0, 100, 100, (0, 5)),  # 6 of 100 against none: p = .029, 5: .059
        (5, 100, 100, (0, 14)),
        (50, 100, 100, (36, 64)),
        (0, 200, 200, (0, 5)),
        (100, 100, 100, (95, 100)),
    ],
)
def test_what_a_second_count_may_be(count, total, other_total, expected):
    assert within_sampling(count, total, other_total) == expected


@given(st.integers(1, 60), st.integers(1, 60), st.data())
def test_the_limits_are_those_of_the_exact_test_in_both_tails(total, other_total, data):
    count = data.draw(st.integers(0, total))
    low, high = within_sampling(count, total, other_total)
    for other in range(other_total + 1):
        table = [[other, other_total - other], [count, total - count]]
        chances = [fisher_exact(table, side).pvalue for side in ("less", "greater")]
        if any(math.isclose(chance, 0.025, rel_tol=1e-9) for chance in chances):
            continue  # one in forty is .025: rounding decides in either
        assert (min(chances) <= 0.025) == (not low <= other <= high)


def test_two_samples_of_the_same_blood_differ_in_at_most_5_of_100():
    counts = np.arange(101)
    for share in (0.01, 0.06, 0.3, 0.5):
        chance = binom.pmf(counts, 100, share)
        allowed = [within_sampling(int(count), 100, 100) for count in counts]
        inside = [binom.cdf(high, 100, share) - binom.cdf(low - 1, 100, share) for low, high in allowed]
        assert chance @ np.array(inside) >= 0.95


@pytest.mark.parametrize("arguments", [(1, 0, 100), (-1, 100, 100), (5, 4, 100), (0, 100, 0)])
def test_counts_that_can_not_be(arguments):
    with pytest.raises(ValueError, match="within_sampling: got"):
        within_sampling(*arguments)


def test_the_mean_difference_and_its_limits():
    found = bland_altman([50, 60, 55, 65], [52, 61, 58, 67])
    assert found.mean == pytest.approx(2.0)
    deviation = np.std([2, 1, 3, 2], ddof=1)
    assert (found.low, found.high) == pytest.approx((2 - 1.96 * deviation, 2 + 1.96 * deviation), abs=1e-4)
    assert found.mean_high - found.mean == pytest.approx(3.1824 * deviation / 2, abs=1e-3)  # t of 3 degrees of freedom
    assert found.biased
    assert not bland_altman([50, 60], [49, 61]).biased
    with pytest.raises(ValueError, match="two or more"):
        bland_altman([1.0], [2.0])


def test_kappa_of_a_table_from_a_textbook():
    found = cohen_kappa(np.array([[20, 5], [10, 15]]))
    assert found.kappa == pytest.approx(0.4)
    assert (found.cells, found.agreed) == (50, 35)


def test_the_limits_of_kappa_are_those_of_many_draws():
    table = np.array([[80, 6, 4], [10, 70, 5], [3, 7, 65]])
    draws = np.random.default_rng(1).multinomial(table.sum(), (table / table.sum()).ravel(), 4000)
    kappas = [cohen_kappa(draw.reshape(3, 3)).kappa for draw in draws]
    found = cohen_kappa(table)
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(np.std(kappas), rel=0.05)


@pytest.mark.parametrize("table", [np.zeros((2, 2), int), np.array([[7]])])
def test_kappa_is_not_defined_without_a_second_class(table):
    found = cohen_kappa(table)
    assert (found.kappa, found.cells) == (None, table.sum())
