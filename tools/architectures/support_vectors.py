"""Support vector machines on a network's features: which features separate the classes, kernels, pairs, probabilities.

As published for DarkNet-53 (leukaemia system, 2022): features ranked by Bhattacharyya distance, the best 500 kept and
standardised, one machine for each pair of classes with a quadratic, a cubic or an optimised kernel. scikit-learn fits
them and, by Platt's sigmoid on decisions that no machine was trained for, says the probability of each pair; pairs
are coupled to classes in closed form (Price et al. 1994, NIPS 7: p_i = 1 / (sum over j of 1 / r_ij - (k - 2))).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.svm import SVC

KEPT = 500
"""Features kept, as published."""
LOGIT_LIMIT = 30.0
"""A pair's log odds are held within this, so that float32 holds their exponentials."""
SEARCH_RANGE = tuple(10.0**power for power in range(-3, 3))
"""Scales and box constraints that are tried first: .001 to 100."""
_SEARCH_STEPS = 20_000
"""Steps of the solver while searching: a kernel that needs more is a bad one."""


@dataclass(frozen=True)
class Kernel:
    """Of x and a support vector v, both standardised. polynomial: (1 + x·v / scale²)^degree; gaussian:
    exp(-|x - v|² / scale²). box: what an error costs at most."""

    function: Literal["polynomial", "gaussian"]
    degree: int
    scale: float
    box: float = 1.0

    def machine(self, *, steps: int = -1) -> SVC:
        """An untrained machine; `steps` of its solver at most."""
        gamma = self.scale**-2
        if self.function == "gaussian":
            return SVC(C=self.box, kernel="rbf", gamma=gamma, max_iter=steps)
        return SVC(C=self.box, kernel="poly", degree=self.degree, gamma=gamma, coef0=1.0, max_iter=steps)


def usual_scale(features: int) -> float:
    """The scale at which standardised vectors of so many features have products of about one."""
    return float(np.sqrt(features))


