"""Scripted slides: who lies where is known, so is every count."""

from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.counting.fusion import FusionConfig
from streamer.counting.slide_map import SlideConfig, SlideMap, SlideState
from streamer.records import UNCLASSIFIED, Classifications, Detections, Observation, Reclassification, StagePosition
from streamer.stage.placement import Correction, Placement

WIDTH, HEIGHT = 400, 300
LABELS = ("WBC", "RBC", "platelet", "erythroblast")
KINDS = ("white", "red", "platelet", "nucleated red")
CLASSES = ("neutrophil", "lymphocyte")

WHITE, RED, PLATELET, NUCLEATED = range(4)
NEUTROPHIL, LYMPHOCYTE = (0.9, 0.1), (0.1, 0.9)


def detections(*boxes, labels=None, scores=None):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return Detections(
        boxes_px=boxes,
        scores=np.ones(len(boxes), np.float32) if scores is None else np.float32(scores),
        labels=np.zeros(len(boxes), np.intp) if labels is None else np.array(labels, np.intp),
        label_names=LABELS,
        kinds=KINDS,
        truncated=False,
    )


def looks(*rows):
    return Classifications(np.float32(rows).reshape(-1, 2), CLASSES, np.zeros((len(rows), 0), np.float32), (), ())


def placed(x=0.0, y=0.0, island=0, anchor=0, corrections=()):
    return Placement(StagePosition(island, x, y, 1.0), anchor, None, tuple(corrections))


class Slide:
    """Cells at known places, (x, y, diameter, label); shows frames of them to a slide map."""

    def __init__(self, *cells, config=None, jitter=0.0, seed=0):
        self.cells = cells
        self.map = SlideMap(config)
        self.jitter = jitter
        self.rng = np.random.default_rng(seed)
        self.frames = 0
        self.updates = []

    def show(self, x=0.0, y=0.0, *, island=0, anchor=0, corrections=(), looks=None, **how):
        boxes, labels = [], []
        for cx, cy, diameter, label in self.cells:
            whole = np.array([cx - diameter / 2, cy - diameter / 2, cx + diameter / 2, cy + diameter / 2])
            box = whole + self.rng.normal(0, self.jitter, 4) - [x, y, x, y]
            box = box.clip(0, (WIDTH, HEIGHT, WIDTH, HEIGHT))
            if min(box[2] - box[0], box[3] - box[1]) > 5:
                boxes.append(box)
                labels.append(label)
        placement = placed(x, y, island, anchor, corrections)
        return self.feed(placement, detections(*boxes, labels=labels), looks, **how)

    def feed(self, placement, found, looks=None, **how):
        update = self.map.update(placement, found, (WIDTH, HEIGHT), self.frames, looks, **how)
        self.frames += 1
        self.updates.append(update)
        return update

    @property
    def white(self):
        return self.map.counts().white

    def new(self):
        return sum(observation.is_new for update in self.updates for observation in update.observations)


def test_a_cell_seen_in_twenty_frames_is_one_cell():
    slide = Slide((600, 450, 60, WHITE), jitter=2)
    numbers = {slide.show(x, y).observations[0].cell_id for x in range(300, 501, 50) for y in range(220, 401, 60)}
    assert len(numbers) == 1
    assert slide.frames == 20
    assert (slide.white, slide.new()) == (1, 1)
    [cell] = slide.map.cells()
    assert (cell.looks, cell.first_frame_id, cell.last_frame_id, cell.partial) == (20, 0, 19, False)
    assert (cell.x_px, cell.y_px) == pytest.approx((600, 450), abs=2)


def test_each_kind_has_its_own_count():
    slide = Slide((100, 100, 60, WHITE), (200, 100, 40, RED), (300, 100, 12, PLATELET), (100, 200, 50, NUCLEATED))
    for x in (0, 20, 40):
        slide.show(x, 0)
    counts = slide.map.counts()
    assert (counts.white, counts.red, counts.platelets, counts.nucleated_red) == (1, 1, 1, 1)
    assert counts.classes == {UNCLASSIFIED: 1}
    assert [cell.kind for cell in slide.map.cells()] == ["white", "nucleated red"]


