"""Slides that are mixed of single cells: what they hold, and what the stream makes of them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra `train`")

from engines.zoo.card import SubclassEntry  # noqa: E402
from engines.zoo.slide_flags import SlideFlag  # noqa: E402
from streamer.counting.decision import ClassDecision  # noqa: E402
from tests.cases import always  # noqa: E402
from tests.tools.metrics.predicted import predicted  # noqa: E402
from tools.commands import start  # noqa: E402
from tools.data import ABNORMAL_CLASSES, ABNORMAL_SUBCLASSES  # noqa: E402
from tools.evaluate import mixed_slides  # noqa: E402
from tools.evaluate.mixed_slides import NORMAL, SCENARIOS, Scenario, judged, shares_of, summary, table  # noqa: E402
from tools.metrics.slide_flags import flag_cells  # noqa: E402

FIVE = dict.fromkeys(("neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil"), 60)
ABNORMAL = {"blast": 60, "promonocyte": 10, "smudge cell": 20, "variant lymphocyte": 20, "erythroblast": 20}
FOUND = {
    "home": predicted(FIVE, seed=1, patients=[""] * 300),
    "clinic": predicted(FIVE | ABNORMAL, seed=2, patients=[f"patient {i % 2}" for i in range(430)]),
}
FLAG = SlideFlag("blast", above=0.5, false_rate=0.0005)


def classifier():
    plain = always(0, classes=ABNORMAL_CLASSES)
    subclasses = tuple(SubclassEntry(name, parent) for name, parent in ABNORMAL_SUBCLASSES.items())
    plain.card = replace(plain.card, subclasses=subclasses)
    return plain


def results(name: str, slides: int = 12):
    own = classifier()
    decision = replace(ClassDecision.of(own), slide_flags=(FLAG,))
    scenario = next(one for one in SCENARIOS if one.name == name)
    return judged(flag_cells(FOUND), scenario, own, decision, slides)


@pytest.mark.parametrize(
    ("name", "flagged"),
    [
        (NORMAL, 0),
        ("leukopenia, 30 cells", 0),
        ("5 % blasts", 1),
        ("all blasts", 1),
        ("monocytosis beside monoblasts", 1),
    ],
)
def test_sure_predictions_flag_the_slides_with_blasts_and_no_others(name, flagged):
    made = results(name)
    assert summary(made)["flagged_blast"] == flagged
    assert {sum(one.truth.values()) for one in made} == {30 if "30" in name else 200}


def test_a_normal_slide_has_the_cells_of_one_laboratory_and_its_true_shares():
    made = results(NORMAL)
    assert [one.laboratory for one in made[:2]] == ["clinic", "home"]
    figures = summary(made)
    assert set(figures["flagged_blast_by_laboratory"]) == {"clinic", "home"}
    for name, (got, true) in figures["percent"].items():
        assert got == pytest.approx(true, abs=1.5), name
    assert figures["percent"]["neutrophil"][1] == pytest.approx(57, abs=6)  # the middles of the ranges make 87.5 %


def test_lymphocytes_and_smudge_cells_of_cll_are_flagged_and_the_count_is_incomplete():
    figures = summary(results("CLL"))
    assert figures["flags"]["lymphocyte high"] == 1
    assert figures["verdicts"] == {"incomplete": 1}
    assert figures["reasons"]["smudge_cells"] == 1
    assert figures["smudge_per_100_wbc"] == pytest.approx(30, abs=4)
    assert figures["percent"]["lymphocyte"] == pytest.approx((95, 95), abs=3)


def test_nucleated_red_cells_stand_beside_the_white_ones():
    figures = summary(results("newborn, nucleated red cells"))
    assert figures["flags"]["erythroblast seen"] == 1
    assert figures["nrbc_per_100_wbc"] == pytest.approx(10, abs=3)


def test_shares_vary_as_those_of_healthy_people_do():
    rng = np.random.default_rng(0)
    drawn = [shares_of(Scenario("x", percent={"blast": 20}), rng) for _ in range(300)]
    assert all(sum(one.values()) == pytest.approx(100) for one in drawn)
    assert {one["blast"] for one in drawn} == {20}
    monocytes = np.array([one["monocyte"] / 0.8 for one in drawn])
    assert 0.85 < ((monocytes > 2) & (monocytes < 8.5)).mean() < 1


def test_a_scenario_without_cells_says_so():
    none = judged(flag_cells({"home": FOUND["home"]}), SCENARIOS[-6], classifier(), ClassDecision.of(classifier()), 5)
    assert none == []
    assert table({"all blasts": summary(none)})[2] == "| all blasts | – | no laboratory has the cells | | | |"


def test_the_table_has_a_row_a_scenario():
    [_, _, row] = table({NORMAL: summary(results(NORMAL))})
    assert row.startswith("| normal | 12 | 0.000 | ")
    assert "neutrophil" in row


def test_a_classifier_without_blasts_is_refused_in_a_line(capsys, monkeypatch):
    monkeypatch.setattr(mixed_slides, "load_classifier", lambda *_, **__: always(0))
    assert start("tools.evaluate", "mixed-slides", []) == 1
    error = capsys.readouterr().err
    assert "without a class 'blast'" in error
    assert error.count("\n") == 1


def test_the_command_prints_the_table_and_chooses_what_the_card_lacks(tmp_path, capsys, monkeypatch):
    large = {name: predicted({**dict.fromkeys(FIVE, 60), **ABNORMAL}, seed=i) for i, name in enumerate(("a", "b"))}
    own = classifier()
    monkeypatch.setattr(mixed_slides, "load_classifier", lambda *_, **__: own)
    monkeypatch.setattr(mixed_slides, "cells_of", lambda *_: large)
    for flags, said in (
        ((), "the card has no slide_flags"),
        ((FLAG,), "flags of the card: blast from 0.5"),
    ):
        own.card = replace(own.card, slide_flags=flags)
        assert start("tools.evaluate", "mixed-slides", ["--slides", "2", "--json", str(tmp_path / "out.json")]) == 0
        assert said in capsys.readouterr().out
    written = json.loads((tmp_path / "out.json").read_text())
    assert set(written["scenarios"]) == {one.name for one in SCENARIOS}
    assert written["slide_flags"][0]["above"] == 0.5
    assert written["scenarios"]["all blasts"]["flagged_blast"] == 1


def test_stored_predictions_come_back():
    found = FOUND["clinic"]
    again = mixed_slides._restored(json.loads(json.dumps(mixed_slides._stored(found))))
    for name in ("probabilities", "subclass_probabilities", "classes", "subclasses", "novelty", "patients"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
