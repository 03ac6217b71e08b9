import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.counting.matching import (
    Field,
    MatchConfig,
    covered,
    cut_sides,
    new_and_double,
    one_to_one,
    overlaps,
    touching_pairs,
)

NO = [False] * 4


def boxes(*rows):
    return np.array(rows, np.float64).reshape(-1, 4)


def cuts(*rows):
    return np.array(rows, bool).reshape(-1, 4)


coordinates = st.integers(0, 60)
box = st.tuples(coordinates, coordinates, st.integers(1, 25), st.integers(1, 25)).map(
    lambda r: (r[0], r[1], r[0] + r[2], r[1] + r[3])
)


@settings(deadline=None)
@given(st.lists(box, max_size=12), st.lists(box, max_size=12))
def test_touching_pairs_are_all_that_share_area_and_no_others(a, b):
    i, j = touching_pairs(boxes(*a), boxes(*b))
    expected = {
        (m, n)
        for m, one in enumerate(a)
        for n, two in enumerate(b)
        if min(one[2], two[2]) > max(one[0], two[0]) and min(one[3], two[3]) > max(one[1], two[1])
    }
    assert set(zip(i.tolist(), j.tolist(), strict=True)) == expected
    assert len(i) == len(expected)


def test_touching_pairs_of_a_whole_slide_need_no_more_memory_than_there_are_pairs():
    """A column as high as the slide holds thousands of cells; only those in the same place are compared."""
    rng = np.random.default_rng(4)
    corners = rng.uniform(0, (3000, 60_000), (9000, 2))
    slide = np.concatenate([corners, corners + rng.uniform(20, 60, (9000, 2))], axis=1)
    tracemalloc.start()
    i, j = touching_pairs(slide, slide)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 30e6
    few = np.nonzero(slide[:, 1] < 2000)[0]
    k, m = touching_pairs(slide[few[:200]], slide)
    chosen = np.isin(i, few[:200])
    pairs = set(zip(few[:200][k].tolist(), m.tolist(), strict=True))
    assert pairs == set(zip(i[chosen].tolist(), j[chosen].tolist(), strict=True))
    assert len(i) == len(set(zip(i.tolist(), j.tolist(), strict=True)))


@pytest.mark.parametrize(
    ("a", "a_cut", "b", "b_cut", "iou", "containment"),
    [
        pytest.param((0, 0, 10, 10), NO, (0, 0, 10, 10), NO, 1, 1, id="the same"),
        pytest.param((0, 0, 10, 10), NO, (5, 0, 15, 10), NO, 1 / 3, 1 / 2, id="half over"),
        pytest.param((0, 0, 10, 10), NO, (2, 2, 6, 7), NO, 0.2, 1, id="inside"),
        pytest.param((0, 0, 10, 10), NO, (20, 0, 30, 10), NO, 0, 0, id="apart"),
        pytest.param((0, 0, 4, 10), (0, 0, 1, 0), (0, 0, 10, 10), NO, 1, 1, id="a strip of it, cut at the right"),
        pytest.param((0, 0, 4, 10), NO, (0, 0, 10, 10), NO, 0.4, 1, id="a strip that is not cut is a smaller cell"),
        pytest.param(
            (5, 0, 8, 10), (0, 0, 1, 0), (0, 0, 10, 10), NO, 3 / 8, 1, id="cut at the right, seen to end at the left"
        ),
        pytest.param(
            (0, 2, 10, 5), (0, 1, 0, 0), (0, 0, 10, 10), NO, 3 / 8, 1, id="cut at the top, seen to end at the bottom"
        ),
        pytest.param((6, 0, 10, 10), (1, 0, 0, 0), (0, 0, 10, 10), NO, 1, 1, id="cut at the left"),
        pytest.param((0, 6, 10, 10), (0, 1, 0, 0), (0, 0, 10, 10), NO, 1, 1, id="cut at the top"),
        pytest.param((0, 0, 6, 10), (0, 0, 1, 0), (4, 0, 10, 10), (1, 0, 0, 0), 1, 1, id="cut from both sides"),
        pytest.param(
            (0, 0, 4, 10), (0, 0, 1, 0), (5, 0, 10, 10), (1, 0, 0, 0), 0, 0, id="two cut ones, no common part"
        ),
    ],
)
def test_overlap(a, a_cut, b, b_cut, iou, containment):
    got = overlaps(boxes(a), cuts(a_cut), boxes(b), cuts(b_cut))
    assert (got[0][0], got[1][0]) == pytest.approx((iou, containment))
    swapped = overlaps(boxes(b), cuts(b_cut), boxes(a), cuts(a_cut))
    assert (swapped[0][0], swapped[1][0]) == pytest.approx((iou, containment))