def test_a_restored_map_goes_on_as_the_original():
    """After every frame of a walk with cut cells, two islands that become one, and looks that change classes."""
    rng = np.random.default_rng(8)
    cells = [(*rng.uniform(20, 900, 2), 40, label) for label in (WHITE,) * 12 + (RED,) * 20 + (NUCLEATED,) * 3]
    original = Slide(*cells, jitter=1.5)
    restored = SlideMap()
    walk = [(x, y, x // 300) for y in (0, 200, 400) for x in (0, 100, 200, 300, 400, 500)] * 2
    for number, (x, y, island) in enumerate(walk):
        joined = number >= len(walk) // 2
        anchor, island = island, 0 if joined else island
        corrections = [Correction(1, 0, 0.0, 0.0)] if number == len(walk) // 2 else []
        state = original.map.state()
        columns = {name: column.copy() for name, column in state.cells.items()}
        sums = {name: column.copy() for name, column in state.sums.items()}
        restored = SlideMap()
        restored.restore(SlideState(columns, sums, state.names, state.visits, state.visit_looks, state.hidden))
        original.rng = np.random.default_rng(number)
        given = len(original.updates)
        found = original.show(x, y, island=island, anchor=anchor, corrections=corrections)
        seen = [o.cell_id for o in found.observations if o.cell_id is not None]
        assert len(original.updates) == given + 1
        original.rng = np.random.default_rng(number)
        again = Slide(*cells, jitter=1.5)
        again.map, again.frames, again.rng = restored, number, np.random.default_rng(number)
        assert again.show(x, y, island=island, anchor=anchor, corrections=corrections).observations == (
            found.observations
        )
        look = looks(*rng.dirichlet((1, 1), len(seen)))
        for one in (original.map, restored):
            one.add_looks(np.array(seen, np.intp), look, np.ones(len(seen), np.float32))
        assert restored.counts() == original.map.counts()
        assert list(map(asdict, restored.cells())) == list(map(asdict, original.map.cells()))
    assert (original.map.counts().white, original.map.counts().partial_white) == (10, 1)


@pytest.mark.parametrize(
    "second",
    [
        pytest.param((150, 100, 60, WHITE), id="touching, side by side"),
        pytest.param((140, 100, 60, WHITE), id="overlapping by a third of the width"),
        pytest.param((128, 128, 60, WHITE), id="overlapping at a corner"),
        pytest.param((135, 100, 25, RED), id="a red cell half under it"),
        pytest.param((100, 100, 14, PLATELET), id="a platelet on it"),
    ],
)
def test_neighbours_stay_two(second):
    slide = Slide((100, 100, 60, WHITE), second, jitter=1)
    for x in (0, 15, 30, 0):
        update = slide.show(x, 0)
        assert len({observation.cell_id for observation in update.observations}) == 2
    counts = slide.map.counts()
    assert counts.white + counts.red + counts.platelets == 2


@pytest.mark.parametrize(
    "second",
    [
        pytest.param((104, 98, 164, 162), id="nearly the same box twice"),
        pytest.param((110, 110, 150, 150), id="one inside the other"),
        pytest.param((100, 100, 160, 132), id="the upper half of it"),
    ],
)
def test_two_boxes_of_one_cell_are_one_cell(second):
    slide = Slide()
    for _ in range(3):
        update = slide.feed(placed(), detections((100, 100, 160, 160), second, scores=(0.9, 0.6)))
        first, double = update.observations
        assert first.cell_id == double.cell_id
        assert (first.counted, double.counted, double.is_new) == (True, True, False)
    assert (slide.white, slide.new()) == (1, 1)
    assert next(slide.map.cells()).looks == 3


def test_a_box_across_two_neighbours_is_no_cell_and_what_it_hid_is_one_when_it_is_seen():
    slide = Slide()
    found = (10, 110, 90, 190), (88, 130, 138, 180), (60, 125, 125, 182)
    for _ in range(3):
        update = slide.feed(placed(), detections(*found, labels=[WHITE, RED, WHITE], scores=(0.9, 0.8, 0.4)))
        assert [(o.cell_id, o.counted) for o in update.observations] == [(0, True), (1, True), (None, False)]
    assert (slide.white, slide.map.counts().red) == (1, 1)
    better = detections(*found, labels=[WHITE, RED, WHITE], scores=(0.5, 0.6, 0.9))
    for _ in range(2):
        update = slide.feed(placed(), better)
        assert [(o.cell_id, o.is_new) for o in update.observations] == [(0, False), (1, False), (2, False)]
    update = slide.feed(placed(), better)
    assert update.observations[2] == Observation(2, True, True), "as many looks showed it as did not"
    assert (slide.white, slide.new()) == (2, 3)


def test_the_look_at_a_box_that_is_no_cell_is_nobodys():
    slide = Slide()
    found = detections((10, 110, 90, 190), (88, 130, 138, 180), (60, 125, 125, 182), labels=[WHITE, RED, WHITE])
    found = replace(found, scores=np.float32([0.9, 0.8, 0.4]))
    slide.feed(placed(), found, looks(NEUTROPHIL, LYMPHOCYTE))
    [cell] = slide.map.cells()
    assert (cell.class_name, cell.class_probabilities["neutrophil"]) == ("neutrophil", pytest.approx(0.9))


def test_a_cut_cell_is_counted_when_it_is_seen_whole():
    slide = Slide((400, 150, 60, WHITE))
    cut = slide.show(0, 0)
    assert [(o.is_new, o.counted) for o in cut.observations] == [(False, False)]
    assert (slide.white, slide.map.counts().partial_white, cut.cells) == (0, 1, ())
    whole = slide.show(100, 0)
    assert [(o.is_new, o.counted) for o in whole.observations] == [(True, True)]
    assert whole.observations[0].cell_id == cut.observations[0].cell_id
    assert (slide.white, slide.map.counts().partial_white) == (1, 0)
    assert [(cell.partial, cell.looks) for cell in whole.cells] == [(False, 2)]
    again = slide.show(0, 0)
    assert [(o.is_new, o.counted) for o in again.observations] == [(False, True)]
    assert slide.map.finish().cells == ()


def test_what_was_only_seen_cut_is_counted_apart_and_published_at_the_end_as_partial():
    slide = Slide((400, 150, 60, WHITE), (200, 150, 60, WHITE))
    slide.show(0, 0)
    slide.show(2, 0)
    last = slide.map.finish()
    assert [(cell.partial, cell.counted, cell.looks) for cell in last.cells] == [(True, False, 2)]
    assert (slide.white, slide.map.counts().partial_white) == (1, 1)
    assert [cell.partial for cell in slide.map.cells()] == [False]
    assert [cell.cell_id for cell in slide.map.uncounted_cells()] == [last.cells[0].cell_id]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["cut first", "whole first"])
def test_a_cut_box_that_ends_a_little_before_the_edge_is_the_same_cell(order):
    """Detectors do that: half a cell, and a box 3 px short of the edge."""
    slide = Slide()
    frames = (placed(0, 0), detections((368, 120, 397, 180))), (placed(200, 0), detections((170, 120, 230, 180)))
    for frame in order:
        slide.feed(*frames[frame])
    slide.map.finish()
    assert slide.white == 1


def test_a_whole_box_at_the_edge_is_a_look_at_the_cell_that_is_known_there():
    slide = Slide()
    slide.feed(placed(200, 0), detections((170, 120, 230, 180)))
    update = slide.feed(placed(0, 0), detections((372, 120, 394, 180)))
    assert [o.is_new for o in update.observations] == [False]
    assert slide.white == 1
    assert next(slide.map.cells()).x_px == 400  # and teaches nothing of where its far side is


def test_a_cell_put_together_from_two_cut_looks_is_whole_once_a_frame_shows_it_whole():
    """The two looks make it a little larger than it is, so that it seems to reach out of the frame that shows it."""
    slide = Slide()
    slide.feed(placed(0, 0), detections((340, 240, 399, 300)))
    slide.feed(placed(0, 260), detections((338, 0, 398, 42)))
    assert slide.white == 0
    slide.feed(placed(0, 4), detections((340, 237, 396, 294)))
    assert slide.white == 1


def test_a_cell_cut_from_both_sides_is_one_partial_cell():
    slide = Slide((400, 150, 60, WHITE))
    left = slide.show(0, 0).observations[0].cell_id  # shows 370 to 400
    right = slide.show(385, 0).observations[0].cell_id  # shows 385 to 430
    assert left == right
    slide.map.finish()
    assert (slide.white, slide.map.counts().partial_white) == (0, 1)
    [cell] = slide.map.uncounted_cells()
    assert (cell.x_px, cell.partial) == (pytest.approx(400, abs=1), True)


@pytest.mark.parametrize("jitter", [0, 1.5])
def test_a_raster_over_two_hundred_cells(jitter):
    """Cells on a grid closer than their own size apart, each seen in two to four frames, whole or cut."""
    cells = [(60 + 64 * i, 60 + 64 * j, 50, WHITE if (i + j) % 3 else RED) for i in range(20) for j in range(10)]
    slide = Slide(*cells, jitter=jitter)
    for row, y in enumerate(range(0, 420, 200)):
        for x in (0, 300, 600, 920)[:: 1 if row % 2 == 0 else -1]:
            slide.show(x, y, anchor=row)
    expected = sum(label == WHITE for *_, label in cells)
    assert (slide.map.counts().white, slide.map.counts().red) == (expected, 200 - expected)
    assert slide.new() == 200
    slide.map.finish()
    assert (slide.map.counts().white, slide.map.counts().red) == (expected, 200 - expected)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 9)), unique=True, max_size=40),
    st.lists(st.tuples(st.integers(0, 500), st.integers(0, 400)), min_size=1, max_size=12),
)
def test_any_path_counts_just_the_cells_that_some_frame_showed_whole(grid, path):
    cells = [(40 + 66 * i, 40 + 66 * j, 50, WHITE) for i, j in grid]
    slide = Slide(*cells)
    for x, y in path:
        slide.show(x, y)
    edge = 0.004 * WIDTH
    whole = {
        (cx, cy)
        for cx, cy, size, _ in cells
        for x, y in path
        if x + edge < cx - size / 2 and cx + size / 2 < x + WIDTH - edge
        if y + edge < cy - size / 2 and cy + size / 2 < y + HEIGHT - edge
    }
    assert slide.white == len(whole) == slide.new()


