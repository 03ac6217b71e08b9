"""From which probability on cells flag a slide, and how surely: chosen and measured by predicted single cells.

A threshold gives every laboratory a share of ordinary cells that are above it, and a slide of n cells a Poisson count
of these. The flag's false rate is the lowest one with which, by the rule of the stream, at most `FALSE_SLIDES` of the
normal slides of all laboratories together are flagged, whatever their size: higher than the mean rate where
laboratories differ. Of all thresholds the one is chosen that flags most slides with few blasts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from scipy.special import bdtrc, betaincinv, pdtrc

from engines.zoo.slide_flags import MeasuredSlides, SlideFlag
from streamer.config import FIVE_PART_RANGES
from streamer.counting.differential import NOT_LEUKOCYTES
from streamer.counting.fusion import FusionConfig
from streamer.counting.suspects import FALSE_SLIDES, cells_needed, suspicion
from tools.data import ABNORMAL_CLASSES, ABNORMAL_SUBCLASSES
from tools.metrics.abnormal import Predicted

BLAST = "blast"
EQUIVALENTS: tuple[tuple[str, ...], ...] = ((), ("promyelocyte",))
"""What is tried: blasts alone, and with the promyelocytes that acute promyelocytic leukaemia has in their place."""
UNTESTED = ("lymphoblast",)
SIZES = (30, 50, 100, 200, 500, 1000)
"""White cells of slides that a false rate has to hold for."""
CELLS, PERCENT = 200, 5.0
"""Of the slides by which thresholds are compared: white cells, and how many of a hundred are blasts."""
LEAST_ORDINARY, LEAST_BLASTS = 100, 5
"""Laboratories of fewer ordinary cells are taken together; patients of fewer blasts tell no sensitivity."""
OTHERS = "others"
THRESHOLDS = tuple(i / 100 for i in range(2, 100))
"""One look never makes the stream surer than 0.99 of eleven classes (`FusionConfig.min_probability`)."""
_PARENTS = np.array([ABNORMAL_CLASSES.index(parent) for parent in ABNORMAL_SUBCLASSES.values()], np.intp)
_SUBCLASSES = tuple(ABNORMAL_SUBCLASSES)
_OF_PATIENTS = ("promyelocyte",)
"""Subclasses that are sought as blasts are, whatever is chosen to find them by."""


@dataclass(frozen=True)
class FlagCells:
    """n cells as a flag sees them."""

    predicted: Predicted
    laboratories: np.ndarray
    """text (n,)."""
    patients: np.ndarray
    """text (n,), the laboratory's name where nobody is named."""

    def scores(self, equivalents: Sequence[str]) -> np.ndarray:
        """float64 (n,): the probability that counts, of one look as the stream fuses it; 0 of what is likeliest no
        leukocyte."""
        found = self.predicted
        flag = SlideFlag(BLAST, 0.0, 0.0, tuple(equivalents))
        no_leukocyte = [ABNORMAL_CLASSES.index(name) for name in NOT_LEUKOCYTES]
        fused = np.maximum(found.probabilities, FusionConfig().min_probability)
        fused /= fused.sum(1, keepdims=True)
        total = suspicion(flag, ABNORMAL_CLASSES, _SUBCLASSES, _PARENTS, fused, found.subclass_probabilities)
        return np.where(np.isin(found.probabilities.argmax(1), no_leukocyte), 0.0, total)

    @property
    def blasts(self) -> np.ndarray:
        """bool (n,): the cells sought. Promyelocytes only of named patients, who have leukaemia: healthy blood may have
        some."""
        found = self.predicted
        stages = np.isin(found.subclasses, [_SUBCLASSES.index(name) for name in _OF_PATIENTS])
        named = np.zeros(len(stages), bool) if found.patients is None else found.patients != ""
        return np.asarray((found.classes == ABNORMAL_CLASSES.index(BLAST)) | stages & named)

    @property
    def weights(self) -> np.ndarray:
        """float64 (n,), 0 but for the five types: of a laboratory they sum to 1, each type as often as in normal
        blood."""
        weights = np.zeros(len(self.laboratories))
        for laboratory in np.unique(self.laboratories):
            own = self.laboratories == laboratory
            for name, (low, high) in FIVE_PART_RANGES.items():
                cells = own & (self.predicted.classes == ABNORMAL_CLASSES.index(name))
                weights[cells] = (low + high) / 2 / max(1, int(cells.sum()))
            weights[own] /= max(weights[own].sum(), 1e-12)
        return weights


