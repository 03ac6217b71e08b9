"""How crops are shared out to runs of a model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.zoo.crops import even_batches


@pytest.mark.parametrize(
    ("crops", "most", "sizes"),
    [(0, 8, []), (1, 8, [1]), (8, 8, [8]), (9, 8, [4, 5]), (17, 8, [5, 6, 6]), (3, 1, [1] * 3)],
)
def test_batches_are_even(crops: int, most: int, sizes: list[int]) -> None:
    assert [part.stop - part.start for part in even_batches(crops, most)] == sizes


@given(st.integers(0, 500), st.integers(1, 40))
def test_each_crop_is_in_one_batch_and_none_is_a_small_rest(crops: int, most: int) -> None:
    batches = even_batches(crops, most)
    assert [i for part in batches for i in range(part.start, part.stop)] == list(range(crops))
    sizes = [part.stop - part.start for part in batches]
    assert len(batches) == -(-crops // most)
    assert max(sizes, default=0) <= most
    assert not sizes or max(sizes) - min(sizes) <= 1