@pytest.mark.parametrize(
    ("placement", "how"),
    [
        pytest.param(Placement(None, None, "blurred"), {}, id="not registered"),
        pytest.param(placed(), {"accepted": False}, id="rejected"),
    ],
)
def test_a_frame_without_place_or_quality_counts_nothing(placement, how):
    slide = Slide()
    update = slide.feed(placement, detections((100, 100, 160, 160)), looks(NEUTROPHIL), **how)
    assert [(o.cell_id, o.is_new, o.counted) for o in update.observations] == [(None, False, False)]
    assert slide.white == 0
    slide.map.finish()
    assert (slide.white, list(slide.map.cells())) == (0, [])


def test_low_scores_are_not_counted():
    slide = Slide(config=SlideConfig(min_score=0.5))
    found = detections((10, 10, 60, 60), (100, 100, 160, 160), scores=(0.4, 0.6))
    update = slide.feed(placed(), found, looks(NEUTROPHIL, LYMPHOCYTE))
    assert [o.counted for o in update.observations] == [False, True]
    assert slide.map.counts().classes == {UNCLASSIFIED: 0, "neutrophil": 0, "lymphocyte": 1}


def test_a_score_at_the_threshold_is_counted():
    slide = Slide(config=SlideConfig(min_score=0.5))
    update = slide.feed(placed(), detections((100, 100, 160, 160), (200, 100, 260, 160), scores=(0.5, 0.49)))
    assert [o.counted for o in update.observations] == [True, False]


