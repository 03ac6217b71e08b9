"""How probabilities become names: one rule for crops, looks and cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from engines.base import Attribute, attribute_columns
from engines.models.classifier import Classifier
from engines.models.own_classes import OwnClasses
from engines.zoo.card import Card
from engines.zoo.slide_flags import SlideFlag
from streamer.records import LOW_CONFIDENCE, UNCLASSIFIED, UNLIKE_TRAINING, Attributes, AttributeValue, Classifications


@dataclass(frozen=True, slots=True)
class DecisionRule:
    """From which probability on a class or a subclass is given, and up to which novelty. Arrays of one row a cell."""

    threshold: float
    """A best probability below it is `unclassified`; a best subclass below it is not given."""
    novel_above: float | None = None
    """What is more novel is `unclassified`. None: nothing is."""

    def classes(
        self, probabilities: npt.NDArray[np.float32], novelty: npt.NDArray[np.float32] | None
    ) -> npt.NDArray[np.int16]:
        """(n,) index of the class of each row of (n, C), -1 for unclassified; rows of NaN are unclassified."""
        best = probabilities.argmax(1)
        clear = probabilities[np.arange(len(best)), best] >= np.float32(self.threshold)
        if novelty is not None and self.novel_above is not None:
            clear &= novelty <= np.float32(self.novel_above)
        return np.where(clear, best, -1).astype(np.int16)

    def subclasses(
        self, classes: npt.NDArray[np.integer], parents: npt.NDArray[np.intp], probabilities: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.int16]:
        """(n,) index of the likeliest subclass of each row's class, -1 where it has none or none is clear.

        `parents` (S,) is the class of each subclass, `probabilities` (n, S) are theirs, S > 0."""
        own = np.where(parents == classes[:, None], probabilities, -1.0)
        best = own.argmax(1)
        clear = own[np.arange(len(best)), best] >= np.float32(self.threshold)
        return np.where(clear, best, -1).astype(np.int16)

    def reason(self, probabilities: npt.NDArray[np.float32], novelty: npt.NDArray[np.float32] | None) -> str | None:
        """Why one cell, arrays of one row, is unclassified; None where it is classified."""
        if novelty is not None and self.novel_above is not None and novelty[0] > np.float32(self.novel_above):
            return UNLIKE_TRAINING
        return LOW_CONFIDENCE if self.classes(probabilities, novelty)[0] < 0 else None


def parent_indices(class_names: Sequence[str], subclass_parents: Sequence[str]) -> npt.NDArray[np.intp]:
    return np.array([class_names.index(parent) for parent in subclass_parents], np.intp)


def likeliest_values(attributes: Sequence[Attribute], probabilities: npt.NDArray[np.float32]) -> Attributes:
    """The likeliest value of each attribute, from the probabilities of all values side by side."""
    likeliest: Attributes = {}
    for attribute, columns in zip(attributes, attribute_columns(attributes), strict=True):
        best = int(probabilities[columns].argmax())
        likeliest[attribute.name] = AttributeValue(attribute.values[best], float(probabilities[columns][best]))
    return likeliest


def _error_rates(card: Card) -> dict[str, float]:
    """From the figures NAME_false_rate of a card, such as `blast_false_rate`; of its `slide_flags` from these."""
    keys = {name: f"{name.replace(' ', '_')}_false_rate" for name in card.class_names}
    measured = {name: [one[key] for one in card.figures.values() if key in one] for name, key in keys.items()}
    rates = {name: float(max(found)) for name, found in measured.items() if found}
    return rates | {flag.name: flag.false_rate for flag in card.slide_flags}


@dataclass(frozen=True, slots=True)
class ClassDecision:
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
    error_rates: Mapping[str, float] = field(default_factory=dict)
    """By class, the share of the cells of other classes that are given it: of all that the card was measured on the
    worst. A class that is missing was not measured so."""
    slide_flags: tuple[SlideFlag, ...] = ()
    """From the model card: classes of which single cells flag no slide."""

    @classmethod
    def of(cls, classifier: Classifier | OwnClasses) -> ClassDecision:
        card = classifier.card
        return cls(
            class_names=card.class_names,
            threshold=card.thresholds.operating,
            subclass_names=tuple(entry.name for entry in card.subclasses),
            subclass_parents=tuple(entry.parent for entry in card.subclasses),
            novel_above=card.thresholds.novelty,
            attributes=card.attributes,
            attributes_of=card.attributes_of,
            error_rates=_error_rates(card),
            slide_flags=card.slide_flags,
        )

    @property
    def rule(self) -> DecisionRule:
        return DecisionRule(self.threshold, self.novel_above)

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
        row = np.asarray(probabilities, np.float32)[None]
        return self.rule.reason(row, None if novelty is None else np.array([novelty], np.float32))

    def class_names_of(self, looks: Classifications) -> list[str]:
        """The class of each of some looks."""
        names = (*self.class_names, UNCLASSIFIED)  # the last one is also that of index -1
        return [names[index] for index in self.rule.classes(looks.probabilities, looks.novelty).tolist()]

    def described(self, class_name: str, values: npt.NDArray[np.float32]) -> Attributes | None:
        """The likeliest value of each attribute, from those of all side by side; None for a class without."""
        return likeliest_values(self.attributes, values) if class_name in self.attributes_of else None

    def subclass(self, class_name: str, probabilities: Sequence[float] | npt.NDArray[np.floating]) -> str | None:
        """The likeliest subclass of `class_name`; None where it has none, or that one stays below the threshold."""
        if class_name not in self.subclass_parents:
            return None
        row, index = np.asarray(probabilities, np.float32)[None], self.class_names.index(class_name)
        best = int(self.rule.subclasses(np.array([index]), self.parents, row)[0])
        return None if best < 0 else self.subclass_names[best]

    @property
    def parents(self) -> npt.NDArray[np.intp]:
        """(S,) index into `class_names` of the class that each subclass belongs to."""
        return parent_indices(self.class_names, self.subclass_parents)
