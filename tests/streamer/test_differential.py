import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.differential import Tally, clopper_pearson, confidence_sequence, differential, share

FIVE = ("neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil")

# Ruemke's table as printed in the laboratory: limits rounded outward to whole per cent.
RUEMKE = [
    (0, 100, 0, 4),
    (1, 100, 0, 6),
    (5, 100, 1, 12),
    (9, 100, 4, 17),
    (10, 100, 4, 18),
    (20, 100, 12, 30),
    (50, 100, 39, 61),
    (0, 200, 0, 2),
    (20, 200, 6, 16),
    (100, 200, 42, 58),
]


@pytest.mark.parametrize(("count", "total", "low", "high"), RUEMKE)
def test_limits_are_those_of_ruemkes_table(count, total, low, high):
    got_low, got_high = clopper_pearson(count, total)
    assert (math.floor(100 * got_low), math.ceil(100 * got_high)) == (low, high)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_limits_enclose_the_percentage_and_mirror(case):
    count, total = case
    low, high = clopper_pearson(count, total)
    assert 0.0 <= low <= count / total <= high <= 1.0
    mirrored_low, mirrored_high = clopper_pearson(total - count, total)
    assert math.isclose(low, 1 - mirrored_high, abs_tol=1e-9)
    assert math.isclose(high, 1 - mirrored_low, abs_tol=1e-9)


@pytest.mark.parametrize(("count", "total"), [(-1, 5), (6, 5), (0, 0)])
def test_impossible_counts_are_refused(count, total):
    with pytest.raises(ValueError, match=f"got {count} of {total}"):
        clopper_pearson(count, total)


def test_nothing_counted_is_no_percentage():
    assert share(0, 0).percent is None
    empty = differential(Tally(classes={}), FIVE)
    assert empty.total == 0
    assert empty.nrbc_per_100_wbc is None
    assert all(item.percent is None and item.low is None for item in empty.classes.values())
    assert empty.flags == ()


def test_unclassified_is_in_the_total_and_erythroblasts_and_platelets_are_not():
    tally = Tally(classes={"neutrophil": 6, "unclassified": 4, "erythroblast": 5, "platelet": 7})
    result = differential(tally, (*FIVE, "erythroblast", "platelet"))
    assert result.total == 10
    assert result.classes["neutrophil"].percent == 60.0
    assert set(result.classes) == set(FIVE)
    assert (result.unclassified, result.nrbc, result.nrbc_per_100_wbc) == (4, 5, 50.0)


def test_a_range_is_flagged_only_when_the_whole_interval_is_outside():
    near = differential(Tally(classes={"neutrophil": 66, "lymphocyte": 34}), FIVE)
    assert not any(flag.startswith("neutrophil") for flag in near.flags)  # 66 % of 100: 55.8-75.2 % reaches 60 %
    far = differential(Tally(classes={"neutrophil": 80, "lymphocyte": 20}), FIVE)
    assert [flag.split(":")[0] for flag in far.flags] == ["neutrophil high"]


def test_left_shift_and_nucleated_red_cells_are_flagged():
    tally = Tally(
        classes={"neutrophil": 50, "immature granulocyte": 50, "erythroblast": 1},
        subclasses={"myelocyte": 1, "metamyelocyte": 20},
    )
    names = (*FIVE, "immature granulocyte", "erythroblast")
    flags = differential(tally, names, subclass_names=("myelocyte", "metamyelocyte")).flags
    assert "myelocytes seen" in flags
    assert "metamyelocytes above 2 %" in flags
    assert "nucleated red cells seen" in flags


def test_what_the_model_cannot_see_is_not_assessed():
    assert "blast" in differential(Tally(classes={}), FIVE).not_assessed
    assert "blast" not in differential(Tally(classes={}), (*FIVE, "blast")).not_assessed


def test_a_class_known_but_not_seen_has_an_upper_limit():
    result = differential(Tally(classes={"neutrophil": 100}), FIVE)
    assert result.classes["basophil"].count == 0
    assert result.classes["basophil"].high == pytest.approx(3.62, abs=0.01)


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_limits_valid_at_every_look_are_wider_than_those_of_one_look(case):
    count, total = case
    low, high = confidence_sequence(count, total)
    fixed_low, fixed_high = clopper_pearson(count, total)
    assert low <= fixed_low <= fixed_high <= high


def coverage(limits, proportion, looks, runs, rng):
    """(share of runs in which the limits held at every look, share in which they held at the last one)."""
    at_every_look = at_the_last = 0
    for _ in range(runs):
        counts = (rng.random(looks) < proportion).cumsum()
        held = []
        for n in range(10, looks + 1, 10):
            low, high = limits(int(counts[n - 1]), n)
            held.append(low <= proportion <= high)
        at_every_look += all(held)
        at_the_last += held[-1]
    return at_every_look / runs, at_the_last / runs


@pytest.mark.parametrize("proportion", [0.03, 0.3, 0.6])
def test_coverage_is_what_each_method_promises(proportion):
    rng = np.random.default_rng(11)
    always, _ = coverage(confidence_sequence, proportion, looks=200, runs=150, rng=rng)
    assert always >= 0.93  # 0.95 promised; a binomial deviation of 150 runs is 0.018
    _, last = coverage(clopper_pearson, proportion, looks=200, runs=150, rng=rng)
    assert last >= 0.93


def test_looking_all_the_time_breaks_limits_made_for_one_look():
    rng = np.random.default_rng(12)
    always, _ = coverage(clopper_pearson, 0.3, looks=400, runs=200, rng=rng)
    assert always < 0.9
