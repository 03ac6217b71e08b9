from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.base import LeukostreamError
from streamer.stage.preparation import RegistrationConfig, forgotten, restored, without_spectrum
from streamer.stage.preparation import prepare as prepare_with
from streamer.stage.registration import Shift, at_rest, find_peak, find_similarity, refine, register, register_near
from tests.streamer.stage.stage_cases import HEIGHT, WIDTH, slide, smeared, view, vignette

CONFIG = RegistrationConfig()
prepare = partial(prepare_with, config=CONFIG)

HOME = (500, 400)


def at(dx, dy):
    return prepare(view(HOME[0] + dx, HOME[1] + dy))


@pytest.mark.parametrize(
    ("dx", "dy"),
    [
        pytest.param(0, 0, id="still"),
        pytest.param(3, -2, id="a little"),
        pytest.param(-100, 60, id="a fifth of the field"),
        pytest.param(240, 0, id="half a field"),
        pytest.param(-300, -40, id="beyond half, where phase correlation wraps around"),
        pytest.param(0, 230, id="beyond half, down"),
        pytest.param(400, 0, id="a strip of 17 % left"),
        pytest.param(-330, 200, id="a corner of 12 % left"),
    ],
)
def test_finds_the_shift(dx, dy):
    shift = register(at(0, 0), at(dx, dy), CONFIG)
    assert shift is not None
    assert (shift.x_px, shift.y_px) == pytest.approx((dx, dy), abs=0.3)
    assert shift.overlap == pytest.approx((1 - abs(dx) / WIDTH) * (1 - abs(dy) / HEIGHT), abs=0.02)


@settings(max_examples=15, deadline=None)
@given(st.integers(-380, 380), st.integers(-240, 240))
def test_finds_any_shift_or_none_but_never_a_wrong_one(dx, dy):
    shift = register(at(0, 0), at(dx, dy), CONFIG)
    if (1 - abs(dx) / WIDTH) * (1 - abs(dy) / HEIGHT) > 0.1:
        assert shift is not None
    if shift is not None:
        assert (shift.x_px, shift.y_px) == pytest.approx((dx, dy), abs=0.5)


@pytest.mark.parametrize("quarters", range(4))
@pytest.mark.lengthy
def test_shift_between_pixels(quarters):
    """The slide is drawn four times larger, so that frames lie exactly `quarters` of a pixel apart."""
    large = slide(5, scale=4)
    frames = []
    for left in (1000, 1000 + 4 * 37 + quarters):
        part = large[800 : 800 + 4 * HEIGHT, left : left + 4 * WIDTH]
        frames.append(prepare(cv2.resize(part, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)))
    shift = register(*frames, CONFIG)
    assert shift is not None
    assert (shift.x_px, shift.y_px) == pytest.approx((37 + quarters / 4, 0), abs=0.08)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda image: (image * 0.5).astype(np.uint8), id="half the exposure"),
        pytest.param(lambda image: cv2.convertScaleAbs(image, alpha=1.15), id="more light"),
        pytest.param(lambda image: (image * np.array([0.8, 0.9, 1.0])).astype(np.uint8), id="another white balance"),
        pytest.param(lambda image: cv2.GaussianBlur(image, (0, 0), 3), id="out of focus"),
        pytest.param(
            lambda image: (image + np.random.default_rng(2).normal(0, 20, image.shape)).clip(0, 255).astype(np.uint8),
            id="much noise",
        ),
    ],
)
def test_finds_the_shift_in_a_changed_picture(change):
    shift = register(at(0, 0), prepare(change(view(HOME[0] + 150, HOME[1] - 70))), CONFIG)
    assert shift is not None
    assert (shift.x_px, shift.y_px) == pytest.approx((150, -70), abs=0.6)


@pytest.mark.parametrize("dx", [5, 60, 300])
def test_a_fixed_vignette_and_dust_do_not_pull_to_zero(dx):
    a, b = (prepare(vignette(view(HOME[0] + x, HOME[1]))) for x in (0, dx))
    shift = register(a, b, CONFIG)
    assert shift is not None
    assert (shift.x_px, shift.y_px) == pytest.approx((dx, 0), abs=0.3)


def test_a_fixed_vignette_and_dust_do_not_make_two_places_one():
    a, b = (prepare(vignette(view(*HOME, seed=seed))) for seed in (1, 2))
    assert register(a, b, CONFIG) is None


