"""Which cells a classifier's home cells are."""

from __future__ import annotations

from collections import Counter

import pytest

from tools.data import TRAIN, load_splits
from tools.export.home import chosen


@pytest.mark.data
@pytest.mark.slow
def test_home_cells_trained_nothing_and_blasts_are_among_them_whatever_the_classes() -> None:
    trained = ["pbc", "bccd", "wbc_masks"]
    cells = chosen(trained, ("lymphocyte", "neutrophil"), 20, 30)
    assert Counter(cell.cell_class for cell in cells) == {"lymphocyte": 20, "neutrophil": 20, "blast": 30}
    parts = load_splits()
    assert all(parts[cell.key] != TRAIN for cell in cells if cell.dataset in trained)
    sets = Counter(cell.dataset for cell in cells if cell.cell_class != "blast")
    assert set(sets) == {"pbc", "bccd"}
