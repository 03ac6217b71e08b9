"""How the thresholds of a verdict are found, and judged on laboratories that did not choose them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from streamer.config import VerdictConfig
from streamer.records import FieldColours
from tests.cases import FIVE, always
from tests.streamer.counting.test_verdict import GOOD, KNOWN
from tools.evaluate.verdict import FITTED, SeenCell, Slide, fitted, judged, measure, slides_of, table

RULES = VerdictConfig(least_cells=1, person_classes=())


def slide(laboratory: str, novelty: float, wrong: int) -> Slide:
    """`novelty`: above the usual one of the nearest laboratory, which is 0.45."""
    return Slide(laboratory, replace(GOOD, mean_novelty=novelty + 0.45), named=100, wrong=wrong)


HOME = [slide("home", 0.001 * i, 2) for i in range(50)]
NEAR = [slide("near", 0.10, 5)]
FAR = [slide("far", 0.30, 30)]


def test_a_threshold_is_what_nearly_all_good_slides_stay_below() -> None:
    assert fitted(HOME, 0.0)["novelty_above_usual"] == pytest.approx(0.049)
    assert fitted(HOME, 0.1)["novelty_above_usual"] == pytest.approx(0.044)
    assert fitted([*HOME, *NEAR], 0.0)["novelty_above_usual"] == pytest.approx(0.10)


def test_every_laboratory_weighs_the_same_whatever_it_has_of_slides() -> None:
    assert fitted([*HOME, *NEAR], 0.45)["novelty_above_usual"] == pytest.approx(0.10)
    assert fitted([*HOME, *NEAR], 0.55)["novelty_above_usual"] < 0.05


def test_bad_slides_choose_nothing() -> None:
    assert fitted([*HOME, *FAR], 0.0) == fitted(HOME, 0.0)
    assert fitted(FAR, 0.0) == {name: getattr(VerdictConfig(), name) for name in FITTED}


def test_what_was_stopped_is_counted_by_what_is_wrong_there() -> None:
    limits = {"novelty_above_usual": 0.05}
    row = judged([*HOME, *NEAR, *FAR], limits, RULES)
    assert (row["slides"], row["bad"], row["bad_passed"], row["good"], row["good_stopped"]) == (52, 1, 0, 51, 1)
    assert row["reasons"] == {"unfamiliar": 2}
    assert row["wrong_passed"] == pytest.approx(0.02)
    assert judged(FAR, {"novelty_above_usual": 0.5}, RULES)["bad_passed"] == 1


def test_a_laboratory_is_judged_by_thresholds_of_the_others() -> None:
    result = measure({"home": HOME, "near": NEAR, "far": FAR}, 0.0, RULES)
    assert result["laboratories"]["near"]["thresholds"]["novelty_above_usual"] == pytest.approx(0.049)
    assert result["laboratories"]["near"]["left_out"]["good_stopped"] == 1
    assert result["thresholds"]["novelty_above_usual"] == pytest.approx(0.10)
    rows = table(result, ["home"], "left_out")
    assert rows[2].startswith("| `home` | yes | 50 | 0.020 | 0 | 0 |")
    assert rows[4].startswith("| `far` | no | 1 | 0.300 | 1 | 1 |")


def test_a_slide_of_a_laboratory_is_a_patient_or_drawn_from_all_its_cells() -> None:
    classifier = always(0)  # a neutrophil

    def cell(slide: str, class_name: str) -> SeenCell:
        sure = [0.9, *[0.025] * 4]
        colours = FieldColours((0.1, 0.1, 0.1), (0.3, 0.5, 0.2), 20)
        return SeenCell("home", slide, class_name, sure, None, colours, [50.0] * 20)

    patients = [cell("one", FIVE[0])] * 60 + [cell("two", FIVE[1])] * 50 + [cell("three", FIVE[1])] * 10
    one, two = slides_of(patients, classifier, KNOWN, draws=3)
    assert (one.evidence.white_cells, one.wrong_share, one.is_bad) == (60, 0.0, False)
    assert (two.evidence.white_cells, two.wrong_share, two.is_bad) == (50, 1.0, True)
    assert one.evidence.rbc_px == pytest.approx(50, rel=0.03)
    drawn = slides_of([cell("", FIVE[0])] * 30, classifier, KNOWN, draws=3)
    assert [made.evidence.white_cells for made in drawn] == [100] * 3
