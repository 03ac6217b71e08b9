"""Measuring and exporting: figures of partly labelled classes, cards that TOML reads back, plain errors."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="checkpoints are read by PyTorch")

from engines.zoo.figures import figure_tables
from engines.zoo.toml import toml
from tests.tools.detection_cases import disc_field
from tools.data.fields import CLASS_NAMES
from tools.evaluate import detector as evaluate_detector
from tools.evaluate.found_cells import cells_of, found_boxes
from tools.evaluate.magnification import shown_at
from tools.export.figures import figures_tables
from tools.metrics import plots
from tools.metrics.classification import clopper_pearson
from tools.metrics.detection import confusion, summary, tally
from tools.metrics.errors import mistakes, sheet
from tools.metrics.predict import Found
from tools.train.options import parse_shares


def all_but_one_red(picture: np.ndarray) -> Found:
    """Finds the white cell and three red cells of `disc_field(1)`, and a platelet that is not there."""
    item = disc_field(1)
    boxes = np.concatenate((item.boxes_px[:4], [[50, 2, 56, 8]]), dtype=np.float32)
    return Found(boxes, np.array([0.9, 0.8, 0.7, 0.6, 0.5], np.float32), np.array([0, 1, 1, 1, 2]))


def test_figures_of_a_complete_field() -> None:
    item = disc_field(1)
    tallies, found = tally([item], all_but_one_red, 3)
    figures = summary(tallies, CLASS_NAMES, item.complete, 0.35)
    assert found[0][0] is item
    assert figures["classes"]["WBC"]["ap50"] == 1
    assert figures["classes"]["RBC"]["recall"] == 0.75
    assert figures["classes"]["RBC"]["false_alarms"] == 0
    assert figures["classes"]["RBC"]["ap50"] == pytest.approx(76 / 101, abs=1e-4)
    assert "platelet" not in figures["classes"]  # no label, so nothing to find
    assert figures["map50"] == pytest.approx((1 + 76 / 101) / 2, abs=1e-4)


def test_partly_labelled_classes_get_recall_alone() -> None:
    item = disc_field(1, complete=(False, False, False))
    tallies, _ = tally([item], all_but_one_red, 3)
    figures = summary(tallies, CLASS_NAMES, item.complete, 0.75)
    assert figures["map50"] is None
    red = figures["classes"]["RBC"]
    assert red["recall"] == 0.25
    assert red["false_alarms"] is None
    assert red["precision"] is None
    assert "ap50" not in red


def test_places_to_ignore_raise_no_false_alarm() -> None:
    item = disc_field(1)
    ignoring = type(item)(**{**item.__dict__, "ignore_px": np.array([[50, 2, 56, 8]], np.float32)})
    assert tally([item], all_but_one_red, 3)[0][2].at(0.35) == (0, 1)
    assert tally([ignoring], all_but_one_red, 3)[0][2].at(0.35) == (0, 0)


def test_figures_have_their_limits() -> None:
    item = disc_field(1)
    tallies, _ = tally([item, item], all_but_one_red, 3)
    figures = summary(tallies, CLASS_NAMES, item.complete, 0.35, draws=20)
    red = figures["classes"]["RBC"]
    assert red["recall_low"] < 0.75 < red["recall_high"]
    assert red["recall_low"] == pytest.approx(clopper_pearson(6, 8)[0], abs=1e-4)
    assert red["ap50_low"] == red["ap50"] == red["ap50_high"]  # both pictures are the same
    assert figures["map50_low"] == figures["map50"]


def test_confusion_joins_boxes_whatever_their_classes() -> None:
    item = disc_field(1)
    found = all_but_one_red(item.load())
    found = Found(found.boxes_px, found.scores, np.array([0, 0, 1, 1, 2]))
    table = confusion([(item, found)], 3, 0.55)
    assert table.tolist() == [[1, 0, 0, 0], [1, 2, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert confusion([(item, found)], 3, 0.35)[3].tolist() == [0, 0, 1, 0]


def test_mistakes_are_listed_surest_first() -> None:
    item = disc_field(1)
    found = all_but_one_red(item.load())
    found = Found(found.boxes_px, found.scores, np.array([1, 1, 1, 1, 2]))
    listed = mistakes([(item, found)], 0.35, (0, 1, 2))
    assert [(m.kind, CLASS_NAMES[m.label], m.instead) for m in listed] == [
        ("missed", "WBC", "RBC"),
        ("missed", "RBC", None),
        ("false", "RBC", "WBC"),
        ("false", "platelet", None),
    ]
    assert [round(m.score, 2) for m in listed] == [1.0, 1.0, 0.9, 0.5]
    assert sheet(listed, 0.35, columns=3).shape == (2 * 236, 3 * 220, 3)
    assert listed[0].as_dict()["picture"] == item.name


def test_plots_are_drawn(tmp_path: Path) -> None:
    item = disc_field(1)
    tallies, found = tally([item], all_but_one_red, 3)
    validation = {
        "discs": {"map50": 0.5, "map50_95": 0.3},
        "camera": {"map50": None, "classes": {"WBC": {"recall": 1}}},
    }
    lines = [{"step": n, "loss": 1 / n, "box": 1, "objectness": 1, "classes": 1} for n in (1, 2)]
    (tmp_path / "results.jsonl").write_text(
        "".join(json.dumps({**line, "results": validation}) + "\n" for line in lines)
    )
    plots.plot_loss(tmp_path / "results.jsonl", tmp_path / "loss.png")
    plots.plot_precision_recall({"discs": tallies}, CLASS_NAMES, tmp_path / "pr.png")
    plots.plot_confusion({"discs": confusion(found, 3, 0.35)}, CLASS_NAMES, tmp_path / "confusion.png")
    plots.plot_by_size({"WBC": [(8, 0.5), (32, 1)]}, (16, 64), tmp_path / "sizes.png")
    for name in ("loss", "pr", "confusion", "sizes"):
        picture = cv2.imread(str(tmp_path / f"{name}.png"))
        assert picture is not None
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 10, name


def test_overlapping_frames_show_the_same_cell() -> None:
    items = [replace(disc_field(seed), name=f"chula_wbc/images/S-1_{seed}.jpg") for seed in range(3)]
    middle = items[1].boxes_px[0] - items[0].boxes_px[0]
    places = {
        "S-1_0.jpg": {"island": 1, "x_px": 0.0, "y_px": 0.0},
        "S-1_1.jpg": {"island": 1, "x_px": -float(middle[0]), "y_px": -float(middle[1])},
        "S-1_2.jpg": {"island": 2, "x_px": 0.0, "y_px": 0.0},
    }
    cells = cells_of(items, places)
    assert sorted(len(boxes) for boxes in cells) == [1, 2]
    assert len(cells_of(items, {})) == 3
    found = all_but_one_red(items[0].load())
    white = replace(disc_field(1), boxes_px=disc_field(1).boxes_px[:1], classes=disc_field(1).classes[:1])
    assert found_boxes(white, found, 0.85).tolist() == [True]
    assert found_boxes(white, found, 0.95).tolist() == [False]


@pytest.mark.parametrize("diameter", [5.0, 10.0, 40.0])
def test_a_field_is_shown_at_a_magnification(diameter: float) -> None:
    item = disc_field(1)
    shown = shown_at(item, diameter)
    picture = shown.load()
    assert picture.shape[0] % 32 == picture.shape[1] % 32 == 0
    assert picture.shape[0] >= 120 * diameter / 20
    white = shown.boxes_px[shown.classes == 0][0]
    assert white[2] - white[0] == pytest.approx(40 * diameter / 20)
    x, y = ((white[:2] + white[2:]) / 2).astype(int)
    assert picture[y, x, 2] < 110
    assert len(shown.ignore_px) == 0


def test_labels_too_small_to_ask_for_are_ignored() -> None:
    shown = shown_at(disc_field(1), 3.0)
    assert shown.classes.tolist() == [0]
    assert len(shown.ignore_px) == 4


def test_drawing_leaves_the_picture_alone() -> None:
    item = disc_field(1)
    picture = item.load()
    drawn = evaluate_detector.draw(picture, item, all_but_one_red(picture), 0.35)
    assert np.array_equal(picture, item.load())
    assert (drawn != picture).any()


def test_an_unknown_model_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FileNotFoundError, match="model: got 'yolov9'"):
        evaluate_detector.make_predictor("yolov9", 640, 1)


def test_figures_become_tables_of_the_card() -> None:
    item = disc_field(1)
    tallies, _ = tally([item], all_but_one_red, 3)
    result = {"set": "discs", "part": "validation", "long_side_px": 128, "network_ms": None}
    result |= summary(tallies, CLASS_NAMES, item.complete, 0.35)
    measured = {"command": "the command", "results": [result]}
    assert set(figures_tables(measured, 416)) == {("discs", "128px", "validation")}
    tables = figures_tables(measured, 128)
    (read,) = tomllib.loads(toml({"figures": figure_tables(tables)}))["figures"]
    assert (read["dataset"], "view" in read, read["part"]) == ("discs", False, "validation")
    assert read["command"] == "the command"
    assert read["rbc_recall"] == 0.75
    assert "network_ms_p10" not in read


def test_other_measures_become_tables_of_the_card() -> None:
    share = {"hits": 46, "trials": 47, "value": 46 / 47, "low": 0.8871, "high": 0.9995}
    found = {"measure": "found cells", "command": "c", "part": "holdout", "slides": {"E-8": {}}}
    found |= {"cells_found_at_least_once": share, "boxes_found": share}
    entry = figures_tables(found, 416)["chula_wbc", "found cells", "holdout"]
    assert (entry["boxes_found"], entry["boxes_found_of"], entry["slides"]) == (46, 47, ["E-8"])
    results = [
        {"set": "discs", "part": "holdout", "rbc_diameter_px": d, "classes": {"WBC": {"recall": r, "ap50": None}}}
        for d, r in ((8, 0.5), (16, 1))
    ]
    sweep = figures_tables({"measure": "magnification", "command": "c", "results": results}, 416)
    entry = {"command": "c", "rbc_diameter_px": [8, 16], "wbc_recall": [0.5, 1]}
    assert sweep == {("discs", "magnification", "holdout"): entry}
    by_eye = {"measure": "table", "dataset": "discs", "view": "by eye", "part": "test", "table": {"frames": 3}}
    assert figures_tables(by_eye, 416) == {("discs", "by eye", "test"): {"frames": 3}}


def test_shares_are_parsed_or_refused() -> None:
    defaults = {"pbc": 0.6, "bccd": 0.4}
    assert parse_shares("pbc=.5", defaults) == {"pbc": 0.5, "bccd": 0.4}
    assert parse_shares("", defaults) == defaults
    with pytest.raises(ValueError, match="got 'pcb', expected one of"):
        parse_shares("pcb=1", defaults)
    with pytest.raises(ValueError, match="--shares pbc: got 'x', expected a number"):
        parse_shares("pbc=x", defaults)
