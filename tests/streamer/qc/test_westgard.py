"""Westgard's rules by hand: of each what breaks it, what just does not, and what it takes from those before."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.qc.westgard import MEANINGS, rejected, violated

CASES = [
    # 1-2s: one beyond 2 SD
    ("1-2s above", [0.0, 2.1], ["1-2s"]),
    ("1-2s below", [-2.1], ["1-2s"]),
    ("on the limit is not beyond it", [2.0], []),
    ("only the newest is judged", [2.1, 0.0], []),
    # 1-3s: one beyond 3 SD
    ("1-3s above", [3.01], ["1-2s", "1-3s"]),
    ("1-3s below", [0.5, -3.01], ["1-2s", "1-3s"]),
    ("on 3 SD", [3.0], ["1-2s"]),
    # 2-2s: two in a row beyond the same 2 SD
    ("2-2s above", [2.1, 2.2], ["1-2s", "2-2s"]),
    ("2-2s below", [-2.5, -2.1], ["1-2s", "2-2s"]),
    ("not in a row", [2.1, 0.0, 2.1], ["1-2s"]),
    ("the one before on the limit", [2.0, 2.1], ["1-2s"]),
    # R-4s: beyond 2 SD on both sides
    ("R-4s down", [2.1, -2.1], ["1-2s", "R-4s"]),
    ("R-4s up", [-2.4, 2.4], ["1-2s", "R-4s"]),
    ("4 SD apart, but one within 2 SD", [2.9, -1.9], []),
    ("R-4s takes two in a row", [2.1, 0.0, -2.1], ["1-2s"]),
    # 4-1s: four in a row beyond the same 1 SD
    ("4-1s above", [1.1, 1.2, 1.3, 1.1], ["4-1s"]),
    ("4-1s below", [0.0, -1.1, -1.2, -1.5, -1.1], ["4-1s"]),
    ("three in a row", [1.1, 1.2, 1.3], []),
    ("one of four on the limit", [1.1, 1.0, 1.3, 1.1], []),
    ("one of four on the other side", [1.1, 1.2, -1.3, 1.1], []),
    # 10x: ten in a row on the same side of the mean
    ("10x above", [0.1] * 10, ["10x"]),
    ("10x below", [1.0, *[-0.1] * 10], ["10x"]),
    ("nine in a row", [-0.1, *[0.1] * 9], []),
    ("one of ten on the mean", [*[0.1] * 5, 0.0, *[0.1] * 4], []),
    # several at once, and none
    ("all that one side can break", [*[1.5] * 7, 2.5, 2.5, 3.5], ["1-2s", "1-3s", "2-2s", "4-1s", "10x"]),
    ("in control", [0.5, -0.7, 1.9, -1.9], []),
    ("nothing measured", [], []),
]


@pytest.mark.parametrize(("scores", "rules"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_case(scores, rules):
    assert list(violated(scores)) == rules
    assert rejected(rules) == any(rule != "1-2s" for rule in rules)


@given(st.lists(st.floats(-5, 5, allow_nan=False), max_size=14))
def test_both_sides_are_alike_and_only_ten_count(scores):
    assert violated([-z for z in scores]) == violated(scores) == violated(scores[-10:])


@given(st.lists(st.floats(-5, 5, allow_nan=False), min_size=1, max_size=14))
def test_the_rules_are_what_their_words_say(scores):
    """Each once more, written otherwise."""
    last = scores[-1]
    pair = next(reversed(list(pairwise(scores))), None)
    expected = {
        "1-2s": abs(last) > 2,
        "1-3s": abs(last) > 3,
        "2-2s": pair is not None and (all(z > 2 for z in pair) or all(z < -2 for z in pair)),
        "R-4s": pair is not None and any(z > 2 for z in pair) and any(z < -2 for z in pair),
        "4-1s": len(scores) > 3 and (all(z > 1 for z in scores[-4:]) or all(z < -1 for z in scores[-4:])),
        "10x": len(scores) > 9 and (all(z > 0 for z in scores[-10:]) or all(z < 0 for z in scores[-10:])),
    }
    assert violated(scores) == tuple(rule for rule in MEANINGS if expected[rule])


def test_how_often_a_chart_rejects_what_has_not_changed():
    """What docs/qc.md says of false alarms: with a baseline of 20, by a chart 2 slides of 100, by one of seven 14."""
    draw = np.random.default_rng(1)
    by_chart = []
    for _ in range(7 * 600):
        baseline = draw.normal(size=20)
        later = (draw.normal(size=30) - baseline.mean()) / baseline.std(ddof=1)
        by_chart.append(rejected(violated(later.tolist())))
    assert 0.015 < np.mean(by_chart) < 0.025
    assert 0.11 < np.reshape(by_chart, (-1, 7)).any(axis=1).mean() < 0.17