def test_cut_sides():
    found = cut_sides(
        np.float32([[0, 0, 10, 10], [5, 5, 100, 10], [3, 3, 97, 47], [20, 20, 30, 50], [2, 9, 98, 41]]), 100, 50, 2.0
    )
    assert found.tolist() == [
        [True, True, False, False],
        [False, False, True, False],
        [False, False, False, False],
        [False, False, False, True],
        [True, False, True, False],  # as near as that is near
    ]


def test_the_likest_pairs_win_and_none_is_used_twice():
    i, j = np.array([0, 0, 1, 2]), np.array([0, 1, 0, 2])
    likeness = np.array([0.9, 0.8, 0.95, 0.1])
    chosen = one_to_one(i, j, likeness)
    assert set(zip(chosen[0].tolist(), chosen[1].tolist(), strict=True)) == {(1, 0), (0, 1), (2, 2)}


def test_of_boxes_on_one_cell_the_whole_and_better_one_is_new_and_the_rest_are_doubles():
    found = boxes((0, 0, 10, 10), (1, 0, 11, 10), (0, 1, 10, 11), (30, 0, 40, 10), (31, 0, 41, 10))
    known = np.array([False, False, False, True, False])
    cut = cuts((1, 0, 0, 0), NO, NO, NO, NO)
    scores = np.float32([0.9, 0.5, 0.7, 0.8, 0.9])
    new, doubles, originals = new_and_double(known, found, cut, np.zeros(5, int), scores, MatchConfig())
    assert new.tolist() == [2]
    assert dict(zip(doubles.tolist(), originals.tolist(), strict=True)) == {0: 2, 1: 2, 4: 3}


def test_boxes_of_different_families_are_one_cell_only_when_they_are_nearly_the_same():
    found = boxes((0, 0, 10, 10), (3, 0, 13, 10), (20, 0, 30, 10), (21, 0, 31, 10))
    families, scores = np.array([0, 1, 0, 1]), np.float32([0.9, 0.8, 0.7, 0.6])
    new, doubles, originals = new_and_double(
        np.zeros(4, bool), found, cuts(NO, NO, NO, NO), families, scores, MatchConfig()
    )
    assert (new.tolist(), doubles.tolist(), originals.tolist()) == ([0, 1, 2], [3], [2])


def test_of_a_white_and_a_red_box_on_one_cell_the_better_one_holds():
    """As a detector gave them of a red cell in a frame that was a little blurred."""
    red, white = (349.7, 114.5, 394.6, 160.9), (342.9, 113.2, 400.1, 176.1)
    for scores, kept in (((0.91, 0.36), 0), ((0.36, 0.91), 1)):
        new, doubles, originals = new_and_double(
            np.zeros(2, bool), boxes(red, white), cuts(NO, NO), np.array([1, 0]), np.float32(scores), MatchConfig()
        )
        assert (new.tolist(), doubles.tolist(), originals.tolist()) == ([kept], [1 - kept], [kept])


@pytest.mark.parametrize(
    ("second", "family", "is_double"),
    [
        pytest.param((2.5, 0, 12.5, 10), 0, True, id="IoU .6: one cell by that alone"),
        pytest.param((3, 0, 13, 10), 0, False, id="IoU .54, containment .7"),
        pytest.param((1, 1, 6, 9), 0, True, id="IoU .4, all of it inside"),
        pytest.param((6.2, 0, 10.2, 10), 0, True, id="IoU .37, containment .95"),
        pytest.param((7, 0, 11, 10), 0, False, id="IoU .27, containment .75"),
        pytest.param((2.5, 0, 12.5, 10), 1, False, id="IoU .6 of another family"),
        pytest.param((2, 0, 12, 10), 1, True, id="IoU .67 of another family"),
        pytest.param((1, 1, 6, 9), 1, False, id="a smaller one of another family inside"),
    ],
)
def test_two_boxes_of_one_frame_are_one_cell_by_overlap_or_within_their_family_by_containment(
    second, family, is_double
):
    new, doubles, _ = new_and_double(
        *(np.zeros(2, bool), boxes((0, 0, 10, 10), second), cuts(NO, NO), np.array([1, 1 + family])),
        *(np.float32([0.9, 0.8]), MatchConfig()),
    )
    assert (new.tolist(), doubles.tolist()) == (([0], [1]) if is_double else ([0, 1], []))


