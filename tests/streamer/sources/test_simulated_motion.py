"""The stage of the simulated microscope, and what its motion does to the picture."""

from __future__ import annotations

import numpy as np
import pytest

from streamer.sources.simulated import SlideParameters, VirtualSlide
from streamer.sources.simulated.optics import Optics
from streamer.sources.simulated.stage_motion import MOVE, REST, StageMotion, plan_motion, plan_scan

FIELD = {"width": 320, "height": 240, "red": 24.0}


def planned(pattern: str, **more: object) -> tuple[SlideParameters, StageMotion]:
    parameters = SlideParameters(**{"cells": 40, "pattern": pattern, **FIELD, **more})  # type: ignore[arg-type]
    return parameters, plan_motion(parameters, plan_scan(parameters, 64))


def resting_places(motion: StageMotion) -> np.ndarray:
    """Mean place of every rest, in order."""
    edges = np.flatnonzero(np.diff(motion.state, prepend=MOVE, append=MOVE))
    starts, ends = edges[::2], edges[1::2]
    places = np.stack([motion.x_px, motion.y_px], axis=1)
    return np.array([places[start:end].mean(axis=0) for start, end in zip(starts, ends, strict=True)])


def test_raster_stops_overlap_by_a_fifth() -> None:
    parameters, motion = planned("raster")
    scan = plan_scan(parameters, 64)
    places = resting_places(motion)
    assert len(places) == len(scan)
    steps = np.abs(np.diff(places, axis=0))
    along_row = steps[:, 0] > steps[:, 1]
    assert (~along_row).sum() == scan.rows - 1
    overlap_x, overlap_y = 1 - steps[along_row, 0] / 320, 1 - steps[~along_row, 1] / 240
    assert np.mean(overlap_x) == pytest.approx(0.2, abs=0.005)
    assert np.all(np.abs(overlap_x - 0.2) < 0.03)
    assert np.all(np.abs(overlap_y - 0.2) < 0.035)
    assert steps[along_row, 1].max() < 8


@pytest.mark.parametrize("pattern", ["raster", "pan", "jump", "return", "mixed"])
def test_every_pattern_shows_the_whole_slide(pattern: str) -> None:
    parameters, motion = planned(pattern)
    scan = plan_scan(parameters, 64)
    width = int(64 + scan.step_x_px * (scan.columns - 1) + 320)
    height = int(64 + scan.step_y_px * (scan.rows - 1) + 240)
    seen = np.zeros((height, width), dtype=bool)
    for x, y in zip(motion.x_px, motion.y_px, strict=True):
        seen[max(round(y), 0) : round(y) + 240, max(round(x), 0) : round(x) + 320] = True
    assert seen[70 : height - 6, 70 : width - 6].all()


def test_a_slide_grows_with_its_cells() -> None:
    def fields(cells: int, density: float) -> float:
        scan = plan_scan(SlideParameters(cells=cells, density=density), 64)
        area = (scan.step_x_px * (scan.columns - 1) + 640) * (scan.step_y_px * (scan.rows - 1) + 480)
        return area / (640 * 480)

    assert fields(200, 2.0) == pytest.approx(100, rel=0.25)
    assert fields(2000, 2.0) == pytest.approx(1000, rel=0.1)
    assert fields(2000, 4.0) == pytest.approx(500, rel=0.1)


def test_a_pan_is_steady() -> None:
    _, motion = planned("pan")
    steps = np.hypot(np.diff(motion.x_px), np.diff(motion.y_px))
    moving = motion.state[:-1] == MOVE
    assert np.percentile(steps[moving], 10) > 0.9 * 320 / 24
    assert steps.max() < 1.1 * 320 / 24 + 1


def gaps_between_rests(motion: StageMotion) -> np.ndarray:
    """How far the stage gets from one resting frame to the very next."""
    steps = np.hypot(np.diff(motion.x_px), np.diff(motion.y_px))
    return steps[(motion.state[:-1] == REST) & (motion.state[1:] == REST)]


def test_jumps_happen_between_two_frames() -> None:
    _, motion = planned("jump")
    assert np.all(motion.state == REST)
    jumps = gaps_between_rests(motion)
    parameters, _ = planned("jump")
    assert (jumps > 100).sum() == len(plan_scan(parameters, 64)) - 1


@pytest.mark.parametrize(("jumps", "returns"), [(5, 3), (1, 0), (0, 2), (0, 0)])
def test_mixed_jumps_and_returns_as_often_as_asked(jumps: int, returns: int) -> None:
    parameters, motion = planned("mixed", jumps=jumps, returns=returns)
    scan = plan_scan(parameters, 64)
    assert (gaps_between_rests(motion) > 100).sum() == jumps
    # A jump joins two rests into one run of resting frames; every return adds two rests.
    rests = motion.state == REST
    assert rests.sum() == parameters.dwell * (len(scan) + 2 * returns)


def test_returns_come_back_to_a_place_seen_before() -> None:
    _, motion = planned("return")
    places = resting_places(motion)
    away = np.hypot(*(places[:, None] - places).transpose(2, 0, 1))
    earlier = np.tril(away < 8, k=-2).any(axis=1)
    plain = plan_scan(SlideParameters(cells=40, **FIELD), 64)  # type: ignore[arg-type]
    assert earlier.sum() == len(places) - len(plain)
    assert earlier.sum() >= 4


