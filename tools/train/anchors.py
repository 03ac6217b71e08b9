"""Anchors fitted to the boxes of the training tiles: k-means on (width, height), then evolution of the fitness.

Fitness as published for YOLOv5: the mean over boxes of the best anchor's worst side ratio, counted where that ratio
is above 1 / max_ratio (below it the box could not be assigned).
"""

from __future__ import annotations

import numpy as np
from scipy.cluster.vq import kmeans


def best_ratio(sizes_px: np.ndarray, anchors_px: np.ndarray) -> np.ndarray:
    """For boxes (n,2) and anchors (k,2): the best anchor's smaller side ratio in 0..1, float (n,)."""
    ratio = sizes_px[:, None] / anchors_px[None]
    return np.asarray(np.minimum(ratio, 1 / ratio).min(2).max(1))


def fitness(sizes_px: np.ndarray, anchors_px: np.ndarray, max_ratio: float = 4.0) -> float:
    """Mean best ratio of the boxes that some anchor can take, 0 for the others."""
    best = best_ratio(sizes_px, anchors_px)
    return float((best * (best > 1 / max_ratio)).mean())


def fit_anchors(
    sizes_px: np.ndarray, seed: int, levels: int = 3, per_level: int = 3, generations: int = 500
) -> np.ndarray:
    """Boxes (n,2) of width, height in input px -> anchors float32 (levels, per_level, 2), small to large by area.

    Raises ValueError when there are fewer boxes than anchors.
    """
    wanted = levels * per_level
    if len(sizes_px) < wanted:
        raise ValueError(f"boxes to fit anchors to: got {len(sizes_px)}, expected at least {wanted}")
    rng = np.random.default_rng(seed)
    spread = sizes_px.std(0) + 1e-9
    centres = kmeans(sizes_px / spread, wanted, iter=10, seed=rng)[0] * spread
    if len(centres) < wanted:  # coinciding clusters are dropped by kmeans
        extra = sizes_px[rng.choice(len(sizes_px), wanted - len(centres), replace=False)]
        centres = np.concatenate((centres, extra))
    best, best_fitness = centres, fitness(sizes_px, centres)
    for _ in range(generations):
        change = np.where(rng.random(best.shape) < 0.9, rng.normal(1, 0.1, best.shape), 1).clip(0.3, 3)
        candidate = (best * change).clip(min=2)
        found = fitness(sizes_px, candidate)
        if found > best_fitness:
            best, best_fitness = candidate, found
    ordered = best[np.argsort(best.prod(1))]
    return np.asarray(ordered.reshape(levels, per_level, 2), np.float32)