@pytest.mark.parametrize(("from_edge_px", "counted"), [(1.5, False), (1.7, True)])
@pytest.mark.parametrize("side", range(4))
def test_how_near_to_an_edge_a_cell_is_whole_goes_by_the_longer_side(from_edge_px, counted, side):
    """.004 of 400 px, at every edge."""
    box = np.array([100.0, 100, 160, 160])
    limit = (0, 0, WIDTH, HEIGHT)[side]
    box[side] = limit + (from_edge_px if side < 2 else -from_edge_px)
    box[side - 2] = box[side] + (60 if side < 2 else -60)
    update = Slide().feed(placed(), detections(box))
    assert [o.counted for o in update.observations] == [counted]


@pytest.mark.parametrize(("from_edge_px", "x_px"), [(5.9, 30.0), (6.1, (36.1 + 30.0) / 2)])
def test_a_box_that_may_be_cut_is_replaced_by_the_first_clear_one_and_no_other_is(from_edge_px, x_px):
    """.015 of 400 px. The cell is from 0 to 60; at the edge the detector began its box a little late."""
    slide = Slide()
    slide.feed(placed(), detections((from_edge_px, 100, 60 + (x_px > 30) * 6.1, 160)))
    slide.feed(placed(-100), detections((100, 100, 160, 160)))
    assert slide.white == 1
    assert next(slide.map.cells()).x_px == pytest.approx(x_px)


def test_a_box_is_the_mean_of_its_first_looks_and_forgets_by_an_eighth_from_then_on():
    slide = Slide()
    for shift in (0, 4, -4, 8):
        slide.feed(placed(), detections((100 + shift, 100, 160 + shift, 160)))
    assert next(slide.map.cells()).x_px == pytest.approx(132)
    slide = Slide()
    for _ in range(12):
        slide.feed(placed(), detections((100, 100, 160, 160)))
    slide.feed(placed(), detections((104, 100, 164, 160)))
    assert next(slide.map.cells()).x_px == pytest.approx(130 + 4 / 8)


def test_a_clear_box_of_a_cell_that_reaches_out_of_the_frame_teaches_nothing_of_where_it_ends():
    slide = Slide()
    slide.feed(placed(200, 0), detections((170, 120, 230, 180)))  # 370 to 430
    slide.feed(placed(0, 0), detections((368, 120, 392, 180)))  # ends 8 px before the edge, at 400
    assert slide.white == 1
    assert next(slide.map.cells()).x_px == 400


