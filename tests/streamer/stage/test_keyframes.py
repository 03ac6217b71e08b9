import numpy as np
import pytest

from streamer.stage import keyframes
from streamer.stage.keyframes import StageMap
from streamer.stage.placement import Correction
from streamer.stage.preparation import RegistrationConfig, prepare, restored
from streamer.stage.registration import Shift, refine, register
from tests.streamer.stage.stage_cases import HEIGHT, WIDTH, view

FRAME = restored(prepare(view(0, 0), RegistrationConfig()))


def shift(x, y, overlap=0.5, ncc=0.9):
    return Shift(x, y, overlap, ncc, 1.0, 100.0, 0.0, 0.0)


def loop_with_drift(count=12, drift=1.0):
    """Keyframes on a circle, each link `drift` px too far to the right, and the last linked to the first truly."""
    angles = np.arange(count) * 2 * np.pi / count
    truth = np.stack([np.cos(angles), np.sin(angles)], 1) * 400
    truth -= truth[0]
    made = StageMap(announce_px=0.25)
    island = made.new_island()
    place = np.zeros(2)
    made.add(FRAME, island, 0, 0)
    for i in range(1, count):
        step = truth[i] - truth[i - 1] + [drift, 0]
        place = place + step
        made.add(FRAME, island, *place)
        made.link(i - 1, i, shift(*step))
    return made, truth


def errors(made, truth):
    places = np.array([(made[i].x_px, made[i].y_px) for i in range(len(made))])
    return np.linalg.norm(places - truth, axis=1)


def test_closing_a_loop_spreads_the_drift_and_brings_the_end_home():
    made, truth = loop_with_drift()
    assert errors(made, truth)[-1] == pytest.approx(11)
    made.corrections()
    off = made.link(11, 0, shift(*(truth[0] - truth[11])))
    assert off == pytest.approx(11)
    made.settle(0)
    assert errors(made, truth)[-1] == pytest.approx(11 / 12, abs=0.01)
    assert errors(made, truth)[0] == 0
    told = {correction.anchor: correction for correction in made.corrections()}
    assert told[11].dx_px == pytest.approx(-11 + 11 / 12, abs=0.01)
    assert 0 not in told
    assert made.corrections() == ()


def test_a_link_that_no_other_agrees_with_loses():
    made, truth = loop_with_drift(drift=0.0)
    made.link(11, 0, shift(*(truth[0] - truth[11])))
    made.link(2, 8, shift(*(truth[8] - truth[2] + [60, -40]), overlap=0.1))
    made.settle(0)
    assert errors(made, truth).max() < 1.5


def test_settling_near_one_keyframe_leaves_the_far_ones_alone(monkeypatch):
    monkeypatch.setattr(keyframes, "LOCAL", 5)
    made, _ = loop_with_drift()
    made.corrections()
    made.link(0, 2, shift(made[2].x_px - 2, made[2].y_px))
    made.settle(0, around=2)
    assert {correction.anchor for correction in made.corrections()} <= {1, 2, 3, 4}
    assert made[2].x_px != pytest.approx(0)


