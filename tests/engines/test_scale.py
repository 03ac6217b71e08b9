"""Choosing the scale, with a scripted detector that knows red cells of some sizes only, as a trained one does."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import pytest

from engines.base import Array, Engine
from engines.card import Card, ClassEntry, DetectorInput, Thresholds
from engines.detector import Detector, Engines
from engines.scale import long_side_for, measure_long_side
from engines.scripted import ScriptedEngine, candidates, detector_specs

FRAME = np.zeros((480, 640, 3), np.uint8)
CARD = Card(
    name="test",
    task="detector",
    input=DetectorInput(long_side_px=640, rbc_diameter_px=(18, 60)),
    classes=(ClassEntry("WBC", "white"), ClassEntry("RBC", "red")),
    thresholds=Thresholds(0.35, 0.5),
    file="test.onnx",
)


def looking_at(
    true_diameter_px: float, *, cells: int = 8, label: int = 1, blind_above: float = 200, **more: object
) -> Detector:
    """A detector before frames of 640x480 in which `cells` red cells have a diameter, in full-frame pixels."""

    def load(height: int, width: int) -> Engine:
        seen = true_diameter_px * width / 640
        reported = float(np.clip(seen, 18, 60))

        def script(feeds: Mapping[str, Array]) -> dict[str, Array]:
            if not 10 <= seen <= blind_above:
                return candidates([[] for _ in feeds["images"]])
            columns = int((width - 4) // reported)
            corners = [(2 + reported * (i % columns), 20 + reported * (i // columns)) for i in range(cells)]
            rows = [((x, y, x + reported, y + reported), 0.8, label) for x, y in corners]
            return candidates([rows for _ in feeds["images"]])

        return ScriptedEngine(*detector_specs(height, width), script)

    return Detector(CARD, Engines(load), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("diameter", "expected"),
    [
        (30, 640),  # known size: stays
        (45, 640),
        (80, 256),  # twice too large: 80 px -> 40 at half, then the middle of the range, 33 px
        (150, 128),
        (16, 1312),
    ],
)
def test_red_cells_are_brought_into_the_range(diameter: float, expected: int) -> None:
    assert measure_long_side(looking_at(diameter, cells=6), [FRAME]) == expected


def test_cells_too_large_to_be_seen_at_all() -> None:
    assert measure_long_side(looking_at(90, cells=6, blind_above=70), [FRAME]) == 224


@pytest.mark.parametrize(
    "detector",
    [looking_at(30, cells=4), looking_at(30, label=0), looking_at(1000), looking_at(30, fixed_size=(480, 640))],
)
def test_too_little_to_tell(detector: Detector) -> None:
    assert measure_long_side(detector, [FRAME]) is None
    assert measure_long_side(detector, []) is None


def test_a_card_without_a_range_leaves_the_scale_alone() -> None:
    detector = looking_at(100)
    detector.card = dataclasses.replace(CARD, input=DetectorInput(long_side_px=640))
    assert measure_long_side(detector, [FRAME]) is None
    assert long_side_for(detector, 640, 480, 100) == 640


@pytest.mark.parametrize(("diameter", "expected"), [(40, 640), (140, 288), (20, 2112)])
def test_a_diameter_that_someone_knows(diameter: float, expected: int) -> None:
    assert long_side_for(looking_at(0), 1280, 960, diameter) == expected