def test_a_cell_that_reaches_out_of_the_frame_by_less_than_boxes_err_is_seen_whole():
    slide = Slide()
    slide.feed(placed(200, 0), detections((142, 120, 202, 180)))  # 342 to 402
    slide.feed(placed(0, 0), detections((336, 120, 393, 180)))
    assert next(slide.map.cells()).x_px == pytest.approx((372 + 364.5) / 2)


def test_a_partial_cell_that_reaches_out_of_the_frame_stays_partial():
    slide = Slide()
    slide.feed(placed(0, 0), detections((340, 120, 400, 180)))
    slide.feed(placed(390, 0), detections((0, 120, 50, 180)))  # 340 to 440 by the two
    slide.feed(placed(20, 0), detections((320, 120, 392, 180)))  # 340 to 412, the edge being at 420
    assert (slide.white, slide.map.counts().partial_white) == (0, 1)
    slide.feed(placed(100, 0), detections((240, 120, 340, 180)))
    assert (slide.white, slide.map.counts().partial_white) == (1, 0)


def test_of_two_ends_that_edges_cut_the_outer_one_is_kept():
    for frames in ((0, 20), (20, 0)):
        slide = Slide((400, 150, 120, WHITE))
        for x in frames:
            slide.show(x, 0)
        slide.map.finish()
        [cell] = slide.map.uncounted_cells()
        assert cell.x_px == (340 + 420) / 2


def test_a_side_that_a_look_saw_stays_where_it_was_seen():
    slide = Slide()
    slide.feed(placed(0, 0), detections((340, 120, 400, 180)))
    slide.feed(placed(0, 0), detections((346, 126, 400, 180)))
    slide.feed(placed(390, 0), detections((0, 120, 50, 180)))
    slide.feed(placed(0, 0), detections((346, 126, 400, 180)))
    slide.map.finish()
    [cell] = slide.map.uncounted_cells()
    assert (cell.x_px, cell.y_px) == ((340 + 440) / 2, 150)


def test_a_cell_that_was_seen_clear_of_edges_is_no_cut_one_any_more():
    slide = Slide()
    slide.feed(placed(0, 0), detections((370, 120, 400, 180)))
    slide.feed(placed(100, 0), detections((270, 120, 330, 180)))
    slide.feed(placed(100, 0), detections((274, 120, 334, 180)))
    assert next(slide.map.cells()).x_px == 402  # the mean of the two clear looks, and not the last of them


def test_a_cell_belongs_to_the_keyframe_that_its_box_is_from():
    slide = Slide()
    slide.feed(placed(0, 0, anchor=0), detections((370, 120, 400, 180)))
    slide.feed(placed(100, 0, anchor=1), detections((270, 120, 330, 180)))
    slide.feed(placed(100, 0, anchor=2), detections((270, 120, 330, 180)))
    slide.map.finish([Correction(0, 0, 50.0, 0.0), Correction(1, 0, 3.0, 0.0), Correction(2, 0, 0.0, 90.0)])
    [cell] = slide.map.cells()
    assert (cell.x_px, cell.y_px) == (403, 150)


def test_a_correction_of_a_keyframe_without_cells_moves_none():
    slide = Slide((100, 100, 60, WHITE))
    slide.show(0, 0, anchor=1)
    slide.map.finish([Correction(7, 0, 50.0, 50.0), Correction(0, 0, 9.0, 9.0)])
    assert next(slide.map.cells()).x_px == 100


def test_a_cell_that_grew_is_found_from_its_far_side():
    """Seen cut, its middle lies in one square of the grid, seen whole in the next; its end reaches into a third."""
    slide = Slide((433, 150, 60, WHITE), config=SlideConfig(bucket_px=32))
    numbers = [slide.show(x, 0).observations[0].cell_id for x in (27, 100, 448)]
    assert numbers == [0, 0, 0]


def test_what_was_seen_of_a_cell_from_two_sides_is_one_when_it_meets():
    slide = Slide()
    slide.feed(placed(0, 0), detections((370, 120, 400, 180)))
    slide.feed(placed(405, 0, anchor=1), detections((0, 120, 25, 180)))  # 405 to 430: nothing in common
    slide.feed(placed(20, 0), detections((350, 120, 400, 180)))  # 370 to 420: the first one, grown
    assert slide.map.counts().partial_white == 2
    slide.map.finish()
    assert slide.map.counts().partial_white == 1


def test_an_empty_frame():
    assert Slide().feed(placed(), detections()).observations == ()


