"""`leukostream explain`: a picture a cell or field, a line a cell, and bad usage said in one line."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from engines.backends.scripted import ScriptedEngine, TensorSpec, classifier_specs
from engines.models.explainer import Explainer, overlay, within
from engines.models.loading import load_explainer
from engines.zoo.card import Card, ClassEntry, Thresholds
from engines.zoo.crops import CropInput
from streamer.cli import main
from streamer.sources.simulated import training_fields

CARD = Card(
    "two",
    "classifier",
    CropInput(8, 8, crop_margin=2.0),
    (ClassEntry("a", "white"), ClassEntry("b", "white")),
    Thresholds(0.5),
    "two.onnx",
)


def explainer(maps: np.ndarray, probabilities: tuple[float, float] = (0.9, 0.1)) -> Explainer:
    """Says the same of every crop; `maps` (2, h, w) are those of its two classes."""
    inputs, results = classifier_specs(8, 8, 2)
    specs = [*results, TensorSpec("cam", (None, 2, *maps.shape[1:]), np.dtype(np.float32))]

    def answer(feeds):
        n = len(feeds["images"])
        return {"class_probabilities": np.tile(np.float32(probabilities), (n, 1)), "cam": np.stack([maps] * n)}

    return Explainer(CARD, ScriptedEngine(inputs, specs, answer))


def test_a_map_lies_where_the_box_is() -> None:
    maps = np.zeros((2, 4, 4), np.float32)
    maps[1, 2:, 2:] = 7.0  # evidence for b at the lower right
    frame = np.full((60, 100, 3), 100, np.uint8)
    boxes = np.array([[40, 20, 60, 40], [-5, -5, 15, 15]], np.float32)
    inside, cut = explainer(maps).explain_boxes(frame, boxes, class_index=1)
    assert (inside.square_px, cut.square_px) == ((30, 10, 40), (-15, -15, 40))
    assert inside.map.shape == (40, 40)
    assert inside.map.max() == 1
    assert inside.map[:14, :14].max() < 0.01
    assert inside.map[30:, 30:].min() > 0.9
    shown = overlay(frame, [inside, cut])
    changed = (shown != frame).any(2)
    assert changed[40:50, 60:70].all()
    assert changed[15:25, 15:25].all()
    assert not changed[10:20, 30:42].any()
    assert (frame == 100).all()


def test_heat_outside_of_the_cell_is_not_shown_and_is_said() -> None:
    maps = np.zeros((2, 4, 4), np.float32)
    maps[0, 0, 0] = maps[0, 1:3, 1:3] = 3.0  # in a corner, and in the middle
    frame = np.full((80, 80, 3), 100, np.uint8)
    (cell,) = explainer(maps).explain_boxes(frame, np.array([[20, 20, 60, 60]], np.float32))
    inside, outside_share = within(cell, (20, 20, 60, 60))
    assert outside_share is not None
    assert 0.3 < outside_share < 0.6
    assert inside.map[40, 40] == 1
    assert inside.map[:12, :12].max() == 0 < cell.map[:12, :12].max()
    assert within(replace(cell, map=np.zeros_like(cell.map)), (20, 20, 60, 60))[1] is None
    assert inside.map.sum() / cell.map.sum() == pytest.approx(1 - outside_share)


def centre_of(heat: np.ndarray) -> tuple[float, float]:
    """x, y over the side."""
    y, x = (np.mgrid[: heat.shape[0], : heat.shape[1]] + 0.5) / heat.shape[0]
    return float((x * heat).sum() / heat.sum()), float((y * heat).sum() / heat.sum())


def test_a_liking_for_a_corner_is_turned_away_and_what_is_seen_stays() -> None:
    """A network that looks at what is dark, and at its lower right corner whatever is there."""
    inputs, results = classifier_specs(8, 8, 2)
    specs = [*results, TensorSpec("cam", (None, 2, 4, 4), np.dtype(np.float32))]

    def answer(feeds):
        crops = feeds["images"]
        dark = 255.0 - crops.reshape(len(crops), 4, 2, 4, 2, 3).mean((2, 4, 5))
        dark[:, 3, 3] += 500
        return {
            "class_probabilities": np.tile(np.float32([0.9, 0.1]), (len(crops), 1)),
            "cam": np.stack([dark, dark], 1).astype(np.float32),
        }

    subject = Explainer(CARD, ScriptedEngine(inputs, specs, answer))
    crops = np.full((1, 8, 8, 3), 255, np.uint8)
    crops[0, 2:4, 4:6] = 0  # one cell of the map, right of the middle and above it
    plain, turned = subject.maps(crops)[1][0, 0], subject.turned_maps(crops)[1][0, 0]
    assert plain.argmax() == 15
    corners = turned[[0, 0, 3, 3], [0, 3, 0, 3]]
    assert corners == pytest.approx([125] * 4), "the liking is the same in all corners"
    assert turned[1, 2] == pytest.approx(255)
    assert centre_of(plain)[1] > 0.6
    assert centre_of(turned)[0] > 0.5 > centre_of(turned)[1]


@pytest.mark.lengthy
def test_the_default_classifier_leans_and_is_put_right() -> None:
    image, boxes, kinds, _ = next(iter(training_fields(3, 1, 640, 480, red_px=(40.0, 45.0))))
    white = np.array([box for box, kind in zip(boxes, kinds, strict=True) if kind == "white"], np.float32)
    subject = load_explainer("efficientnet-lite0")
    found = {}
    for turned in (False, True):
        cells = subject.explain_boxes(image, white, rbc_px=42.0, turned=turned)
        found[turned] = np.mean([centre_of(cell.map) for cell in cells], axis=0)
    assert found[False].min() > 0.6
    assert found[True] == pytest.approx([0.5, 0.5], abs=0.08)


def test_no_evidence_leaves_the_picture_as_it_is() -> None:
    picture = np.full((20, 30, 3), 90, np.uint8)
    cell = explainer(np.zeros((2, 4, 4), np.float32)).explain_cell(picture)
    assert cell.class_index == 0
    assert cell.square_px == (0, -5, 30)
    assert (cell.map == 0).all()
    assert (overlay(picture, [cell]) == picture).all()


def test_the_surer_look_at_a_single_cell_is_shown() -> None:
    inputs, results = classifier_specs(8, 8, 2)
    specs = [*results, TensorSpec("cam", (None, 2, 2, 2), np.dtype(np.float32))]
    answer = {
        "class_probabilities": np.array([[0.6, 0.4], [0.9, 0.1]], np.float32),
        "cam": np.stack([np.zeros((2, 2, 2)), np.full((2, 2, 2), 3)]).astype(np.float32),
    }
    subject = Explainer(CARD, ScriptedEngine(inputs, specs, [answer, answer]))
    cell = subject.explain_cell(np.zeros((100, 100, 3), np.uint8))
    np.testing.assert_allclose(cell.looks.probabilities, [[0.786, 0.214]], atol=1e-3)  # pooled as classify pools them
    assert cell.square_px == (18, 18, 65)
    assert (cell.map == 1).all()
    other = subject.explain_cell(np.zeros((100, 100, 3), np.uint8), class_index=1)
    assert (other.class_index, other.square_px) == (1, (0, 0, 100))
    assert (other.map == 0).all()


def test_pictures_of_cells_become_overlays_and_lines(tmp_path, capsys) -> None:
    cells = tmp_path / "cells" / "sub"
    cells.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, side in (("one.jpg", 90), ("two.png", 300)):
        cv2.imwrite(str(cells / name), rng.integers(0, 256, (side, side, 3), np.uint8))
    (tmp_path / "cells" / "notes.txt").write_text("no picture")
    out = tmp_path / "out"
    assert main(["explain", str(tmp_path / "cells"), "-o", str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"explained 2 pictures in {out}; skipped 1: not an image 1\n"
    assert "skipped notes.txt" in printed.err
    lines = [json.loads(line) for line in (out / "explained.jsonl").read_text().splitlines()]
    assert [(line["file"], line["overlay"]) for line in lines] == [
        ("sub/one.jpg", "sub/one.png"),
        ("sub/two.png", "sub/two.png"),
    ]
    sheets = [cv2.imread(str(out / line["overlay"])) for line in lines]
    assert [sheet.shape for sheet in sheets] == [(270 + 56, 560, 3), (300 + 56, 608, 3)]
    two = cv2.imread(str(cells / "two.png"))
    assert (sheets[1][:300, :300] == two).all(), "the picture as it is stands beside its map"
    assert [line["outside_share"] is None for line in lines] == [False, True], "no cell was found in the noise of two"
    for line in lines:
        assert line["explained_class"] == line["top_class"]
        assert sum(line["class_probabilities"].values()) == pytest.approx(1)
        assert line["box_px"] is None
    assert main(["explain", str(cells / "two.png"), "-o", str(out), "--class", "monocyte"]) == 0
    lines = [json.loads(line) for line in (out / "explained.jsonl").read_text().splitlines()]
    assert [(line["file"], line["explained_class"]) for line in lines] == [("two.png", "monocyte")]


def test_a_field_is_explained_cell_by_cell(tmp_path) -> None:
    image, boxes, kinds, _ = next(iter(training_fields(3, 1, 640, 480, red_px=(40.0, 45.0))))
    cv2.imwrite(str(tmp_path / "field.png"), image)
    assert (
        main(["explain", str(tmp_path / "field.png"), "-o", str(tmp_path / "out"), "--detector", "yolov5n-blood"]) == 0
    )
    lines = [json.loads(line) for line in (tmp_path / "out" / "explained.jsonl").read_text().splitlines()]
    white = [box for box, kind in zip(boxes, kinds, strict=True) if kind in ("white", "nucleated red")]
    assert 1 <= len(lines) <= 3 * len(white)
    assert all(len(line["box_px"]) == 4 for line in lines)
    assert all(0 <= line["outside_share"] <= 1 for line in lines)
    shown = cv2.imread(str(tmp_path / "out" / "field.png"))
    assert (shown[:480, :640] == image).all()
    assert (shown[:480, 648:1288] != image).any()
    assert shown.shape == (480 + 24 * (len(lines) + 1) + 8, 1288, 3)


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (["--class", "monozyte"], 2, "did you mean 'monocyte'"),
        (["--classifier", "mobilenet"], 2, "mobilenetv3-small"),
        ([], 1, "expected pictures"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, capsys, arguments, status, expected) -> None:
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "no.jpg").write_text("nothing")
    got = main(["explain", str(tmp_path / "cells"), "-o", str(tmp_path / "out"), *arguments])
    assert got == status
    assert expected in capsys.readouterr().err.splitlines()[-1]
