"""Which boxes show known cells, and which cells are one: with cells laid by hand."""

import numpy as np
import pytest

from streamer.counting.cell_table import KINDS, CellTable
from streamer.counting.matching import Field, MatchConfig
from streamer.counting.recognition import Recognition

WHITE, RED = KINDS.index("white"), KINDS.index("red")
UNCUT = (False, False, False, False)


def store_of(*cells):
    """Cells (x, y, kind) of 40 px, each seen once, in frames 0, 1, 2 … from keyframes of the same number."""
    store = CellTable(256.0)
    for number, (x, y, kind) in enumerate(cells):
        rows = store.append(np.array([[x, y, x + 40.0, y + 40.0]]), np.array([UNCUT]), 0, number, number)
        store.evidence[rows, kind] = 0.9
    return store


def recognised(store, *boxes):
    """Boxes (x, y, kind) of 40 px with falling scores, in a field of 640 x 480 px at the origin."""
    field = Field(0, 0, len(boxes), np.zeros(2), np.array([640.0, 480.0]))
    places = np.array([[x, y, x + 40.0, y + 40.0] for x, y, _ in boxes])
    kinds = np.array([kind for *_, kind in boxes])
    scores = np.linspace(0.9, 0.5, len(boxes), dtype=np.float32)
    return Recognition(store, MatchConfig()).recognise(places, np.array([UNCUT] * len(boxes)), kinds, scores, field)


def test_a_box_shows_the_nearest_cell_or_a_new_one_or_what_another_box_shows():
    store = store_of((100, 100, WHITE), (300, 100, RED))
    seen = recognised(store, (305, 100, RED), (103, 100, WHITE), (500, 100, RED), (506, 100, RED))
    assert (seen.known.tolist(), seen.cells.tolist()) == ([0, 1], [1, 0])
    assert (seen.new.tolist(), seen.doubles.tolist(), seen.originals.tolist()) == ([2], [3], [2])


@pytest.mark.parametrize(("dx", "known"), [(4, [0]), (12, [])], ids=["nearly the same box", "half of it"])
def test_a_box_of_another_family_must_lie_closer(dx, known):
    store = store_of((100, 100, WHITE))
    assert recognised(store, (100 + dx, 100, RED)).known.tolist() == known
    assert recognised(store, (100 + dx, 100, WHITE)).known.tolist() == [0]


def test_cells_on_one_spot_are_one_and_none_is_in_two_pairs():
    store = store_of((100, 100, WHITE), (103, 100, WHITE), (101, 100, WHITE), (300, 100, WHITE))
    a, b = Recognition(store, MatchConfig()).doubles(np.arange(4), 0)
    assert list(zip(a.tolist(), b.tolist(), strict=True)) == [(0, 2)]


def test_cells_seen_side_by_side_from_one_place_stay_two():
    store = store_of((100, 100, WHITE), (104, 100, WHITE))
    store.last_frame[0] = 1
    recognition = Recognition(store, MatchConfig())
    assert recognition.doubles(np.arange(2), 0)[0].tolist() == [0]
    store.anchor[1] = store.anchor[0]
    assert recognition.doubles(np.arange(2), 0)[0].tolist() == []