def test_moves_start_and_stop_softly_and_settle() -> None:
    _, motion = planned("raster", travel=8, dwell=8)
    steps = np.abs(np.diff(motion.x_px))[:22]
    first_move = steps[8:15]
    assert first_move.max() > 2.5 * first_move[0]
    assert first_move.max() > 2.5 * first_move[-1]
    rest = motion.x_px[16:24]
    assert abs(rest[0] - rest[-1]) > 0.3
    assert abs(rest[-2] - rest[-1]) < 0.5


def test_motion_follows_the_exposure() -> None:
    _, sharp = planned("raster", blur=0.0)
    _, usual = planned("raster")
    _, long = planned("raster", blur=3.0)
    assert np.abs(sharp.motion_x_px).max() == 0
    assert np.abs(long.motion_x_px).max() == pytest.approx(3 * np.abs(usual.motion_x_px).max(), rel=0.1)
    fastest = np.argmax(np.abs(usual.motion_x_px))
    speed = abs(usual.x_px[fastest + 1] - usual.x_px[fastest - 1]) / 2
    assert abs(usual.motion_x_px[fastest]) == pytest.approx(0.15 * speed, rel=0.2)


def test_focus_drifts_slowly() -> None:
    _, motion = planned("raster", cells=200)
    assert 0.3 < np.abs(motion.focus).max() < 2.0
    # Half of it is the slide's own slope, so a move changes more than waiting does.
    assert np.abs(np.diff(motion.focus)).max() < 0.12


def test_moving_frames_are_blurred_along_the_motion() -> None:
    slide = VirtualSlide(SlideParameters(seed=4, cells=10, noise=0, vignette=0))
    motion = slide.motion
    moving = int(np.argmax(np.abs(motion.motion_x_px[:30])))
    assert abs(motion.motion_x_px[moving]) > 20
    assert slide.truth(moving).moving
    assert slide.truth(moving).motion_px[0] == motion.motion_x_px[moving]

    def edges(frame_id: int) -> float:
        image = slide.render(frame_id)[..., 1].astype(float)
        return float(np.square(np.diff(image, axis=1)).mean() / np.square(np.diff(image, axis=0)).mean())

    assert 0.7 < edges(0) < 1.4
    assert edges(moving) < 0.4


@pytest.mark.parametrize(
    "motion_px", [(0.0, 0.0), (1.3, 0.0), (12.0, 0.0), (-12.0, 5.0), (9.0, 9.0), (0.0, -31.0), (47.6, -20.2)]
)
@pytest.mark.parametrize("shift_px", [(0.0, 0.0), (0.3, 0.75)])
def test_a_point_becomes_a_streak_around_its_place(
    motion_px: tuple[float, float], shift_px: tuple[float, float]
) -> None:
    optics = Optics(SlideParameters(noise=0, vignette=0, cast=0, width=200, height=200))
    defocus = optics.defocus_px(0.0)
    margin = optics.margin_px(motion_px, defocus)
    view = np.full((200 + 2 * margin, 200 + 2 * margin, 3), 255, dtype=np.uint8)
    view[margin + 97 : margin + 104, margin + 97 : margin + 104] = 0
    image = optics.expose(view, 0, margin, shift_px, motion_px, defocus)[..., 1].astype(float)
    dark = np.median(image) - image
    dark[np.abs(dark) < 2] = 0
    y, x = np.mgrid[0:200, 0:200]
    centre = (dark * x).sum() / dark.sum(), (dark * y).sum() / dark.sum()
    assert centre == pytest.approx((100 - shift_px[0], 100 - shift_px[1]), abs=0.5)
    length = np.ptp(x[dark > 0]) + 1, np.ptp(y[dark > 0]) + 1
    assert length == pytest.approx((7 + abs(motion_px[0]), 7 + abs(motion_px[1])), abs=4)


def test_the_light_is_uneven_and_does_not_move_with_the_stage() -> None:
    optics = Optics(SlideParameters(noise=0))
    margin = optics.margin_px((0.0, 0.0), 1.0)
    glass = np.full((480 + 2 * margin, 640 + 2 * margin, 3), 255, dtype=np.uint8)
    image = optics.expose(glass, 0, margin, (0.0, 0.0), (0.0, 0.0), 1.0).astype(float)
    corners = image[[5, 5, -5, -5], [5, -5, 5, -5]].mean(axis=0)
    centre = image[230:250, 310:330].mean(axis=(0, 1))
    fall_off = 1 - corners / centre
    assert np.all(fall_off > 0.05)
    assert fall_off[2] < fall_off[0], "the edge is redder than the centre"
    later = optics.expose(glass, 9, margin, (0.0, 0.0), (0.0, 0.0), 1.0).astype(float)
    assert np.abs(later / image * image.mean() / later.mean() - 1).max() < 0.02


def test_noise_grows_with_its_parameter_and_differs_from_frame_to_frame() -> None:
    def noise(multiple: float) -> float:
        optics = Optics(SlideParameters(noise=multiple, vignette=0))
        margin = optics.margin_px((0.0, 0.0), 1.0)
        grey = np.full((480 + 2 * margin, 640 + 2 * margin, 3), 128, dtype=np.uint8)
        frames = [optics.expose(grey, i, margin, (0.0, 0.0), (0.0, 0.0), 1.0).astype(float) for i in range(2)]
        return float((frames[0] - frames[1]).std() / np.sqrt(2))

    assert noise(0) == pytest.approx(0, abs=0.01)
    assert 1 < noise(1) < 4
    assert noise(3) == pytest.approx(3 * noise(1), rel=0.1)