@dataclass(frozen=True)
class Scored:
    """What thresholds are chosen by."""

    scores: np.ndarray
    ordinary: Mapping[str, tuple[np.ndarray, np.ndarray]]
    """By laboratory the scores of its ordinary cells and their weights, which sum to 1."""
    blasts: Mapping[str, np.ndarray]
    """By patient the scores of the blasts."""

    def without(self, laboratory: str = "", patient: str = "") -> Scored:
        return replace(
            self,
            ordinary={name: own for name, own in self.ordinary.items() if name != laboratory},
            blasts={name: own for name, own in self.blasts.items() if name != patient},
        )


def flag_cells(predicted: Mapping[str, Predicted]) -> FlagCells:
    """All cells of some laboratories, small ones together; `Predicted.patients` says whose they are."""
    names: list[str] = []
    for laboratory, found in predicted.items():
        ordinary = np.isin(found.classes, [ABNORMAL_CLASSES.index(name) for name in FIVE_PART_RANGES]).sum()
        names += [laboratory if ordinary >= LEAST_ORDINARY else OTHERS] * len(found.classes)
    patients = [
        patient or laboratory
        for laboratory, found in predicted.items()
        for patient in ([""] * len(found.classes) if found.patients is None else found.patients.tolist())
    ]
    return FlagCells(together(list(predicted.values())), np.array(names), np.array(patients))


def together(predicted: Sequence[Predicted]) -> Predicted:
    """One after the other; None stays what one of them lacks."""
    columns: dict[str, Any] = {}
    for one in fields(Predicted):
        parts = [getattr(found, one.name) for found in predicted]
        columns[one.name] = None if any(part is None for part in parts) else np.concatenate(parts)
    return Predicted(**columns)


def scored(cells: FlagCells, equivalents: Sequence[str]) -> Scored:
    """ValueError where there are no ordinary cells, or no patient has enough blasts."""
    scores, weights, blasts = cells.scores(equivalents), cells.weights, cells.blasts
    ordinary, sought = {}, {}
    for laboratory in np.unique(cells.laboratories).tolist():
        own = (cells.laboratories == laboratory) & (weights > 0)
        if own.sum() >= LEAST_ORDINARY:
            ordinary[laboratory] = scores[own], weights[own]
    for patient in np.unique(cells.patients[blasts]).tolist():
        own = blasts & (cells.patients == patient)
        if own.sum() >= LEAST_BLASTS:
            sought[patient] = scores[own]
    if not ordinary or not sought:
        raise ValueError(
            f"slide flags: got {len(ordinary)} laboratories of {LEAST_ORDINARY} ordinary cells and {len(sought)} "
            f"patients of {LEAST_BLASTS} blasts, expected one of each at least"
        )
    return Scored(scores, ordinary, sought)


def false_rates(cells: Scored, above: float) -> np.ndarray:
    """float64 (laboratories,): the share of ordinary cells that count."""
    return np.array([weights[scores >= above].sum() for scores, weights in cells.ordinary.values()])


def flagged_by_error(false_rate: float, rates: np.ndarray, cells: int) -> np.ndarray:
    """float64 (laboratories,): the share of their normal slides of so many cells that a flag of `false_rate` gets."""
    return np.asarray(pdtrc(cells_needed(false_rate, cells) - 1, rates * cells))


def lasting_rate(cells: Scored, above: float) -> float:
    """The false rate with which slides of every size hold `FALSE_SLIDES`, every laboratory weighing the same; at least
    one ordinary cell of all."""
    rates = false_rates(cells, above)
    rate = max(float(rates.mean()), 1 / sum(len(scores) for scores, _ in cells.ordinary.values()))
    while any(flagged_by_error(rate, rates, size).mean() > FALSE_SLIDES for size in SIZES):
        rate *= 1.1
    return float(f"{rate:.2g}") if rate < 1 else 1.0


