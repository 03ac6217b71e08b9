from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra `train`")

from tools.data import CELL_CLASSES, TRAIN
from tools.data.crops import ATTRIBUTES, STORED_PX, StoredCells
from tools.data.simulated import NAME, with_simulated


def nothing_stored() -> StoredCells:
    return StoredCells(
        squares=np.zeros((0, STORED_PX, STORED_PX, 3), np.uint8),
        boxes=np.zeros((0, 4), np.float32),
        classes=np.zeros(0, np.int64),
        subclasses=np.zeros(0, np.int64),
        cells=[],
        parts=[],
        attributes=np.zeros((0, len(ATTRIBUTES)), np.int64),
    )


def test_simulated_cells_are_whole_white_and_only_train() -> None:
    stored = with_simulated(nothing_stored(), fields=12, seed=5)
    n = len(stored.cells)
    assert n >= 3
    assert stored.squares.shape == (n, STORED_PX, STORED_PX, 3)
    assert set(stored.parts) == {TRAIN}
    assert {c.dataset for c in stored.cells} == {NAME}
    assert len({c.key for c in stored.cells}) == n
    white = {CELL_CLASSES.index(c) for c in CELL_CLASSES if c not in ("platelet", "erythroblast")}
    assert set(stored.classes.tolist()) <= white
    assert (stored.boxes >= 0).all()
    assert (stored.boxes <= STORED_PX).all()
    longer = (stored.boxes[:, 2:] - stored.boxes[:, :2]).max(1)
    np.testing.assert_allclose(longer, STORED_PX / 1.9, rtol=0.01)
    assert (stored.attributes == -1).all()


def test_the_same_seed_gives_the_same_cells() -> None:
    one, two, other = (with_simulated(nothing_stored(), fields=8, seed=seed).squares for seed in (5, 5, 6))
    np.testing.assert_array_equal(one, two)
    assert one.shape != other.shape or (one != other).any()


def test_fields_without_a_whole_white_cell_are_an_error() -> None:
    with pytest.raises(ValueError, match="no whole white cell in 0 fields"):
        with_simulated(nothing_stored(), fields=0, seed=5)
