"""The public sets as fields of the detector: classes, what is complete, what is left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tools import data as datasets
from tools.data import sets
from tools.data.fields import PLATELET, RBC, WBC


def record(dataset: str, boxes: list[tuple[float, float, float, float, str]], complete: set[str]) -> datasets.Field:
    return datasets.Field(
        dataset=dataset,
        key=f"{dataset}/images/neutrophil/a.jpg",
        path=Path("a.jpg"),
        width_px=100,
        height_px=100,
        boxes=tuple(datasets.LabelledBox((x1, y1, x2, y2), label) for x1, y1, x2, y2, label in boxes),
        complete=frozenset(complete),
    )


def test_twelve_classes_become_three() -> None:
    labels = ("erythroblast", "band neutrophil", "red blood cell", "platelet")
    item = sets.as_field(record("pbc", [(1, 2, 3, 4, label) for label in labels], {"WBC", "RBC", "platelet"}))
    assert item.classes.tolist() == [WBC, WBC, RBC, PLATELET]
    assert item.complete.tolist() == [True, True, True]
    assert item.boxes_px.dtype == np.float32


def test_sets_say_which_classes_are_complete() -> None:
    boxes = [(10.0, 10.0, 40.0, 40.0, "WBC")]
    assert sets.as_field(record("bcd", boxes, {"WBC", "RBC"})).complete.tolist() == [True, True, False]
    assert sets.as_field(record("chula_wbc", boxes, set())).complete.tolist() == [False, False, False]


def test_a_picture_without_its_own_cell_is_not_used() -> None:
    red = [(10.0, 10.0, 40.0, 40.0, "red blood cell")]
    assert not sets.usable(sets.as_field(record("pbc", red, set())))
    assert sets.usable(sets.as_field(record("pbc", [*red, (5, 5, 60, 60, "eosinophil")], set())))
    assert sets.usable(sets.as_field(record("txl_pbc", [(10.0, 10.0, 40.0, 40.0, "RBC")], set())))


def test_labels_of_a_model_complete_a_field() -> None:
    item = sets.as_field(record("chula_wbc", [(10.0, 10.0, 40.0, 40.0, "neutrophil")], set()))
    whole = sets.with_labels(item, {"boxes_px": [[50, 50, 70, 70]], "classes": [RBC], "ignore_px": [[80, 80, 90, 90]]})
    assert whole.classes.tolist() == [WBC, RBC]
    assert whole.complete.all()
    assert whole.ignore_px.tolist() == [[80, 80, 90, 90]]
    assert not item.complete.any()


def test_simulated_fields_are_complete_and_repeatable() -> None:
    first, second = sets.simulated_fields(1, 5), sets.simulated_fields(1, 5)
    item = first[0]
    assert np.array_equal(item.load(), second[0].load())
    assert item.load().shape == (480, 640, 3)
    assert item.complete.all()
    assert (item.classes == WBC).any()
    assert (item.classes == RBC).sum() > 3
    assert 25 < item.rbc_diameter_px < 100


@pytest.mark.slow
@pytest.mark.data
def test_no_twin_of_txl_pbc_trains_with_bccds_boxes() -> None:
    try:
        datasets.data_root()
    except datasets.DataSetMissing as missing:
        pytest.skip(str(missing))
    from tools.data.splits import build_groups

    twins = {key for group in build_groups().values() if any(k.startswith("txl_pbc/") for k in group) for key in group}
    names = {item.name for item in sets.fields_of("bccd", datasets.TRAIN)}
    assert names
    assert not names & twins
