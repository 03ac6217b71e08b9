"""Cells under what is burnt into the frames: not counted, counted as cut ones, or taken back once it is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from streamer.counting.slide_map import SlideMap
from streamer.counting.visits import Visits
from streamer.stage.hidden import HiddenParts
from streamer.stage.placement import Correction, Placement
from tests.streamer.counting.test_slide_map import HEIGHT, RED, WHITE, WIDTH, Slide, detections, placed

MASK = np.zeros((HEIGHT // 2, WIDTH // 2), np.uint8)
MASK[:20, :100] = 1  # a clock: 200 x 40 px of the frame
MASK[75, :] = 1  # a crosshair's line
HIDDEN = HiddenParts(MASK, 2)
UNDER, CUT, CLEAR, CROSSED = (80, 20), (150, 60), (300, 90), (100, 150)


def hidden(placement: Placement) -> Placement:
    return replace(placement, hidden=HIDDEN)


def box(centre, side=40):
    return [centre[0] - side / 2, centre[1] - side / 2, centre[0] + side / 2, centre[1] + side / 2]


@pytest.mark.parametrize(
    ("centre", "counted", "at_the_end"),
    [
        pytest.param((80, 22), 0, 0, id="under it: no cell"),
        pytest.param((80, 50), 0, 1, id="a quarter of it under it: one that is cut"),
        pytest.param(CUT, 0, 1, id="beside it: perhaps cut"),
        pytest.param(CLEAR, 1, 1, id="clear of it: a whole one"),
        pytest.param(CROSSED, 1, 1, id="a line through it: a whole one"),
    ],
)
def test_a_cell_by_where_it_lies(centre, counted, at_the_end):
    slide = Slide()
    found = slide.feed(hidden(placed()), detections(box(centre)))
    assert slide.white == counted
    assert (found.observations[0].cell_id is None) is (at_the_end == 0)
    slide.map.finish()
    assert (slide.white, len(list(slide.map.uncounted_cells()))) == (counted, at_the_end - counted)


def test_a_cell_cut_by_it_is_the_one_that_another_frame_shows_whole():
    slide = Slide()
    slide.feed(hidden(placed()), detections([130, 40, 170, 70]))
    assert slide.white == 0
    slide.feed(hidden(placed(0, -60)), detections([130, 90, 170, 130]))
    assert slide.white == 1
    slide.map.finish()
    assert (slide.white, len(list(slide.map.uncounted_cells()))) == (1, 0)


def test_what_was_counted_before_it_was_known_is_taken_back():
    slide = Slide()
    seen = detections(box(UNDER, 24), box(CUT), box(CLEAR), box((250, 60)), labels=[WHITE, WHITE, WHITE, RED])
    for _ in range(3):
        slide.feed(placed(), seen)
    assert (slide.white, slide.map.counts().red) == (3, 1)
    update = slide.feed(hidden(placed(50, 0)), detections(box((CLEAR[0] - 50, CLEAR[1]))))
    assert slide.white == 1
    assert dict(update.removed) == {0: None, 1: None}
    assert slide.map.counts().red == 1
    slide.map.finish()
    assert [[cell.cell_id for cell in cells] for cells in (slide.map.cells(), slide.map.uncounted_cells())] == [
        [2],
        [1],
    ]


def test_a_cell_that_was_also_seen_beside_it_stays():
    slide = Slide()
    slide.feed(placed(), detections(box(UNDER, 24)))
    slide.feed(placed(0, -80), detections(box((UNDER[0], UNDER[1] + 80), 24)))
    slide.feed(hidden(placed(0, -80)), detections(box((UNDER[0], UNDER[1] + 80), 24)))
    assert slide.white == 1


def test_a_cell_that_lay_clear_between_two_hidden_places_stays():
    slide = Slide()
    for y in (0, -80, 0):
        slide.feed(placed(0, y), detections(box((UNDER[0], UNDER[1] - y), 24)))
    slide.feed(hidden(placed(200, 0)), detections())
    assert slide.white == 1


def test_places_move_with_the_map():
    slide = Slide()
    slide.feed(placed(island=1, anchor=3), detections(box(UNDER, 24), box(CLEAR)))
    moved = placed(500, 0, anchor=4, corrections=[Correction(3, 0, 900.0, 0.0)])
    slide.feed(hidden(moved), detections())
    assert slide.white == 1
    assert [(cell.island, cell.x_px) for cell in slide.map.cells()] == [(0, CLEAR[0] + 900)]


def test_a_restored_map_goes_on_as_the_original():
    slide = Slide()
    slide.feed(placed(), detections(box(UNDER, 24), box(CLEAR)))
    restored = SlideMap()
    state = slide.map.state()
    columns = {name: column.copy() for name, column in state.cells.items()}
    restored.restore(replace(state, cells=columns))
    for one in (slide.map, restored):
        one.update(hidden(placed(50, 0)), detections(), (WIDTH, HEIGHT), 1)
    assert restored.counts() == slide.map.counts()
    assert restored.counts().white == 1


def test_places_are_remembered_once_and_so_many_of_them():
    visits = Visits()
    for frame_id in range(2000):
        visits.add(placed(100.0 * (frame_id // 4), 0.5 * (frame_id % 4)), frame_id)
    assert len(visits.rows) == 256
    assert visits.rows[-1].tolist() == [1996, 0, 0, 49900, 0]
    visits.add(Placement(None), 2000)
    assert len(visits.rows) == 256
