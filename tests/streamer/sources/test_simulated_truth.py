"""The truth about a simulated frame: boxes hug the cells painted, and nothing is painted that has no box."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.sources.simulated import SlideCell, SlideParameters, VirtualSlide, training_fields
from streamer.sources.simulated.painting import LOOKS, outline_of, paint
from streamer.sources.simulated.smear import BLOCK_PX, Smear
from streamer.sources.simulated.tiles import Tiles
from streamer.sources.simulated.truth import cells_in_frame

VISIBLE = 0.05
"""Optical density from which on a pixel counts as painted: five per cent darker than glass."""


def extent(painted: np.ndarray) -> tuple[float, float, float, float]:
    rows, columns = np.flatnonzero(painted.any(axis=1)), np.flatnonzero(painted.any(axis=0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("red_px", [20.0, 44.0])
def test_a_sprite_fills_its_outline_and_no_more(look: str, seed: int, red_px: float) -> None:
    rng = np.random.default_rng(seed)
    outline = outline_of(look, rng, red_px)
    x1, y1, x2, y2 = outline.extent_px()
    sprite = paint(look, outline, rng, red_px, 200.3, 300.8)
    left, top, right, bottom = extent(sprite.density.max(axis=2) > VISIBLE)
    painted = (left + sprite.left_px, top + sprite.top_px, right + sprite.left_px, bottom + sprite.top_px)
    wanted = (200.3 + x1, 300.8 + y1, 200.3 + x2, 300.8 + y2)
    assert np.all(np.abs(np.subtract(painted, wanted)) <= 1.5)
    assert sprite.density.dtype == np.float32


def test_every_box_hugs_what_is_painted_on_the_slide() -> None:
    looks = ["segmented neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil", "erythroblast"]
    smear = Smear(5, 900, 700, looks, red_px=30, crowding=0.15, margin_px=10)
    glass = Tiles(smear).view(0, 0, 900, 700)
    painted = glass.min(axis=2) < 255 * np.exp(-VISIBLE)
    cells = list(smear.cells())
    boxes = np.array([cell.box_px for cell in cells])
    checked: Counter[str] = Counter()
    for index, cell in enumerate(cells):
        x1, y1, x2, y2 = cell.box_px
        near = (boxes[:, 0] < x2 + 6) & (boxes[:, 2] > x1 - 6) & (boxes[:, 1] < y2 + 6) & (boxes[:, 3] > y1 - 6)
        if near.sum() > 1 or x1 < 3 or y1 < 3 or x2 > 897 or y2 > 697:
            continue
        left, top, right, bottom = int(x1) - 3, int(y1) - 3, int(x2) + 4, int(y2) + 4
        found = np.add(extent(painted[top:bottom, left:right]), (left, top, left, top))
        assert np.all(np.abs(found - boxes[index]) <= 1.6), cell
        checked[cell.kind] += 1
    assert checked["red"] >= 30
    assert checked["white"] + checked["nucleated red"] >= 2
    assert checked["platelet"] >= 3


@pytest.mark.parametrize("frame_id", [0, 1, 7])
def test_nothing_is_painted_outside_the_boxes_of_a_frame(frame_id: int) -> None:
    parameters = SlideParameters(seed=9, cells=20, width=480, height=360, red=36, noise=0, vignette=0, blur=0)
    slide = VirtualSlide(parameters)
    image = slide.render(frame_id).astype(int)
    glass = np.zeros(image.shape[:2], dtype=bool)
    glass[3:-3, 3:-3] = True  # at the rim the lens's blur brings in cells that lie just outside
    for visible in slide.truth(frame_id).cells:
        x1, y1, x2, y2 = visible.box_px
        glass[max(int(y1) - 3, 0) : int(y2) + 4, max(int(x1) - 3, 0) : int(x2) + 4] = False
    assert 0.1 < glass.mean() < 0.9
    clear = np.median(image[glass], axis=0)
    assert np.abs(image[glass] - clear).max() <= 2
    assert np.abs(image[~glass] - clear).max() > 100


def test_truth_and_pixels_move_together() -> None:
    parameters = SlideParameters(seed=2, cells=12, width=320, height=240, red=32, noise=0, vignette=0, blur=0)
    slide = VirtualSlide(parameters)
    rest = [frame_id for frame_id in range(len(slide)) if not slide.truth(frame_id).moving]
    first, second = rest[0], next(frame_id for frame_id in rest if slide.truth(frame_id).x_px > 200)
    one, other = slide.truth(first), slide.truth(second)
    shift = round(other.x_px - one.x_px)
    assert 0.18 * 320 < 320 - shift < 0.22 * 320
    left, right = slide.render(first)[:, shift:].astype(int), slide.render(second)[:, : 320 - shift].astype(int)
    down = round(other.y_px - one.y_px)
    here, there = left[max(down, 0) : 240 + min(down, 0)], right[max(-down, 0) : 240 - max(down, 0)]
    assert np.abs(here - there).mean() < 4
    assert np.abs(here[:-20] - there[20:]).mean() > 12


def test_all_white_cells_are_listed_once() -> None:
    slide = VirtualSlide(SlideParameters(seed=1, cells=60, width=320, height=240, red=30, erythroblasts=5))
    cells = list(slide.cells())
    assert len({cell.cell_id for cell in cells}) == len(cells)
    kinds = Counter(cell.kind for cell in cells)
    assert kinds["white"] == 60
    assert kinds["nucleated red"] == 3
    assert kinds["red"] > 500
    assert kinds["platelet"] > 30
    assert slide.white_cells() == tuple(sorted((c for c in cells if c.kind == "white"), key=lambda c: c.cell_id))
    classes = Counter(cell.class_name for cell in slide.white_cells())
    assert classes == {"neutrophil": 35, "lymphocyte": 19, "monocyte": 3, "eosinophil": 2, "basophil": 1}
    assert {cell.subclass for cell in slide.white_cells() if cell.class_name == "neutrophil"} == {
        "segmented neutrophil",
        "band neutrophil",
    }


def test_white_cells_keep_apart() -> None:
    slide = VirtualSlide(SlideParameters(seed=6, cells=80))
    cells = slide.white_cells()
    centres = np.array([(cell.x_px, cell.y_px) for cell in cells])
    away = np.hypot(*(centres[:, None] - centres).transpose(2, 0, 1)) + 1e6 * np.eye(len(cells))
    assert away.min() > 44


def test_cells_seen_whole_are_those_that_a_frame_shows_whole() -> None:
    slide = VirtualSlide(SlideParameters(seed=8, cells=15, width=320, height=240, red=36, dwell=1, travel=2))
    frame_ids = range(0, len(slide), 3)
    by_truth = {
        visible.cell.cell_id
        for frame_id in frame_ids
        for visible in slide.truth(frame_id).white()
        if visible.fraction_visible == 1
    }
    assert set(slide.white_cells_seen(frame_ids)) == by_truth
    assert 0 < len(by_truth) <= 15
    still = slide.white_cells_seen(range(len(slide)), max_motion_px=2)
    assert set(still) <= set(slide.white_cells_seen(range(len(slide))))


@given(
    x=st.floats(-50, 150),
    y=st.floats(-50, 150),
    width=st.floats(1, 60),
    height=st.floats(1, 60),
)
def test_a_visible_box_is_the_part_inside_the_frame(x: float, y: float, width: float, height: float) -> None:
    cell = SlideCell(0, "white", "lymphocyte", None, x, y, (x, y, x + width, y + height))
    visible = cells_in_frame([cell], 20.0, 10.0, 100, 80)
    inside = max(min(x + width, 120) - max(x, 20), 0) * max(min(y + height, 90) - max(y, 10), 0)
    if not visible:
        assert inside <= 1e-9
        return
    (found,) = visible
    x1, y1, x2, y2 = found.box_px
    assert 0 <= x1 < x2 <= 100
    assert 0 <= y1 < y2 <= 80
    assert found.fraction_visible == pytest.approx(inside / (width * height), abs=1e-6)


def test_memory_stays_bounded_while_the_stage_goes_on() -> None:
    smear = Smear(1, 40 * BLOCK_PX, 2 * BLOCK_PX, [], red_px=60, kept_blocks=20)
    tiles = Tiles(smear, kept=6)
    for column in range(0, 40, 2):
        tiles.view(column * BLOCK_PX, 0, BLOCK_PX, BLOCK_PX)
    assert len(tiles) == 6


@pytest.mark.lengthy
def test_training_fields_are_labelled_and_repeatable() -> None:
    fields = list(training_fields(5, 6, 320, 240))
    for (image, boxes, kinds, classes), (again, *_) in zip(fields, training_fields(5, 6, 320, 240), strict=True):
        np.testing.assert_array_equal(image, again)
        assert image.shape == (240, 320, 3)
        assert image.dtype == np.uint8
        assert boxes.dtype == np.float32
        assert boxes.shape == (len(kinds), 4)
        assert len(classes) == len(kinds)
        assert set(kinds) <= {"white", "red", "platelet", "nucleated red"}
        assert np.all(boxes[:, :2] < boxes[:, 2:])
        assert boxes.min() >= 0
        assert np.all(boxes[:, [0, 2]] <= 320)
        assert np.all(boxes[:, [1, 3]] <= 240)
    kinds = Counter(kind for _, _, kinds, _ in fields for kind in kinds)
    assert kinds["red"] > 50
    assert kinds["white"] >= 5
    widths = [
        np.median(b[[k == "red" for k in kinds], 2] - b[[k == "red" for k in kinds], 0]) for _, b, kinds, _ in fields
    ]
    assert max(widths) > 1.5 * min(widths)