def test_a_cell_taken_for_a_red_one_once_stays_one_cell_and_white():
    slide = Slide()
    slide.feed(placed(), detections((100, 100, 160, 160), scores=(0.9,)))
    slide.feed(placed(), detections((101, 99, 161, 160), labels=[RED], scores=(0.6,)))
    counts = slide.map.counts()
    assert (counts.white, counts.red) == (1, 0)


def test_what_kind_a_cell_is_its_whole_looks_say():
    """The rim of a white cell at the frame's edge was taken for a red cell, eight times."""
    slide = Slide()
    for _ in range(8):
        slide.feed(placed(0, 0), detections((375, 100, 400, 160), labels=[RED], scores=(0.8,)))
    update = slide.feed(placed(100, 0), detections((275, 98, 340, 162), scores=(0.9,)))
    assert [o.is_new for o in update.observations] == [True]
    counts = slide.map.counts()
    assert (counts.white, counts.red) == (1, 0)


def test_a_second_box_on_a_cell_is_no_second_opinion():
    """Neither on its kind, nor on its class: the better box of each frame speaks for the cell."""
    slide = Slide()
    for _ in range(4):
        boxes = (100, 100, 160, 160), (102, 101, 161, 160), (108, 108, 158, 158)
        found = detections(*boxes, labels=[WHITE, RED, WHITE], scores=(0.6, 0.55, 0.4))
        slide.feed(placed(), found, looks(NEUTROPHIL, LYMPHOCYTE))
    counts = slide.map.counts()
    assert (counts.white, counts.red) == (1, 0)
    [cell] = slide.map.cells()
    assert (cell.class_name, cell.looks) == ("neutrophil", 4)
    assert cell.class_probabilities["neutrophil"] > 0.9


def test_what_turns_out_to_be_no_white_cell_is_taken_back():
    slide = Slide()
    slide.feed(placed(), detections((100, 100, 160, 160), scores=(0.5,)))
    update = slide.feed(placed(), detections((101, 99, 161, 160), labels=[RED], scores=(0.9,)))
    assert update.removed == ((0, None),)
    counts = slide.map.counts()
    assert (counts.white, counts.red) == (0, 1)


# Classes


def test_a_class_is_told_when_it_is_new_and_when_it_changes_only():
    slide = Slide((100, 100, 60, WHITE))
    assert [cell.class_name for cell in slide.show(looks=looks(NEUTROPHIL)).cells] == ["neutrophil"]
    assert slide.show(2, 0, looks=looks(NEUTROPHIL)).cells == ()
    for _ in range(2):
        slide.show(3, 0, looks=looks(LYMPHOCYTE))
    changed = slide.show(4, 0, looks=looks(LYMPHOCYTE))
    assert [cell.class_name for cell in changed.cells] == ["lymphocyte"]
    assert slide.map.counts().classes == {UNCLASSIFIED: 0, "neutrophil": 0, "lymphocyte": 1}
    [cell] = slide.map.cells()
    assert cell.class_probabilities["lymphocyte"] > cell.class_probabilities["neutrophil"] > 0.1


def test_an_unclear_cell_is_unclassified_with_its_likeliest_class_told():
    slide = Slide((100, 100, 60, WHITE), config=SlideConfig(fusion=FusionConfig(unclassified_below=0.8)))
    [cell] = slide.show(looks=looks((0.6, 0.4))).cells
    assert (cell.class_name, cell.top_class) == (UNCLASSIFIED, "neutrophil")
    assert slide.map.counts().classes == {UNCLASSIFIED: 1, "neutrophil": 0, "lymphocyte": 0}


def test_a_cell_without_looks_is_unclassified():
    [cell] = Slide((100, 100, 60, WHITE)).show().cells
    assert (cell.class_name, cell.top_class, cell.class_probabilities) == (UNCLASSIFIED, UNCLASSIFIED, {})


def test_a_look_at_a_cut_cell_says_less():
    cells = ((400, 150, 60, WHITE),)
    cut_first, whole_first = Slide(*cells), Slide(*cells)
    for slide, cut_look, whole_look in ((cut_first, LYMPHOCYTE, NEUTROPHIL), (whole_first, NEUTROPHIL, LYMPHOCYTE)):
        slide.show(0, 0, looks=looks(cut_look))
        slide.show(100, 0, looks=looks(whole_look))
    assert next(cut_first.map.cells()).class_name == "neutrophil"
    assert next(whole_first.map.cells()).class_name == "lymphocyte"


