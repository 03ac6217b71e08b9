import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.special import betaln, xlog1py, xlogy

from streamer.counting.differential import (
    CLOPPER_PEARSON,
    CONFIDENCE_SEQUENCE,
    LIMITS,
    Tally,
    confidence_sequence,
    differential,
    share,
    widest,
)
from streamer.intervals import clopper_pearson

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
    for limits in LIMITS.values():
        with pytest.raises(ValueError, match=f"got {count} of {total}"):
            limits(count, total)


def test_nothing_counted_is_no_percentage():
    assert share(0, 0).percent is None
    empty = differential(Tally(classes={}), FIVE)
    assert empty.total == 0
    assert empty.nrbc_per_100_wbc is None
    assert all(item.percent is None and item.low is None for item in empty.classes.values())
    assert (empty.flags, empty.not_seen, widest(empty.classes.values())) == ((), {}, None)


def test_unclassified_is_in_the_total_and_erythroblasts_and_platelets_are_not():
    tally = Tally(classes={"neutrophil": 6, "unclassified": 4, "erythroblast": 5, "platelet": 7})
    result = differential(tally, (*FIVE, "erythroblast", "platelet"))
    assert result.total == 10
    assert result.classes["neutrophil"].percent == 60.0
    assert set(result.classes) == set(FIVE)
    assert (result.unclassified, result.nrbc, result.nrbc_per_100_wbc) == (4, 5, 50.0)


def test_what_else_was_counted_is_told_as_it_is():
    tally = Tally(classes={"neutrophil": 1}, rbc=900, platelets=40, frames=7, frames_accepted=5)
    result = differential(tally, FIVE, method=CONFIDENCE_SEQUENCE, final=True)
    assert (result.rbc_seen, result.platelets_seen, result.frames, result.frames_accepted) == (900, 40, 7, 5)
    assert (result.final, result.limits_method) == (True, CONFIDENCE_SEQUENCE)


@pytest.mark.parametrize("name", ["erythroblast", "platelet", "artefact", "smudge cell"])
def test_what_is_no_leukocyte_is_in_no_denominator(name):
    counted = Tally(classes={"neutrophil": 30, "lymphocyte": 10, name: 10})
    result = differential(counted, (*FIVE, name))
    assert (result.total, result.classes["neutrophil"].percent) == (40, 75.0)
    assert name not in result.classes


def test_subclasses_have_the_limits_of_the_method_that_is_told():
    tally = Tally(classes={"neutrophil": 100}, subclasses={"band neutrophil": 0, "metamyelocyte": 7})
    running = differential(tally, ALL, subclass_names=SUBCLASSES, method=CONFIDENCE_SEQUENCE)
    assert running.not_seen["band neutrophil"] == 100 * confidence_sequence(0, 100)[1]


def test_what_is_no_cell_is_counted_apart_by_a_model_that_can_name_it():
    counted = Tally(classes={"neutrophil": 40, "smudge cell": 6, "artefact": 3}, edge=5)
    result = differential(counted, (*FIVE, "smudge cell", "artefact"))
    assert (result.total, result.edge, result.smudge, result.smudge_per_100_wbc, result.artefacts) == (40, 5, 6, 15, 3)
    assert (of_five := differential(Tally(classes={"neutrophil": 40}), FIVE)).smudge is None
    assert (of_five.smudge_per_100_wbc, of_five.artefacts, of_five.edge) == (None, None, 0)
    assert differential(Tally(classes={}), (*FIVE, "smudge cell")).smudge_per_100_wbc is None


def test_where_the_size_of_the_cells_moves_a_percentage_by_more_than_a_point_is_said():
    counts = {"neutrophil": 60, "lymphocyte": 38, "unclassified": 2, "erythroblast": 50}
    weights = {"neutrophil": 93.0, "lymphocyte": 55.0, "unclassified": 2.0, "erythroblast": 70.0}
    result = differential(Tally(classes=counts, weights=weights), FIVE)
    corrected = {name: share.percent_size_corrected for name, share in result.classes.items()}
    assert corrected == pytest.approx(
        {"neutrophil": 62.0, "lymphocyte": 55 / 1.5, "monocyte": 0, "eosinophil": 0, "basophil": 0}
    )
    assert result.size_bias == pytest.approx({"neutrophil": 2.0, "lymphocyte": 55 / 1.5 - 38})
    slightly = differential(Tally(classes=counts, weights={**counts, "neutrophil": 61.0}), FIVE)
    assert (slightly.size_bias, slightly.classes["neutrophil"].percent_size_corrected) == ({}, 100 * 61 / 101)
    unknown = differential(Tally(classes=counts), FIVE)
    assert (unknown.classes["neutrophil"].percent_size_corrected, unknown.size_bias) == (None, {})


ALL = (*FIVE, "immature granulocyte", "erythroblast", "platelet")
SUBCLASSES = ("band neutrophil", "segmented neutrophil", "metamyelocyte", "myelocyte", "promyelocyte")


def test_what_the_model_cannot_see_is_not_assessed():
    of_all = differential(Tally(classes={}), ALL, subclass_names=SUBCLASSES)
    assert of_all.not_assessed == ("blast", "variant lymphocyte", "smudge cell", "plasma cell")
    with_blasts = differential(Tally(classes={}), (*ALL, "blast"), subclass_names=SUBCLASSES)
    assert "blast" not in with_blasts.not_assessed


def test_nucleated_red_cells_that_the_detector_names_are_assessed():
    found = differential(Tally(classes={"neutrophil": 9, "erythroblast": 2}), FIVE)
    assert "erythroblast" not in found.not_assessed
    assert "erythroblast" in differential(Tally(classes={"neutrophil": 9}), FIVE).not_assessed


