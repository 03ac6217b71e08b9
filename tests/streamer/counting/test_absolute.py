"""Absolute counts: percentages times a white-cell count from elsewhere, corrected only where it is said to need it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.counting.absolute import described
from streamer.counting.differential import share
from streamer.records import Differential, SlideInfo


def counted(counts: dict[str, int], unclassified: int = 0, nrbc: int = 0, not_assessed: tuple[str, ...] = ()):
    total = sum(counts.values()) + unclassified
    return Differential(
        total=total,
        classes={name: share(count, total) for name, count in counts.items()},
        limits_method="clopper-pearson",
        unclassified=unclassified,
        nrbc=nrbc,
        nrbc_per_100_wbc=100 * nrbc / total if total else None,
        flags=(),
        not_assessed=not_assessed,
        rbc_seen=0,
        platelets_seen=0,
        frames=1,
        frames_accepted=1,
        final=True,
    )


TWO_HUNDRED = counted({"neutrophil": 120, "lymphocyte": 60}, unclassified=20, nrbc=20)


def absolute(found: Differential, **said: object):
    wbc = described(found, SlideInfo(**said)).wbc
    assert wbc is not None
    return wbc


def test_each_class_has_its_share_of_the_count_and_limits_are_scaled():
    wbc = absolute(TWO_HUNDRED, wbc=5.0)
    assert (wbc.white_cells, wbc.corrected) == (5.0, False)
    assert {name: one.value for name, one in wbc.classes.items()} == {
        "neutrophil": 3.0,
        "lymphocyte": 1.5,
        "unclassified": 0.5,
    }
    percent, one = TWO_HUNDRED.classes["neutrophil"], wbc.classes["neutrophil"]
    assert (one.low, one.high) == (5.0 * percent.low / 100, 5.0 * percent.high / 100)
    assert wbc.note == "white-cell count from elsewhere, 5 x 10^9/L, not corrected for nucleated red cells"


def test_nucleated_red_cells_are_taken_out_of_a_count_that_is_said_to_include_them():
    wbc = absolute(TWO_HUNDRED, wbc=11.0, wbc_includes_nrbc=True)  # 10 of 100: 11 x 100 / 110
    assert (wbc.white_cells, wbc.corrected) == (pytest.approx(10.0), True)
    assert wbc.classes["neutrophil"].value == pytest.approx(6.0)
    assert "corrected to 10 for 10.0 nucleated red cells per 100 white cells" in wbc.note


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (counted({"neutrophil": 5}, not_assessed=("erythroblast",)), "the models have no class for them"),
        (counted({"neutrophil": 0}), "no white cell was counted yet"),
    ],
)
def test_a_correction_that_can_not_be_made_leaves_no_counts_and_is_said(found, why):
    wbc = absolute(found, wbc=11.0, wbc_includes_nrbc=True)
    assert (wbc.white_cells, wbc.corrected, wbc.classes) == (None, False, {})
    assert why in wbc.note


def test_of_no_cells_there_are_no_counts_rather_than_zeros():
    one = absolute(counted({"neutrophil": 0}), wbc=6.2).classes["neutrophil"]
    assert (one.value, one.low, one.high) == (None, None, None)


def test_without_a_count_there_is_nothing_and_without_words_no_slide():
    assert described(TWO_HUNDRED, SlideInfo(name="B-17")).wbc is None
    assert described(TWO_HUNDRED, SlideInfo()).slide is None
    same = msgspec.structs.replace(described(TWO_HUNDRED, SlideInfo(wbc=6.2)), slide=None, wbc=None)
    assert same == TWO_HUNDRED


@given(st.lists(st.integers(0, 300), min_size=1, max_size=6), st.integers(1, 50), st.integers(0, 90), st.booleans())
def test_the_classes_make_up_the_white_cells(counts, unclassified, nrbc, includes):
    found = counted({f"class {n}": count for n, count in enumerate(counts)}, unclassified, nrbc)
    wbc = absolute(found, wbc=7.5, wbc_includes_nrbc=includes)
    assert sum(one.value for one in wbc.classes.values()) == pytest.approx(wbc.white_cells)
    assert wbc.white_cells <= 7.5
    for one in wbc.classes.values():
        assert 0 <= one.low <= one.value <= one.high <= wbc.white_cells + 1e-9