def test_looks_may_come_later():
    slide = Slide((100, 100, 60, WHITE), (200, 200, 60, WHITE))
    numbers = np.array([o.cell_id for o in slide.show().observations])
    slide.map.add_looks(numbers, looks(NEUTROPHIL, LYMPHOCYTE), np.ones(2, np.float32))
    assert slide.map.counts().classes == {UNCLASSIFIED: 0, "neutrophil": 1, "lymphocyte": 1}


def test_looks_are_for_white_boxes_only_and_all_of_them():
    found = detections((10, 10, 60, 60), (100, 100, 160, 160), (200, 100, 260, 160), labels=[RED, WHITE, WHITE])
    assert found.white_rows.tolist() == [1, 2]
    slide = Slide()
    with pytest.raises(ValueError, match="got 3 rows, expected one for each of 2 white boxes"):
        slide.feed(placed(), found, looks(NEUTROPHIL, NEUTROPHIL, NEUTROPHIL))
    slide.feed(placed(), found, looks(NEUTROPHIL, LYMPHOCYTE))
    assert [cell.class_name for cell in slide.map.cells()] == ["neutrophil", "lymphocyte"]


# Corrections


def test_islands_have_cells_of_their_own_until_they_are_merged():
    slide = Slide((100, 100, 60, WHITE), (200, 200, 60, WHITE))
    slide.show(0, 0, island=0, anchor=0, looks=looks(NEUTROPHIL, LYMPHOCYTE))
    slide.cells = ((80, 95, 60, WHITE), (180, 195, 60, WHITE), (300, 250, 60, WHITE))  # the same two and a third
    slide.show(0, 0, island=1, anchor=1, looks=looks(NEUTROPHIL, LYMPHOCYTE, LYMPHOCYTE))
    assert slide.white == 5
    update = slide.map.update(
        Placement(None, None, "blurred", (Correction(1, 0, 20.0, 5.0),)), detections(), (WIDTH, HEIGHT), 2
    )
    assert slide.white == 3
    assert update.removed == ((2, 0), (3, 1))
    assert slide.map.counts().classes == {UNCLASSIFIED: 0, "neutrophil": 1, "lymphocyte": 2}
    cells = list(slide.map.cells())
    assert [cell.island for cell in cells] == [0, 0, 0]
    assert [cell.looks for cell in cells] == [2, 2, 1]
    assert (cells[2].x_px, cells[2].y_px) == pytest.approx((320, 255))
    assert slide.map.cell(2).cell_id == 0


def test_cells_move_with_their_keyframe_and_are_found_at_the_new_place():
    slide = Slide((100, 100, 60, WHITE))
    slide.show(0, 0, anchor=4)
    slide.cells = ((1100, 600, 60, WHITE),)
    update = slide.show(900, 500, anchor=5, corrections=[Correction(4, 0, 1000.0, 500.0)])
    assert [o.is_new for o in update.observations] == [False]
    assert slide.white == 1


def test_doubles_that_a_closed_loop_reveals_are_joined_and_neighbours_are_not():
    slide = Slide((100, 100, 60, WHITE), (160, 100, 60, WHITE))
    slide.show(0, 0, anchor=0)
    slide.cells = ((180, 170, 60, WHITE), (240, 170, 60, WHITE))  # the same two, seen after some drift
    slide.show(0, 0, anchor=1)
    assert slide.white == 4
    update = slide.map.finish([Correction(1, 0, -80.0, -70.0)])
    assert slide.white == 2
    assert set(update.removed) == {(2, 0), (3, 1)}


def test_a_strip_that_lies_over_two_cells_is_joined_to_one_of_them_and_joins_no_two():
    slide = Slide((402, 150, 60, WHITE))
    slide.show(0, 0, island=0, anchor=0)  # 372 to 400 is seen, cut at the right
    slide.cells = ((378, 128, 44, WHITE), (380, 173, 44, WHITE))
    slide.show(300, 0, island=1, anchor=1)
    assert (slide.white, slide.map.counts().partial_white) == (2, 1)
    slide.map.finish([Correction(1, 0, 0.0, 0.0)])
    assert (slide.white, slide.map.counts().partial_white) == (2, 0)


def test_a_small_correction_joins_nothing():
    slide = Slide((100, 100, 60, WHITE), (160, 100, 60, WHITE))
    slide.show(0, 0, anchor=0)
    slide.show(50, 0, anchor=1, corrections=[Correction(0, 0, 0.6, -0.4)])
    assert slide.white == 2


def test_memory_stays_within_two_hundred_megabytes_for_a_hundred_thousand_cells():
    slide = Slide()
    boxes = np.stack(np.meshgrid(np.arange(20) * 19.0, np.arange(15) * 19.0), -1).reshape(-1, 2) + 5
    found = detections(*np.concatenate([boxes, boxes + 12], axis=1), labels=np.full(300, RED))
    for frame in range(20):
        slide.feed(placed(frame * WIDTH, 0), found)
    assert slide.map.counts().red == 6000
    assert slide.map.bytes_used < 6000 * 2000


