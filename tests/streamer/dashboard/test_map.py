"""The map of the slide: what it keeps of the messages, in how much memory, and what it draws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from streamer.dashboard import DashboardState, render
from streamer.dashboard.chart import COUNTED, MOST_ISLANDS, MOST_TILES, PASSED, Chart, Mark, Visit, step_of
from streamer.dashboard.display import STEPS_KEPT, Inbox
from streamer.dashboard.map_panel import arrange, draw_map, map_panel
from streamer.dashboard.palette import CLASS_COLOURS
from streamer.records import MergedIsland, StagePosition
from tests.streamer.dashboard.dashboard_cases import busy_state, cell, frame

WIDTH, HEIGHT = 640, 480
FIELD = WIDTH * HEIGHT


def at(x: float, y: float, island: int = 0, *, accepted: bool = True, merged: tuple = ()) -> Visit:
    stage = StagePosition(island=island, x_px=x, y_px=y, quality=1.0)
    return Visit("s1", stage, WIDTH, HEIGHT, accepted, merged)


def chart_of(*steps) -> Chart:
    chart = Chart()
    for step in steps:
        chart.take(step)
    return chart


def area_px2(chart: Chart, value: int = COUNTED) -> float:
    return sum(np.count_nonzero(one.seen == value) * one.tile_px**2 for one in chart.islands.values())


def cells_at(chart: Chart, island: int = 0) -> dict[tuple[float, float], str]:
    """Class by the centre of its tile, a slide point."""
    one = chart.islands[island]
    rows, columns = np.nonzero(one.cells)
    return {
        ((one.left + column + 0.5) * one.tile_px, (one.top + row + 0.5) * one.tile_px): chart.class_names[
            one.cells[row, column] - 1
        ]
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
    }


def test_a_place_seen_twice_is_covered_once():
    chart = chart_of(at(0, 0), at(320, 0), at(320, 0), at(-640, 240))
    assert area_px2(chart) == 1.5 * FIELD + FIELD
    assert chart.fields == (2.5, 0.0)


def test_a_frame_that_was_not_counted_is_passed_and_what_was_counted_stays_so():
    chart = chart_of(at(0, 0), at(320, 0, accepted=False))
    assert chart.fields == (1.0, 0.5)
    chart.take(at(320, 0))
    assert chart.fields == (1.5, 0.0)


def test_a_cell_lies_in_its_tile_with_its_newest_class():
    chart = chart_of(at(0, 0), Mark("s1", 0, 100.0, 210.0, "monocyte"), Mark("s1", 0, 100.0, 210.0, "lymphocyte"))
    assert cells_at(chart) == {(100.0, 220.0): "lymphocyte"}  # tiles of 640 / 16 = 40 px


def test_a_cell_that_is_none_after_all_is_taken_out_and_one_that_is_another_stays():
    chart = chart_of(
        at(0, 0),
        *(step_of(cell(number, x_px=x, y_px=210.0)) for number, x in ((1, 100.0), (2, 300.0))),
        step_of(cell(1, x_px=100.0, y_px=210.0, counted=False)),
    )
    assert step_of(cell(2, counted=False, joined_to=3)) is None
    assert cells_at(chart) == {(300.0, 220.0): "neutrophil"}


def test_islands_are_apart_until_one_turns_out_to_be_part_of_the_other():
    chart = chart_of(at(0, 0), at(0, 0, 1), Mark("s1", 1, 20.0, 20.0, "basophil"))
    assert (sorted(chart.islands), area_px2(chart)) == ([0, 1], 2 * FIELD)
    merged = (MergedIsland(island=1, into=0, dx_px=640.0, dy_px=-240.0),)
    for _ in range(2):  # what comes again changes nothing
        chart.take(at(320, -120, merged=merged))
    assert sorted(chart.islands) == [0]
    assert chart.islands[0].size_px[0] >= 1280
    # Both fields and the one between them, less the four quarters where it overlaps: 320 x 360 px of each.
    assert area_px2(chart) == 3 * FIELD - 2 * 320 * 360
    assert cells_at(chart) == {(660.0, -220.0): "basophil"}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-40, 40), st.integers(-40, 40)), min_size=1, max_size=30),
    st.integers(-20, 20),
    st.integers(-20, 20),
)
def test_merging_is_the_same_as_one_island_from_the_start(places, dx, dy):
    """By whole tiles, so that no rounding is between them."""
    tile = WIDTH / 16
    apart, together = Chart(), Chart()
    for i, (x, y) in enumerate(places):
        apart.take(at(x * tile, y * tile, i % 2))
        moved = (dx, dy) if i % 2 else (0, 0)
        together.take(at((x + moved[0]) * tile, (y + moved[1]) * tile))
    if 1 in apart.islands:
        merge = MergedIsland(island=1, into=0, dx_px=dx * tile, dy_px=dy * tile)
        apart.take(Visit("s1", None, WIDTH, HEIGHT, True, (merge,)))
    one, other = apart.islands[0], together.islands[0]
    assert one.tile_px == other.tile_px
    points = [
        {(island.top + row, island.left + column) for row, column in np.argwhere(island.seen == COUNTED).tolist()}
        for island in (one, other)
    ]
    assert points[0] == points[1]


def test_a_slide_of_any_size_takes_a_bounded_grid():
    chart = Chart()
    for i in range(400 * 20):
        chart.take(at(600.0 * (i % 400), 450.0 * (i // 400)))
        chart.take(Mark("s1", 0, 600.0 * (i % 400) + 300, 10.0, "neutrophil"))
    (island,) = chart.islands.values()
    assert max(island.seen.shape) <= MOST_TILES
    assert island.size_px[0] >= 600 * 399 + WIDTH
    assert chart.fields[0] == pytest.approx((600 * 399 + 640) * (450 * 19 + 480) / FIELD, rel=0.1)
    assert not chart.is_fine
    assert np.count_nonzero(island.cells) > 200


def test_a_single_frame_never_vanishes_however_large_the_slide_gets():
    chart = chart_of(at(0, 0), at(1e6, 0), at(1e8, 1e8))
    (island,) = chart.islands.values()
    assert np.count_nonzero(island.seen == COUNTED) >= 2
    assert island.seen[-island.top, -island.left] == COUNTED


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.builds(at, st.floats(-1e12, 1e12), st.floats(-1e12, 1e12), st.integers(-3, 200)),
            st.builds(Mark, st.just("s1"), st.integers(0, 200), st.floats(), st.floats(), st.text(max_size=3)),
            st.builds(
                Visit,
                st.just("s1"),
                st.none(),
                st.integers(0, 10**18),
                st.integers(0, 10**18),
                st.booleans(),
                st.just(()),
            ),
        ),
        max_size=30,
    )
)
def test_whatever_the_wire_brings_the_chart_stays_small(steps):
    chart = chart_of(*steps)
    assert len(chart.islands) <= MOST_ISLANDS
    assert all(max(one.seen.shape, default=0) <= MOST_TILES for one in chart.islands.values())


def test_too_many_islands_are_given_up_oldest_first_and_counted():
    chart = chart_of(*(at(0, 0, i) for i in range(MOST_ISLANDS + 5)), at(9, 9, 5))
    assert (len(chart.islands), chart.given_up) == (MOST_ISLANDS, 5)
    assert (min(chart.islands), list(chart.islands)[-1]) == (5, 5)


def map_text(state: DashboardState, width: int, height: int, colours="none") -> str:
    lines = map_panel(state, width, height, colours)
    assert len(lines) == height
    assert {sum(cell_len(segment.text) for segment in line) for line in lines} == {width}
    return "\n".join("".join(segment.text for segment in line) for line in lines)


def test_the_map_shows_coverage_cells_and_the_present_place():
    state = DashboardState()
    for x in range(0, 6400, 320):
        state.update(frame(stage=StagePosition(island=0, x_px=x, y_px=0, quality=1)))
    state.update(cell(1, x_px=400.0, y_px=240.0))
    drawn = map_text(state, 64, 14)
    row = next(line for line in drawn.splitlines() if "N" in line)
    assert row.count("N") == 1
    assert row.index("N") < 10
    assert row.rindex("□") > 50
    assert "N neutrophil" in drawn
    assert "area" not in drawn
    assert "10.5 fields of view counted" in drawn


def test_islands_are_beside_one_another_and_the_present_one_is_named():
    state = DashboardState()
    for island in range(3):
        state.update(frame(stage=StagePosition(island=island, x_px=0, y_px=0, quality=1)))
    chart = state.sources["slide"].chart
    places = arrange(chart, WIDTH, 60, 20)
    assert [places[i].y for i in range(3)] == [places[0].y] * 3
    assert all(places[i].x + places[i].width < places[i + 1].x for i in range(2))
    assert "3 separate areas, now in 3" in map_text(state, 64, 14)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 60_000), st.floats(0, 60_000)), min_size=1, max_size=70),
    st.integers(1, 100),
    st.integers(1, 60),
)
def test_islands_never_overlap_and_never_leave_the_panel(corners, width, height):
    chart = Chart()
    for i, (x, y) in enumerate(corners):
        chart.take(at(0, 0, i))
        chart.take(at(x, y, i))
    drawn = np.zeros((height, width), int)
    for place in arrange(chart, WIDTH, width, height).values():
        part = drawn[place.y : place.y + place.height, place.x : place.x + place.width]
        assert part.shape == (place.height, place.width)
        part += 1
    assert drawn.max() == 1


def test_rare_cells_are_drawn_over_frequent_ones():
    state = DashboardState()
    state.update(frame(stage=StagePosition(island=0, x_px=0, y_px=0, quality=1)))
    for i in range(40):
        state.update(cell(i, x_px=600.0 * i, y_px=20.0))
    state.update(cell(90, "basophil", x_px=13_260.0, y_px=20.0))
    lines = draw_map(state.sources["slide"], 12, 3, "truecolor")
    texts = [segment.text for line in lines for segment in line]
    assert ("B" in texts, "N" in texts) == (True, True)
    grounds = {segment.style.bgcolor.name for line in lines for segment in line if segment.text == "B"}
    assert grounds == {CLASS_COLOURS["basophil"]}


def test_a_frame_off_the_map_is_said_to_be():
    state = DashboardState()
    state.update(frame(stage=StagePosition(island=0, x_px=0, y_px=0, quality=1)))
    state.update(frame(stage=None))
    drawn = map_text(state, 64, 14)
    assert "not found on the map" in drawn
    assert "□" not in drawn


def test_before_the_first_placed_frame_it_says_so():
    assert "no frame was placed yet" in map_text(DashboardState(), 50, 10)


def test_between_two_ticks_every_frame_and_cell_reaches_the_map():
    inbox, state = Inbox(), DashboardState()
    for i in range(200):
        x, y = 640.0 * (i % 20), 480.0 * (i // 20)
        inbox.publish(frame(frame_id=i, stage=StagePosition(island=0, x_px=x, y_px=y, quality=1)))
        inbox.publish(cell(i, x_px=x + 300, y_px=y + 240))
    inbox.take_into(state, 0)
    chart = state.sources["slide"].chart
    assert chart.fields[0] == pytest.approx(200)
    assert sum(np.count_nonzero(one.cells) for one in chart.islands.values()) == 200


def test_what_is_too_much_between_two_ticks_is_counted_and_said():
    inbox, state = Inbox(), DashboardState()
    for i in range(STEPS_KEPT + 9):
        inbox.publish(frame(frame_id=i, stage=StagePosition(island=0, x_px=float(i % 50), y_px=0, quality=1)))
    inbox.take_into(state, 0)
    assert state.sources["slide"].chart.missed == 9
    assert "9 frames and cells not drawn" in map_text(state, 64, 14)


def test_a_new_slide_has_a_new_map_though_steps_of_both_come_at_once():
    inbox, state = Inbox(), DashboardState()
    for session, x in (("s1", 0.0), ("s1", 640.0), ("s2", 0.0)):
        inbox.publish(frame(session=session, stage=StagePosition(island=0, x_px=x, y_px=0, quality=1)))
        inbox.publish(cell(1, session=session, x_px=x, y_px=0.0))
    inbox.take_into(state, 0)
    view = state.sources["slide"]
    assert (view.session, view.chart.fields[0]) == ("s2", 1.0)


def test_messages_without_a_place_add_nothing():
    assert step_of(busy_state().health) is None
    chart = chart_of(Visit("s1", None, WIDTH, HEIGHT, True, ()))
    assert (chart.islands, chart.fields) == ({}, (0.0, 0.0))
    assert chart_of(at(float("inf"), 0.0), Mark("s1", 0, float("nan"), 0.0, "x")).islands == {}
    assert PASSED < COUNTED


@pytest.mark.parametrize(("width", "height", "small", "large"), [(200, 50, True, True), (80, 24, False, True)])
def test_the_map_is_there_where_there_is_room_and_on_request(width, height, small, large):
    state = busy_state()

    def screen() -> str:
        lines = render(state, width, height, 0, colours="none").lines
        return "\n".join("".join(segment.text for segment in line) for line in lines)

    assert ("╭─ map " in screen()) is small
    state.picture = True
    assert "B-53" in screen()
    state.map = True
    assert ("╭─ map " in screen()) is large
    assert "B-53" not in screen()
    assert screen().count("╭─ map ") == 1
