import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.counting.cell_table import CellStore

places = st.lists(st.tuples(st.integers(-900, 900), st.integers(-900, 900), st.integers(0, 1)), max_size=40)


def store_of(cells):
    store = CellStore(bucket_px=100)
    for x, y, island in cells:
        store.append(np.array([[x - 5.0, y - 5.0, x + 5.0, y + 5.0]]), np.zeros((1, 4), bool), island, 0, 0)
    return store


@settings(deadline=None)
@given(places, st.tuples(st.integers(-900, 900), st.integers(-900, 900), st.integers(0, 500), st.integers(0, 500)))
def test_the_grid_finds_what_lies_in_a_rectangle(cells, rectangle):
    x, y, width, height = rectangle
    found = set(store_of(cells).within(1, np.array([x, y, x + width, y + height], float)).tolist())
    inside = {
        n for n, (cx, cy, island) in enumerate(cells) if island == 1 and x <= cx <= x + width and y <= cy <= y + height
    }
    near = {
        n
        for n, (cx, cy, island) in enumerate(cells)
        if island == 1 and x - 200 <= cx <= x + width + 200 and y - 200 <= cy <= y + height + 200
    }
    assert inside <= found <= near


def test_what_moved_is_found_at_its_new_place_only():
    store = store_of([(0, 0, 0), (10, 0, 0)])
    store.boxes[0] += 5000
    store.island[0] = 3
    store.moved(np.array([0]))
    assert store.within(0, np.array([-50.0, -50, 50, 50])).tolist() == [1]
    assert store.within(3, np.array([4950.0, 4950, 5050, 5050])).tolist() == [0]


def test_joined_cells_share_what_was_seen_of_them():
    store = store_of([(0, 0, 0), (3, 0, 0)])
    store.partial[0] = True
    store.cut[0] = [False, False, True, False]
    store.looks[:2], store.whole_looks[:2] = [2, 5], [0, 4]
    store.evidence[:2] = [[0, 0, 1, 0], [4, 0, 0, 0]]
    store.first_frame[:2], store.last_frame[:2] = [3, 9], [4, 12]
    store.join(0, 1)
    assert (store.looks[0], store.whole_looks[0], store.partial[0]) == (7, 4, False)
    assert (store.first_frame[0], store.last_frame[0]) == (3, 12)
    assert store.boxes[0].tolist() == [-2, -5, 8, 5]  # the whole one's
    assert store.kind(np.array([0])).tolist() == [0]
    assert (store.alive[:2].tolist(), store.joined_to[1]) == ([True, False], 0)
    assert store.within(0, np.array([-50.0, -50, 50, 50])).tolist() == [0]
