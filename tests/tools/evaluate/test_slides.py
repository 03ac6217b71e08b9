"""What the report of real slides calls a fault, and the real slides themselves with the shipped models."""

import json

import pytest

from streamer.records import Cell
from tools.evaluate.slides import Label, Seen, SlideResult, compare, labels_of, main

POSITIONS = {"a.jpg": {"island": 1, "x_px": 0.0, "y_px": 0.0}, "b.jpg": {"island": 1, "x_px": 100.0, "y_px": 0.0}}
TRUTH = {"white_cells": 2, "islands": 1}
LABELS = [
    Label("a.jpg", (150, 50, 200, 100), "basophil", 0),
    Label("b.jpg", (50, 50, 100, 100), "basophil", 0),
    Label("b.jpg", (300, 50, 350, 100), "neutrophil", 1),
]


def cell(number, name, kind="white"):
    return Cell(number, 0, 0.0, 0.0, kind, name, None, name, {name: 1.0}, 2, False, 0, 1)


def result(*cells, looks, islands=1):
    return SlideResult(islands, list(cells), dict(looks), {}, [])


RIGHT = {
    1: [Seen("a.jpg", (152, 50, 202, 98)), Seen("b.jpg", (50, 52, 100, 100))],
    2: [Seen("b.jpg", (300, 50, 350, 100))],
}


def test_labels_at_one_place_of_the_slide_are_one_cell():
    marks = {
        "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}, {"id": 3, "file_name": "c.jpg"}],
        "categories": [{"id": 7, "name": "basophil"}],
        "annotations": [
            {"image_id": image, "category_id": 7, "bbox": box}
            for image, box in (
                *((1, (150, 50, 50, 50)), (2, (52, 50, 50, 50))),
                *((2, (300, 50, 50, 50)), (3, (0, 0, 50, 50))),
            )
        ],
    }
    labels = labels_of(marks, POSITIONS)
    assert [(label.file, label.class_name, label.cell) for label in labels] == [
        ("a.jpg", "basophil", 0),
        ("b.jpg", "basophil", 0),
        ("b.jpg", "basophil", 1),
    ]


@pytest.mark.parametrize(
    ("found", "faults"),
    [
        pytest.param(result(cell(1, "basophil"), cell(2, "neutrophil"), looks=RIGHT), [], id="all right"),
        pytest.param(
            result(cell(1, "basophil"), looks=RIGHT),
            ["missed: neutrophil b.jpg", "white cells: got 1, expected 2"],
            id="one missed",
        ),
        pytest.param(
            result(cell(1, "basophil"), cell(2, "erythroblast", "nucleated red"), looks=RIGHT),
            ["missed: neutrophil b.jpg", "white cells: got 1, expected 2"],
            id="one taken for a red cell",
        ),
        pytest.param(
            result(cell(1, "monocyte"), cell(2, "neutrophil"), looks=RIGHT),
            ["class: cell 1 is monocyte, labelled basophil"],
            id="one of another class",
        ),
        pytest.param(
            result(
                *(cell(1, "basophil"), cell(2, "neutrophil"), cell(3, "basophil")),
                looks={**RIGHT, 1: RIGHT[1][:1], 3: RIGHT[1][1:]},
            ),
            ["doubled: basophil a.jpg", "white cells: got 3, expected 2"],
            id="one counted twice",
        ),
        pytest.param(
            result(cell(1, "basophil"), cell(2, "neutrophil"), looks={**RIGHT, 1: RIGHT[1][:1]}, islands=2),
            ["unseen: basophil, labelled cell 0: 1 of 2 labels", "islands: got 2, expected 1"],
            id="one not seen in a frame, and the island in two",
        ),
        pytest.param(
            result(cell(1, "basophil"), cell(4, "basophil"), looks={1: [*RIGHT[1], *RIGHT[2]], 4: []}),
            ["class: cell 1 is basophil, labelled neutrophil", "joined: cell 1 holds 2 labelled cells"],
            id="two counted as one",
        ),
    ],
)
def test_faults(found, faults):
    got = compare(found, LABELS, TRUTH)
    assert len(got) == len(faults)
    for line, expected in zip(got, faults, strict=True):
        assert line.startswith(expected)


@pytest.mark.data
def test_the_white_cells_of_real_slides_are_counted_exactly_by_the_shipped_models(tmp_path):
    from tools.data.readers import DataSetMissing, data_root

    try:
        root = data_root()
    except DataSetMissing as missing:
        pytest.skip(str(missing))
    if not (root / "chula_wbc" / "unique_cells.json").is_file():
        pytest.skip(f"{root} has no chula_wbc/unique_cells.json")
    file = tmp_path / "slides.json"
    assert main(["--data", str(root), "--json", str(file), "--pictures", str(tmp_path / "cells")]) == 0
    slides = json.loads(file.read_text())["slides"]
    assert {name: one["islands"] for name, one in slides.items()} == {
        name: one["true_islands"] for name, one in slides.items()
    }
    checked = {name: one for name, one in slides.items() if one["true_white"] is not None}
    assert {name: one["white"] for name, one in checked.items()} == {
        name: one["true_white"] for name, one in checked.items()
    }
    assert [one["lost"] for one in slides.values()] == [[]] * 7
    faults = [fault for one in slides.values() for fault in one["faults"]]
    assert [fault for fault in faults if not fault.startswith("class:")] == []
    assert len(list((tmp_path / "cells").glob("B-57-*.png"))) == 3
