"""How probabilities become names: one rule for crops, looks and cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engines.base import Attribute, attribute_columns
from engines.models.classifier import Classifier
from engines.models.own_classes import OwnClasses
from streamer.records import LOW_CONFIDENCE, UNCLASSIFIED, UNLIKE_TRAINING, Attributes, Classifications, Said


@dataclass(frozen=True, slots=True)
class Naming:
    """The names of a classifier and the probability from which one is given."""

    class_names: tuple[str, ...]
    threshold: float
    """From the model card; a best probability below it is `unclassified`."""
    subclass_names: tuple[str, ...] = ()
    subclass_parents: tuple[str, ...] = ()
    """The class that each subclass belongs to."""
    novel_above: float | None = None
    """From the model card; what is more novel is `unclassified`. None: nothing is."""
    attributes: tuple[Attribute, ...] = ()
    attributes_of: tuple[str, ...] = ()
    """The classes whose cells have attributes."""

    @classmethod
    def of(cls, classifier: Classifier | OwnClasses) -> Naming:
        card = classifier.card
        return cls(
            class_names=card.class_names,
            threshold=card.thresholds.operating,
            subclass_names=tuple(entry.name for entry in card.subclasses),
            subclass_parents=tuple(entry.parent for entry in card.subclasses),
            novel_above=card.thresholds.novelty,
            attributes=card.attributes,
            attributes_of=card.attributes_of,
        )

    def top_class(self, probabilities: Sequence[float] | npt.NDArray[np.floating]) -> str:
        """The likeliest class, however unlikely."""
        return self.class_names[int(np.argmax(probabilities))]

    def class_name(
        self, probabilities: Sequence[float] | npt.NDArray[np.floating], novelty: float | None = None
    ) -> str:
        """The likeliest class, or `unclassified` where there is a `reason` for it."""
        return UNCLASSIFIED if self.reason(probabilities, novelty) else self.top_class(probabilities)

    def reason(
        self, probabilities: Sequence[float] | npt.NDArray[np.floating], novelty: float | None = None
    ) -> str | None:
        """Why this is `unclassified`: too novel, or its best probability below the threshold; None where it is not."""
        if novelty is not None and self.novel_above is not None and novelty > np.float32(self.novel_above):
            return UNLIKE_TRAINING
        return None if max(probabilities) >= self.threshold else LOW_CONFIDENCE

    def class_names_of(self, looks: Classifications) -> list[str]:
        """The class of each of some looks."""
        novelty: Sequence[float | None] = [None] * len(looks) if looks.novelty is None else looks.novelty.tolist()
        return [self.class_name(row, novel) for row, novel in zip(looks.probabilities, novelty, strict=True)]

    def described(self, class_name: str, values: npt.NDArray[np.float32]) -> Attributes | None:
        """The likeliest value of each attribute, from those of all side by side; None for a class without."""
        if class_name not in self.attributes_of:
            return None
        found: Attributes = {}
        for attribute, columns in zip(self.attributes, attribute_columns(self.attributes), strict=True):
            best = int(values[columns].argmax())
            found[attribute.name] = Said(attribute.values[best], float(values[columns][best]))
        return found

    def subclass(self, class_name: str, probabilities: Sequence[float] | npt.NDArray[np.floating]) -> str | None:
        """The likeliest subclass of `class_name`; None where it has none, or none is likelier than not."""
        own = [i for i, parent in enumerate(self.subclass_parents) if parent == class_name]
        if not own:
            return None
        best = max(own, key=lambda i: float(probabilities[i]))
        return self.subclass_names[best] if probabilities[best] > 0.5 else None
