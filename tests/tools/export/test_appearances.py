"""How the pictures look that trained a classifier, as tables of its card."""

from __future__ import annotations

import numpy as np

from engines.zoo.card import parse_card
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