def test_a_cell_seen_whole_at_last_takes_in_what_was_another_cut_part_of_it():
    slide = SlideMap()
    frames = [
        (0, (42.51, 768.53), (350.47, 0.0, 433.77, 21.47)),
        (0, (53.14, 768.55), (340.2, 0.0, 424.3, 20.75)),
        (1, (51.39, 277.99), (342.14, 423.32, 426.51, 480.0)),
        (2, (51.39, 378.20), (343.67, 323.7, 425.46, 412.81)),
        (2, (51.37, 385.76), (343.11, 317.41, 426.77, 404.18)),
        (2, (51.39, 384.20), (340.52, 318.14, 425.91, 404.9)),
    ]
    for frame_id, (anchor, place, box) in enumerate(frames):
        placement = Placement(StagePosition(0, *place, 1.0), anchor=anchor)
        slide.update(placement, detections(box), (640, 480), frame_id)
    slide.finish()
    assert [cell.partial for cell in slide.cells()] == [False]


def test_a_white_cell_that_most_looks_at_its_place_do_not_show_is_not_counted():
    slide = Slide()
    box = detections((100, 100, 160, 160), scores=[0.5])
    for shown in (False, False, True, True):
        slide.feed(placed(), box if shown else box[:0], looks(NEUTROPHIL) if shown else looks())
    assert (slide.white, slide.new()) == (0, 0), "found by two looks of four"
    assert not list(slide.map.cells())
    found = slide.feed(placed(), box, looks(NEUTROPHIL))
    assert (slide.white, found.observations[0].is_new) == (1, True), "found by three of five"
    lost = slide.feed(placed(), box[:0], looks())
    assert slide.white == 0
    assert lost.removed == ((0, None),), "what was published is taken back"


def test_a_cell_is_missed_only_where_a_look_would_show_it_whole():
    slide = Slide()
    slide.feed(placed(), detections((100, 100, 160, 160)), looks(NEUTROPHIL))
    slide.feed(placed(), detections((100, 100, 160, 160)), looks(NEUTROPHIL))
    for x, how in ((95, {}), (400, {}), (0, {"accepted": False}), (0, {"looked": False})):
        slide.feed(placed(x), detections(), looks(), **how)
        slide.feed(placed(x), detections(), looks(), **how)
    assert slide.white == 1
    slide.feed(placed(0, 0, 1, 1), detections(), looks())
    slide.feed(placed(0, 0, 1, 1), detections(), looks())
    assert slide.white == 1, "another island"


def test_a_cell_that_a_person_named_is_there_whatever_looks_say():
    slide = Slide()
    slide.feed(placed(), detections((100, 100, 160, 160)), looks(NEUTROPHIL))
    slide.map.reclassify(Reclassification(0, "lymphocyte"))
    for _ in range(3):
        slide.feed(placed(), detections(), looks())
    assert slide.white == 1


def test_red_cells_and_platelets_are_counted_from_one_look():
    slide = Slide()
    slide.feed(placed(), detections((100, 100, 140, 140), (200, 100, 212, 112), labels=[RED, PLATELET]))
    for _ in range(3):
        slide.feed(placed(), detections())
    assert (slide.map.counts().red, slide.map.counts().platelets) == (1, 1)


def test_what_is_in_doubt_of_the_cells_around_a_frame():
    slide = Slide()
    boxes = detections((100, 100, 160, 160), (220, 100, 280, 160), (-20, 200, 40, 260), scores=[0.9, 0.5, 0.9])
    boxes = replace(boxes, boxes_px=boxes.boxes_px.clip(0, None))
    slide.feed(placed(), boxes, looks(*[(0.99, 0.01)] * 3))
    doubt = slide.map.owing(placed(), (WIDTH, HEIGHT))
    assert doubt.presence.cell_ids.tolist() == [1], "found once, with a low score"
    assert doubt.extent.cell_ids.tolist() == [2], "never seen whole"
    for _ in range(2):
        slide.feed(placed(), boxes[:0], looks())
    doubt = slide.map.owing(placed(), (WIDTH, HEIGHT))
    assert doubt.presence.cell_ids.tolist() == [0, 1], "missed by one look more than found it"
    slide.feed(placed(), boxes[:0], looks())
    assert len(slide.map.owing(placed(), (WIDTH, HEIGHT)).presence) == 0, "it is decided: neither is a cell"