@pytest.mark.parametrize("seed", range(2, 12))
@pytest.mark.lengthy
def test_other_places_do_not_match(seed):
    assert register(at(0, 0), prepare(view(*HOME, seed=seed)), CONFIG) is None


def test_blank_frames_match_nothing_not_even_themselves():
    blank = prepare(np.full((HEIGHT, WIDTH, 3), 200, np.uint8))
    assert register(blank, blank, CONFIG) is None
    assert register(blank, at(0, 0), CONFIG) is None
    assert (blank.contrast, blank.coherence) == (0, 0)


def test_frames_of_different_sizes_do_not_match():
    assert find_peak(at(0, 0), prepare(view(*HOME)[:300]), CONFIG) is None
    assert refine(at(0, 0), prepare(view(*HOME)[:300]), (0, 0), CONFIG) is None


def test_refinement_alone_starts_from_a_guess_and_stays_near_it():
    a, b = at(0, 0), at(120, 33)
    near = refine(a, b, (117, 35), CONFIG)
    assert near is not None
    assert (near.x_px, near.y_px) == pytest.approx((120, 33), abs=0.3)
    assert refine(a, b, (60, 33), CONFIG) is None


def test_a_reversed_shift_goes_back():
    shift = register(at(0, 0), at(90, -40), CONFIG)
    back = register(at(90, -40), at(0, 0), CONFIG)
    assert shift is not None
    assert back is not None
    assert (shift.reversed().x_px, shift.reversed().y_px) == pytest.approx((back.x_px, back.y_px), abs=0.1)


def half_exchanged():
    """Two frames (100, 0) px apart; the left third of the second shows another place."""
    picture = view(HOME[0] + 100, HOME[1])
    picture[:, : WIDTH // 3] = view(*HOME, seed=2)[:, : WIDTH // 3]
    return at(0, 0), prepare(picture)


def test_strength_counts_correlated_pixels_that_agree():
    a, b = half_exchanged()
    shift = refine(a, b, (100, 0), CONFIG)
    assert 0.3 < shift.agreement < 0.9
    assert 0.3 < shift.ncc < 0.9
    pixels = shift.overlap * a.fine.size
    assert shift.strength == pytest.approx(shift.ncc * pixels**0.5 * shift.agreement, rel=1e-6)


@pytest.mark.parametrize(("gate", "measured"), [("min_ncc", "ncc"), ("min_strength", "strength")])
def test_each_gate_alone_stops_what_stays_below_it(gate, measured):
    a, b = half_exchanged()
    got = getattr(refine(a, b, (100, 0), CONFIG), measured)
    assert refine(a, b, (100, 0), replace(CONFIG, **{gate: got * 0.99})) is not None
    assert refine(a, b, (100, 0), replace(CONFIG, **{gate: got * 1.01})) is None


@pytest.mark.parametrize("gate", ["min_peak", "min_low_peak"])
def test_a_peak_below_its_gate_is_none(gate):
    a, b = at(0, 0), at(100, 0)
    assert find_peak(a, b, replace(CONFIG, **{gate: 5.0})) == pytest.approx((100, 0), abs=2)
    assert find_peak(a, b, replace(CONFIG, **{gate: 500.0})) is None


@pytest.mark.parametrize("dx", range(-102, -98))
def test_a_peak_lies_between_the_places_where_it_is_looked_for(dx):
    coarse_px = 2 * at(0, 0).factor
    assert coarse_px > 1
    assert find_peak(at(0, 0), at(dx, 50), CONFIG) == pytest.approx((dx, 50), abs=0.3 * coarse_px)


def test_a_refinement_that_leads_further_than_it_may_is_none():
    a, b = at(0, 0), at(103, 0)
    assert refine(a, b, (100, 0), replace(CONFIG, max_refinement=3.5)) is not None
    assert refine(a, b, (100, 0), replace(CONFIG, max_refinement=2.5)) is None


def test_all_of_a_reversed_shift_goes_back():
    shift = Shift(3.0, -4.0, overlap=0.5, ncc=0.9, agreement=0.8, strength=50.0, growth=0.01, turn_rad=-0.02)
    assert shift.reversed() == Shift(-3.0, 4.0, 0.5, 0.9, 0.8, 50.0, growth=-0.01, turn_rad=0.02)


@pytest.mark.parametrize(
    ("guess", "within_px", "is_found"),
    [
        pytest.param((147, 1), 1, True, id="refined from the guess"),
        pytest.param((110, 0), 60, True, id="too far to refine, searched for"),
        pytest.param((110, 0), 30, False, id="found, but further away than it can be"),
        pytest.param((150, 41), 42, True, id="too far down"),
        pytest.param((150, 41), 40, False, id="further down than it can be"),
    ],
)
def test_where_a_frame_should_lie_it_is_looked_for_first_and_elsewhere_only_within_reach(guess, within_px, is_found):
    shift = register_near(at(0, 0), at(150, 0), guess, within_px, CONFIG)
    assert (shift is not None) is is_found
    if shift is not None:
        assert (shift.x_px, shift.y_px) == pytest.approx((150, 0), abs=0.3)


@pytest.mark.parametrize(("degrees", "scale"), [(5, 1.0), (90, 1.0), (0, 1.25), (0, 0.7)])
def test_a_turned_or_rescaled_camera_is_recognised(degrees, scale):
    picture = view(*HOME)
    matrix = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), -degrees, scale)
    other = cv2.warpAffine(picture, matrix, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT)
    found = find_similarity(prepare(picture), prepare(other), CONFIG)
    assert found is not None
    growth, turn_rad = found
    assert growth == pytest.approx(scale - 1, abs=0.005)
    assert np.degrees(turn_rad) == pytest.approx(degrees, abs=0.2)


