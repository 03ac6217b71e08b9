"""Slides filmed with a clock, a logo, a crosshair and a scale bar burnt in: the same cells and islands as without."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from streamer.analysis.quality import assess
from streamer.counting.slide_map import SlideMap
from streamer.run.slide_stage import STAGE
from streamer.sources.simulated import SlideParameters, VirtualSlide
from streamer.sources.simulated.overlay import burn_in
from streamer.stage import tracker as tracking
from streamer.stage.tracker import StageTracker
from tools.bench.stage import main as bench_stage
from tools.evaluate.unique_cells import true_boxes

NEAR_PX = 20
"""A cell that comes so near to the clock may be cut by it."""


def burnt_in(width, height):
    """(H, W): where the overlay is solid, that is, all of it but the crosshair."""
    image = np.full((height, width, 3), 200, np.uint8)
    burn_in(image, 0.0)
    return cv2.morphologyEx((image != 200).any(2).astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))


def is_clear(box_px, solid):
    """Whether a box is whole in the frame, apart from the overlay and not bounded by the crosshair."""
    height, width = solid.shape
    x1, y1, x2, y2 = box_px
    if x1 < NEAR_PX or y1 < NEAR_PX or x2 > width - NEAR_PX or y2 > height - NEAR_PX:
        return False
    if min(abs(x1 - width / 2), abs(x2 - width / 2), abs(y1 - height / 2), abs(y2 - height / 2)) < NEAR_PX:
        return False
    return not solid[int(y1) - NEAR_PX : int(y2) + NEAR_PX, int(x1) - NEAR_PX : int(x2) + NEAR_PX].any()


def filmed(parameters):
    """(islands, white cells counted whole, those that a counted frame shows clear of everything, false ones)."""
    slide = VirtualSlide(parameters)
    tracker, slide_map, find = StageTracker(STAGE), SlideMap(), true_boxes(slide, 1.0)
    size, clear = (parameters.width, parameters.height), set()
    solid = burnt_in(*size)
    for frame_id in range(len(slide)):
        image = slide.render(frame_id)
        accepted = assess(image).accepted
        placement = tracker.update(tracker.prepare(image), may_start=accepted)
        slide_map.update(placement, find(image, frame_id), size, frame_id, accepted=accepted)
        if accepted and placement.position is not None:
            cells = slide.truth(frame_id).cells
            clear |= {one.cell.cell_id for one in cells if one.cell.kind == "white" and is_clear(one.box_px, solid)}
    slide_map.finish(tracker.finish().corrections)
    truth = slide.white_cells()
    boxes = np.array([cell.box_px for cell in truth])
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 - (slide.motion.x_px[0], slide.motion.y_px[0])
    counted, false = [], 0
    for cell in slide_map.cells():
        gaps = np.linalg.norm(centres - (cell.x_px, cell.y_px), axis=1)
        if cell.kind == "white" and not cell.partial:
            counted.append(truth[int(gaps.argmin())].cell_id)
            false += gaps.min() > 20
    return tracker.islands, counted, clear, false


def same_cells_and_islands(text):
    plain = SlideParameters.parse(text)
    islands, cells, *_ = filmed(plain)
    with_overlay, counted, clear, false = filmed(replace(plain, overlay=1))
    assert with_overlay == islands == (0,)
    assert false == 0
    assert len(counted) == len(set(counted))
    assert clear <= set(counted) <= set(cells)
    assert len(clear) >= len(cells) / 3


SHORT = "sim:seed=6,cells=8,pattern=mixed,jumps=1,returns=1,dwell=1,travel=3"


@pytest.mark.lengthy
def test_a_film_with_an_overlay_gives_the_same_cells_and_islands():
    same_cells_and_islands(SHORT)


@pytest.mark.lengthy
def test_without_the_static_mask_it_does_not(monkeypatch):
    monkeypatch.setattr(tracking, "learn", lambda mask, *_: mask)
    with pytest.raises(AssertionError):
        same_cells_and_islands(SHORT)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(41, 51))
def test_films_of_ten_seeds_with_an_overlay_give_the_same_cells_and_islands(seed):
    same_cells_and_islands(f"sim:seed={seed},cells=16,pattern=mixed,jumps=2,returns=1,dwell=2")


@pytest.mark.data
@pytest.mark.lengthy
def test_real_slides_with_an_overlay_have_the_same_islands_cells_and_places(tmp_path):
    from tools.data.readers import DataSetMissing, data_root

    try:
        root = data_root()
    except DataSetMissing as missing:
        pytest.skip(str(missing))
    if not (root / "chula_wbc" / "unique_cells.json").is_file():
        pytest.skip(f"{root} has no chula_wbc/unique_cells.json")
    file = tmp_path / "stage.json"
    assert bench_stage(["--data", str(root), "--overlay", "--json", str(file)]) == 0
    figures = json.loads(file.read_text())
    for slide in figures["slides"].values():
        assert (slide["islands"], slide["cells"], slide["lost"]) == (slide["true_islands"], slide["true_cells"], 0)
    assert figures["error_final_px"]["p95"] <= 2.5
