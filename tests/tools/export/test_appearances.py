"""How the pictures look that trained a classifier, as tables of its card."""

from __future__ import annotations

import numpy as np
import pytest

from engines.models.loading import load_classifier, load_detector
from engines.zoo.card import parse_card
from streamer.config import DEFAULT_CLASSIFIER, DEFAULT_DETECTOR
from streamer.sources import simulated
from tools.data.squares import SIMULATED_RED_PX
from tools.evaluate.whole_run import run_over
from tools.export import appearances
from tools.export.appearances import GROUPS, Look, appearances_of, with_appearances

CARD = """task = "classifier"
[input]
height_px = 32
width_px = 32

[[classes]]
name = "neutrophil"
kind = "white"

[training]
data = ["home"]
"""
FIGURES = """
[[figures]]
dataset = "home"
part = "holdout"
command = "measure"
accuracy_classified = 0.9
"""


def looks() -> list[Look]:
    """Two stains, forty pictures and ten."""
    rng = np.random.default_rng(0)
    middles = [(0.1, 0.1, 0.1, 0.3, 0.5, 0.2)] * 40 + [(0.4, 0.2, 0.1, 0.2, 0.3, 0.1)] * 10
    return [Look(tuple(rng.normal(middle, 0.005)), [50.0 if i < 40 else 30.0]) for i, middle in enumerate(middles)]


def test_pictures_of_two_stains_are_groups_of_their_own() -> None:
    rows = appearances_of("home", looks())
    assert 2 <= len(rows) <= GROUPS
    for row in rows:
        wide = row["rbc_diameter_px"] == 50.0
        assert np.allclose(row["red"], (0.3, 0.5, 0.2) if wide else (0.2, 0.3, 0.1), atol=0.02)
    assert {row["rbc_diameter_px"] for row in rows} == {50.0, 30.0}
    assert appearances_of("home", looks()[:2]) == []


def test_the_card_reads_what_was_written_and_keeps_the_rest() -> None:
    rows = appearances_of("home", looks())
    for text in (CARD, CARD + FIGURES):
        plain, written = parse_card(text, "x", stem="x"), with_appearances(text, rows)
        card = parse_card(written, "x", stem="x")
        assert [one.laboratory for one in card.appearances] == ["home"] * len(rows)
        assert list(card.appearances[0].red) == rows[0]["red"]
        assert (card.training, card.figures, card.classes) == (plain.training, plain.figures, plain.classes)
        assert with_appearances(written, rows) == written


@pytest.mark.lengthy
def test_usual_novelty_is_that_of_the_cells_which_a_run_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appearances, "PICTURES", 16)
    classifier = load_classifier(DEFAULT_CLASSIFIER)
    usual = appearances.usual_novelty(classifier, ["simulated", "no set"])
    assert list(usual) == ["simulated"]
    fields = simulated.training_fields(2, 8, 640, 480, red_px=SIMULATED_RED_PX)
    session = run_over((image for image, *_ in fields), load_detector(DEFAULT_DETECTOR), classifier)
    assert session.count.total > 8
    assert usual["simulated"] == pytest.approx(session.count.novelty().mean, abs=5e-4)
