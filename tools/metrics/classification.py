"""Measures of a classifier from probabilities and true classes: plain NumPy, no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.stats import beta
from scipy.stats import t as student


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """float64 (n, k) probabilities of logits (n, k) divided by the temperature."""
    z = logits.astype(np.float64) / temperature
    z = np.exp(z - z.max(1, keepdims=True))
    return np.asarray(z / z.sum(1, keepdims=True))


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """int64 (classes, classes): rows are true classes, columns predicted ones."""
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (truth, predicted), 1)
    return table


def clopper_pearson(hits: float, trials: float, level: float = 0.95) -> tuple[float, float] | None:
    """Exact two-sided limits of a share, None without trials; they need not be whole (Korn & Graubard 1998)."""
    if trials == 0:
        return None
    tail = (1 - level) / 2
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, trials - hits + 1))
    high = 1.0 if hits == trials else float(beta.ppf(1 - tail, hits + 1, trials - hits))
    return low, high


@dataclass(frozen=True)
class Share:
    """`hits` of `trials`; `value` and limits are None where there were no trials."""

    hits: int
    trials: int
    independent: float | None = None
    """As how many independent trials they count, where they come in clusters (`effective_trials`); None: as all."""

    @property
    def value(self) -> float | None:
        """hits / trials, None without trials."""
        return self.hits / self.trials if self.trials else None

    def as_dict(self) -> dict[str, object]:
        """For JSON: value, 95 % Clopper-Pearson limits (of as many trials as are independent), hits, trials."""
        shrunk = 1.0 if self.independent is None else self.independent / max(self.trials, 1)
        limits = clopper_pearson(self.hits * shrunk, self.trials * shrunk)
        low, high = limits if limits else (None, None)
        return {"value": self.value, "low": low, "high": high, "hits": self.hits, "trials": self.trials}


def effective_trials(
    hits: np.ndarray, clusters: Sequence[str] | None, draws: int = 1000, seed: int = 0
) -> float | None:
    """As how many independent trials hits bool (n,) count whose `clusters` (slides, patients, pictures) are alike
    within; None where each is a cluster of its own, or nobody said.

    The variance of the share is that of a bootstrap over clusters; Student's t stands for how few clusters it is
    estimated from (Korn & Graubard 1998). Where all are hits, or none, each cluster is one trial.
    """
    if clusters is None or len(set(clusters)) == len(hits):
        return None
    _, place = np.unique(np.asarray(clusters), return_inverse=True)
    sizes = np.bincount(place).astype(np.float64)
    sums = np.bincount(place, weights=hits)
    count, share = len(sizes), float(np.mean(hits))
    if count == 1 or share in (0.0, 1.0):
        return float(count)
    weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), draws)
    variance = float(np.var((weights @ sums) / (weights @ sizes))) * count / (count - 1)
    narrower = float(student.ppf(0.975, len(hits) - 1) / student.ppf(0.975, count - 1)) ** 2
    return float(np.clip(share * (1 - share) / max(variance, 1e-12) * narrower, 1.0, len(hits)))


def share_of(hits: np.ndarray, clusters: Sequence[str] | None = None) -> Share:
    """Of hits bool (n,), with the cluster of each where they come in clusters."""
    return Share(int(hits.sum()), len(hits), effective_trials(hits, clusters))


def per_class(
    truth: np.ndarray, predicted: np.ndarray, names: tuple[str, ...], clusters: Sequence[str] | None = None
) -> dict[str, dict[str, object]]:
    """Recall and precision of every class that occurs or was predicted; classes int64 (n,)."""
    right = truth == predicted
    of_each = None if clusters is None else np.asarray(clusters)

    def share(among: np.ndarray) -> dict[str, object]:
        return share_of(right[among], None if of_each is None else of_each[among].tolist()).as_dict()

    return {
        name: {"recall": share(truth == i), "precision": share(predicted == i)}
        for i, name in enumerate(names)
        if (truth == i).any() or (predicted == i).any()
    }


def figures(
    probabilities: np.ndarray,
    truth: np.ndarray,
    names: tuple[str, ...],
    threshold: float | np.ndarray,
    untempered: np.ndarray | None = None,
    unlike: np.ndarray | None = None,
    clusters: Sequence[str] | None = None,
) -> dict[str, Any]:
    """What every classifier is measured by, ready for JSON; a share carries its 95 % limits (`Share`), for the
    `clusters` (n,) of the cells where some belong together.

    Classified is what is not below `threshold` (one, or each cell's own), nor `unlike` (bool (n,)) the training cells;
    `untempered` are the probabilities before calibration, where they are known.
    """
    said = probabilities.argmax(1)
    table = confusion(truth, said, len(names))
    right = said == truth
    kept = probabilities.max(1) >= threshold
    if unlike is not None:
        kept &= ~unlike
    return {
        "cells": len(truth),
        "accuracy": share_of(right, clusters).as_dict(),
        "balanced_accuracy": balanced_accuracy(table),
        "classes": per_class(truth, said, names, clusters),
        "confusion": table.tolist(),
        "calibration_error": calibration_error(probabilities, truth),
        "calibration_error_untempered": None if untempered is None else calibration_error(untempered, truth),
        "classified": share_of(kept, clusters).as_dict(),
        "accuracy_classified": share_of(
            right[kept], None if clusters is None else np.asarray(clusters)[kept].tolist()
        ).as_dict(),
    }


def card_entry(found: Mapping[str, Any], *, class_limits: bool) -> dict[str, Any]:
    """`figures` as the entries of a card's table: flat, rounded, without what is not known; `class_limits`: limits of
    every class's shares too."""
    accuracy = found["accuracy"]
    entry: dict[str, Any] = {
        "cells": found["cells"],
        "accuracy": accuracy["value"],
        "accuracy_low": accuracy["low"],
        "accuracy_high": accuracy["high"],
        "balanced_accuracy": found["balanced_accuracy"],
        "calibration_error": found["calibration_error"],
        "calibration_error_untempered": found["calibration_error_untempered"],
        "classified": found["classified"]["value"],
        "accuracy_classified": found["accuracy_classified"]["value"],
    }
    for name, row in found["classes"].items():
        for measure, share in row.items():
            key = f"{name.replace(' ', '_')}_{measure}"
            entry[key] = share["value"]
            if class_limits:
                entry |= {f"{key}_low": share["low"], f"{key}_high": share["high"]}
    return {
        key: round(value, 4) if isinstance(value, float) else value for key, value in entry.items() if value is not None
    }


def balanced_accuracy(table: np.ndarray) -> float | None:
    """Mean recall over the classes that occur; None where none does."""
    occurring = table.sum(1) > 0
    if not occurring.any():
        return None
    return float((np.diag(table)[occurring] / table.sum(1)[occurring]).mean())


def macro_f1(table: np.ndarray) -> float:
    """Mean F1 over the classes that occur, of a confusion table; ValueError for an empty one."""
    hits, occurring = np.diag(table), table.sum(1) > 0
    if not occurring.any():
        raise ValueError("macro-F1: got an empty confusion table, expected at least one sample")
    return float((2 * hits[occurring] / (table.sum(0) + table.sum(1))[occurring]).mean())


def calibration_error(probabilities: np.ndarray, truth: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error of the likeliest class, bins of equal width; raises ValueError without samples."""
    return float(sum(abs(gap) * share for _, gap, share in reliability(probabilities, truth, bins)))


def reliability(probabilities: np.ndarray, truth: np.ndarray, bins: int = 15) -> list[tuple[float, float, float]]:
    """(mean confidence, accuracy minus confidence, share of samples) of every bin that isn't empty."""
    if len(truth) == 0:
        raise ValueError("reliability: got no samples, expected at least one")
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == truth
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    rows = []
    for b in range(bins):
        inside = place == b
        if inside.any():
            mean = float(confidence[inside].mean())
            rows.append((mean, float(right[inside].mean()) - mean, float(inside.mean())))
    return rows


def negative_log_likelihood(logits: np.ndarray, truth: np.ndarray, weights: np.ndarray, temperature: float) -> float:
    """Weighted mean of -log p(true class); weights (n,) need not sum to one."""
    z = logits.astype(np.float64) / temperature
    peak = z.max(1)
    log_sum = np.log(np.exp(z - peak[:, None]).sum(1)) + peak
    return float(np.average(log_sum - z[np.arange(len(z)), truth], weights=weights))


def log_loss(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Mean of -log p(true class); probabilities (n, classes) that sum to one, truth (n,)."""
    logits = np.log(np.maximum(probabilities.astype(np.float64), 1e-12))
    return negative_log_likelihood(logits, truth, np.ones(len(truth)), 1.0)


def fit_temperature(logits: np.ndarray, truth: np.ndarray, weights: np.ndarray | None = None) -> float:
    """The temperature in 0.2–5 with the best weighted likelihood (Guo 2017)."""
    if len(truth) == 0:
        raise ValueError("temperature: got no samples, expected at least one")
    w = np.ones(len(truth)) if weights is None else weights
    found = minimize_scalar(
        lambda t: negative_log_likelihood(logits, truth, w, float(np.exp(t))),
        bounds=(np.log(0.2), np.log(5.0)),
        method="bounded",
    )
    return float(np.exp(found.x))


def risk_coverage(probabilities: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For every useful threshold on the top probability, ascending: threshold, share of cells kept, their errors."""
    confidence = probabilities.max(1)
    wrong = probabilities.argmax(1) != truth
    order = np.argsort(-confidence, kind="stable")
    kept = np.arange(1, len(order) + 1)
    risk = np.cumsum(wrong[order]) / kept
    last_of_value = np.append(np.diff(confidence[order]) < 0, True)
    return (
        confidence[order][last_of_value][::-1],
        (kept / len(order))[last_of_value][::-1],
        risk[last_of_value][::-1],
    )


def threshold_for_risk(probabilities: np.ndarray, truth: np.ndarray, risk: float) -> tuple[float, float] | None:
    """Lowest threshold such that at most `risk` of the cells at or above it are wrong, and the share kept; None
    where no threshold reaches it."""
    thresholds, coverage, risks = risk_coverage(probabilities, truth)
    reached = np.nonzero(risks <= risk)[0]
    if len(reached) == 0:
        return None
    return float(thresholds[reached[0]]), float(coverage[reached[0]])


def thresholds_of_others(
    probabilities: np.ndarray, truth: np.ndarray, groups: Sequence[str], risk: float, otherwise: float, seed: int = 0
) -> np.ndarray:
    """float64 (n,): for each cell the threshold (`threshold_for_risk`, else `otherwise`) that cells of other groups
    choose, in five folds of whole groups: what is measured at it chose nothing of it."""
    names, place = np.unique(np.asarray(groups), return_inverse=True)
    fold = np.random.default_rng(seed).permutation(len(names))[place] % 5
    found = np.full(len(truth), otherwise)
    for one in range(5):
        others = fold != one
        reached = threshold_for_risk(probabilities[others], truth[others], risk) if others.any() else None
        if reached is not None:
            found[~others] = reached[0]
    return found


def lowest_threshold(probabilities: np.ndarray, truth: np.ndarray, weights: np.ndarray, risk: float) -> float:
    """The lowest threshold from .3, in steps of .01, with at most `risk` of the weight of the cells at or above it
    wrong; at most .9."""
    confidence, wrong = probabilities.max(1), probabilities.argmax(1) != truth
    for hundredths in range(30, 90):
        kept = confidence >= hundredths / 100
        if kept.any() and np.average(wrong[kept], weights=weights[kept]) <= risk:
            return hundredths / 100
    return 0.9


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean and standard deviation over repetitions; the deviation of one repetition is 0."""
    return {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0}
