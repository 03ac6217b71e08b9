from __future__ import annotations

import numpy as np
import pytest

from engines.zoo.registry import find
from tools import data as datasets
from tools.data import CELL_CLASSES
from tools.evaluate.eight_types import Model


def test_the_card_belongs_to_the_file_and_tells_how_its_figures_were_measured() -> None:
    card = find("mobilenetv3-small", "classifier").card  # raises where the file is not the card's
    assert card.class_names == CELL_CLASSES
    assert {s.name: s.parent for s in card.subclasses} == datasets.SUBCLASSES
    assert {measured_on.part for measured_on in card.figures} == {"validation", "holdout"}
    assert all(
        values.get("cells", values.get("crops", 0)) > 0 and values["command"] for values in card.figures.values()
    )


@pytest.mark.data
@pytest.mark.slow
def test_the_shipped_classifier_does_on_real_cells_what_its_card_says() -> None:
    try:
        root = datasets.data_root()
    except datasets.DataSetMissing as error:
        pytest.skip(str(error))
    model = Model("mobilenetv3-small")
    figure = model.classifier.card.figures["pbc", "", "validation"]
    parts = datasets.load_splits(root)
    cells = [c for c in datasets.read_cells(root) if c.dataset == "pbc" and parts[c.key] == "validation"]
    assert len(cells) == figure["cells"]
    found = model.predict(cells[::3])
    right = np.mean(found.probabilities.argmax(1) == found.truth)
    assert right == pytest.approx(figure["accuracy"], abs=0.02)
