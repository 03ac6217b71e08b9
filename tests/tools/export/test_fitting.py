"""What is fitted on validation cells: laboratories weigh what they are said to weigh, however many cells each has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra `train`")

from engines.base import Classifications
from tools.data import CELL_CLASSES, CellPicture
from tools.evaluate.eight_types import Predictions
from tools.export import fitting
from tools.export.fitting import HOME_SHARE, choose_threshold, fit, laboratory_weights
from tools.metrics import classification as measures


def said(dataset: str, *looks: tuple[float, bool]) -> Predictions:
    """Cells that a model gave a class with some probability, rightly or not."""
    cell = CellPicture(dataset, "a.jpg", Path("a.jpg"), 9, 9, (0, 0, 9, 9), CELL_CLASSES[0])
    p = np.zeros((len(looks), len(CELL_CLASSES)), np.float32)
    for row, (confidence, right) in zip(p, looks, strict=True):
        row[:] = (1 - confidence) / (len(row) - 1)
        row[0 if right else 1] = confidence
    return Predictions([cell] * len(looks), Classifications(p, CELL_CLASSES, np.zeros((len(p), 0), np.float32), (), ()))


def test_home_weighs_its_share_and_the_other_laboratories_the_rest() -> None:
    found = {
        "pbc": said("pbc", *[(0.9, True)] * 3),
        "bccd": said("bccd", (0.9, True)),
        "pbc whole": said("pbc", (0.9, True)),
        "chula_wbc": said("chula_wbc", *[(0.9, True)] * 4),
    }
    weights = laboratory_weights(found, 0.8)
    assert weights == pytest.approx([0.2] * 3 + [0.04] + [0.2] + [0.04] * 4)


def test_the_errors_of_a_small_laboratory_raise_the_threshold() -> None:
    """Four of a hundred cells are wrong, and these are four of the ten from elsewhere."""
    found = {
        "pbc": said("pbc", *[(0.95, True)] * 90),
        "bccd": said("bccd", *[(0.605, False)] * 4, *[(0.95, True)] * 6),
    }
    assert choose_threshold(found, risk=0.25) == 0.3  # half of .4 is .2
    assert choose_threshold(found, risk=0.1) == 0.61


def test_the_errors_at_home_weigh_half_however_many_cells_there_are() -> None:
    found = {
        "pbc": said("pbc", *[(0.705, False)] * 30, *[(0.95, True)] * 70),
        "bccd": said("bccd", *[(0.95, True)] * 2),
    }
    assert choose_threshold(found, risk=0.16) == 0.3  # half of .3 is .15
    assert choose_threshold(found, risk=0.14) == 0.71


def test_a_threshold_that_nothing_reaches_is_nine_tenths() -> None:
    assert choose_threshold({"pbc": said("pbc", *[(0.97, False)] * 3)}, risk=0.1) == 0.9


def test_temperatures_are_fitted_with_the_share_of_home(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[np.ndarray] = []

    def fitted(logits: np.ndarray, truth: np.ndarray, weights: np.ndarray | None = None) -> float:
        assert weights is not None
        given.append(weights)
        return 1.5

    monkeypatch.setattr(measures, "fit_temperature", fitted)
    known = {
        "pbc": said("pbc", *[(0.9, True)] * 4),
        "bccd": said("bccd", *[(0.9, True)] * 2),
        "bcd": said("bcd", *[(0.9, True)] * 9),  # known, and no part of the calibration
    }
    assert fitting.measures is measures
    assert fit(known, None).temperature == 1.5
    assert given[0] == pytest.approx([HOME_SHARE / 4] * 4 + [(1 - HOME_SHARE) / 2] * 2)
