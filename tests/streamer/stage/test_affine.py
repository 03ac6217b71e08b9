"""From a stage's micrometres to pixels: scale, turn and mirror out of places known in both."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.stage.affine import StageAffine, fit

WIDTH = 640


def places(count: int, *, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.asarray(rng.uniform(0, 400, count) + 1j * rng.uniform(0, 300, count))


def one_group(points: np.ndarray) -> np.ndarray:
    return np.zeros(len(points), np.intp)


@given(turn=st.floats(-179, 179), mirrored=st.booleans(), um_per_px=st.floats(0.02, 0.4), seed=st.integers(0, 20))
def test_scale_turn_and_mirror_are_found(turn: float, mirrored: bool, um_per_px: float, seed: int) -> None:
    um = places(12, seed=seed)
    true = StageAffine(
        float(np.cos(np.radians(turn)) / um_per_px), float(np.sin(np.radians(turn)) / um_per_px), mirrored, 0, 0
    )
    found = fit(um, true.to_px(um) + (40 - 7j), one_group(um), WIDTH)
    assert found is not None
    assert (found.mirrored, found.um_per_px, found.turn_deg) == (
        mirrored,
        pytest.approx(um_per_px),
        pytest.approx(turn, abs=1e-6),
    )
    assert np.allclose(found.to_um(found.to_px(um)), um)


def test_every_group_has_its_own_zero() -> None:
    um = places(20)
    groups = np.repeat([0, 1, 2, 7], 5)
    px = um / 0.17 + np.array([0, 900j, -4000, 12 + 5j])[np.repeat([0, 1, 2, 3], 5)]
    found = fit(um, px, groups, WIDTH)
    assert found is not None
    assert found.um_per_px == pytest.approx(0.17)


def test_a_fifth_of_wild_readings_does_no_harm() -> None:
    um = places(40)
    px = um / 0.17
    um[::5] += 3000 * (places(8, seed=2) / 200 - 1)
    found = fit(um, px, one_group(um), WIDTH)
    assert found is not None
    assert (found.um_per_px, found.turn_deg) == (pytest.approx(0.17), pytest.approx(0, abs=1e-6))


@pytest.mark.parametrize(
    ("um", "px"),
    [
        pytest.param(places(4), places(4) / 0.17, id="too few"),
        pytest.param(places(12).real + 0j, places(12).real / 0.17 + 0j, id="on a line, which a mirror leaves as it is"),
        pytest.param(places(12) / 50, places(12) / 50 / 0.17, id="too near each other"),
        pytest.param(places(12), places(12, seed=9) / 0.17, id="nothing to do with each other"),
        pytest.param(np.full(12, 5 + 5j), places(12) / 0.17, id="stuck"),
    ],
)
def test_there_is_no_fit(um: np.ndarray, px: np.ndarray) -> None:
    assert fit(um, px, one_group(um), WIDTH) is None


def test_frames_of_islands_of_one_say_nothing() -> None:
    um = places(12)
    assert fit(um, um / 0.17, np.arange(12), WIDTH) is None
