"""Measuring and exporting: figures of partly labelled classes, cards that TOML reads back, plain errors."""

from __future__ import annotations

import tomllib

import numpy as np
import pytest

pytest.importorskip("torch", reason="checkpoints are read by PyTorch")

from tests.tools.detection_cases import disc_field
from tools import evaluate_detector
from tools.detection.export import figures_tables
from tools.detection.fields import CLASS_NAMES
from tools.detection.measure import summary, tally
from tools.detection.predict import Found
from tools.export import toml
from tools.train_detector import parse_shares


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
    assert set(figures_tables(measured, 416)) == {"discs_validation_128px"}
    tables = figures_tables(measured, 128)
    read = tomllib.loads(toml({"figures": tables}))["figures"]["discs_validation"]
    assert read["command"] == "the command"
    assert read["rbc_recall"] == 0.75
    assert "network_ms_p10" not in read


def test_shares_are_parsed_or_refused() -> None:
    assert parse_shares("pbc=.5")["pbc"] == 0.5
    with pytest.raises(ValueError, match="got 'pcb', expected one of"):
        parse_shares("pcb=1")
    with pytest.raises(ValueError, match="--shares pbc: got 'x', expected a number"):
        parse_shares("pbc=x")
