"""Figures of a card: found by data set, view and part, written as they are read."""

from __future__ import annotations

import pytest

from engines.base import CardError
from engines.zoo.figures import figure_tables, read_figures
from engines.zoo.registry import zoo_card
from engines.zoo.table import Table

ROWS = [
    {"dataset": "bccd_crops", "view": "whole", "part": "holdout", "command": "measure", "accuracy": 0.8},
    {"dataset": "bccd_crops", "part": "holdout", "command": "measure", "accuracy": 0.9},
    {"dataset": "wbc_masks/jtsc", "part": "test", "command": "measure", "accuracy": 0.7},
]


def test_a_figure_is_found_by_data_set_view_and_part() -> None:
    found = read_figures(Table({"figures": ROWS}, "x.toml"))
    assert found["bccd_crops", "whole", "holdout"] == {"command": "measure", "accuracy": 0.8}
    assert found["bccd_crops", "", "holdout"]["accuracy"] == 0.9
    assert figure_tables(found) == ROWS
    assert [str(measured_on) for measured_on in found][::2] == ["bccd crops whole holdout", "wbc masks jtsc test"]


def test_figures_of_a_card_that_ships_are_found() -> None:
    figures = zoo_card("mobilenetv3-small").figures
    assert figures["pbc", "", "validation"]["cells"] == 1485
    assert figures["wbc_masks/jtsc", "whole", "validation"]["classified"] == 0.64
    assert figures["txl_pbc", "left out", "validation"]["accuracy"] == 0.8314
    assert zoo_card("yolov5n-blood").figures["bccd", "as labelled", "validation"]["map50_low"] == 0.839


def test_the_same_data_twice_is_refused() -> None:
    with pytest.raises(CardError, match=r"x.toml: \[\[figures\]\] 3: got .* bccd crops whole holdout twice"):
        read_figures(Table({"figures": [ROWS[0], ROWS[2], ROWS[0]]}, "x.toml"))
