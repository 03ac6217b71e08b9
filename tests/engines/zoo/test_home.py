"""The file of home cells: what it keeps, and what is no such file."""

from __future__ import annotations

import numpy as np
import pytest

from engines.base import CardError
from engines.zoo.home import HomeCells, read_home

CELLS = HomeCells(
    np.random.default_rng(0).normal(0, 3, (30, 8)).astype(np.float32), ("blast", "lymphocyte") * 15, "a" * 64
)


def test_cells_come_back_but_for_the_steps() -> None:
    again = read_home(CELLS.to_bytes(), "here", model_sha256="a" * 64)
    assert again.classes == CELLS.classes
    step = (CELLS.features.max(0) - CELLS.features.min(0)) / 255
    assert (np.abs(again.features - CELLS.features) <= step / 2 + 1e-5).all()


@pytest.mark.parametrize(
    ("data", "sha256", "words"),
    [
        (CELLS.to_bytes(), "b" * 64, "home cells of another model"),
        (CELLS.to_bytes()[:200], "a" * 64, "no file of home cells"),
        (b"words", "a" * 64, "no file of home cells"),
        (b"", "a" * 64, "no file of home cells"),
    ],
)
def test_what_is_none_is_told(data: bytes, sha256: str, words: str) -> None:
    with pytest.raises(CardError, match=words):
        read_home(data, "here", model_sha256=sha256)
