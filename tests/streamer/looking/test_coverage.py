"""What was seen how deep inside a frame, wherever the stage map moves it."""

from __future__ import annotations

import numpy as np
import pytest

from streamer.looking.coverage import Coverage, own_depths, spots
from streamer.records import StagePosition
from streamer.stage.placement import Correction, Placement

SIZE = (640, 480)


def at(x_px: float, y_px: float = 0.0, island: int = 0, anchor: int = 0) -> Placement:
    return Placement(StagePosition(island, x_px, y_px, 1.0), anchor)


def seen(coverage: Coverage, placement: Placement, sharpness: float = 1.0) -> np.ndarray:
    assert placement.position is not None
    return coverage.seen(placement.position, SIZE, sharpness)


def test_a_look_shows_its_middle_for_good_and_its_rim_not_at_all() -> None:
    depths = own_depths(SIZE)
    columns, rows = spots(SIZE)
    assert depths.shape == (len(rows), len(columns)) == (30, 40)
    assert depths[15, 20] == 1
    assert depths[0].max() == 0
    assert 0 < depths[15, 2] < 1


def test_what_was_looked_at_is_seen_as_deep_as_it_was_shown() -> None:
    coverage = Coverage()
    assert seen(coverage, at(0)).max() == 0
    coverage.add(at(0), SIZE, 1.0)
    assert np.array_equal(seen(coverage, at(0)), own_depths(SIZE))
    half = seen(coverage, at(320))
    assert half[15, 0] == 1
    assert half[:, 21:].max() == 0
    assert seen(coverage, at(0, island=1)).max() == 0


def test_several_looks_show_a_spot_as_deep_as_the_best() -> None:
    coverage = Coverage()
    coverage.add(at(0), SIZE, 1.0)
    alone = seen(coverage, at(600))
    coverage.add(at(560), SIZE, 1.0)
    both = seen(coverage, at(600))
    assert (both >= alone).all()
    assert both[15, 20] == 1


def test_a_blurred_look_does_not_count_for_who_wants_a_sharp_one() -> None:
    coverage = Coverage()
    coverage.add(at(0), SIZE, 0.4)
    assert seen(coverage, at(0), sharpness=0.5).max() == 0
    assert seen(coverage, at(0), sharpness=0.4).max() == 1


def test_looks_move_with_their_keyframes_to_other_islands_too() -> None:
    coverage = Coverage()
    coverage.add(at(0, anchor=3), SIZE, 1.0)
    coverage.add(at(900, anchor=4), SIZE, 1.0)
    coverage.correct([Correction(anchor=3, island=7, dx_px=100.0, dy_px=-50.0)])
    assert np.array_equal(seen(coverage, at(100, -50, island=7)), own_depths(SIZE))
    assert seen(coverage, at(0)).max() == 0
    assert np.array_equal(seen(coverage, at(900)), own_depths(SIZE))


@pytest.mark.parametrize("looks", [1, 64, 65, 200])
def test_it_keeps_as_many_looks_as_there_are(looks: int) -> None:
    coverage = Coverage()
    for look in range(looks):
        coverage.add(at(1000.0 * look), SIZE, 1.0)
    assert len(coverage) == looks
    assert np.array_equal(seen(coverage, at(1000.0 * (looks - 1))), own_depths(SIZE))
