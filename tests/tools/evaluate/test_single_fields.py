"""What the report of single fields counts of the labels, and which flags it calls borne out."""

import json
from pathlib import Path

import pytest

from streamer.records import Flag
from tools.data.readers import Field, LabelledBox
from tools.evaluate import single_fields
from tools.evaluate.single_fields import is_borne_out, labelled, types_of_fields


def field(name, *boxes, label="WBC"):
    marks = tuple(LabelledBox(box, label) for box in boxes)
    return Field("bccd", f"bccd/images/{name}.jpg", Path(f"{name}.jpg"), 640, 480, marks, frozenset({"WBC"}))


def test_a_label_at_the_edge_is_that_of_a_cut_cell_and_several_types_share_the_cells(tmp_path):
    (tmp_path / "bccd").mkdir()
    images = [
        {"file_name": "a.jpg", "wbc_types": "NEUTROPHIL"},
        {"file_name": "b.jpg", "wbc_types": "MONOCYTE, LYMPHOCYTE"},
        {"file_name": "c.jpg", "wbc_types": ""},
    ]
    (tmp_path / "bccd" / "annotations.json").write_text(json.dumps({"images": images}))
    fields = [
        field("a", (100, 100, 200, 200), (0, 100, 60, 200), (500, 1, 600, 100)),
        field("b", (2, 2, 100, 100), (300, 300, 400, 400), (300, 400, 400, 480), (400, 100, 500, 200)),
        field("c", (100, 100, 200, 200)),
        field("a", (300, 300, 320, 320), label="platelet"),
    ]
    found = labelled(fields, types_of_fields(tmp_path))
    assert (found.whole, found.cut) == (5, 3)
    assert found.types == {"neutrophil": 1, "monocyte": 1.5, "lymphocyte": 1.5}


@pytest.mark.parametrize(
    ("flag", "share", "borne_out"),
    [
        (Flag(code="range", text="", class_="eosinophil", direction="high", range=(0, 4)), 5.0, True),
        (Flag(code="range", text="", class_="eosinophil", direction="high", range=(0, 4)), 4.0, False),
        (Flag(code="range", text="", class_="lymphocyte", direction="low", range=(20, 40)), 19.0, True),
        (Flag(code="range", text="", class_="lymphocyte", direction="low", range=(20, 40)), 45.0, False),
        (Flag(code="seen", text="", class_="blast", direction="seen"), 0.0, False),
        (Flag(code="seen", text="", class_="blast", direction="seen"), 0.1, True),
        (Flag(code="unclassified", text="", class_="unclassified", direction="high", range=(0, 5)), 0.0, None),
    ],
)
def test_a_flag_is_borne_out_by_a_share_on_the_same_side(flag, share, borne_out):
    assert is_borne_out(flag, share) is borne_out


@pytest.mark.data
@pytest.mark.slow
def test_no_flag_of_the_fields_of_bccd_is_one_that_the_labels_do_not_bear_out(tmp_path, monkeypatch):
    fields = single_fields.read_fields(sets=("bccd",))
    monkeypatch.setattr(single_fields.datasets, "load_splits", lambda: {item.key: "any" for item in fields})
    assert single_fields.main(["--parts", "any", "--json", str(tmp_path / "out.json")]) == 0
    figures = json.loads((tmp_path / "out.json").read_text())
    assert not [flag for flag in figures["flags"] if flag["borne_out"] is False]
    assert (figures["labelled"]["whole"], figures["labelled"]["cut"]) == (196, 84)
    assert abs(figures["total"] - 196) <= 10
    assert figures["right"] >= 0.9 * figures["named"]
