"""What is in the repository: every model loads, its card says everything, all together stay small, and of those of the
publications the wheel has the cards alone."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest

from engines.backends.onnxruntime import Threads
from engines.models.loading import load_classifier, load_detector
from engines.zoo.registry import models, place, zoo_card, zoo_names
from engines.zoo.store import PUBLISHED
from streamer.config import DEFAULT_CLASSIFIER, DEFAULT_DETECTOR

pytestmark = pytest.mark.skipif(not zoo_names(), reason="no model is shipped in engines/zoo")
ROOT = Path(__file__).parents[3]
ZOO = ROOT / "engines" / "zoo"
FRAME = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)


@pytest.mark.parametrize("name", zoo_names())
def test_a_card_is_complete(name: str) -> None:
    card = next(card for card in models() if card.name == name)
    for field in ("architecture", "summary", "licence", "sha256", "training", "figures"):
        assert getattr(card, field), field


@pytest.mark.parametrize("name", zoo_names())
def test_a_model_that_is_here_runs(name: str) -> None:
    card = next(card for card in models() if card.name == name)
    if place(card) == "not here":
        pytest.skip(f"the file of {name} is not here")
    if card.task == "detector":
        (found,) = load_detector(name, threads=Threads(1)).detect([FRAME])
        assert found.boxes_px.shape == (len(found), 4)
    elif card.task == "classifier":
        result = load_classifier(name, threads=Threads(1)).classify_crops([FRAME])
        np.testing.assert_allclose(result.probabilities.sum(1), 1, atol=1e-3)


def _megabytes(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.glob("*.onnx")) / 1e6


def test_they_stay_small() -> None:
    assert _megabytes(ZOO) <= 40
    assert _megabytes(ZOO / PUBLISHED) <= 120


def test_the_wheel_has_what_ships_and_of_the_others_their_cards() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = settings["package-data"]["engines.zoo"]
    in_wheel = {path.relative_to(ZOO) for pattern in patterns for path in ZOO.glob(pattern)}
    cards, files, home = (
        {path.relative_to(ZOO) for path in ZOO.rglob(f"*.{kind}")} for kind in ("toml", "onnx", "home.npz")
    )
    assert in_wheel == cards | {path for path in (files | home) if path.parent == Path()}


@pytest.mark.parametrize("name", [DEFAULT_DETECTOR, DEFAULT_CLASSIFIER])
def test_what_runs_by_default_ships(name: str) -> None:
    assert place(zoo_card(name)) == "shipped"
