"""What is fitted to a classifier after its training, on validation cells: temperatures, novelty, the threshold."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from engines.base import attribute_columns
from tools.data import SUBCLASSES
from tools.data.crops import ATTRIBUTES, SUBCLASS_NAMES
from tools.evaluate.eight_types import Predictions
from tools.export import novelty
from tools.metrics import classification as measures

CALIBRATED_ON = ("pbc", "pbc whole", "bccd", "chula_wbc", "wbc_masks/jtsc")
"""Sets that temperatures and threshold are fitted on: no cell as two sets, and not the easy pictures of txl_pbc, with
which the threshold would fall to .3: it has to hold in laboratories that trained nothing."""
KNOWN = (*CALIBRATED_ON, "txl_pbc", "bcd")
"""Sets that must not be called unlike the training cells, for they are among them."""
HOME_SHARE = 0.85
"""What pbc weighs for the temperatures. At .5 the network is too modest there by .04 and still too sure elsewhere."""
REFUSED = 0.02
"""Share of validation cells called unlike the training cells, home and other laboratories weighing the same: of .01 to
.04, at .02 one in fourteen of Raabin's cells is, and .85 of what is none (.79 at .01, .91 at .04 and twice as many of
Raabin's)."""


@dataclass(frozen=True)
class Fitted:
    """What is fitted to a network after its training; the defaults change nothing."""

    temperature: float = 1.0
    subclass_temperature: float = 1.0
    attribute_temperatures: tuple[float, ...] = (1.0,) * len(ATTRIBUTES)
    novelty: tuple[novelty.Gaussians, novelty.Calibration] | None = None


def laboratory_weights(found: Mapping[str, Predictions], home_share: float) -> np.ndarray:
    """float64 (n,) for the cells of all sets in order: the home set weighs `home_share`, all others the rest."""
    home = sum(len(f.cells) for name, f in found.items() if name.startswith("pbc"))
    away = sum(len(f.cells) for name, f in found.items() if not name.startswith("pbc"))
    weights = {True: home_share / max(1, home), False: (1 - home_share) / max(1, away)}
    return np.concatenate([np.full(len(f.cells), weights[name.startswith("pbc")]) for name, f in found.items()])


def for_calibration(found: Mapping[str, Predictions]) -> dict[str, Predictions]:
    """The sets of `CALIBRATED_ON` that were measured. Raises ValueError where none was."""
    chosen = {name: f for name, f in found.items() if name in CALIBRATED_ON}
    if not chosen:
        raise ValueError(f"calibration: got {', '.join(found)}, expected at least one of {', '.join(CALIBRATED_ON)}")
    return chosen


def fit(known: Mapping[str, Predictions], gaussians: novelty.Gaussians | None) -> Fitted:
    """All that is fitted to the validation cells, from untempered predictions and uncalibrated novelty of the sets of
    `KNOWN`: probabilities to those of `CALIBRATED_ON`."""
    found = for_calibration(known)
    logits = np.concatenate([np.log(np.maximum(f.probabilities, 1e-12)) for f in found.values()])
    truth = np.concatenate([f.truth for f in found.values()])
    temperature = measures.fit_temperature(logits, truth, laboratory_weights(found, HOME_SHARE))
    fitted = Fitted(temperature, _fit_subclasses(found), _fit_attributes(found))
    if gaussians is None:
        return fitted
    distances = novelty.uncalibrated(np.concatenate([f.looks.novelty for f in known.values()]))
    calibration = novelty.calibrate(distances, laboratory_weights(known, 0.5), REFUSED)
    return dataclasses.replace(fitted, novelty=(gaussians, calibration))


def _fit_attributes(found: Mapping[str, Predictions]) -> tuple[float, ...]:
    """One temperature an attribute, 1 where no cell was looked at."""
    described = [f for f in found.values() if f.attributes is not None and f.looks.attribute_probabilities is not None]
    if not described:
        return Fitted.attribute_temperatures
    rows = np.concatenate([np.asarray(f.looks.attribute_probabilities) for f in described])
    truth = np.concatenate([np.asarray(f.attributes) for f in described])
    temperatures = []
    for columns, of_one in zip(attribute_columns(described[0].looks.attributes), truth.T, strict=True):
        is_known = of_one >= 0
        logits = np.log(np.maximum(rows[is_known][:, columns], 1e-12))
        temperatures.append(measures.fit_temperature(logits, of_one[is_known]) if is_known.any() else 1.0)
    return tuple(temperatures)


def _fit_subclasses(found: Mapping[str, Predictions]) -> float:
    """One temperature for all families: their cells side by side, logits of other families far below."""
    rows, truth = [], []
    for f in found.values():
        for cell, p in zip(f.cells, f.subclass_probabilities, strict=True):
            if cell.subclass is None:
                continue
            family = np.array([SUBCLASSES[s] == cell.cell_class for s in SUBCLASS_NAMES])
            rows.append(np.where(family, np.log(np.maximum(p, 1e-12)), -1e4))
            truth.append(SUBCLASS_NAMES.index(cell.subclass))
    return measures.fit_temperature(np.array(rows), np.array(truth)) if rows else 1.0


def choose_threshold(found: Mapping[str, Predictions], risk: float) -> float:
    """The lowest threshold, a whole hundredth, with at most `risk` of the cells above it wrong, home and other
    laboratories weighing the same; at most 0.9."""
    probabilities = np.concatenate([f.probabilities for f in found.values()])
    truth = np.concatenate([f.truth for f in found.values()])
    return measures.lowest_threshold(probabilities, truth, laboratory_weights(found, 0.5), risk)


def tempered(found: Mapping[str, Predictions], temperature: float) -> dict[str, Predictions]:
    """Untempered predictions as they are with a temperature; pooled looks are tempered as their parts are."""
    out = {}
    for name, f in found.items():
        p = measures.softmax(np.log(np.maximum(f.probabilities, 1e-12)), temperature).astype(np.float32)
        out[name] = Predictions(f.cells, dataclasses.replace(f.looks, probabilities=p))
    return out
