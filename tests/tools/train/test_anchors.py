"""The fitness of anchors, by hand: what no anchor can take counts nothing."""

from __future__ import annotations

import numpy as np
import pytest

from tools.train.anchors import best_ratio, fitness

ANCHORS = np.array([[10.0, 10.0], [40.0, 20.0]])


def test_the_best_ratio_is_that_of_the_worse_side_with_the_best_anchor() -> None:
    sizes = np.array([[10.0, 10.0], [40.0, 10.0], [20.0, 20.0], [5.0, 20.0]])
    assert best_ratio(sizes, ANCHORS).tolist() == [1, 0.5, 0.5, 0.5]


def test_boxes_that_no_anchor_can_take_count_nothing() -> None:
    """A box of 2.6 x 10 px has the ratio .26 with the first anchor and is taken, one of 2.4 x 10 px has .24 and is not;
    at a quarter exactly the loss does not assign it either."""
    sizes = np.array([[10.0, 10.0], [2.6, 10.0], [2.4, 10.0], [2.5, 10.0]])
    assert best_ratio(sizes, ANCHORS) == pytest.approx([1, 0.26, 0.24, 0.25])
    assert fitness(sizes, ANCHORS) == pytest.approx((1 + 0.26) / 4)
    assert fitness(sizes, ANCHORS, max_ratio=5) == pytest.approx((1 + 0.26 + 0.24 + 0.25) / 4)
    assert fitness(sizes[2:], ANCHORS) == 0