def test_a_flag_or_a_range_that_can_never_be_raised_is_not_assessed():
    ranges = {"neutrophil": (40.0, 60.0), "band neutrophil": (0.0, 10.0)}
    of_few = differential(Tally(classes={"neutrophil": 9}), ("neutrophil", "lymphocyte"), ranges=ranges)
    missing = {"promyelocyte", "myelocyte", "metamyelocyte", "erythroblast", "band neutrophil", "blast"}
    assert missing <= set(of_few.not_assessed)
    assert "neutrophil" not in of_few.not_assessed
    assert not missing & of_few.not_seen.keys()


def test_of_what_was_not_seen_the_upper_limit_is_told_where_the_card_lists_it():
    tally = Tally(classes={"neutrophil": 99, "unclassified": 1}, subclasses={"band neutrophil": 4})
    result = differential(tally, ALL, subclass_names=SUBCLASSES)
    assert set(result.not_seen) == {
        *FIVE[1:],
        "immature granulocyte",
        "segmented neutrophil",
        "metamyelocyte",
        "myelocyte",
        "promyelocyte",
    }
    assert set(result.not_seen.values()) == {result.classes["basophil"].high}
    assert result.not_seen["basophil"] == pytest.approx(3.62, abs=0.01)
    assert "sampling only" in result.limits_note


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_limits_valid_at_every_look_are_wider_than_those_of_one_look(case):
    count, total = case
    low, high = confidence_sequence(count, total)
    fixed_low, fixed_high = clopper_pearson(count, total)
    assert low <= fixed_low <= fixed_high <= high


@given(st.integers(1, 100_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
@example((1, 1))
@example((1_000_000, 1_000_000))
@example((1, 1_000_000))
@example((500_000, 1_000_000))
def test_limits_are_where_the_betting_refutes_a_proportion(case):
    count, total = case
    low, high = confidence_sequence(count, total)
    refuted = float(betaln(count + 1, total - count + 1)) + math.log(0.05)
    accuracy = 1e-9 * total + 1e-6
    for limit, trivial in ((low, count == 0), (high, count == total)):
        if not trivial:
            assert float(xlogy(count, limit) + xlog1py(total - count, -limit)) == pytest.approx(refuted, abs=accuracy)
    assert (low == 0.0, high == 1.0) == (count == 0, count == total)


# Limits by arithmetic: of x = 0 of n, M_n = 1 / ((n + 1) (1 - p)^n) reaches 20 where p = 1 - (0.05 / (n + 1))^(1 / n).
@pytest.mark.parametrize("total", [1, 10, 100, 1000])
def test_the_upper_limit_of_nothing_seen_has_a_closed_form(total):
    low, high = confidence_sequence(0, total)
    assert (low, high) == (0.0, pytest.approx(1 - (0.05 / (total + 1)) ** (1 / total), rel=1e-8))


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
    always, _ = coverage(confidence_sequence, proportion, looks=400, runs=600, rng=rng)
    assert always >= 0.95
    _, last = coverage(clopper_pearson, proportion, looks=200, runs=600, rng=rng)
    assert last >= 0.935  # 0.95 promised; the standard error of 600 runs is 0.009


def test_looking_all_the_time_breaks_limits_made_for_one_look():
    rng = np.random.default_rng(12)
    always, _ = coverage(clopper_pearson, 0.3, looks=400, runs=200, rng=rng)
    assert always < 0.9


def stopped_counts(proportions, half_width, method, rng):
    """The counts at which --stop-at-precision ends a slide of these proportions."""
    names = [f"class {i}" for i in range(len(proportions))]
    counts = np.zeros(len(proportions), np.int64)
    while True:
        counts += rng.multinomial(10, proportions)
        so_far = differential(Tally(classes=dict(zip(names, counts.tolist(), strict=True))), names, method=method)
        half = widest(so_far.classes.values())
        if half is not None and half <= half_width:
            return so_far


def test_the_limits_hold_where_the_rule_stops():
    proportions = (0.55, 0.32, 0.1, 0.03)
    rng = np.random.default_rng(13)
    held = np.zeros(len(proportions))
    totals = []
    for _ in range(300):
        stopped = stopped_counts(proportions, 9.0, CONFIDENCE_SEQUENCE, rng)
        shares = stopped.classes.values()
        held += [one.low <= 100 * p <= one.high for one, p in zip(shares, proportions, strict=True)]
        totals.append(stopped.total)
    assert (held / 300).min() >= 0.95
    assert 200 <= np.median(totals) <= 350


def test_a_rule_that_stops_when_a_class_leaves_its_range_is_honest_with_limits_for_every_look_only():
    """The tempting rule: look on until something is flagged. The proportion is at the edge of its range."""
    rng = np.random.default_rng(14)
    wrong = dict.fromkeys(LIMITS, 0)
    for _ in range(400):
        counts = (rng.random(400) < 0.6).cumsum()
        for method in LIMITS:
            wrong[method] += any(share(int(counts[n - 1]), n, method).low > 60 for n in range(10, 401, 10))
    assert wrong[CONFIDENCE_SEQUENCE] <= 10  # 2.5 %, and each limit promises no more
    assert wrong[CLOPPER_PEARSON] >= 24


def test_the_widest_of_all_classes_counts_zero_ones_too():
    result = differential(Tally(classes={"neutrophil": 5, "unclassified": 5}), FIVE, method=CONFIDENCE_SEQUENCE)
    shares = result.classes
    assert widest(shares.values()) == (shares["neutrophil"].high - shares["neutrophil"].low) / 2
    assert widest([shares["basophil"]]) == shares["basophil"].high / 2
