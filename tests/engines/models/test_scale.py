"""Choosing the scale, with a scripted detector that knows red cells of some sizes only."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from engines.models.detector import Detector
from engines.models.scale import is_trained_for, long_side_for, measure_rbc_diameter
from engines.zoo.card import DetectorInput
from tests.engines.models.scale_cases import CARD, FRAME, looking_at


def measured_side(detector: Detector) -> int | None:
    diameter = measure_rbc_diameter(detector, [FRAME])
    return None if diameter is None else long_side_for(detector, 640, 480, diameter)


@pytest.mark.parametrize(
    ("diameter", "expected"),
    [
        (30, 640),  # known size: stays
        (45, 640),
        (80, 320),  # too large: 80 px -> 40 at half, which is 60 / 1.5
        (150, 160),
        (16, 1088),
    ],
)
def test_red_cells_are_brought_into_the_range(diameter: float, expected: int) -> None:
    detector = looking_at(diameter, cells=6)
    assert measure_rbc_diameter(detector, [FRAME]) == pytest.approx(diameter, rel=0.01)
    assert measured_side(detector) == expected


def test_cells_too_large_to_be_seen_at_all() -> None:
    assert measured_side(looking_at(90, cells=6, blind_above=70)) == 288


@pytest.mark.parametrize("detector", [looking_at(30, cells=4), looking_at(30, label=0), looking_at(1000)])
def test_too_little_to_tell(detector: Detector) -> None:
    assert measure_rbc_diameter(detector, [FRAME]) is None
    assert measure_rbc_diameter(detector, []) is None


def test_cells_that_no_input_brings_into_the_range() -> None:
    detector = looking_at(6)
    assert measure_rbc_diameter(detector, [FRAME]) is None  # the network sees none, and the frame has no more pixels
    assert long_side_for(detector, 640, 480, 6) is None
    assert not is_trained_for(detector, 640, 480, 6)


def test_cells_too_small_to_be_seen_are_looked_for_in_large_frames() -> None:
    large = np.zeros((1920, 2560, 3), np.uint8)  # a red cell of 30 px is 7.5 px wide in the usual input
    detector = looking_at(7.5)
    assert measure_rbc_diameter(detector, [large]) == pytest.approx(30)
    assert long_side_for(detector, 2560, 1920, 30) == 2304


def test_a_file_of_fixed_size_is_measured_as_it_is() -> None:
    inside, outside = looking_at(30, fixed_size=(480, 640)), looking_at(15, fixed_size=(480, 640))
    assert measure_rbc_diameter(inside, [FRAME]) == pytest.approx(30)
    assert long_side_for(inside, 640, 480, 30) == 640
    assert measure_rbc_diameter(outside, [FRAME]) == pytest.approx(18)  # the smallest that it knows
    assert long_side_for(outside, 640, 480, 15) is None


def test_a_card_without_a_range_leaves_the_scale_alone() -> None:
    detector = looking_at(100)
    detector.card = dataclasses.replace(CARD, input=DetectorInput(long_side_px=640))
    assert measure_rbc_diameter(detector, [FRAME]) is None
    assert long_side_for(detector, 640, 480, 100) == 640


@pytest.mark.parametrize(("diameter", "expected"), [(40, 640), (140, 352), (30, 1152), (8, None)])
def test_a_diameter_that_someone_knows(diameter: float, expected: int | None) -> None:
    assert long_side_for(looking_at(0), 1280, 960, diameter) == expected
