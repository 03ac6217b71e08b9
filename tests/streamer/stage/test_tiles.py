"""Tiles of one picture: they lie where their source says, whatever they show."""

from __future__ import annotations

import numpy as np
import pytest

from streamer.stage.placement import Placement
from streamer.stage.readings import Reading
from streamer.stage.tracker import StageTracker
from tests.streamer.stage.stage_cases import HEIGHT, WIDTH, view

UM_PER_PX = 0.25
GLASS = np.full((HEIGHT, WIDTH, 3), 230, np.uint8)


def reading(x_px: float, y_px: float, um_per_px: float = UM_PER_PX) -> Reading:
    return Reading(x_px * um_per_px, y_px * um_per_px, 0.0, um_per_px, is_tile=True)


def show(tracker: StageTracker, image: np.ndarray, x_px: float, y_px: float, *, may_start: bool = True) -> Placement:
    return tracker.update(tracker.prepare(image), may_start=may_start, reading=reading(x_px, y_px))


def places(placements: list[Placement]) -> list[tuple[int, float, float]]:
    found = [placement.position for placement in placements]
    return [(one.island, round(one.x_px, 6), round(one.y_px, 6)) for one in found if one is not None]


def test_each_tile_lies_where_its_source_says_whatever_the_picture_shows() -> None:
    tracker = StageTracker()
    shown = [
        show(tracker, view(500, 400), 500, 400),
        show(tracker, view(640, 410), 640.125, 410),
        show(tracker, view(100, 100), 5000, 4000),  # no overlap
        show(tracker, GLASS, 9000, 4000, may_start=False),
        show(tracker, GLASS, 9500, 4000, may_start=False),
        show(tracker, view(500, 400), 7000, 0),  # looks as the first one does
    ]
    assert places(shown) == [
        (0, 0, 0),
        (0, 140.125, 10),
        (0, 4500, 3600),
        (0, 8500, 3600),
        (0, 9000, 3600),
        (0, 6500, -400),
    ]
    assert {placement.anchor for placement in shown} == {0}
    assert {placement.position.quality for placement in shown if placement.position} == {1.0}
    assert tracker.finish().corrections == ()
    assert (tracker.keyframes, tracker.islands) == (1, (0,))


def test_empty_glass_may_be_the_first_frame() -> None:
    tracker = StageTracker()
    shown = [show(tracker, GLASS, 10, 10, may_start=False), show(tracker, view(500, 400), 300, 10)]
    assert places(shown) == [(0, 0, 0), (0, 290, 0)]


def test_memory_stays_flat() -> None:
    tracker = StageTracker()
    for number in range(300):
        show(tracker, GLASS, 100 * number, 0)
    assert tracker.keyframes == 1
    assert tracker.hidden is None


def test_a_tracker_goes_on_where_it_was() -> None:
    tracker, resumed = StageTracker(), StageTracker()
    show(tracker, view(500, 400), 500, 400)
    changes = tracker.take_changes()
    resumed.restore(changes.keyframes, changes.tracker, changes.readings)
    assert places([show(resumed, view(100, 100), 900, 300)]) == [(0, 400, -100)]


def test_a_frame_of_another_scale_is_placed_by_its_picture() -> None:
    tracker = StageTracker()
    show(tracker, view(500, 400), 500, 400)
    placement = tracker.update(tracker.prepare(view(560, 400)), reading=reading(10_000, 0, 0.5))
    assert placement.position is not None
    assert (placement.position.x_px, placement.position.y_px) == (pytest.approx(60, abs=0.3), pytest.approx(0, abs=0.3))
