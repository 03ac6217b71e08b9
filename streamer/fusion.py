"""One class from many looks at the same cell.

Looks are pooled log-linearly: the weighted mean of the logarithms of calibrated probabilities, so that a clear "no" of
one look counts as much as a clear "yes". Multiplying the looks would take them for independent, and they show the same
cell in the same stain: an error of one look is mostly the error of all. So n looks count as n / (1 + (n - 1) r)
independent ones, r being the correlation of their errors (the design effect, Kish 1965): never more than 1 / r.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streamer.records import Classifications

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FusionConfig:
    look_correlation: float = 0.7
    """Correlation of the errors of two looks at one cell; at 1 more looks would never make the class surer."""
    min_probability: float = 1e-3
    """Lower probabilities are taken as this: one look can't rule a class out for ever."""
    unclassified_below: float = 0.5
    """Cells whose best class stays below it are `unclassified`: the classifier card's operating threshold."""


@dataclass(frozen=True, slots=True)
class Names:
    """Of the classes that looks speak of; empty before the first look."""

    classes: tuple[str, ...] = ()
    subclasses: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()
    """The class that each subclass belongs to."""


class Fusion:
    """Sums of weighted log probabilities, one row a white cell, in arrays that grow."""

    def __init__(self, config: FusionConfig) -> None:
        self._config = config
        self._name(Names())
        self._weights = np.zeros(0, np.float32)
        self._sums = np.zeros((0, 0), np.float32)
        self._subclass_sums = np.zeros((0, 0), np.float32)
        self._count = 0

    @property
    def names(self) -> Names:
        return Names(self.class_names, self.subclass_names, self.subclass_parents)

    @property
    def bytes_used(self) -> int:
        return self._weights.nbytes + self._sums.nbytes + self._subclass_sums.nbytes

    def new_rows(self, count: int) -> npt.NDArray[np.intp]:
        """Numbers of `count` new rows without looks."""
        first, self._count = self._count, self._count + count
        if self._count > len(self._weights):
            size = max(64, self._count, len(self._weights) * 3 // 2)
            self._weights = _grown(self._weights, size)
            self._sums = _grown(self._sums, size)
            self._subclass_sums = _grown(self._subclass_sums, size)
        return np.arange(first, self._count)

    def columns(self) -> dict[str, Floats]:
        """The sums, one row a white cell; with the names, `restore` makes an equal one of them."""
        sums = {"weights": self._weights, "sums": self._sums, "subclass_sums": self._subclass_sums}
        return {name: value[: self._count] for name, value in sums.items()}

    def restore(self, columns: Mapping[str, Floats], names: Names) -> None:
        """Go on with another one's sums, which it keeps."""
        self._weights, self._sums, self._subclass_sums = (columns[n] for n in ("weights", "sums", "subclass_sums"))
        self._count = len(self._weights)
        self._name(names)

    def add(self, rows: npt.NDArray[np.intp], looks: Classifications, weights: Floats) -> None:
        """Add look i, with weights[i] of 0 to 1, to rows[i]; a row may come more than once."""
        if not self.class_names:
            self._take_names(looks)
        if looks.class_names != self.class_names or looks.subclass_names != self.subclass_names:
            raise ValueError(
                f"looks: got classes {looks.class_names} and subclasses {looks.subclass_names}, expected those of the "
                f"first look, {self.class_names} and {self.subclass_names}; use one classifier a session"
            )
        floor = self._config.min_probability
        np.add.at(self._weights, rows, weights)
        np.add.at(self._sums, rows, weights[:, None] * np.log(np.maximum(looks.probabilities, floor)))
        if self.subclass_names:
            logarithms = np.log(np.maximum(looks.subclass_probabilities, floor))
            np.add.at(self._subclass_sums, rows, weights[:, None] * logarithms)

    def join(self, kept: int, gone: int) -> None:
        """Two rows turned out to be one cell."""
        for sums in (self._weights, self._sums, self._subclass_sums):
            sums[kept] += sums[gone]
            sums[gone] = 0

    def probabilities(self, rows: npt.NDArray[np.intp]) -> Floats:
        """(n, C), each row sums to 1; rows without looks are NaN."""
        return self._pooled(self._sums[rows], rows, [np.arange(len(self.class_names))])

    def subclass_probabilities(self, rows: npt.NDArray[np.intp]) -> Floats:
        """(n, S), those of one parent sum to 1; rows without looks are NaN."""
        return self._pooled(self._subclass_sums[rows], rows, self._siblings)

    def classes(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.int16]:
        """(n,) index into `class_names`, -1 for unclassified, cells without looks among them."""
        if not self.class_names:
            return np.full(len(rows), -1, np.int16)
        fused = self.probabilities(rows)
        best = fused.argmax(1)
        clear = fused[np.arange(len(rows)), best] >= self._config.unclassified_below
        return np.where(clear, best, -1).astype(np.int16)

    def subclasses(self, rows: npt.NDArray[np.intp], classes: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
        """(n,) index of the likeliest subclass of each row's class, -1 where it has none or is not clear."""
        result = np.full(len(rows), -1, np.int16)
        if not self.subclass_names:
            return result
        parents = np.array([self.class_names.index(parent) for parent in self.subclass_parents], np.intp)
        fused = np.where(parents == classes[:, None], self.subclass_probabilities(rows), -1.0)
        best = fused.argmax(1)
        clear = fused[np.arange(len(rows)), best] >= self._config.unclassified_below
        result[clear] = best[clear]
        return result

    def _take_names(self, looks: Classifications) -> None:
        self._name(Names(looks.class_names, looks.subclass_names, looks.subclass_parents))
        self._sums = np.zeros((len(self._weights), len(self.class_names)), np.float32)
        self._subclass_sums = np.zeros((len(self._weights), len(self.subclass_names)), np.float32)

    def _name(self, names: Names) -> None:
        self.class_names = names.classes
        self.subclass_names = names.subclasses
        self.subclass_parents = names.parents
        parents = np.array(names.parents)
        self._siblings = [np.nonzero(parents == parent)[0] for parent in dict.fromkeys(names.parents)]
        """Columns of the subclasses of each parent."""

    def _pooled(self, sums: Floats, rows: npt.NDArray[np.intp], groups: list[npt.NDArray[np.intp]]) -> Floats:
        weights = self._weights[rows, None]
        pooled = sums / (1 + np.maximum(weights - 1, 0) * self._config.look_correlation)
        pooled[weights[:, 0] == 0] = np.nan
        for columns in groups:
            odds = np.exp(pooled[:, columns] - pooled[:, columns].max(1, keepdims=True))
            pooled[:, columns] = odds / odds.sum(1, keepdims=True)
        return np.asarray(pooled, np.float32)


def _grown(array: Floats, size: int) -> Floats:
    grown = np.zeros((size, *array.shape[1:]), array.dtype)
    grown[: len(array)] = array
    return grown
