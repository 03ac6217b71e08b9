"""How probabilities become names: one rule for crops, looks and cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engines.classifier import Classifier
from engines.own_classes import OwnClasses
from streamer.records import UNCLASSIFIED


@dataclass(frozen=True, slots=True)
class Naming:
    """The names of a classifier and the probability from which one is given."""

    class_names: tuple[str, ...]
    threshold: float
    """From the model card; a best probability below it is `unclassified`."""
    subclass_names: tuple[str, ...] = ()
    subclass_parents: tuple[str, ...] = ()
    """The class that each subclass belongs to."""

    @classmethod
    def of(cls, classifier: Classifier | OwnClasses) -> Naming:
        card = classifier.card
        return cls(
            class_names=card.class_names,
            threshold=card.thresholds.operating,
            subclass_names=tuple(entry.name for entry in card.subclasses),
            subclass_parents=tuple(entry.parent for entry in card.subclasses),
        )

    def top_class(self, probabilities: Sequence[float] | npt.NDArray[np.floating]) -> str:
        """The likeliest class, however unlikely."""
        return self.class_names[int(np.argmax(probabilities))]

    def class_name(self, probabilities: Sequence[float] | npt.NDArray[np.floating]) -> str:
        """The likeliest class, or `unclassified` below the threshold."""
        return self.top_class(probabilities) if max(probabilities) >= self.threshold else UNCLASSIFIED

    def subclass(self, class_name: str, probabilities: Sequence[float] | npt.NDArray[np.floating]) -> str | None:
        """The likeliest subclass of `class_name`; None where it has none, or none is likelier than not."""
        own = [i for i, parent in enumerate(self.subclass_parents) if parent == class_name]
        if not own:
            return None
        best = max(own, key=lambda i: float(probabilities[i]))
        return self.subclass_names[best] if probabilities[best] > 0.5 else None
