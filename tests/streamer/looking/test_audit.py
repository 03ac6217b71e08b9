"""The running proof: what is missed, and how sure it is that no more is."""

from __future__ import annotations

import numpy as np
import pytest

from streamer.looking.audit import Audit, is_audited

NONE = np.zeros((0, 4), np.float32)


def boxes(*corners: tuple[float, float]) -> np.ndarray:
    return np.array([(x, y, x + 60, y + 60) for x, y in corners], np.float32).reshape(-1, 4)


def test_a_cell_that_is_not_on_the_map_is_missed_and_one_that_is_not_found_is_added() -> None:
    audit = Audit()
    found, known = boxes((100, 100), (300, 100)), boxes((104, 97), (500, 300))
    audit.add(found, known, found, known)
    assert (audit.frames, audit.cells, audit.missed, audit.added) == (1, 2, 1, 1)


def test_a_cut_cell_is_neither_and_does_for_a_whole_one() -> None:
    audit = Audit()
    audit.add(boxes((100, 100)), boxes((100, 100)), boxes((100, 100)), NONE)
    audit.add(boxes((100, 100)), boxes((100, 100)), NONE, boxes((100, 100)))
    assert (audit.frames, audit.cells, audit.missed, audit.added) == (2, 1, 0, 0)


@pytest.mark.parametrize(
    ("cells", "missed", "bound"), [(0, 0, None), (100, 0, 0.0295), (1000, 0, 0.002991), (100, 3, 0.07571), (2, 2, 1.0)]
)
def test_the_bound_is_that_of_clopper_and_pearson(cells: int, missed: int, bound: float | None) -> None:
    assert Audit(frames=1, cells=cells, missed=missed).bound == pytest.approx(bound, abs=5e-5)


@pytest.mark.parametrize(
    ("cells", "missed", "fails"), [(10, 0, False), (10, 1, False), (10, 3, True), (1000, 25, False), (1000, 40, True)]
)
def test_it_fails_beyond_chance_only(cells: int, missed: int, fails: bool) -> None:
    assert Audit(frames=1, cells=cells, missed=missed).fails is fails


def test_the_share_of_frames_is_about_what_was_asked_for_and_always_the_same_ones() -> None:
    chosen = [is_audited("slide", number, 2.0) for number in range(20_000)]
    assert 300 < sum(chosen) < 500
    assert chosen == [is_audited("slide", number, 2.0) for number in range(20_000)]
    assert chosen != [is_audited("other", number, 2.0) for number in range(20_000)]
    assert not any(is_audited("slide", number, 0.0) for number in range(500))
    assert all(is_audited("slide", number, 100.0) for number in range(500))
