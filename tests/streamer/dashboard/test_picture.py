"""The picture in half blocks: where a box lands, and what colour a cell gets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.dashboard.palette import class_colour
from streamer.dashboard.picture import draw, place, rows_needed, thumbnail
from tests.streamer.dashboard.dashboard_cases import detection, frame


def pixels_of(lines, columns):
    """(2 * rows, columns) of "#rrggbb" or None, as half blocks show them."""
    grid = []
    for line in lines:
        upper, lower = [], []
        for text, style, _ in line:
            front = style.color.name if style and style.color else None
            back = style.bgcolor.name if style and style.bgcolor else None
            for letter in text:
                upper.append(front if letter == "▀" else None)
                lower.append(back if letter == "▀" else None)
        assert (len(upper), len(lower)) == (columns, columns)
        grid += [upper, lower]
    return grid


def test_a_frame_of_the_same_shape_fills_the_room():
    where = place(640, 480, 64, 24)
    assert (where.left_px, where.top_px, where.width_px, where.height_px) == (0, 0, 64, 48)


def test_a_wide_frame_is_centred_between_empty_rows():
    where = place(1000, 100, 50, 20)
    assert (where.left_px, where.width_px, where.height_px, where.top_px) == (0, 50, 5, 16)


def test_a_tall_frame_is_centred_between_empty_columns():
    where = place(100, 1000, 50, 20)
    assert (where.left_px, where.width_px, where.height_px, where.top_px) == (23, 4, 40, 0)


@given(
    size=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    room=st.tuples(st.integers(1, 200), st.integers(1, 60)),
    corner=st.tuples(st.floats(-50, 5000), st.floats(-50, 5000)),
    extent=st.tuples(st.floats(0, 5000), st.floats(0, 5000)),
)
def test_no_box_leaves_the_drawing(size, room, corner, extent):
    where = place(*size, *room)
    x1, y1, x2, y2 = where.box((*corner, corner[0] + extent[0], corner[1] + extent[1]))
    assert where.left_px <= x1 <= x2 < where.left_px + where.width_px <= room[0]
    assert where.top_px <= y1 <= y2 < where.top_px + where.height_px <= 2 * room[1]


@given(columns=st.integers(2, 150), shape=st.tuples(st.integers(50, 3000), st.integers(50, 3000)))
def test_the_rows_needed_hold_the_picture_at_full_width(columns, shape):
    width, height = shape
    assert place(width, height, columns, rows_needed(width, height, columns)).width_px >= columns - 1


def test_a_box_lands_on_the_half_cells_that_it_covers():
    # 10 frame pixels are one drawn pixel: the box covers columns 10 to 19 and half rows 20 to 28.
    eosinophil = detection((100, 200, 200, 290), class_="eosinophil", look_class="eosinophil")
    image = np.full((480, 640, 3), 200, np.uint8)
    own = class_colour("eosinophil")
    colour = "#" + "".join(f"{int(own[i : i + 2], 16) & 0xF8 | 4:02x}" for i in (1, 3, 5))
    grid = pixels_of(draw(frame(detections=[eosinophil]), image, 55, 24), 55)
    where = place(640, 480, 55, 24)
    x1, y1, x2, y2 = where.box(eosinophil.box_px)
    expected = {(x, y) for x in range(x1, x2 + 1) for y in (y1, y2)} | {(x, y) for x in (x1, x2) for y in range(y1, y2)}
    found = {(x, y) for y, row in enumerate(grid) for x, seen in enumerate(row) if seen == colour}
    assert found == expected


def test_an_even_box_is_mapped_by_hand():
    where = place(640, 480, 64, 24)
    assert where.box((100, 200, 200, 290)) == (10, 20, 19, 28)
    assert where.box((100, 200, 101, 201)) == (10, 20, 10, 20)
    assert where.box((639, 479, 640, 480)) == (63, 47, 63, 47)


def test_the_colours_of_the_frame_are_kept():
    image = np.zeros((48, 64, 3), np.uint8)
    image[:24] = (0, 0, 255)
    image[24:] = (255, 0, 0)
    grid = pixels_of(draw(frame(width=64, height=48), image, 40, 15), 40)
    assert {seen for row in grid[:15] for seen in row} == {"#fc0404"}
    assert {seen for row in grid[15:] for seen in row} == {"#0404fc"}


def test_without_a_picture_the_boxes_stand_on_dark_ground():
    grid = pixels_of(draw(frame(detections=[detection((100, 100, 300, 300))]), None, 55, 24), 55)
    seen = {colour for row in grid for colour in row if colour}
    assert "#1c141c" in seen
    assert len(seen) == 2


def test_without_colours_the_boxes_are_plain_blocks():
    lines = draw(frame(detections=[detection((0, 0, 640, 480))]), None, 32, 12, "none")
    text = ["".join(segment.text for segment in line) for line in lines]
    assert text[0] == "█" + "▀" * 30 + "█"
    assert text[-1] == "█" + "▄" * 30 + "█"
    assert set(text[5]) == {"█", " "}


def test_a_wide_picture_carries_the_class_above_the_box():
    found = detection((300, 200, 400, 300), class_="lymphocyte", look_class="lymphocyte")
    lines = draw(frame(detections=[found]), None, 64, 24)
    rows = ["".join(segment.text for segment in line) for line in lines]
    assert [row for row, text in enumerate(rows) if " lymphocyte " in text] == [9]
    assert rows[9].index(" lymphocyte ") == 30
    style = next(segment.style for segment in lines[9] if segment.text == " lymphocyte ")
    assert style is not None
    assert style.bgcolor is not None
    assert style.bgcolor.name == class_colour("lymphocyte")


def test_labels_do_not_cover_each_other():
    boxes = [(300, 200, 400, 300), (310, 205, 410, 300), (320, 210, 420, 300)]
    found = [detection(box, class_="lymphocyte", look_class="lymphocyte") for box in boxes]
    rows = ["".join(s.text for s in line) for line in draw(frame(detections=found), None, 64, 24)]
    assert sum(row.count(" lymphocyte ") for row in rows) == 2  # one above, one below, the third has no place


@pytest.mark.parametrize("shape", [(50, 44), (1, 1), (300, 20), (7, 200)])
def test_a_thumbnail_fills_its_room(shape):
    lines = thumbnail(np.full((*shape, 3), 90, np.uint8), 12, 6, "truecolor")
    assert {colour for row in pixels_of(lines, 12) for colour in row} == {"#5c5c5c"}
    assert len(lines) == 6


def test_256_colours_are_those_of_the_cube():
    image = np.full((48, 64, 3), (140, 90, 250), np.uint8)
    grid = pixels_of(draw(frame(width=64, height=48), image, 40, 15, "256"), 40)
    assert {seen for row in grid for seen in row} == {"#ff5f87"}
