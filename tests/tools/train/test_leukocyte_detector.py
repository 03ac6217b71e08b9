"""Kinds of leukocyte as a detector's classes: lists, fields, weights, what teaches and what does not."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training is written in PyTorch")

from tools import data as datasets  # noqa: E402
from tools.architectures.yolov5 import yolov5  # noqa: E402
from tools.data import leukocytes  # noqa: E402
from tools.train.leukocyte_detector import main, start_from_blood  # noqa: E402
from tools.train.yolov5_loss import DetectionLoss, LossWeights  # noqa: E402

ANCHORS = [[[10, 10], [14, 14], [18, 18]], [[20, 20], [26, 26], [32, 32]], [[40, 40], [50, 50], [60, 60]]]


def test_class_lists_by_name_by_file_and_written_out(tmp_path: Path) -> None:
    assert len(leukocytes.class_list("pbc")) == 12
    assert len(leukocytes.class_list("zhou")) == 15
    (tmp_path / "list.txt").write_text("blast\n\nband neutrophil\n")
    assert leukocytes.class_list(str(tmp_path / "list.txt")) == ("blast", "band neutrophil")
    assert leukocytes.class_list("a, b") == ("a", "b")
    with pytest.raises(ValueError, match=r"got \['a', 'a'\], expected different names"):
        leukocytes.class_list("a,a")


def test_every_class_has_its_kind() -> None:
    kinds = {name: leukocytes.kind_of(name) for name in (*leukocytes.PBC, *leukocytes.ZHOU)}
    others = {name: kind for name, kind in kinds.items() if kind != "white"}
    assert others == {
        "erythroblast": "nucleated red",
        "platelet": "platelet",
        "red blood cell": "red",
        "EBO": "nucleated red",
        "KSC": "other",
    }
    assert leukocytes.red_label(leukocytes.PBC) == 10
    assert leukocytes.red_label(leukocytes.ZHOU) == -1
    assert leukocytes.class_weights(("red blood cell", "monocyte")) == (0.1, 1.0)


def test_the_start_from_the_blood_detector_keeps_boxes_and_spreads_classes() -> None:
    torch.manual_seed(0)
    blood = yolov5("n", 3, anchors_px=ANCHORS).eval()
    for head in blood.heads:
        torch.nn.init.normal_(head.weight, 0, 0.1)
    names = ("monocyte", "platelet", "red blood cell", "erythroblast")
    network = yolov5("n", 4).eval()
    network.load_state_dict(start_from_blood(blood.state_dict(), names))
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for old, new in zip(blood(images), network(images), strict=True):
            a, b = old.view(3, 8, -1), new.view(3, 9, -1)
            torch.testing.assert_close(b[:, :5], a[:, :5])
            for row, of_blood in enumerate((0, 2, 1, 0)):
                torch.testing.assert_close(b[:, 5 + row], a[:, 5 + of_blood])
    assert torch.equal(network.anchors_px, blood.anchors_px)


def field(*labels: str) -> datasets.Field:
    boxes = tuple(datasets.LabelledBox((10.0 * i, 0, 10.0 * i + 9, 9), label) for i, label in enumerate(labels))
    return datasets.Field("pbc", "pbc/images/x.jpg", Path("x.jpg"), 224, 224, boxes, frozenset())


def test_a_picture_without_the_box_of_its_own_cell_does_not_teach() -> None:
    assert leukocytes.has_own_box(field("monocyte", "red blood cell"), "monocyte")
    assert not leukocytes.has_own_box(field("red blood cell"), "monocyte")
    assert not leukocytes.has_own_box(field("eosinophil"), "monocyte")
    assert not leukocytes.has_own_box(field("monocyte"), None)


def test_cells_with_a_nucleus_of_other_classes_are_places_to_ignore_and_red_cells_background() -> None:
    labels = ("monocyte", "red blood cell", "platelet", "erythroblast", "basophil")
    item = leukocytes.as_field(field(*labels), ("platelet", "monocyte"))
    assert item.classes.tolist() == [1, 0]
    assert item.boxes_px[:, 0].tolist() == [0, 20]
    assert item.ignore_px[:, 0].tolist() == [30, 40]
    assert item.complete.tolist() == [True, True]


def test_a_subclass_is_a_box_of_its_class_where_the_list_has_only_that() -> None:
    five = ("lymphocyte", "neutrophil")
    item = leukocytes.as_field(field("band neutrophil", "red blood cell", "myelocyte", "lymphocyte"), five)
    assert item.classes.tolist() == [1, 0]
    assert item.ignore_px[:, 0].tolist() == [20]
    assert leukocytes.label_of("band neutrophil", leukocytes.PBC) == 1
    assert leukocytes.label_of("myelocyte", five) == -1


def test_the_class_term_weighs_classes() -> None:
    anchors = torch.tensor(ANCHORS, dtype=torch.float32)
    maps = tuple(torch.zeros(1, 21, 8 // k, 8 // k) for k in (1, 2, 4))
    maps[0].view(3, 7, 64)[:, 5] = 4.0  # sure of the first class everywhere
    targets = torch.tensor([[0, 0, 20.0, 20, 12, 12], [0, 1, 44.0, 44, 12, 12]])
    known = torch.ones(1, 2, 8, 8, dtype=torch.bool)

    def class_term(*of_class: float) -> float:
        return DetectionLoss(anchors, 2, LossWeights(of_class=of_class))(maps, targets, known)[1]["classes"]

    right, wrong = class_term(1, 1e-9), class_term(1e-9, 1)
    assert right < wrong
    assert class_term() == pytest.approx((right + wrong) / 2, rel=1e-4)
    assert class_term(2, 2) == pytest.approx(class_term(), rel=1e-6)
    with pytest.raises(ValueError, match="of_class: got 3 weights, expected 2"):
        class_term(1, 1, 1)


def coco(folder: Path, name: str, count: int) -> Path:
    """Pictures with one dark disc of BAS or MON in each."""
    (folder / name).mkdir()
    images, notes = [], []
    for i in range(count):
        picture = np.full((96, 96, 3), 220, np.uint8)
        cv2.circle(picture, (48, 48), 20, (120, 40, 70) if i % 2 else (60, 90, 160), -1)
        cv2.imwrite(str(folder / name / f"{i}.png"), picture)
        images.append({"id": i, "file_name": f"{i}.png"})
        notes.append({"image_id": i, "category_id": i % 2, "bbox": [28, 28, 40, 40]})
    categories = [{"id": 0, "name": "BAS"}, {"id": 1, "name": "MON"}]
    file = folder / f"{name}.json"
    file.write_text(json.dumps({"images": images, "annotations": notes, "categories": categories}))
    return file


def test_the_command_takes_other_pictures_and_the_fifteen_classes_and_resumes(tmp_path: Path) -> None:
    train, held = coco(tmp_path, "train", 4), coco(tmp_path, "held", 2)
    options = [
        *(
            "--out",
            str(tmp_path / "run"),
            "--classes",
            "zhou",
            "--coco",
            str(train),
            "--images",
            str(tmp_path / "train"),
        ),
        *("--validation-coco", str(held), "--validation-images", str(tmp_path / "held"), "--device", "cpu"),
        *("--side-px", "64", "--long-side-px", "64", "--batch", "2", "--precision", "fp32", "--epoch-steps", "1"),
        *("--validate-every", "1"),
    ]
    assert main([*options, "--steps", "1"]) == 0
    assert main([*options, "--steps", "2", "--resume"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "results.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert set(lines[1]["results"]["classes"]) == {"BAS", "MON"}
    state = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    assert state["description"]["class_names"] == list(leukocytes.ZHOU)
    assert state["network"]["heads.0.weight"].shape[0] == 3 * (5 + 15)


def test_other_pictures_without_a_validation_are_refused(tmp_path: Path) -> None:
    train = coco(tmp_path, "train", 1)
    assert main(["--out", str(tmp_path / "run"), "--classes", "zhou", "--coco", str(train)]) == 2
    with pytest.raises(ValueError, match=r"got categories \['BAS', 'MON'\], expected some of \['a'\]"):
        leukocytes.coco_fields(train, tmp_path / "train", ("a",), 43)


@pytest.mark.data
def test_fields_of_pbc_all_have_their_own_cell() -> None:
    try:
        fields = leukocytes.pbc_fields(datasets.VALIDATION, leukocytes.PBC)
    except datasets.DataSetMissing as missing:
        pytest.skip(str(missing))
    assert set(fields) == set(leukocytes.PBC) - {"red blood cell"}
    for name, members in fields.items():
        label = leukocytes.PBC.index(name)
        assert all((item.classes == label).any() for item in members)


def test_a_checkpoint_becomes_a_file_and_a_card_that_load(tmp_path: Path) -> None:
    from engines.models.loading import load_detector
    from engines.models.own_classes import OwnClasses
    from tests.tools.detection_cases import disc_maker
    from tools.export.leukocyte_detector import main as export
    from tools.export.leukocyte_detector import tables
    from tools.train.loop import Loop
    from tools.train.tiles import TileSeries
    from tools.train.yolov5 import YOLOv5Task, schedule_of

    torch.manual_seed(0)
    series = TileSeries(disc_maker(), 2, seed=1)
    task = YOLOv5Task(yolov5("n", 12, anchors_px=ANCHORS), series, leukocytes.PBC)
    description = {
        "size": "n",
        "class_names": list(leukocytes.PBC),
        "settings": {"rbc_diameter_px": [32.0, 62.0], "seed": 1, "batch": 16, "side_px": 160},
        "shares": {"pbc": 1.0},
        "fields": {"pbc": 3},
    }
    Loop(task, schedule_of(1, seed=1), tmp_path, description=description).save()
    assert export([str(tmp_path / "last.pt"), "--name", "kinds", "--out", str(tmp_path), "--parts"]) == 0
    assert (tmp_path / "kinds.onnx").stat().st_size < 4.5e6
    detector = load_detector(str(tmp_path / "kinds.onnx"), backend="onnxruntime", min_score=0.0)
    assert detector.card.class_names == leukocytes.PBC
    own = OwnClasses.of(detector.card)
    assert own is not None
    expected = "basophil, eosinophil, erythroblast, immature granulocyte, lymphocyte, monocyte, neutrophil"
    assert ", ".join(own.card.class_names) == expected
    assert len(own.card.subclasses) == 5
    (found,) = detector.detect([np.zeros((64, 64, 3), np.uint8)])
    assert found.class_scores is not None
    assert found.class_scores.shape == (len(found), 12)
    result = {
        **{"set": "pbc", "part": "validation", "long_side_px": 224, "network_ms": 2.0, "pictures": 1, "threshold": 0.3},
        **{"map50": 0.9, "map50_95": 0.6, "own_cells": {"cells": 1, "label_accuracy": 1.0}},
        "classes": {
            "band_neutrophil": {"positives": 1, "recall": 1.0, "precision": 1.0, "unlabelled_detections": None}
        },
    }
    figures = tables([result], "kinds", 224)["pbc", "", "validation"]
    assert figures["command"] == "python -m tools.evaluate kinds --part validation"
    assert (figures["band_neutrophil_recall"], figures["own_label_accuracy"]) == (1.0, 1.0)


def test_whose_class_was_called_right() -> None:
    from dataclasses import replace as replaced

    from tools.evaluate.leukocyte_detector import Measured, card_of, own_cells

    card = card_of("x", leukocytes.PBC, threshold=0.3, naming=0.5, long_side_px=224)
    assert {c.name: c.parent for c in card.classes if c.parent} == datasets.SUBCLASSES
    measured = Measured.__new__(Measured)
    box = np.array([[0, 0, 9, 9]], np.float32)
    item = leukocytes.as_field(field("band neutrophil"), leukocytes.PBC)
    measured.called = [
        (box, ["neutrophil"], ["segmented neutrophil"]),
        (box, ["neutrophil"], ["band neutrophil"]),
        (box + 50, ["neutrophil"], ["band neutrophil"]),
        (box[:0], [], []),
        (box, ["monocyte"], ["monocyte"]),
    ]
    fields = [("band neutrophil", item)] * 4 + [("erythroblast", replaced(item))]
    assert own_cells(fields, measured, leukocytes.PBC) == {
        "cells": 4,
        "found": 0.5,
        "class_accuracy": 0.5,
        "label_accuracy": 0.25,
    }
