import numpy as np
import pytest

from engines.geometry import halved
from streamer.analysis.colours import field_colours
from tests.streamer.counting.test_evidence import seen

PLASMA_BGR, RED_BGR, NUCLEUS_BGR = (230, 220, 225), (150, 120, 190), (120, 40, 90)
DETECTIONS = seen().detections


def field(gain: float = 1.0) -> np.ndarray:
    image = np.full((200, 400, 3), PLASMA_BGR, np.float32)
    for (x1, y1, x2, y2), label in zip(DETECTIONS.boxes_px.astype(int), DETECTIONS.labels, strict=True):
        image[y1:y2, x1:x2] = RED_BGR if label else NUCLEUS_BGR
    return (image * gain).round().astype(np.uint8)


def density(bgr) -> np.ndarray:
    return -np.log((np.array(bgr) + 1) / 256)


def test_plasma_and_red_cells_are_measured_where_they_are():
    colours = field_colours(halved(field(), 1), DETECTIONS, 0.5)
    assert colours.plasma == pytest.approx(density(PLASMA_BGR), abs=0.01)
    assert colours.red == pytest.approx(density(RED_BGR) - density(PLASMA_BGR), abs=0.01)
    assert colours.red_cells == 11


def test_exposure_moves_the_plasma_and_leaves_the_red_cells():
    usual, darker = (field_colours(halved(field(gain), 1), DETECTIONS, 0.5) for gain in (1.0, 0.7))
    assert np.subtract(darker.plasma, usual.plasma) == pytest.approx([0.355] * 3, abs=0.01)
    assert darker.red == pytest.approx(usual.red, abs=0.01)


def test_without_red_cells_there_is_plasma_alone():
    colours = field_colours(halved(field(), 1), DETECTIONS, 0.95)  # no box is so sure
    assert (colours.red, colours.red_cells) == (None, 0)
    assert colours.plasma is not None
