"""One class from many looks at the same cell.

Looks are pooled log-linearly: the weighted mean of the logarithms of calibrated probabilities, so that a clear "no" of
one look counts as much as a clear "yes". Multiplying the looks would take them for independent, and they show the same
cell in the same stain: an error of one look is mostly the error of all. So n looks count as n / (1 + (n - 1) r)
independent ones, r being the correlation of their errors (the design effect, Kish 1965): never more than 1 / r.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engines.base import Attribute, attribute_columns
from engines.zoo.slide_flags import SlideFlag
from streamer.counting.decision import DecisionRule, likeliest_values, parent_indices
from streamer.counting.differential import NOT_CELLS
from streamer.counting.growable import Column, GrowableTable
from streamer.counting.suspects import suspicion
from streamer.records import Attributes, Classifications

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class FusionConfig:
    look_correlation: float = 0.7
    """Correlation of the errors of two looks at one cell; at 1 more looks would never make the class surer."""
    min_probability: float = 1e-3
    """Lower probabilities are taken as this: one look can't rule a class out for ever."""
    unclassified_below: float = 0.5
    """Cells whose best class stays below it are `unclassified`: the classifier card's operating threshold."""
    novel_above: float | None = None
    """Cells all of whose looks are more novel are `unclassified`: the card's threshold; None: none is."""


@dataclass(frozen=True, slots=True)
class Names:
    """Of the classes that looks speak of; empty before the first look."""

    classes: tuple[str, ...] = ()
    subclasses: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()
    """The class that each subclass belongs to."""
    attributes: tuple[Attribute, ...] = ()


class SumTable(GrowableTable):
    """Sums over the looks, weighted, one row a white cell."""

    weights: Floats
    """(n,) of the looks."""
    classes: Floats
    """(n, C) of log probabilities."""
    subclasses: Floats
    """(n, S) the same; of subclasses without siblings, of log odds."""
    attributes: Floats
    """(n, V) of log probabilities."""
    familiar: Floats
    """(n,) 1 minus the novelty of the least novel look; 0 without looks, 1 where the classifier does not measure it."""

    def __init__(self, classes: int, subclasses: int, values: int) -> None:
        schema = (
            Column("weights", np.float32),
            Column("classes", np.float32, classes, stored_as="sums"),
            Column("subclasses", np.float32, subclasses, stored_as="subclass_sums"),
            Column("attributes", np.float32, values, stored_as="attribute_sums"),
            Column("familiar", np.float32),
        )
        super().__init__(schema, least_rows=64)


class PooledRows:
    """What was computed of rows, until they change: it is asked for at every frame, and changes at a look."""

    def __init__(self, compute: Callable[[Rows], Floats], width: int) -> None:
        """`compute`: (n, width) of n rows, of each the same beside others and alone."""
        self._compute = compute
        self._values = np.zeros((0, width), np.float32)
        self._is_known = np.zeros(0, np.bool_)

    def of(self, rows: Rows, count: int) -> Floats:
        """(n, width), a copy; there are `count` rows in all."""
        if len(self._is_known) < count:
            more = max(64, 2 * count) - len(self._is_known)
            self._values = np.concatenate([self._values, np.zeros((more, self._values.shape[1]), np.float32)])
            self._is_known = np.concatenate([self._is_known, np.zeros(more, np.bool_)])
        unknown = rows[~self._is_known[rows]]
        if len(unknown):
            self._values[unknown] = self._compute(unknown)
            self._is_known[unknown] = True
        return np.asarray(self._values[rows], np.float32)

    def forget(self, rows: Rows) -> None:
        """They change."""
        self._is_known[rows[rows < len(self._is_known)]] = False


