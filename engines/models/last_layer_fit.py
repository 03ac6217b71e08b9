"""The last layer of a classifier, fitted to some cells with a strong pull towards the layer that it has.

Looks at a cell are pooled log-linearly, so that a linear layer reads the mean of their features: fitting to that mean
is fitting to what the stream says of the cell. What is fitted is the change of the layer: softmax regression with a
Gaussian prior around no change (L2), every class weighing the same, and cells from home beside them where there are
any, so that what these need stays. It is convex, and has one solution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from engines.graphs.last_layer import Floats, LastLayer

HOME_SHARE = 0.5
"""What all home cells together weigh, over what the laboratory's own do. At 2 the home figures fall less (balanced, of
`mobilenetv3-small` adapted to krd, from .94 to .92 instead of .90), and the laboratory gains less (an unfinished
EfficientNet-Lite0 on wbc_masks .87 instead of .89)."""
_STEPS = 80

Classes = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """n cells as the last layer reads them."""

    features: Floats
    """(n, F), means over the looks."""
    classes: Classes
    """(n,) index into the classifier's classes; -1: of a class that it lacks."""

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, rows: npt.NDArray[np.intp] | npt.NDArray[np.bool_] | slice) -> Cells:
        return Cells(self.features[rows], self.classes[rows])


def log_probabilities(layer: LastLayer, features: Floats) -> Floats:
    """(n, classes) of features (n, F)."""
    return log_softmax(features @ layer.weights.T + layer.bias)


def log_softmax(logits: Floats) -> Floats:
    """Of each row."""
    logits = logits - logits.max(1, keepdims=True)
    return np.asarray(logits - np.log(np.exp(logits).sum(1, keepdims=True)))


class LayerFit:
    """Fits to some of `site`, again and again: what depends on the cells alone is done once.

    A change of the layer that is no combination of the cells' features costs and changes nothing, so that the change is
    looked for among such combinations.
    """

    def __init__(self, base: LastLayer, site: Cells, home: Cells | None) -> None:
        """`home`: only cells of classes that the classifier has."""
        self._base, self._site, self._home = base, site, home
        rows = site.features if home is None else np.concatenate([site.features, home.features])
        self._scale = float(np.sqrt(np.square(rows).sum(1).mean())) or 1.0
        scaled = np.concatenate([rows / self._scale, np.ones((len(rows), 1))], axis=1)
        values, vectors = np.linalg.eigh(scaled @ scaled.T)
        kept = values > 1e-9 * values[-1]
        self._coordinates = vectors[:, kept] * np.sqrt(values[kept])
        self._directions = scaled.T @ vectors[:, kept] / np.sqrt(values[kept])
        self._logits = rows @ base.weights.T + base.bias

    def layer(self, rows: Sequence[int] | npt.NDArray[np.intp], strength: float) -> LastLayer:
        """Fitted to these cells of the laboratory; `strength` of the prior, of features whose mean square norm is 1."""
        own = np.asarray(rows, np.intp)
        used, truth = own, self._site.classes[own]
        weights = class_weights(truth) * len(own)
        if self._home is not None and len(self._home):
            used = np.concatenate([own, len(self._site) + np.arange(len(self._home))])
            weights = np.concatenate([weights, class_weights(self._home.classes) * (HOME_SHARE * len(own))])
            truth = np.concatenate([truth, self._home.classes])
        x, logits = self._coordinates[used], self._logits[used]
        shape = len(self._base.bias), x.shape[1]
        is_class = np.arange(shape[0]) == truth[:, None]

        def loss(flat: Floats) -> tuple[float, Floats]:
            change = flat.reshape(shape)
            logs = log_softmax(logits + x @ change.T)
            value = -float(weights @ logs[is_class]) + 0.5 * strength * float(np.square(flat).sum())
            slope = (weights[:, None] * (np.exp(logs) - is_class)).T @ x + strength * change
            return value, slope.ravel()

        found = minimize(loss, np.zeros(shape[0] * shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": _STEPS})
        change = found.x.reshape(shape) @ self._directions.T
        return LastLayer(self._base.weights + change[:, :-1] / self._scale, self._base.bias + change[:, -1])


def class_weights(classes: Classes) -> Floats:
    """(n,) summing to 1, every class the same: a laboratory's rare classes are those that it would lose."""
    weights = 1.0 / np.bincount(classes)[classes]
    return np.asarray(weights / weights.sum())


def folds_of(classes: Classes, groups: Sequence[str], count: int, seed: int = 0) -> npt.NDArray[np.intp]:
    """(n,) the fold of each cell: groups stay whole, each class is spread over the folds, larger groups first."""
    rng = np.random.default_rng(seed)
    members: dict[str, list[int]] = {}
    for i in rng.permutation(len(classes)).tolist():
        members.setdefault(groups[i], []).append(i)
    held = np.zeros((count, int(classes.max()) + 1))
    total = np.maximum(np.bincount(classes, minlength=held.shape[1]), 1)
    folds = np.zeros(len(classes), np.intp)
    for rows in sorted(members.values(), key=lambda rows: (-len(rows), total[classes[rows[0]]])):
        added = np.bincount(classes[rows], minlength=held.shape[1])
        cost = ((held + added) / total * (added > 0)).sum(1) + 1e-3 * held.sum(1)
        chosen = int(cost.argmin())
        held[chosen] += added
        folds[rows] = chosen
    return folds
