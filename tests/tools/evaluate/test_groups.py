"""White cells in two groups: what teaches them, and how finding and grouping are measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the tools of the detectors need PyTorch")

from tools import data as datasets
from tools.data import groups, leukocytes
from tools.data.fields import Field
from tools.evaluate.groups import tables
from tools.metrics.groups import measured
from tools.metrics.predict import Found
from tools.train.faster_rcnn import summary


def record(dataset: str, name: str, labels: list[str]) -> datasets.Field:
    boxes = tuple(
        datasets.LabelledBox((20.0 * i, 0, 20.0 * i + 10 + i, 10.0 + i), label) for i, label in enumerate(labels)
    )
    complete = {"pbc": {"WBC", "RBC", "platelet"}, "bccd": {"WBC"}, "chula_wbc": set()}[dataset]
    return datasets.Field(dataset, name, Path(name), 224, 224, boxes, frozenset(complete))


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fields = [
        record("pbc", "pbc/a", ["red blood cell", "segmented neutrophil", "platelet"]),
        record("pbc", "pbc/b", ["red blood cell", "monocyte"]),  # its file says lymphocyte
        record("pbc", "pbc/c", ["lymphocyte", "erythroblast"]),
        record("bccd", "bccd/one", ["RBC", "WBC"]),
        record("bccd", "bccd/two", ["WBC", "WBC"]),
        record("chula_wbc", "chula/a", ["basophil", "monocyte"]),
    ]
    own = {"pbc/a": "segmented neutrophil", "pbc/b": "lymphocyte", "pbc/c": "lymphocyte"}
    cell = datasets.CellPicture("bccd", "bccd/one", Path("one"), 224, 224, (20, 0, 31, 11), "eosinophil")
    monkeypatch.setattr(leukocytes, "own_labels", lambda root: own)
    monkeypatch.setattr(datasets, "data_root", lambda: tmp_path)
    monkeypatch.setattr(datasets, "read_cells", lambda: [cell])
    monkeypatch.setattr(datasets, "read_fields", lambda sets: [one for one in fields if one.dataset in sets])


@pytest.mark.usefixtures("records")
def test_types_become_groups_and_what_has_none_is_ignored_or_background() -> None:
    found = {one.field.name: one for one in groups.group_fields()}
    assert list(found) == ["pbc/a", "pbc/c", "bccd/one", "chula/a"]
    assert [one.own for one in found.values()] == ["neutrophil", "lymphocyte", "eosinophil", "monocyte"]
    assert [one.field.classes.tolist() for one in found.values()] == [[1], [0], [1], [1, 0]]
    assert [len(one.field.ignore_px) for one in found.values()] == [0, 1, 0, 0]
    assert [one.field.complete.all() for one in found.values()] == [True, True, True, False]
    pools = groups.pools_of(found.values())
    assert {name: len(members) for name, members in pools.items()} == {
        "bccd": 1,
        "chula_wbc": 1,
        "lymphocyte": 1,
        "neutrophil": 1,
    }
    shares = groups.shares_of(pools)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["lymphocyte"] == shares["neutrophil"] == pytest.approx(0.325)
    assert groups.shares_of({"basophil": []}) == {"basophil": 1.0}


def field(boxes: list[tuple[float, ...]], classes: list[int], complete: bool = True) -> Field:
    return Field(
        name="x",
        source="pbc",
        load=lambda: np.zeros((8, 8, 3), np.uint8),
        boxes_px=np.array(boxes, np.float32).reshape(-1, 4),
        classes=np.array(classes, np.int64),
        complete=np.full(2, complete),
        rbc_diameter_px=10,
        ignore_px=np.array([[80, 80, 100, 100]], np.float32),
    )


FOUND = Found(
    np.array([[0, 0, 10, 10], [41, 40, 60, 60], [80, 80, 100, 100], [20, 20, 30, 30], [70, 0, 80, 10]], np.float32),
    np.array([0.9, 0.8, 0.7, 0.6, 0.2], np.float32),
    np.array([0, 0, 1, 1, 1]),
)
TRUTH = [(0, 0, 10, 10), (40, 40, 60, 60), (70, 0, 80, 10)]


def test_cells_are_found_whatever_their_group_and_grouped_where_found() -> None:
    figures = measured([field(TRUTH, [0, 1, 1])], lambda _: FOUND, 0.5)
    assert figures["cells"] == 3
    assert figures["recall"] == pytest.approx(2 / 3, abs=1e-4)  # the third is below the threshold
    assert figures["precision"] == pytest.approx(2 / 3, abs=1e-4)  # the place to ignore is no mistake
    assert figures["groups"] == [[1, 0, 0], [1, 0, 1]]
    assert figures["group_accuracy"] == 0.5
    assert figures["group_recall"] == [1.0, 0.0]
    assert figures["ap50"] == pytest.approx((67 * 1 + 34 * 0.75) / 101, abs=1e-3)


def test_where_cells_are_not_labelled_there_is_recall_alone() -> None:
    figures = measured([field(TRUTH, [0, 1, 1], complete=False)], lambda _: FOUND, 0.1)
    assert figures["recall"] == 1
    assert figures["precision"] is figures["ap50"] is figures["ap50_95"] is None
    nothing = Found(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    assert measured([field(TRUTH, [0, 1, 1])], lambda _: nothing, 0.1)["groups"] == [[0, 0, 1], [0, 0, 2]]


def test_repetitions_are_summed_up_and_cards_have_no_nested_lists() -> None:
    first = measured([field(TRUTH, [0, 1, 1])], lambda _: FOUND, 0.5)
    second = measured([field(TRUTH, [0, 0, 1])], lambda _: FOUND, 0.1)
    found = summary([{"figures": {"pbc": first}}, {"figures": {"pbc": second}}])
    assert found["pbc"]["recall"]["mean"] == pytest.approx(5 / 6, abs=1e-4)
    assert found["pbc"]["recall"]["sd"] == pytest.approx(1 / 3 / np.sqrt(2), abs=1e-4)
    (entry,) = tables({"pbc": first}, "python -m x", "validation").values()
    assert entry["command"] == "python -m x"
    assert "groups" not in entry