def test_other_places_are_not_taken_for_a_turned_camera():
    assert find_similarity(at(0, 0), prepare(view(*HOME, seed=2)), CONFIG) is None


@pytest.mark.parametrize("size", [(96, 96), (64, 200)])
def test_a_picture_of_one_cell_without_any_feature_is_like_no_other(size):
    picture = np.full((*size, 3), 200, np.uint8)
    cv2.circle(picture, (size[1] // 2, size[0] // 2), 20, (120, 60, 120), -1)
    assert find_similarity(prepare(picture), prepare(picture), CONFIG) is None


def test_slight_turn_shows_in_the_tiles():
    matrix = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), -0.25, 1.0)
    turned = cv2.warpAffine(view(*HOME), matrix, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT)
    shift = register(at(0, 0), prepare(turned), CONFIG)
    assert shift is not None
    assert np.degrees(shift.turn_rad) == pytest.approx(0.25, abs=0.1)
    assert shift.growth == pytest.approx(0, abs=0.003)


@pytest.mark.parametrize("scale", [0.995, 1.005])
def test_slight_growth_shows_in_the_tiles_with_its_sign(scale):
    matrix = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), 0, scale)
    grown = cv2.warpAffine(view(*HOME), matrix, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT)
    shift = register(at(0, 0), prepare(grown), CONFIG)
    assert shift.growth == pytest.approx(scale - 1, abs=0.002)
    assert shift.turn_rad == pytest.approx(0, abs=0.002)


def test_a_stage_at_rest_is_told_from_one_that_went_on_by_the_pictures():
    assert at_rest(at(0, 0), at(0, 0))
    assert at_rest(at(0, 0), at(1, 0))
    assert at_rest(at(0, 0), at(0, 2))
    assert not at_rest(at(0, 0), at(3, 0))
    assert not at_rest(at(0, 0), at(6, 0))
    assert not at_rest(at(0, 0), prepare(view(*HOME, seed=2)))
    assert not at_rest(at(0, 0), forgotten(at(0, 0)))


def test_smear_tells_motion_from_rest():
    assert at(0, 0).smear < 1.1
    assert prepare(smeared(*HOME, 30)).smear > 1.5


def test_a_dropped_spectrum_comes_back():
    frame = restored(at(0, 0))
    slim = without_spectrum(frame)
    assert slim.spectrum is None
    np.testing.assert_allclose(restored(slim).spectrum, frame.spectrum, rtol=1e-4, atol=1e-2)
    assert register(slim, slim, CONFIG) == register(frame, frame, CONFIG)


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(np.zeros((100, 100), np.uint8), id="grey"),
        pytest.param(np.zeros((100, 100, 3), np.float32), id="float"),
        pytest.param(np.zeros((20, 1000, 3), np.uint8), id="too narrow"),
    ],
)
def test_what_is_no_frame_is_refused(image):
    with pytest.raises(LeukostreamError, match=r"got .* expected|too narrow"):
        prepare(image)