def test_those_that_settle_together_are_the_ones_fewest_links_away():
    made = StageMap(announce_px=0.25)
    island = made.new_island()
    for _ in range(8):
        made.add(FRAME, island, 0, 0)
    for a, b in ((0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (3, 5), (4, 6), (5, 7)):
        made.link(a, b, shift(0, 0))
    assert made._linked(0, 6) == {0, 1, 2, 3, 4, 5}
    assert made._linked(0, 5) == {0, 1, 2, 3, 4}
    assert made._linked(7, 100) == set(range(8))


def test_corrections_below_the_threshold_add_up_until_they_are_told():
    made = StageMap(announce_px=0.25)
    island = made.new_island()
    made.add(FRAME, island, 0, 0)
    made.add(FRAME, island, 100, 0)
    made.corrections()
    for target, told in ((100.2, False), (100.4, True)):
        made.link(0, 1, shift(target, 0))
        made.settle(island)
        corrections = made.corrections()
        assert bool(corrections) is told
    assert corrections == (Correction(1, 0, pytest.approx(0.4), pytest.approx(0)),)


def test_a_keyframe_that_moves_before_anyone_knew_of_it_needs_no_correction():
    made = StageMap(announce_px=0.25)
    island = made.new_island()
    made.add(FRAME, island, 0, 0)
    made.add(FRAME, island, 100, 0)
    made.link(0, 1, shift(90, 0))
    made.settle(island)
    assert made[1].x_px == pytest.approx(90)
    assert made.corrections() == ()
    assert made[1].announced_px == pytest.approx((90, 0))


def test_merged_islands_lie_in_one_and_are_found_by_place():
    made = StageMap(announce_px=0.25)
    first, second = made.new_island(), made.new_island()
    made.add(FRAME, first, 0, 0)
    made.add(FRAME, second, 0, 0)
    made.corrections()
    assert made.around(first, FRAME, 10, 0) == [(pytest.approx((WIDTH - 10) / WIDTH), 0)]
    made.merge(second, first, 200, 50)
    assert made.islands == (first,)
    assert made.corrections() == (Correction(1, first, 200, 50),)
    overlap = (WIDTH - 200) * (HEIGHT - 50) / WIDTH / HEIGHT
    assert made.around(first, FRAME, 0, 0) == [(1.0, 0), (pytest.approx(overlap), 1)]
    assert made.around(second, FRAME, 0, 0) == []


def test_the_nearest_come_first_and_other_islands_last_newest_first():
    made = StageMap(announce_px=0.25)
    own, other = made.new_island(), made.new_island()
    for x in (0, 300, 100):
        made.add(FRAME, own, x, 0)
    for _ in range(2):
        made.add(FRAME, other, 0, 0)
    assert made.nearest(own, 120, 0) == [2, 0, 1, 4, 3]


def test_only_so_many_spectra_stay_in_memory(monkeypatch):
    monkeypatch.setattr(keyframes, "SPECTRA_KEPT", 3)
    made = StageMap(announce_px=0.25)
    island = made.new_island()
    for i in range(5):
        made.add(FRAME, island, i, 0)
    assert made.with_spectrum == (2, 3, 4)
    assert made.frame(0).spectrum is not None
    assert made.with_spectrum == (3, 4, 0)
    made.hide(np.eye(*FRAME.fine.shape, dtype=np.uint8))
    assert made.with_spectrum == ()


def test_only_so_many_pictures_stay_in_memory_and_the_loss_is_counted(monkeypatch):
    monkeypatch.setattr(keyframes, "PICTURES_KEPT", 3)
    made = StageMap(announce_px=0.25)
    island = made.new_island()
    for i in range(5):
        made.add(FRAME, island, 1000 * i, 0)
    assert made.forgotten == 2
    config = RegistrationConfig()
    assert [register(made.frame(i), FRAME, config) is not None for i in range(5)] == [False, False, True, True, True]
    assert refine(made.frame(0), FRAME, (0, 0), config) is None
    assert made.around(island, FRAME, 10, 0) == [(pytest.approx(1 - 10 / WIDTH), 0)]


def test_smeared_keyframes_hold_less():
    made = StageMap(announce_px=0.25)
    island = made.new_island()
    sharp, blurred = FRAME, prepare(view(0, 0), RegistrationConfig())
    object.__setattr__(blurred, "smear", 2.0)
    for frame in (sharp, blurred, sharp):
        made.add(frame, island, 0, 0)
    made.link(0, 1, shift(100, 0))
    made.link(1, 2, shift(100, 0))
    made.link(0, 2, shift(190, 0))
    made.settle(island)
    assert made[2].x_px == pytest.approx(190, abs=0.2)
