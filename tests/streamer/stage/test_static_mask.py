"""What stays in place while the slide moves: found from views of the made slide with a clock and a logo burnt in."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from streamer.stage.preparation import RegistrationConfig, prepare
from streamer.stage.registration import refine, register
from streamer.stage.static_mask import PAIRS, SURE_PAIRS, StaticMask, has_moved, learn, visible, with_given
from streamer.stage.tracker import StageTracker
from tests.streamer.stage.stage_cases import HEIGHT, WIDTH, view

CONFIG = RegistrationConfig()
CLOCK = (0, 0, 136, 32)
LOGO = (430, 280, 466, 316)
HOME = (500, 400)
WALK = [(500 + 50 * step, 400 + 25 * (step % 3)) for step in range(10)]
JUMPS = [(100, 100), (900, 700), (100, 700), (900, 100), (500, 400), (20, 420)]


def burnt(image, second=0):
    """The frame as an IP camera gives it: a clock, white on black, and a logo."""
    image = image.copy()
    cv2.rectangle(image, CLOCK[:2], (CLOCK[2] - 1, CLOCK[3] - 1), (0, 0, 0), cv2.FILLED)
    cv2.putText(image, f"14:07:{second:02}", (6, 25), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (255, 255, 255), 2, cv2.LINE_AA)
    cv2.circle(image, (448, 298), 18, (160, 60, 20), cv2.FILLED)
    cv2.circle(image, (448, 298), 9, (250, 250, 250), cv2.FILLED)
    return image


def learnt(images, given_px=()):
    mask = StaticMask()
    for image in images:
        mask = learn(mask, prepare(image, CONFIG), given_px)
    return mask


def share(found, box):
    x1, y1, x2, y2 = box
    return 0.0 if found is None else float(found[y1:y2, x1:x2].mean())


@pytest.mark.parametrize("places", [pytest.param(WALK, id="a pan"), pytest.param(JUMPS, id="jumps")])
def test_a_clock_whose_digits_change_and_a_logo_are_found_and_nothing_else(places):
    mask = learnt(burnt(view(*place), 7 * number) for number, place in enumerate(places))
    assert share(mask.sure, CLOCK) > 0.95
    assert share(mask.sure, (LOGO[0] + 6, LOGO[1] + 6, LOGO[2] - 6, LOGO[3] - 6)) > 0.8
    elsewhere = mask.sure.copy()
    elsewhere[: CLOCK[3] + 8, : CLOCK[2] + 8] = 0
    elsewhere[LOGO[1] - 8 :, LOGO[0] - 8 :] = 0
    assert elsewhere.mean() < 0.01


def test_what_was_seen_once_is_left_out_of_registration_and_not_yet_of_the_count():
    masks = [learnt(burnt(view(*place)) for place in WALK[:count]) for count in (1, 2, SURE_PAIRS, SURE_PAIRS + 1)]
    assert [(one.pairs, one.found is None, one.sure is None) for one in masks] == [
        (0, True, True),
        (1, False, True),
        (SURE_PAIRS - 1, False, True),
        (SURE_PAIRS, False, False),
    ]
    assert share(masks[1].found, CLOCK) > 0.8


def test_a_stage_at_rest_teaches_nothing():
    rng = np.random.default_rng(1)
    still = [burnt((view(*HOME).astype(int) + rng.integers(-4, 5, (HEIGHT, WIDTH, 3))).clip(0, 255).astype(np.uint8), s)
             for s in range(12)]  # fmt: skip
    mask = learnt(still)
    assert (mask.pairs, mask.found) == (0, None)
    assert learn(mask, prepare(still[-1], CONFIG)) is mask


def test_a_film_without_an_overlay_has_no_static_parts():
    mask = learnt(view(*place) for place in WALK)
    assert (mask.pairs, mask.sure) == (PAIRS, None)


def test_what_is_given_is_left_out_from_the_first_frame_on():
    mask = learnt([view(*HOME)], given_px=[CLOCK])
    assert (mask.found is mask.sure, share(mask.sure, CLOCK), mask.sure.sum()) == (True, 1.0, 136 * 32)
    after = learnt((burnt(view(*place)) for place in WALK), given_px=[(300, 100, 340, 140)])
    assert share(after.sure, (300, 100, 340, 140)) == 1.0
    assert share(after.sure, CLOCK) > 0.95
    again = with_given(learnt([view(*HOME)]), [CLOCK])
    assert share(again.sure, CLOCK) == 1.0


def test_an_overlay_that_is_switched_on_later_is_found_and_one_that_is_gone_forgotten():
    places = [(300 + 60 * (step % 12), 300 + 40 * (step // 12)) for step in range(12 * 14)]
    plain, overlaid = [view(*place) for place in places[:84]], [burnt(view(*place)) for place in places[84:]]
    assert share(learnt(plain + overlaid).sure, CLOCK) > 0.95
    assert share(learnt(overlaid + plain).sure, CLOCK) == 0.0


def test_frames_of_another_size_begin_anew():
    mask = learnt([*(burnt(view(*place)) for place in WALK), view(*HOME)[:200]])
    assert (mask.pairs, mask.found) == (0, None)


@pytest.mark.parametrize(
    ("place", "moved"),
    [
        pytest.param((0, 0), False, id="at rest"),
        pytest.param((2, 1), False, id="shaking"),
        pytest.param((20, 0), True, id="half a cell"),
        pytest.param((300, 200), True, id="elsewhere"),
    ],
)
def test_motion_is_told_from_rest_whatever_is_burnt_in(place, moved):
    there = view(HOME[0] + place[0], HOME[1] + place[1])
    for look in (lambda image, second: image, burnt):
        first, second = prepare(look(view(*HOME), 1), CONFIG), prepare(look(there, 9), CONFIG)
        assert has_moved(first, second) is moved


def test_a_registration_that_rests_on_a_small_static_patch_is_refused():
    first, second = (prepare(burnt(view(x, 400)), CONFIG) for x in (200, 900))
    assert refine(first, second, (0.0, 0.0), CONFIG) is None
    assert register(first, second, CONFIG) is None
    still = prepare(burnt(view(201, 400)), CONFIG)
    assert register(first, still, CONFIG).x_px == pytest.approx(1, abs=1)


def test_nothing_of_a_hidden_part_is_left_to_register_by():
    frame = prepare(burnt(view(*HOME)), CONFIG)
    hidden = np.zeros((HEIGHT, WIDTH), np.uint8)
    hidden[: CLOCK[3], : CLOCK[2]] = 1
    seen = visible(frame, hidden)
    assert not seen.fine[: CLOCK[3], : CLOCK[2]].any()
    assert np.array_equal(seen.fine[CLOCK[3] :], frame.fine[CLOCK[3] :])
    assert seen.smear != frame.smear
    assert visible(frame, None) is frame
    assert visible(frame, hidden[:10]) is frame


def track(places):
    tracker = StageTracker()
    placements = [tracker.update(tracker.prepare(burnt(view(*place), number))) for number, place in enumerate(places)]
    return tracker, placements


def test_a_pan_under_a_clock_is_placed_from_the_first_step_on():
    _, placements = track(WALK)
    for placement, (x, y) in zip(placements, WALK, strict=True):
        position = placement.position
        assert (position.island, position.x_px, position.y_px) == (
            0,
            pytest.approx(x - WALK[0][0], abs=0.5),
            pytest.approx(y - WALK[0][1], abs=0.5),
        )


def test_jumps_under_a_clock_are_islands_of_their_own_and_a_way_back_is_found():
    tracker, placements = track([*JUMPS[:4], JUMPS[0]])
    assert [placement.position.island for placement in placements] == [0, 1, 2, 3, 0]
    tracker.finish()
    assert tracker.islands == (0, 1, 2, 3)


def test_the_hidden_parts_of_a_frame_come_with_its_place():
    _, placements = track(WALK)
    assert [placement.hidden is None for placement in placements] == [True] * SURE_PAIRS + [False] * (10 - SURE_PAIRS)
    assert placements[-1].hidden.boxes_px()[0][:2] == (0, 0)
    assert placements[-1].hidden.covered(np.float32([CLOCK]))[0] > 0.95
