"""What ships: every model loads, its card says everything, and all of them together stay small."""

from __future__ import annotations

from importlib import resources

import numpy as np
import pytest

from engines.backends.onnxruntime import Threads
from engines.models.loading import load_classifier, load_detector
from engines.zoo.registry import models, place, zoo_names

pytestmark = pytest.mark.skipif(not zoo_names(), reason="no model is shipped in engines/zoo")
FRAME = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)


@pytest.mark.parametrize("name", zoo_names())
def test_a_shipped_card_is_complete(name: str) -> None:
    card = next(card for card in models() if card.name == name)
    for field in ("architecture", "summary", "licence", "sha256", "training", "figures"):
        assert getattr(card, field), field


@pytest.mark.parametrize("name", zoo_names())
def test_a_shipped_model_runs(name: str) -> None:
    card = next(card for card in models() if card.name == name)
    if place(card) != "shipped":
        pytest.skip(f"the file of {name} does not ship")
    if card.task == "detector":
        (found,) = load_detector(name, threads=Threads(1)).detect([FRAME])
        assert found.boxes_px.shape == (len(found), 4)
    elif card.task == "classifier":
        result = load_classifier(name, threads=Threads(1)).classify_crops([FRAME])
        np.testing.assert_allclose(result.probabilities.sum(1), 1, atol=1e-3)


def test_all_together_are_at_most_40_mb() -> None:
    files = [entry for entry in (resources.files("engines") / "zoo").iterdir() if entry.name.endswith(".onnx")]
    assert sum(len(entry.read_bytes()) for entry in files) <= 40_000_000
