"""Two levels: a detector that says the group of a white cell, a classifier that says the class within the group."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from engines.base import Classifications
from engines.zoo.card import Card


class Groups:
    """What each label of a detector leaves of a classifier's classes: those of the group of that name, and those of no
    group; a label that names no group leaves all.

    Leaving the others out and making the rest sum to 1 is the same as asking the group's own network, where a
    classifier's probabilities are the group's times the class's within it.
    """

    def __init__(self, classifier: Card, detector: Card) -> None:
        groups = [entry.group for entry in classifier.classes]
        self._left = np.array(
            [
                [name not in groups or group is None or group == name for group in groups]
                for name in detector.class_names
            ],
            np.float32,
        )

    @classmethod
    def of(cls, classifier: Card, detector: Card) -> Groups | None:
        """None where no label of the detector is a group of the classifier: then nothing is left out."""
        named = {entry.group for entry in classifier.classes} & set(detector.class_names)
        return cls(classifier, detector) if named else None

    def narrowed(self, looks: Classifications, labels: npt.NDArray[np.integer]) -> Classifications:
        """Looks at cells (n,) whose detector's labels are `labels` (n,).

        A look that gives the group's classes nothing at all says nothing of them: they get even shares.
        """
        left = self._left[labels]
        kept = looks.probabilities * left
        sums = kept.sum(1, keepdims=True)
        even = left / left.sum(1, keepdims=True)
        shares = np.divide(kept, sums, out=even, where=sums > 0)
        return replace(looks, probabilities=shares)
