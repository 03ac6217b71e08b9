"""On which terms data and weights are: told once, and everywhere alike."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engines.zoo.registry import models, place, zoo_card, zoo_names
from tools.data.get import SOURCES
from tools.data.licences import OWN, TERMS, data_licences, licence_of_weights

ROOT = Path(__file__).parents[3]


def test_weights_are_under_the_licence_of_data_that_asks_for_it() -> None:
    assert licence_of_weights(["pbc", "krd"]) == OWN
    assert licence_of_weights([]) == OWN
    expected = "GPL-3.0, as the data that trained it (wbc_masks/jtsc)"
    assert licence_of_weights(["pbc", "wbc_masks/jtsc"]) == expected
    both = "GPL-3.0 and research use only, as the data that trained it (wbc_masks, all_idb2)"
    assert licence_of_weights(["wbc_masks", "all_idb2"]) == both
    with pytest.raises(ValueError, match=r"data set 'mine': got no terms, expected one of pbc, "):
        licence_of_weights(["mine"])
    assert data_licences(["wbc_masks"]) == ["wbc_masks: GPL-3.0; zxaoyou/segmentation_WBC"]


@pytest.mark.parametrize("name", zoo_names())
def test_a_card_says_the_licences_of_its_data_and_what_follows(name: str) -> None:
    card = zoo_card(name)
    sets = card.training["data"]
    assert card.licence == licence_of_weights(sets)
    assert list(card.training["data_licences"]) == data_licences(sets)
    notes = card.training.get("notes", [])
    said = " ".join([notes] if isinstance(notes, str) else notes)
    assert not re.search(r"under GPL|data\)|: MIT|CC BY", said), "said in data_licences alone"


def test_data_that_binds_weights_trains_nothing_that_ships() -> None:
    bound = {card.name for card in models() if place(card) == "shipped" and card.licence != OWN}
    assert bound == set()


def test_the_readme_has_the_licence_of_every_model() -> None:
    section = (ROOT / "README.md").read_text().partition("\n## Licence\n")[2]
    rows = re.findall(r"^\| (`.*`) \| (.*) \|$", section, re.MULTILINE)
    said = {name: licence for names, licence in rows for name in re.findall(r"`([^`]+)`", names)}
    assert said == {card.name: card.licence for card in models()}


def test_every_set_that_can_be_fetched_has_terms() -> None:
    assert {name: source.licence for name, source in SOURCES.items()} == {name: TERMS[name].licence for name in SOURCES}
