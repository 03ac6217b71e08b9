"""Westgard's rules: whether a measurement, and those before it, still are what they were at the baseline.

Pure functions of standard scores: z = (value - mean) / SD of the baseline, oldest first. A limit is exceeded by what
lies beyond it, not by what lies on it.
Sources: Westgard, Barry, Hunt & Groth, Clin. Chem. 27 (1981) 493; CLSI C24, Statistical Quality Control for
Quantitative Measurement Procedures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, get_args

Rule = Literal["1-2s", "1-3s", "2-2s", "R-4s", "4-1s", "10x"]

WARNING: Rule = "1-2s"
"""Rejects nothing by itself: 1 of 22 measurements lies there by chance. It asks to look at the others."""

MEANINGS: Mapping[Rule, str] = MappingProxyType(
    {
        "1-2s": "beyond 2 SD, a warning",
        "1-3s": "beyond 3 SD",
        "2-2s": "two in a row beyond the same 2 SD",
        "R-4s": "beyond 2 SD on one side, the one before beyond 2 SD on the other",
        "4-1s": "four in a row beyond the same 1 SD",
        "10x": "ten in a row on the same side of the mean",
    }
)


def violated(z: Sequence[float]) -> tuple[Rule, ...]:
    """The rules that the last one breaks, with those before it where a rule takes several. Empty for no scores."""
    return tuple(rule for rule in get_args(Rule) if z and _BROKEN[rule](z))


def rejected(rules: Sequence[Rule]) -> bool:
    """Whether one of them is more than a warning."""
    return any(rule != WARNING for rule in rules)


def _in_a_row(count: int, beyond: float) -> Callable[[Sequence[float]], bool]:
    def broken(z: Sequence[float]) -> bool:
        last = z[-count:]
        return len(last) == count and (min(last) > beyond or max(last) < -beyond)

    return broken


def _range(z: Sequence[float]) -> bool:
    return len(z) > 1 and min(z[-2:]) < -2.0 and max(z[-2:]) > 2.0


_BROKEN: Mapping[Rule, Callable[[Sequence[float]], bool]] = MappingProxyType(
    {
        "1-2s": _in_a_row(1, 2.0),
        "1-3s": _in_a_row(1, 3.0),
        "2-2s": _in_a_row(2, 2.0),
        "R-4s": _range,
        "4-1s": _in_a_row(4, 1.0),
        "10x": _in_a_row(10, 0.0),
    }
)
