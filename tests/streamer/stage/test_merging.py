"""Which islands of a map are made one, with views of the made slide laid on a map by hand."""

import pytest

from streamer.stage.config import StageConfig
from streamer.stage.keyframes import StageMap
from streamer.stage.merging import IslandMerger
from streamer.stage.preparation import RegistrationConfig, prepare
from streamer.stage.registration import register
from tests.streamer.stage.stage_cases import view

REGISTRATION = RegistrationConfig()


class Islands:
    """A map whose islands are given by where their views were taken; each starts at (0, 0) of its own."""

    def __init__(self, *islands, **config):
        self.map = StageMap(announce_px=0.25)
        self.merger = IslandMerger(self.map, StageConfig(**config), REGISTRATION)
        for island in islands:
            self.add(*island)

    def add(self, *places):
        number = self.map.new_island()
        for x, y in places:
            new = self.map.add(prepare(view(x, y), REGISTRATION), number, x - places[0][0], y - places[0][1])
            self.merger.add(new)


def test_islands_that_overlap_are_one_in_their_places_after_all_comparisons():
    islands = Islands([(300, 300)], [(1000, 700)], [(380, 330)])
    islands.merger.compare_rest()
    assert islands.merger.take_merged() == ((2, 0),)
    assert islands.merger.take_merged() == ()
    assert (islands.map.islands, islands.map.members(0)) == ((0, 1), [0, 2])
    moved = islands.map[2]
    assert (moved.x_px, moved.y_px) == pytest.approx((80, 30), abs=0.3)
    assert islands.merger.pending == ()


def test_a_weak_match_joins_islands_when_a_second_says_the_same():
    islands = Islands([(300, 300)], [(380, 330), (420, 330)], sure_strength=1e9, comparisons_per_frame=1)
    islands.merger.compare_in_passing()
    assert (islands.merger.take_merged(), len(islands.merger.hunches)) == ((), 1)
    islands.merger.compare_in_passing()
    assert (islands.merger.take_merged(), len(islands.merger.hunches)) == (((1, 0),), 2)


def test_what_a_new_keyframe_was_compared_with_counts_at_once_and_does_not_wait():
    islands = Islands([(300, 300), (330, 300), (360, 300)])
    new = islands.map.add(prepare(view(400, 300), REGISTRATION), islands.map.new_island(), 0.0, 0.0)
    compared = {number: register(islands.map.frame(number), new.frame, REGISTRATION) for number in range(3)}
    islands.merger.add(new, compared)
    assert islands.merger.take_merged() == ((1, 0),)
    assert (new.island, new.x_px, islands.merger.pending) == (0, pytest.approx(100, abs=0.3), ())
