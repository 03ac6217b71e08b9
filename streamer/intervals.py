"""Limits of a proportion of which a sample was counted; of differentials and of proofs."""

from __future__ import annotations

from scipy.special import betaincinv

CONFIDENCE = 0.95


def clopper_pearson(count: int, total: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Exact limits of a binomial proportion as (low, high) in 0 to 1.

    `count` of `total` with 0 <= count <= total and total > 0, else ValueError. They hold for a total fixed in
    advance. Source: Clopper & Pearson, Biometrika 26 (1934) 404; Ruemke's table prints them rounded outward.
    """
    if not 0 <= count <= total or total == 0:
        raise ValueError(f"clopper_pearson: got {count} of {total}, expected 0 <= count <= total and total > 0")
    tail = (1.0 - confidence) / 2.0
    low = 0.0 if count == 0 else float(betaincinv(count, total - count + 1, tail))
    high = 1.0 if count == total else float(betaincinv(count + 1, total - count, 1.0 - tail))
    return low, high
