"""White cells that a line burnt into the picture cuts in two."""

from __future__ import annotations

import numpy as np
import pytest

from streamer.counting.pieces import find_pieces
from streamer.counting.slide_map import SlideMap
from streamer.records import Detections, StagePosition
from streamer.stage.hidden import HiddenParts
from streamer.stage.placement import Placement

LINES = np.zeros((240, 320), np.uint8)
LINES[120, :] = LINES[:, 160] = 1
CROSSHAIR = HiddenParts(LINES, 2)
UPPER, LOWER = (219, 205, 304, 248), (217, 217, 305, 281)


@pytest.mark.parametrize(
    ("boxes", "pairs"),
    [
        pytest.param([UPPER, LOWER], [(1, 0)], id="above and below, the larger one first"),
        pytest.param([(280, 40, 322, 120), (318, 44, 360, 118)], [(0, 1)], id="left and right"),
        pytest.param([(219, 105, 304, 148), (217, 117, 305, 181)], [], id="without a line between"),
        pytest.param([(200, 160, 280, 239), (202, 241, 282, 320)], [], id="two whole cells at the line"),
        pytest.param([UPPER, (100, 241, 190, 281)], [], id="not above one another"),
        pytest.param([UPPER], [], id="one"),
        pytest.param(np.zeros((0, 4)), [], id="none"),
        pytest.param([UPPER, LOWER, (221, 207, 303, 247)], [(1, 0)], id="each in one pair"),
    ],
)
def test_two_boxes_are_pieces_of_a_round_cell_with_a_line_between(boxes, pairs):
    assert find_pieces(np.array(boxes, np.float32), CROSSHAIR) == pairs


def seen(*boxes: tuple[int, ...]) -> Detections:
    count = len(boxes)
    return Detections(
        boxes_px=np.array(boxes, np.float32).reshape(count, 4),
        scores=np.linspace(0.9, 0.8, count, dtype=np.float32),
        labels=np.zeros(count, np.intp),
        label_names=("WBC",),
        kinds=("white",),
        truncated=False,
    )


def counted(hidden: list[HiddenParts | None]) -> int:
    """White cells whose two pieces are in each frame, with what was known of the overlay then."""
    slide_map = SlideMap()
    for frame_id, parts in enumerate(hidden):
        placement = Placement(StagePosition(0, 4.0 * frame_id, 0.0, 1.0), anchor=0, hidden=parts)
        moved = [tuple(np.subtract(box, (4 * frame_id, 0, 4 * frame_id, 0))) for box in (UPPER, LOWER)]
        slide_map.update(placement, seen(*moved), (640, 480), frame_id)
    return sum(cell.kind == "white" and cell.partial is False for cell in slide_map.cells())


def test_the_pieces_are_one_cell_whether_the_line_was_known_at_once_or_later():
    assert counted([CROSSHAIR, CROSSHAIR]) == 1
    assert counted([None, None, CROSSHAIR]) == 1
    assert counted([None, None, None]) == 2
