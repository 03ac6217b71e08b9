import re

import cv2
import numpy as np
import pytest

from streamer.stage.config import StageConfig
from streamer.stage.tracker import StageTracker
from tests.streamer.stage.stage_cases import HEIGHT, SLIDE_HEIGHT, SLIDE_WIDTH, WIDTH, slide, smeared, view, vignette


class Run:
    """A tracker fed with views of the made slide; remembers each placement and where it really was taken."""

    def __init__(self, config=None):
        self.tracker = StageTracker(config)
        self.placements = []
        self.places = []

    def show(self, image, place=None, **how):
        placement = self.tracker.update(self.tracker.prepare(image), **how)
        self.placements.append(placement)
        self.places.append(place)
        return placement

    def go(self, *places, **look):
        for place in places:
            self.show(view(*place, **look), place)
        return self.placements[-1]


def test_the_first_frame_starts_an_island_at_zero():
    placement = Run().go((500, 400))
    assert (placement.position.island, placement.position.x_px, placement.position.y_px) == (0, 0, 0)
    assert placement.position.quality == 1
    assert (placement.corrections, placement.merged_islands, placement.reason) == ((), (), None)


def test_slide_point_is_frame_point_plus_position():
    run = Run()
    run.go((500, 400))
    position = run.go((620, 350)).position
    assert (position.island, position.x_px, position.y_px) == (
        0,
        pytest.approx(120, abs=0.3),
        pytest.approx(-50, abs=0.3),
    )


def test_a_repeated_frame_stays_where_it_is():
    run = Run()
    run.go((500, 400))
    first = run.go((590, 400))
    again = run.show(view(590, 400))
    assert again.position == first.position
    assert again.anchor == first.anchor
    assert run.tracker.keyframes == 1


def test_a_stage_at_rest_makes_no_keyframes():
    run = Run()
    for noise_seed in range(10):
        image = view(500, 400).astype(int) + np.random.default_rng(noise_seed).integers(-3, 4, (HEIGHT, WIDTH, 3))
        position = run.show(image.clip(0, 255).astype(np.uint8)).position
        assert (position.x_px, position.y_px) == pytest.approx((0, 0), abs=0.2)
    assert run.tracker.keyframes == 1


def raster(step_x, step_y, columns, rows):
    for row in range(rows):
        for column in range(columns)[:: 1 if row % 2 == 0 else -1]:
            yield 20 + column * step_x, 20 + row * step_y


@pytest.mark.parametrize("lamp", [lambda image: image, vignette], ids=["even light", "vignette and dust"])
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(list(raster(120, 100, 5, 3)), id="small steps"),
        pytest.param(list(raster(384, 250, 3, 4)), id="20 % overlap"),
    ],
)
@pytest.mark.lengthy
def test_a_raster_is_one_island_and_true_to_half_a_pixel(path, lamp):
    run = Run()
    for place in path:
        run.show(lamp(view(*place)), place)
    assert run.tracker.islands == (0,)
    for placement, place in zip(run.placements, path, strict=True):
        expected = place[0] - path[0][0], place[1] - path[0][1]
        assert (placement.position.x_px, placement.position.y_px) == pytest.approx(expected, abs=0.7)
        now = run.tracker.anchor_position(placement.anchor)
        assert now.island == 0


def test_exposure_changes_on_the_way_do_not_matter():
    run = Run()
    for i, gain in enumerate((1.0, 0.6, 1.1, 0.45, 0.9)):
        placement = run.show(view(300 + 100 * i, 400, gain=gain))
        assert (placement.position.x_px, placement.position.y_px) == pytest.approx((100 * i, 0), abs=0.5)


def test_a_jump_starts_an_island_and_the_way_back_is_known():
    run = Run()
    run.go((20, 20), (100, 60))
    away = run.go((1000, 700))
    assert (away.position.island, away.position.x_px, away.position.y_px) == (1, 0, 0)
    back = run.go((60, 40))
    assert back.position.island == 0
    assert (back.position.x_px, back.position.y_px) == pytest.approx((40, 20), abs=0.3)
    again = run.go((970, 690))
    assert again.position.island == 1
    assert (again.position.x_px, again.position.y_px) == pytest.approx((-30, -10), abs=0.3)
    assert run.tracker.islands == (0, 1)
    assert run.tracker.finish().merged_islands == ()


def test_islands_that_meet_become_one():
    run = Run()
    run.go((20, 20), (200, 20))
    run.go((860, 20))
    assert run.tracker.islands == (0, 1)
    bridge = run.go((530, 20))
    assert run.tracker.islands == (0,)
    assert bridge.merged_islands == ((1, 0),)
    assert bridge.position.island == 0
    moved = {correction.anchor: correction for correction in bridge.corrections}
    island_of_jump = run.placements[2]
    assert moved[island_of_jump.anchor].island == 0
    assert moved[island_of_jump.anchor].dx_px == pytest.approx(840, abs=0.6)
    assert moved[island_of_jump.anchor].dy_px == pytest.approx(0, abs=0.6)
    assert (bridge.position.x_px, bridge.position.y_px) == pytest.approx((510, 0), abs=0.6)


