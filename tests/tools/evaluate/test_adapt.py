"""How what a hundred cells do is measured: what is drawn, what is judged, what is said of many draws."""

from __future__ import annotations

import numpy as np
import pytest

from engines.models.adaptation import Adaptation
from tests.engines.models.test_adaptation import BASE, HOME, MOVED, NAMES, cells
from tools.evaluate.adapt import draw, drawn, judged, summary, table

SITE = cells(3, (120, 60, 120, 0), MOVED)
BLASTS = HOME.blasts + MOVED
TYPES = ("lymphocyte", "monocyte", "neutrophil")
GROUPS = [f"picture {i // 2}" for i in range(len(SITE))]


def test_whole_groups_are_drawn_until_there_are_enough() -> None:
    for seed in range(5):
        chosen = drawn(GROUPS, 101, np.random.default_rng(seed))
        assert 101 <= chosen.sum() <= 102
        inside = {group for group, is_chosen in zip(GROUPS, chosen, strict=True) if is_chosen}
        outside = {group for group, is_chosen in zip(GROUPS, chosen, strict=True) if not is_chosen}
        assert not inside & outside
    assert (drawn(GROUPS, 20, np.random.default_rng(1)) != drawn(GROUPS, 20, np.random.default_rng(2))).any()


def test_blasts_are_misnamed_only_where_they_are_named() -> None:
    sure, none = (judged(BASE, threshold, NAMES, TYPES, SITE, BLASTS) for threshold in (0.0, 1.0))
    assert sure.blasts_misnamed is not None
    assert sure.blasts_misnamed > 0
    assert none.blasts_misnamed == 0
    assert judged(BASE, 0.5, NAMES, TYPES, SITE, BLASTS[:0]).blasts_misnamed is None
    assert sure.balanced == pytest.approx(np.mean(list(sure.recall.values())))
    assert tuple(sure.recall) == TYPES


def test_a_draw_is_judged_by_the_cells_it_left_and_a_refused_one_changes_nothing() -> None:
    adaptation = Adaptation(BASE, NAMES, 0.5, HOME)
    found = draw(adaptation, SITE, GROUPS, BLASTS, 100, np.random.default_rng(0))
    assert found.refusal is None
    assert found.after.balanced > found.before.balanced + 0.1
    few = draw(adaptation, SITE, GROUPS, BLASTS, 10, np.random.default_rng(0))
    assert "expected 20 at least" in str(few.refusal)
    assert few.after == few.before
    both = summary([found, few])
    assert both["refused"] == 1
    assert both["after"]["worst"] == min(found.after.balanced, few.after.balanced)
    assert both["after"]["mean"] == pytest.approx((found.after.balanced + few.after.balanced) / 2)
    assert both["recall"]["before"]["eosinophil"] is None
    (row,) = table({"there": both})[2:]
    assert row.startswith("| `there` | ")
    assert "1 of 2" in row
