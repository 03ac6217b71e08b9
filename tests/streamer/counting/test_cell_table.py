import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.counting.cell_table import CellTable
from streamer.counting.fusion import Fusion, FusionConfig

places = st.lists(st.tuples(st.integers(-900, 900), st.integers(-900, 900), st.integers(0, 1)), max_size=40)


def store_of(cells):
    store = CellTable(bucket_px=100)
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


def test_a_journal_keeps_the_columns_of_the_schema_and_no_others():
    """Format 4 of the journal: another name or type here makes journals unreadable that were written before."""
    store = store_of([(0, 0, 0)])
    store.scratch = np.zeros(1)
    kept = {name: (str(column.dtype), column.shape[1:]) for name, column in store.columns().items()}
    assert kept == {
        "boxes": ("float64", (4,)),
        "cut": ("bool", (4,)),
        "partial": ("bool", ()),
        "alive": ("bool", ()),
        "joined_to": ("int32", ()),
        "island": ("int32", ()),
        "anchor": ("int32", ()),
        "evidence": ("float32", (4,)),
        "looks": ("int32", ()),
        "whole_looks": ("int32", ()),
        "first_frame": ("int64", ()),
        "last_frame": ("int64", ()),
        "white_row": ("int32", ()),
        "class_index": ("int16", ()),
        "subclass_index": ("int16", ()),
        "said_order": ("int32", ()),
        "said_class": ("int16", ()),
        "said_subclass": ("int16", ()),
        "told": ("bool", ()),
        "_bucket": ("int32", (3,)),
        "label": ("int16", ()),
        "score": ("float32", ()),
        "missed": ("int32", ()),
        "was_new": ("int8", ()),
    }
    sums = Fusion(FusionConfig()).columns()
    assert set(sums) == {"weights", "sums", "subclass_sums", "attribute_sums", "familiar"}


def test_columns_from_before_labels_and_scores_were_kept_can_be_gone_on_from():
    kept = {name: column.copy() for name, column in store_of([(0, 0, 0)]).columns().items()}
    del kept["label"], kept["score"]
    store = CellTable(100.0)
    store.restore(kept)
    assert (store.label.tolist(), store.score.tolist()) == ([-1], [0.0])


@pytest.mark.parametrize(
    "change", [{"looks": None}, {"boxes": np.zeros((1, 4), np.float32)}, {"cut": np.zeros(1, bool)}]
)
def test_columns_of_another_schema_are_refused(change):
    columns = {
        name: column for name, column in (store_of([(0, 0, 0)]).columns() | change).items() if column is not None
    }
    with pytest.raises(ValueError, match=f"column {next(iter(change))}: got"):
        CellTable(bucket_px=100).restore(columns)


def test_a_table_goes_on_from_the_columns_of_another():
    store, other = store_of([(0, 0, 0), (50, 0, 1)]), CellTable(bucket_px=100)
    other.restore({name: column.copy() for name, column in store.columns().items()})
    other.append(np.array([[0.0, 0, 10, 10]]), np.zeros((1, 4), bool), 1, 0, 7)
    assert (other.count, len(other.boxes), other.first_frame[:3].tolist()) == (3, 1024, [0, 0, 7])
    assert other.within(1, np.array([-50.0, -50, 50, 50])).tolist() == [1, 2]


def test_cells_that_were_joined_several_times_are_the_last_one():
    store = store_of([(i, 0, 0) for i in range(5)])
    store.join(1, 0)
    store.join(2, 1)
    asked = np.array([0, 4, 1, 2])
    assert store.rows_of(asked).tolist() == [store.row_of(one) for one in asked.tolist()] == [2, 4, 2, 2]
    assert asked.tolist() == [0, 4, 1, 2]