def test_what_of_a_box_lies_in_the_field_and_which_sides_do_not():
    field = Field(0, 0, 0, np.array([100.0, 50.0]), np.array([40.0, 30.0]))
    there = boxes((90, 60, 120, 90), (110, 55, 130, 75), (97, 47, 143, 83))
    assert field.seen(there).tolist() == [[100, 60, 120, 80], [110, 55, 130, 75], [100, 50, 140, 80]]
    assert field.beyond(there, 0.0).tolist() == [[True, False, False, True], NO, [True] * 4]
    assert field.beyond(there, 3.0).tolist() == [[True, False, False, True], NO, NO]
    assert field.beyond(there, 2.9).tolist()[2] == [True] * 4


NEIGHBOURS = boxes((0, 0, 80, 80), (78, 20, 128, 70))
ACROSS = (50, 15, 115, 72)
"""Half of it shows the first of the neighbours, half the second."""


@pytest.mark.parametrize(
    ("box", "family", "score", "known", "is_new"),
    [
        pytest.param(ACROSS, 0, 0.3, False, False, id="across two cells"),
        pytest.param(ACROSS, 0, 0.3, True, False, id="across two cells that are known"),
        pytest.param(ACROSS, 0, 0.95, False, True, id="better than both"),
        pytest.param(ACROSS, 0, 0.85, False, True, id="better than one of them, which alone covers half of it"),
        pytest.param(ACROSS, 1, 0.3, False, True, id="a red one: red cells lie over one another"),
        pytest.param((40, 60, 120, 140), 0, 0.3, False, True, id="a corner under each of them"),
        pytest.param((80, 70, 140, 130), 0, 0.3, False, True, id="beside them"),
    ],
)
def test_a_white_box_that_better_ones_cover_is_no_cell(box, family, score, known, is_new):
    found = np.concatenate([NEIGHBOURS, boxes(box)])
    new, doubles, _ = new_and_double(
        np.array([known, known, False]),
        found,
        cuts(NO, NO, NO),
        np.array([0, 1, family]),
        np.float32([0.8, 0.9, score]),
        MatchConfig(),
    )
    assert set(new.tolist()) == ({2} if is_new else set()) | (set() if known else {0, 1})
    assert doubles.tolist() == []


def test_a_double_takes_no_cell_away():
    """A better box that an edge cut is a double of the whole one, and not what covers it."""
    found = boxes((0, 0, 60, 60), (2, 0, 62, 60))
    new, doubles, originals = new_and_double(
        np.zeros(2, bool), found, cuts((1, 0, 0, 0), NO), np.zeros(2, int), np.float32([0.9, 0.4]), MatchConfig()
    )
    assert (new.tolist(), doubles.tolist(), originals.tolist()) == ([1], [0], [1])


@settings(deadline=None)
@given(st.lists(st.tuples(box, st.integers(0, 10)), max_size=8), st.integers(0, 10))
def test_what_is_covered_is_what_lies_in_any_better_box(others, score):
    """Of a box of 16 x 16 px the points of the grid are the middles of its pixels, so that the share is exact."""
    own = (20, 20, 36, 36)
    found = boxes(own, *(one for one, _ in others))
    scores = np.float32([score, *(one for _, one in others)])
    shown = np.zeros((90, 90), bool)
    for (x1, y1, x2, y2), other in others:
        shown[y1:y2, x1:x2] |= other > score
    share = covered(found, scores, np.array([0]), np.arange(len(found)))
    assert share.tolist() == [shown[20:36, 20:36].mean()]
