"""Predictions of cells that a classifier might give, for tests of what is made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tools.data import ABNORMAL_CLASSES, ABNORMAL_SUBCLASSES
from tools.metrics.abnormal import Predicted

SUBCLASSES = tuple(ABNORMAL_SUBCLASSES)


def predicted(
    kinds: Mapping[str, int], *, seed: int = 0, mistaken: float = 0.0, patients: Sequence[str] | None = None
) -> Predicted:
    """So many cells of each class or subclass, named surely; `mistaken`: the share of the monocytes that look like
    blasts."""
    rng = np.random.default_rng(seed)
    names = [kind for kind, count in kinds.items() for _ in range(count)]
    classes = np.array([ABNORMAL_CLASSES.index(ABNORMAL_SUBCLASSES.get(name, name)) for name in names], np.int64)
    subclasses = np.array([SUBCLASSES.index(name) if name in SUBCLASSES else -1 for name in names], np.int64)
    sure = rng.beta(30, 2, len(names))
    probabilities = (1 - sure[:, None]) * rng.dirichlet(np.ones(len(ABNORMAL_CLASSES)), len(names))
    probabilities[np.arange(len(names)), classes] += sure
    blast, monocyte = ABNORMAL_CLASSES.index("blast"), ABNORMAL_CLASSES.index("monocyte")
    swapped = (classes == monocyte) & (rng.random(len(names)) < mistaken)
    both = np.ix_(swapped, [blast, monocyte])
    probabilities[both] = probabilities[both][:, ::-1]
    of_subclasses = np.full((len(names), len(SUBCLASSES)), 0.05)
    known = subclasses >= 0
    of_subclasses[np.nonzero(known)[0], subclasses[known]] = 0.9
    whose = None if patients is None else np.array(patients)
    return Predicted(probabilities, of_subclasses, classes, subclasses, np.full(len(names), 0.3), whose)
