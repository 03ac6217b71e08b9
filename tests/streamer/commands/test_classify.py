"""`leukostream classify` on pictures that show more than the cell."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from engines.geometry import iou_matrix
from engines.models.loading import load_detector
from streamer.analysis.field_search import SMALLEST_FIELD_PX, FieldSearch
from streamer.cli import main
from streamer.sources.simulated import training_fields


@pytest.fixture(scope="module")
def field() -> tuple[np.ndarray, np.ndarray]:
    """A picture uint8 (480,640,3) and the boxes (n,4) of its white cells."""
    image, boxes, kinds, _ = next(iter(training_fields(3, 1, 640, 480, red_px=(40.0, 45.0))))
    return image, boxes[[kind in ("white", "nucleated red") for kind in kinds]]


@pytest.fixture(scope="module")
def search() -> FieldSearch:
    return FieldSearch(load_detector("yolov5n-blood"))


def test_the_white_cell_in_the_middle_is_the_one(field, search) -> None:
    image, white = field
    for box in white:
        x, y = ((box[:2] + box[2:]) / 2).astype(int)
        left, top = x - 150, y - 150
        padded = cv2.copyMakeBorder(image, 300, 300, 300, 300, cv2.BORDER_REFLECT_101)
        shifted = box - np.array([left, top] * 2)
        found = search.white_cell(np.ascontiguousarray(padded[top + 300 : top + 600, left + 300 : left + 600]))
        assert found is not None
        assert iou_matrix(found.box_px, shifted[None].astype(np.float32))[0, 0] > 0.5


def test_small_pictures_are_not_searched_and_empty_ones_have_no_cell(field, search) -> None:
    image, _ = field
    small = np.ascontiguousarray(image[: SMALLEST_FIELD_PX - 1])
    assert search.white_cell(small) is None
    assert search.white_cell(np.full((480, 640, 3), 220, np.uint8)) is None


def lines_of(folder, *options: str) -> dict[str, dict]:
    out = folder.parent / "lines.jsonl"
    assert main(["classify", "--source", str(folder), "--jsonl", str(out), *options]) == 0
    return {line["file"]: line for line in map(json.loads, out.read_text().splitlines())}


def test_a_field_is_named_by_its_cell_and_a_cut_out_cell_as_it_is(field, tmp_path) -> None:
    image, white = field
    x1, y1, x2, y2 = white[0].astype(int)
    folder = tmp_path / "cells"
    folder.mkdir()
    cv2.imwrite(str(folder / "cell.png"), image[max(y1 - 5, 0) : y2 + 5, max(x1 - 5, 0) : x2 + 5])
    cv2.imwrite(str(folder / "field.png"), image)
    cv2.imwrite(str(folder / "second.png"), image[:, ::-1])
    searched, whole = lines_of(folder), lines_of(folder, "--detector", "none")
    assert searched["cell.png"] == whole["cell.png"]
    assert searched["cell.png"]["box_px"] is None
    assert iou_matrix(np.float32([searched["field.png"]["box_px"]]), white).max() > 0.5
    assert whole["field.png"]["box_px"] is None
    assert searched["field.png"]["class_probabilities"] != whole["field.png"]["class_probabilities"]
    assert set(searched) == {"cell.png", "field.png", "second.png"}