class Fusion:
    """One class from the looks at each white cell, which has a row for them."""

    def __init__(self, config: FusionConfig) -> None:
        self._config = config
        self._rule = DecisionRule(config.unclassified_below, config.novel_above)
        self._name(Names())

    @property
    def names(self) -> Names:
        return Names(self.class_names, self.subclass_names, self.subclass_parents, self.attributes)

    @property
    def bytes_used(self) -> int:
        return self._table.bytes_used

    @property
    def rows(self) -> int:
        return self._table.count

    def new_rows(self, count: int) -> Rows:
        """Numbers of `count` new rows without looks."""
        return self._table.add_rows(count)

    def columns(self) -> dict[str, Floats]:
        """The sums, one row a white cell; with the names, `restore` makes an equal one of them."""
        return self._table.columns()

    def restore(self, columns: Mapping[str, Floats], names: Names) -> None:
        """Go on with another one's sums, which it keeps."""
        self._name(names)
        self._table.restore(columns)

    def add(self, rows: Rows, looks: Classifications, weights: Floats) -> None:
        """Add look i, with weights[i] of 0 to 1, to rows[i]; a row may come more than once."""
        if not self.class_names:
            rows_so_far = self._table.count
            self._name(Names(looks.class_names, looks.subclass_names, looks.subclass_parents, looks.attributes))
            self._table.add_rows(rows_so_far)
        if looks.class_names != self.class_names or looks.subclass_names != self.subclass_names:
            raise ValueError(
                f"looks: got classes {looks.class_names} and subclasses {looks.subclass_names}, expected those of the "
                f"first look, {self.class_names} and {self.subclass_names}; use one classifier a session"
            )
        self._forget(rows)
        floor = self._config.min_probability
        sums = self._table
        np.add.at(sums.weights, rows, weights)
        np.add.at(sums.classes, rows, weights[:, None] * np.log(np.maximum(looks.probabilities, floor)))
        if self.subclass_names:
            logarithms = np.log(np.maximum(looks.subclass_probabilities, floor))
            logarithms[:, self._only] -= np.log(np.maximum(1 - looks.subclass_probabilities[:, self._only], floor))
            np.add.at(sums.subclasses, rows, weights[:, None] * logarithms)
        if looks.attribute_probabilities is not None:
            logarithms = np.log(np.maximum(looks.attribute_probabilities, floor))
            np.add.at(sums.attributes, rows, weights[:, None] * logarithms)
        familiar = np.ones(len(rows), np.float32) if looks.novelty is None else 1 - looks.novelty
        np.maximum.at(sums.familiar, rows, familiar)

    def lighten(self, rows: Rows, factor: float) -> None:
        """Let the looks of these rows so far count `factor` times what they did."""
        self._forget(rows)
        sums = self._table
        for column in (sums.weights, sums.classes, sums.subclasses, sums.attributes):
            column[rows] *= factor

    def join(self, kept: int, gone: int) -> None:
        """Two rows turned out to be one cell."""
        self._forget(np.array([kept, gone]))
        sums = self._table
        sums.familiar[kept] = max(sums.familiar[kept], sums.familiar[gone])
        sums.familiar[gone] = 0
        for column in (sums.weights, sums.classes, sums.subclasses, sums.attributes):
            column[kept] += column[gone]
            column[gone] = 0

    def probabilities(self, rows: Rows) -> Floats:
        """(n, C), each row sums to 1; rows without looks are NaN."""
        return self._probabilities.of(rows, self.rows)

    def surest(self, rows: Rows) -> Floats:
        """(n,) the largest of each row's `probabilities`, 0 without looks."""
        return np.asarray(np.fmax.reduce(self.probabilities(rows), axis=1, initial=0.0), np.float32)

    def subclass_probabilities(self, rows: Rows) -> Floats:
        """(n, S), those of one parent sum to 1, the only one of its parent has a probability of its own; rows without
        looks are NaN."""
        return self._subclass_probabilities.of(rows, self.rows)

    def _forget(self, rows: Rows) -> None:
        """What is remembered of rows that change."""
        self._probabilities.forget(rows)
        self._subclass_probabilities.forget(rows)

    def attribute_probabilities(self, rows: Rows) -> Floats:
        """(n, V), those of one attribute sum to 1; rows without looks are NaN."""
        return self._pooled(self._table.attributes[rows], rows, self._values)

    def suspicion(self, rows: Rows, flag: SlideFlag) -> Floats:
        """(n,) probability that a row is of what flags a slide; 0 without looks."""
        if not self.class_names:
            return np.zeros(len(rows), np.float32)
        asked = {flag.name, *flag.equivalents} & {*self.subclass_names}
        subclasses = self.subclass_probabilities(rows) if asked else np.zeros((len(rows), 0), np.float32)
        classes = self.probabilities(rows)
        total = suspicion(flag, self.class_names, self.subclass_names, self._parents, classes, subclasses)
        return np.asarray(np.fmax(total, 0), np.float32)

    def novelty(self, rows: Rows) -> Floats:
        """(n,) of the least novel look; 1 without looks, 0 where the classifier does not measure it."""
        return np.asarray(1 - self._table.familiar[rows], np.float32)

    def attributes_of(self, row: int) -> Attributes | None:
        """The attributes of a cell, all looks fused; None without looks, or where the classifier has none."""
        if not self.attributes or self._table.weights[row] == 0:
            return None
        return likeliest_values(self.attributes, self.attribute_probabilities(np.array([row]))[0])

    def reason(self, row: int) -> str | None:
        """Why a row with looks is unclassified; None for one that is classified, or has none."""
        if self._table.weights[row] == 0:
            return None
        rows = np.array([row])
        return self._rule.reason(self.probabilities(rows), self.novelty(rows))

    def classes(self, rows: Rows) -> npt.NDArray[np.int16]:
        """(n,) index into `class_names`, -1 for unclassified, cells without looks among them."""
        if not self.class_names:
            return np.full(len(rows), -1, np.int16)
        return self._rule.classes(self.probabilities(rows), self.novelty(rows))

    def subclasses(self, rows: Rows, classes: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
        """(n,) index of the likeliest subclass of each row's class, -1 where it has none or is not clear."""
        if not self.subclass_names:
            return np.full(len(rows), -1, np.int16)
        return self._rule.subclasses(classes, self._parents, self.subclass_probabilities(rows))

    def _name(self, names: Names) -> None:
        """Begin an empty table for looks that speak of these names."""
        self.class_names = names.classes
        others = [name for name in NOT_CELLS if name not in names.classes] if names.classes else []
        self.nameable = (*names.classes, *others)
        """What a person may call a cell: the classes, and what is none where the classifier can't say so."""
        self.subclass_names = names.subclasses
        self.subclass_parents = names.parents
        self._parents = parent_indices(names.classes, names.parents)
        self._siblings = [np.nonzero(self._parents == parent)[0] for parent in dict.fromkeys(self._parents.tolist())]
        """Columns of the subclasses of each parent."""
        self._only = [int(columns[0]) for columns in self._siblings if len(columns) == 1]
        """Columns of subclasses without siblings: their sums are of log odds, against the usual cell of the class."""
        self.attributes = names.attributes
        self._values = attribute_columns(names.attributes)
        """Columns of the values of each attribute."""
        values = sum(len(attribute.values) for attribute in names.attributes)
        self._table = SumTable(len(names.classes), len(names.subclasses), values)
        whole = [np.arange(len(names.classes))]
        self._probabilities = PooledRows(
            lambda rows: self._pooled(self._table.classes[rows], rows, whole), len(names.classes)
        )
        self._subclass_probabilities = PooledRows(
            lambda rows: self._pooled(self._table.subclasses[rows], rows, self._siblings), len(names.subclasses)
        )

    def _pooled(self, sums: Floats, rows: Rows, groups: list[npt.NDArray[np.intp]]) -> Floats:
        weights = self._table.weights[rows, None]
        pooled = sums / (1 + np.maximum(weights - 1, 0) * self._config.look_correlation)
        pooled[weights[:, 0] == 0] = np.nan
        for columns in groups:
            # `take` keeps rows together in memory, so that a row's sum is the same to the bit beside others and alone.
            own = np.take(pooled, columns, axis=1)
            if len(columns) == 1:
                pooled[:, columns] = 1 / (1 + np.exp(-own))
                continue
            odds = np.exp(own - own.max(1, keepdims=True))
            pooled[:, columns] = odds / odds.sum(1, keepdims=True)
        return np.asarray(pooled, np.float32)