def found_slides(false_rate: float, above: float, blasts: np.ndarray) -> float:
    """The share of slides of `CELLS` with `PERCENT` of a patient's blasts that are flagged, by these alone."""
    share, drawn = float((blasts >= above).mean()), round(CELLS * PERCENT / 100)
    needed = cells_needed(false_rate, CELLS)
    return float(bdtrc(needed - 1, drawn, share)) if needed <= drawn else 0.0


def best_threshold(cells: Scored) -> tuple[float, float, float]:
    """(above, false rate, share of the patients' slides that are flagged); of equally good ones the highest."""
    tried = [(above, lasting_rate(cells, above)) for above in THRESHOLDS]
    found = [
        (round(float(np.mean([found_slides(rate, above, own) for own in cells.blasts.values()])), 3), above, rate)
        for above, rate in tried
    ]
    sensitivity, above, rate = max(found)
    return above, rate, sensitivity


def choose(cells: FlagCells) -> SlideFlag:
    """The flag for blasts by which most of the slides are found, with its figures. ValueError where cells are missing.

    Each patient is measured by what the others chose, and so is each laboratory."""
    candidates = {equivalents: scored(cells, equivalents) for equivalents in EQUIVALENTS}
    best = {equivalents: best_threshold(one) for equivalents, one in candidates.items()}
    equivalents = max(EQUIVALENTS, key=lambda one: best[one][2])
    chosen, (above, rate, _) = candidates[equivalents], best[equivalents]
    return SlideFlag(
        BLAST,
        above=above,
        false_rate=rate,
        equivalents=equivalents,
        untested=UNTESTED,
        cells=CELLS,
        percent=PERCENT,
        sensitivity=_sensitivity(chosen),
        specificity=_specificity(chosen),
    )


def _sensitivity(cells: Scored) -> MeasuredSlides | None:
    if len(cells.blasts) < 2:
        return None
    shares = []
    for patient, own in cells.blasts.items():
        above, rate, _ = best_threshold(cells.without(patient=patient))
        shares.append(found_slides(rate, above, own))
    return measured(shares)


def _specificity(cells: Scored) -> MeasuredSlides | None:
    if len(cells.ordinary) < 2:
        return None
    shares = []
    for laboratory, (scores, weights) in cells.ordinary.items():
        above, rate, _ = best_threshold(cells.without(laboratory=laboratory))
        own = np.array([weights[scores >= above].sum()])
        shares.append(1 - float(flagged_by_error(rate, own, CELLS)[0]))
    return measured(shares)


def measured(shares: Sequence[float]) -> MeasuredSlides:
    """The mean of some patients' or laboratories' shares, with Clopper-Pearson limits for as many draws of one each."""
    count, total = len(shares), float(sum(shares))
    low = float(betaincinv(total, count - total + 1, 0.025)) if total > 0 else 0.0
    high = float(betaincinv(total + 1, count - total, 0.975)) if total < count else 1.0
    mean = total / count
    return MeasuredSlides(round(mean, 4), round(min(low, mean), 4), round(max(high, mean), 4), count)


def card_rows(flags: Sequence[SlideFlag]) -> list[dict[str, Any]]:
    """`[[slide_flags]]` of a card."""

    def figures(of: MeasuredSlides | None) -> list[float] | None:
        return None if of is None else [of.share, of.low, of.high]

    return [
        {
            "class": flag.name,
            "equivalents": list(flag.equivalents),
            "above": flag.above,
            "false_rate": flag.false_rate,
            "untested": list(flag.untested),
            "cells": flag.cells,
            "percent": flag.percent,
            "sensitivity": figures(flag.sensitivity),
            "patients": None if flag.sensitivity is None else flag.sensitivity.units,
            "specificity": figures(flag.specificity),
            "laboratories": None if flag.specificity is None else flag.specificity.units,
        }
        for flag in flags
    ]