def bhattacharyya(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """float64 (d,) how far each of d features (n, d) parts the classes: the mean over pairs of classes of the
    Bhattacharyya distance of two normal distributions; 0 for a feature that is constant."""
    means, variances = [], []
    for label in np.unique(labels):
        members = features[labels == label].astype(np.float64)
        means.append(members.mean(0))
        variances.append(members.var(0))
    if len(means) < 2:
        raise ValueError("classes: got one, expected two or more to be told apart")
    floor = 1e-9 * features.astype(np.float64).var(0)
    total = np.zeros(features.shape[1])
    varies = floor > 0
    for a, b in combinations(range(len(means)), 2):
        va, vb = (np.maximum(variances[i], floor)[varies] for i in (a, b))
        gap = (means[a] - means[b])[varies]
        total[varies] += gap**2 / (va + vb) / 4 + np.log((va / vb + vb / va + 2) / 4) / 4
    return total / (len(means) * (len(means) - 1) / 2)


@dataclass(frozen=True)
class Constants:
    """All that the chain from d features to k probabilities needs, as plain arrays; P = k(k-1)/2 pairs in the order of
    `itertools.combinations`, m support vectors of s selected features.

    selected: int64 (s,); mean, deviation: (s,); vectors: (m, s) standardised; weights: (m, P) and offsets: (P,) of the
    decisions, positive for the pair's second class; slopes, shifts: (P,) of Platt's sigmoid 1 / (1 + exp(slope *
    decision + shift)), the probability of the second class.
    """

    kernel: Kernel
    classes: int
    temperature: float
    selected: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    vectors: np.ndarray
    weights: np.ndarray
    offsets: np.ndarray
    slopes: np.ndarray
    shifts: np.ndarray

    def save(self, path: Path) -> None:
        """One .npz of arrays, written beside and renamed."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "kernel"}
        part = path.with_name(f"{path.stem}.part.npz")
        np.savez_compressed(part, **arrays, **{f"kernel_{k}": v for k, v in asdict(self.kernel).items()})
        part.replace(path)

    @staticmethod
    def load(path: Path) -> Constants:
        with np.load(path) as file:
            values = {name: file[name] for name in file.files}
        single = {name: value.item() for name, value in values.items() if value.ndim == 0}
        kernel = Kernel(**{k.removeprefix("kernel_"): v for k, v in single.items() if k.startswith("kernel_")})
        plain = {k: v for k, v in single.items() if not k.startswith("kernel_")}
        return Constants(kernel=kernel, **plain, **{k: v for k, v in values.items() if v.ndim})


class PairMachines:
    """Machines of one kernel, fitted by scikit-learn; `constants` are what an ONNX graph is made of."""

    def __init__(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        groups: Sequence[str] | np.ndarray,
        kernel: Kernel,
        *,
        kept: int = KEPT,
        folds: int = 5,
        seed: int = 0,
    ) -> None:
        """Fit on features (n, d), labels 0..k-1 and groups (n,); Platt's sigmoids from folds that part no group."""
        self.kernel = kernel
        self.classes = int(labels.max()) + 1
        chosen = Standardised.of(features, labels, kept)
        self.selected, self.mean, self.deviation = chosen.selected, chosen.mean, chosen.deviation
        x = self.standardised(features)
        named = np.asarray(groups)
        self.pairs: list[tuple[np.ndarray, CalibratedClassifierCV]] = []
        for a, b in combinations(range(self.classes), 2):
            rows = np.flatnonzero((labels == a) | (labels == b))
            parts = list(grouped_folds(labels[rows], named[rows], folds, seed))
            machine = CalibratedClassifierCV(kernel.machine(), method="sigmoid", cv=parts, ensemble=False)
            self.pairs.append((rows, machine.fit(x[rows], labels[rows] == b)))
        self._x = x

    def standardised(self, features: np.ndarray) -> np.ndarray:
        """float64 (n, s): the selected features over their mean and deviation in training."""
        return Standardised(self.selected, self.mean, self.deviation)(features)

    def pair_probabilities(self, features: np.ndarray) -> np.ndarray:
        """float64 (n, P): what scikit-learn gives for the second class of each pair."""
        x = self.standardised(features)
        return np.stack([machine.predict_proba(x)[:, 1] for _, machine in self.pairs], 1)

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """float64 (n, k): scikit-learn's probabilities of pairs, coupled; each row sums to 1."""
        return coupled(self.pair_probabilities(features), self.classes)

    def votes(self, features: np.ndarray) -> np.ndarray:
        """int64 (n,): the class that wins most of its pairs by the machines' decisions, the first of equals."""
        x = self.standardised(features)
        tally = np.zeros((len(x), self.classes), np.int64)
        for (a, b), (_, machine) in zip(combinations(range(self.classes), 2), self.pairs, strict=True):
            second = machine.calibrated_classifiers_[0].estimator.decision_function(x) > 0
            tally[:, b] += second
            tally[:, a] += ~second
        return np.asarray(tally.argmax(1))

    def constants(self, temperature: float = 1.0) -> Constants:
        """What the graph is made of; a support vector of several pairs is kept once."""
        found = [machine.calibrated_classifiers_[0] for _, machine in self.pairs]
        used = [rows[calibrated.estimator.support_] for (rows, _), calibrated in zip(self.pairs, found, strict=True)]
        distinct = np.unique(np.concatenate(used))
        weights = np.zeros((len(distinct), len(found)))
        for column, (rows, calibrated) in enumerate(zip(used, found, strict=True)):
            weights[np.searchsorted(distinct, rows), column] = calibrated.estimator.dual_coef_[0]
        return Constants(
            kernel=self.kernel,
            classes=self.classes,
            temperature=temperature,
            selected=self.selected,
            mean=self.mean,
            deviation=self.deviation,
            vectors=self._x[distinct],
            weights=weights,
            offsets=np.array([calibrated.estimator.intercept_[0] for calibrated in found]),
            slopes=np.array([calibrated.calibrators[0].a_ for calibrated in found]),
            shifts=np.array([calibrated.calibrators[0].b_ for calibrated in found]),
        )


@dataclass(frozen=True)
class Standardised:
    """The features that part the classes best, over their mean and deviation; called with (n, d) it gives (n, s)."""

    selected: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray

    @staticmethod
    def of(features: np.ndarray, labels: np.ndarray, kept: int) -> Standardised:
        """The `kept` best by rank, all where there are fewer."""
        best = np.argsort(-bhattacharyya(features, labels), kind="stable")[:kept]
        selected = np.sort(best)
        taken = features[:, selected].astype(np.float64)
        deviation = taken.std(0)
        return Standardised(selected, taken.mean(0), np.where(deviation > 0, deviation, 1.0))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        values = (features[:, self.selected].astype(np.float64) - self.mean) / self.deviation
        return np.asarray(values)


def coupled(pairs: np.ndarray, classes: int) -> np.ndarray:
    """Probabilities (n, k) from those of the second class of each pair (n, P)."""
    least = np.exp(-LOGIT_LIMIT)
    second = np.clip(pairs, least / (1 + least), 1 / (1 + least))
    odds = np.ones((len(pairs), classes))
    for column, (a, b) in enumerate(combinations(range(classes), 2)):
        odds[:, a] += second[:, column] / (1 - second[:, column])
        odds[:, b] += (1 - second[:, column]) / second[:, column]
    return np.asarray((1 / odds) / (1 / odds).sum(1, keepdims=True))


def grouped_folds(
    labels: np.ndarray, groups: np.ndarray, folds: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(training rows, held rows) of each fold: about the same shares of each class, no group in both.

    ValueError where some class has fewer groups than there are folds.
    """
    for label in np.unique(labels):
        count = len(set(groups[labels == label]))
        if count < folds:
            raise ValueError(f"folds: got {folds} with a class of {count} groups, expected no more folds than groups")
    parts = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    yield from parts.split(np.zeros(len(labels)), labels, groups)


def cross_validated(
    x: np.ndarray, labels: np.ndarray, kernel: Kernel, parts: Iterable[tuple[np.ndarray, np.ndarray]]
) -> float:
    """Share of held rows that one-vs-one machines of a kernel name right; x (n, s) is standardised."""
    right = total = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a search cuts hopeless kernels short
        for train, held in parts:
            machine = kernel.machine(steps=_SEARCH_STEPS).fit(x[train], labels[train])
            right += int((machine.predict(x[held]) == labels[held]).sum())
            total += len(held)
    return right / total


def optimised_kernel(
    features: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[str] | np.ndarray,
    *,
    kept: int = KEPT,
    folds: int = 5,
    seed: int = 0,
    limit: int | None = None,
) -> tuple[Kernel, float]:
    """The kernel with the best cross-validated accuracy, and that accuracy.

    Gaussian, quadratic and cubic kernels are tried with each scale and box constraint of `SEARCH_RANGE`, then scales
    and boxes around the best one in steps of 10^(1/3); of equals the smoother (larger scale, smaller box) is taken. At
    most `limit` cells, drawn by whole groups, are searched on.
    """
    named = np.asarray(groups)
    if limit is not None and len(labels) > limit:
        order = np.random.default_rng(seed).permutation(np.unique(named))
        sizes = np.array([np.count_nonzero(named == group) for group in order])
        inside = np.isin(named, order[np.cumsum(sizes) <= limit])
        features, labels, named = features[inside], labels[inside], named[inside]
    x = Standardised.of(features, labels, kept)(features)
    parts = list(grouped_folds(labels, named, folds, seed))
    tried: dict[Kernel, float] = {}

    def best_of(kernels: Iterable[Kernel]) -> Kernel:
        for kernel in kernels:
            if kernel not in tried:
                tried[kernel] = cross_validated(x, labels, kernel, parts)
        return max(tried, key=lambda kernel: (tried[kernel], kernel.scale, -kernel.box))

    functions: tuple[tuple[Literal["polynomial", "gaussian"], int], ...] = (
        ("gaussian", 0),
        ("polynomial", 2),
        ("polynomial", 3),
    )
    coarse = best_of(
        Kernel(function, degree, scale, box)
        for function, degree in functions
        for scale in SEARCH_RANGE
        for box in SEARCH_RANGE
    )
    low, high = SEARCH_RANGE[0], SEARCH_RANGE[-1]
    near = [10 ** (step / 3) for step in (-2, -1, 0, 1, 2)]
    fine = best_of(
        Kernel(coarse.function, coarse.degree, coarse.scale * up, coarse.box * over)
        for up in near
        for over in near
        if low <= coarse.scale * up <= high and low <= coarse.box * over <= high
    )
    return fine, tried[fine]