def test_three_islands_are_all_joined_by_the_frames_between():
    run = Run()
    run.go((20, 300), (530, 300), (1000, 300))
    assert run.tracker.islands == (0, 1, 2)
    run.go((270, 300), (760, 300))
    run.tracker.finish()
    assert run.tracker.islands == (0,)
    places = [run.tracker.anchor_position(run.placements[i].anchor).x_px for i in range(3)]
    assert places == pytest.approx([0, 510, 980], abs=0.8)


def test_what_only_the_end_compares_is_joined_at_the_end():
    run = Run(StageConfig(comparisons_per_frame=0, max_search=1))
    run.go((20, 300), (700, 300), (350, 300))
    assert run.tracker.islands == (0, 1)
    last = run.tracker.finish()
    assert last.merged_islands == ((1, 0),)
    assert last.position is None
    assert run.tracker.islands == (0,)
    assert run.tracker.finish().merged_islands == ()


@pytest.mark.parametrize(("few_islands", "islands"), [(8, (0, 1, 3)), (3, (0, 1, 2, 3))])
def test_what_was_given_up_is_compared_at_the_end_where_islands_are_few(few_islands, islands):
    run = Run(StageConfig(comparisons_per_frame=0, max_search=1, max_pending=1, few_islands=few_islands))
    run.go((20, 300), (1000, 700), (350, 300), (1000, 100))  # the first and the third meet
    assert (run.tracker.islands, run.tracker.given_up) == ((0, 1, 2, 3), 2)
    run.tracker.finish()
    assert run.tracker.islands == islands


def test_comparisons_that_are_given_up_are_counted():
    run = Run(StageConfig(comparisons_per_frame=0, max_search=1, max_pending=2))
    for seed in range(1, 5):
        run.show(view(500, 400, seed=seed))
    # Pairs that wait: 0-1 was tried at once; 0-2; 0-3, 1-3. Only two may wait.
    assert run.tracker.given_up == 1


def test_a_smeared_frame_between_two_places_is_lost_and_nothing_starts_from_it():
    run = Run()
    run.go((20, 20), (30, 20))
    lost = run.show(smeared(900, 700, 60))
    assert lost.position is None
    assert lost.anchor is None
    assert lost.reason == "blurred"
    home = run.go((40, 20))
    assert home.position.island == 0
    assert run.tracker.islands == (0,)


def test_a_rejected_frame_is_placed_where_it_can_be_and_kept_nowhere():
    run = Run()
    run.go((20, 20))
    seen = run.show(view(330, 20), may_start=False)
    assert seen.position.x_px == pytest.approx(310, abs=0.5)
    unseen = run.show(view(1000, 700), may_start=False)
    assert unseen.position is None
    assert run.tracker.keyframes == 1


def test_a_smeared_keyframe_gives_way_to_a_sharp_one():
    run = Run()
    run.show(smeared(500, 400, 24))
    assert run.go((510, 405)).anchor == 1
    assert run.go((500, 400)).anchor == 1


def test_blank_frames_are_lost():
    run = Run()
    run.go((20, 20))
    noise = np.random.default_rng(0).normal(200, 4, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    assert run.show(noise).reason == "no texture"
    assert run.show(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).reason == "no texture"
    assert run.go((30, 20)).position.island == 0


def turned(x, y, degrees, scale=1.0):
    matrix = cv2.getRotationMatrix2D((x + WIDTH / 2, y + HEIGHT / 2), -degrees, scale)
    whole = cv2.warpAffine(slide(), matrix, (SLIDE_WIDTH, SLIDE_HEIGHT), flags=cv2.INTER_LINEAR)
    return whole[y : y + HEIGHT, x : x + WIDTH]


@pytest.mark.parametrize(
    ("degrees", "scale", "reason"),
    [(4.0, 1.0, r"camera turned by (4\.0|3\.9|4\.1) degrees"), (0.0, 1.3, r"magnification changed to 1(29|30|31) %")],
)
def test_a_changed_camera_is_said_to_be_so_and_gives_no_positions(degrees, scale, reason):
    run = Run()
    run.go((500, 400), (520, 400))
    said = run.show(turned(520, 400, degrees, scale)).reason
    assert re.fullmatch(reason, said)
    moved = run.show(turned(560, 400, degrees, scale))
    assert (moved.position, moved.reason) == (None, said)
    assert run.go((540, 400)).position.island == 0
    assert run.tracker.islands == (0,)


@pytest.mark.parametrize("seed", range(2, 8))
def test_a_jump_to_another_field_is_not_taken_for_a_turn(seed):
    run = Run()
    run.go((500, 400), (520, 400))
    assert run.go((500, 400), seed=seed).reason is None
    assert run.tracker.islands == (0, 1)


def test_frames_of_another_size_are_an_island_of_their_own():
    run = Run()
    run.go((500, 400))
    other = run.show(view(500, 400)[:300])
    assert (other.position.island, other.position.x_px) == (1, 0)
    assert run.go((520, 400)).position.island == 0
    run.tracker.finish()
    assert run.tracker.islands == (0, 1)
