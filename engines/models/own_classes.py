"""A detector whose classes are kinds of leukocyte says itself what a white cell is: no crop, no second network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from engines.base import CardError, Classifications, Detections
from engines.zoo.card import Card, ClassEntry, SubclassEntry, Thresholds
from engines.zoo.crops import CropInput

NUCLEATED = ("white", "nucleated red")
"""The kinds among which a white box is named: a differential tells nucleated red cells from white ones."""
_LEAST = 1e-6


class OwnClasses:
    """The classes of the differential that a detector's labels of nucleated cells name.

    A label with a parent is a subclass of it ("band neutrophil" of neutrophil). `card` is the detector's, told as that
    of a classifier: classes, subclasses, the threshold below which a cell is "unclassified".
    """

    def __init__(self, card: Card, naming: float) -> None:
        """`card`: of a detector with at least one white class; CardError for another."""
        white = [label for label, kind in enumerate(card.kinds) if kind in NUCLEATED]
        if card.task != "detector" or "white" not in card.kinds:
            raise CardError(f"model {card.name!r}: got no detector with white classes, expected one; see its card")
        parents = [card.classes[label].parent or card.classes[label].name for label in white]
        self._labels = np.array(white, np.intp)
        names = list(dict.fromkeys(sorted(parents)))
        kinds = {parent: card.kinds[label] for parent, label in zip(parents, white, strict=True)}
        self._parent_of = np.array([names.index(parent) for parent in parents], np.intp)
        self._is_of = np.eye(len(names), dtype=np.float32)[self._parent_of]
        self._is_subclass = np.array([card.classes[label].parent is not None for label in white])
        self.card = replace(
            card,
            task="classifier",
            input=CropInput(1, 1),
            classes=tuple(ClassEntry(name, kinds[name]) for name in names),
            subclasses=tuple(
                SubclassEntry(card.classes[label].name, parent)
                for label, parent, sub in zip(white, parents, self._is_subclass, strict=True)
                if sub
            ),
            thresholds=Thresholds(operating=naming),
        )

    @classmethod
    def of(cls, card: Card) -> OwnClasses | None:
        """Those of a detector's card; None where its classes do not say what a white cell is."""
        return None if card.thresholds.naming is None else cls(card, card.thresholds.naming)

    def looks(self, detections: Detections, white: npt.NDArray[np.intp]) -> Classifications:
        """What the detector said of the boxes `white`: its scores of the nucleated labels as shares of their sum.

        CardError where the model gives no class scores.
        """
        if detections.class_scores is None:
            raise CardError(
                f"model {self.card.name!r}: got no output 'class_scores', expected one, since its card has "
                "[thresholds] naming; export it with class scores, or give a --classifier"
            )
        scores = np.maximum(detections.class_scores[white][:, self._labels], _LEAST)
        shares = scores / scores.sum(1, keepdims=True)
        card = self.card
        probabilities = np.asarray(shares @ self._is_of, np.float32)
        within = shares / probabilities[:, self._parent_of]
        return Classifications(
            probabilities=probabilities,
            class_names=card.class_names,
            subclass_probabilities=np.asarray(within[:, self._is_subclass], np.float32),
            subclass_names=tuple(entry.name for entry in card.subclasses),
            subclass_parents=tuple(entry.parent for entry in card.subclasses),
        )
