"""The file of home cells: what it keeps, and what is no such file."""

from __future__ import annotations

import numpy as np
import pytest

from engines.base import CardError
from engines.graphs.last_layer import last_layer
from engines.zoo.home import HomeCells, read_home
from engines.zoo.registry import find, home_cells, zoo_card, zoo_names
from streamer.config import DEFAULT_CLASSIFIER

CELLS = HomeCells(
    np.random.default_rng(0).normal(0, 3, (30, 8)).astype(np.float32), ("blast", "lymphocyte") * 15, "a" * 64
)


def test_cells_come_back_but_for_the_steps() -> None:
    again = read_home(CELLS.to_bytes(), "here", model_sha256="a" * 64)
    assert again.classes == CELLS.classes
    step = (CELLS.features.max(0) - CELLS.features.min(0)) / 255
    assert (np.abs(again.features - CELLS.features) <= step / 2 + 1e-5).all()


@pytest.mark.parametrize(
    ("data", "sha256", "words"),
    [
        (CELLS.to_bytes(), "b" * 64, "home cells of another model"),
        (CELLS.to_bytes()[:200], "a" * 64, "no file of home cells"),
        (b"words", "a" * 64, "no file of home cells"),
        (b"", "a" * 64, "no file of home cells"),
    ],
)
def test_what_is_none_is_told(data: bytes, sha256: str, words: str) -> None:
    with pytest.raises(CardError, match=words):
        read_home(data, "here", model_sha256=sha256)


@pytest.mark.parametrize("name", [name for name in zoo_names() if home_cells(name, zoo_card(name)) is not None])
def test_those_that_ship_are_of_the_model_that_ships_and_hold_blasts(name: str) -> None:
    home, layer = home_cells(name, zoo_card(name)), last_layer(find(name, "classifier").proto)
    assert home is not None
    assert home.features.shape[1] == layer.weights.shape[1]
    assert home.classes.count("blast") >= 50
    known = zoo_card(name).class_names
    truth = np.array([known.index(c) if c in known else -1 for c in home.classes])
    said = (home.features @ layer.weights.T + layer.bias).argmax(1)
    assert (said == truth)[truth >= 0].mean() > 0.85


def test_the_default_classifier_has_some() -> None:
    assert home_cells(DEFAULT_CLASSIFIER, zoo_card(DEFAULT_CLASSIFIER)) is not None
