"""How much of a box is hidden, and beside which of its sides."""

import numpy as np
import pytest

from streamer.stage.hidden import HiddenParts

MASK = np.zeros((60, 80), np.uint8)
MASK[0:10, 0:40] = 1
MASK[30:34, 50:54] = 1
HIDDEN = HiddenParts(MASK, 2)


@pytest.mark.parametrize(
    ("box", "share"),
    [
        pytest.param((0, 0, 80, 20), 1.0, id="all of it"),
        pytest.param((0, 10, 40, 30), 0.5, id="its upper half"),
        pytest.param((100, 60, 108, 68), 1.0, id="a small part of its own"),
        pytest.param((100, 60, 116, 68), 0.5, id="half of that"),
        pytest.param((60, 90, 100, 110), 0.0, id="none"),
        pytest.param((-20, -20, 20, 20), 1.0, id="beyond the frame there is nothing"),
        pytest.param((200, 200, 220, 220), 0.0, id="outside"),
    ],
)
def test_share_of_a_box_that_is_hidden(box, share):
    assert HIDDEN.covered(np.float32([box])).tolist() == [share]


@pytest.mark.parametrize(
    ("box", "beside"),
    [
        pytest.param((20, 20, 60, 60), (False, True, False, False), id="under it"),
        pytest.param((80, 0, 120, 20), (True, False, False, False), id="right of it"),
        pytest.param((20, 40, 60, 80), (False, False, False, False), id="away from it"),
        pytest.param((92, 56, 100, 72), (False, False, True, False), id="left of the small one"),
    ],
)
def test_the_sides_beside_which_the_slide_is_hidden(box, beside):
    assert tuple(HIDDEN.beside(np.float32([box]), 4.0)[0] > 0.4) == beside


def test_parts_are_named_by_their_boxes_the_largest_first():
    assert HIDDEN.boxes_px() == [(0, 0, 80, 20), (100, 60, 108, 68)]


def test_parts_are_the_same_by_what_they_hide():
    assert HIDDEN.same_as(HiddenParts(MASK.copy(), 2))
    assert not HIDDEN.same_as(HiddenParts(MASK, 4))
    assert not HIDDEN.same_as(HiddenParts(MASK.T.copy(), 2))
    assert not HIDDEN.same_as(None)
