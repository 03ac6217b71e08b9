"""How far a crop is from all training cells: a Gaussian around each class, with one covariance, in feature space.

The features are the channel means of three early feature maps, not what the heads see: the last layers have learnt to
see cells in everything, so that there junk lies among the cells (docs/models.md has the measurements).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tools import training
from tools.classification.augment import Augmentation, make_batch
from tools.classification.crops import StoredCells, class_crop
from tools.datasets import TRAIN
from tools.train_classifier import HOME, load_network

RIDGE = 0.03
"""Added to the covariance of features of spread 1: directions in which training cells never differ count little."""
AT_THRESHOLD = 0.99
"""The novelty of a crop at the threshold, by calibration; that of the median validation cell is one half."""

SHARES = {"pbc": 0.5, "chula_wbc": 0.25, "bccd": 0.25}
"""What each laboratory's cells weigh where novelty is fitted; without weights everything but pbc would be novel."""
HOME_CELLS = 2400
"""Cells of pbc that novelty is fitted on; of the other laboratories all."""


@dataclass(frozen=True)
class Gaussians:
    """Fitted to d features: novelty grows with |white (features - means[c])|² / d of the nearest class c."""

    shift: np.ndarray
    """float64 (d,), subtracted first."""
    white: np.ndarray
    """float64 (d, d), multiplied from the right then: the classes have unit covariance after it."""
    means: np.ndarray
    """float64 (classes, d), after it."""

    def distances(self, features: np.ndarray) -> np.ndarray:
        """float64 (n,) of features (n, d): squared distance to the nearest class, over d: about 1 at home."""
        z = (features - self.shift) @ self.white
        squared = np.square(z[:, None] - self.means).mean(2)
        return np.asarray(squared.min(1))


def fit(features: np.ndarray, classes: np.ndarray, weights: np.ndarray) -> Gaussians:
    """Of features (n, d), their classes and weights (n,), which need not sum to one."""
    features, weights = features.astype(np.float64), weights / weights.sum()
    shift = weights @ features
    scale = np.sqrt(weights @ np.square(features - shift)) + 1e-3
    scaled = (features - shift) / scale
    present = np.unique(classes)
    means = np.stack([np.average(scaled[classes == c], axis=0, weights=weights[classes == c]) for c in present])
    around = scaled - means[np.searchsorted(present, classes)]
    covariance = (around * weights[:, None]).T @ around + RIDGE * np.eye(len(shift))
    white = np.linalg.inv(np.linalg.cholesky(covariance)).T
    return Gaussians(shift, white / scale[:, None], means @ white)


@dataclass(frozen=True)
class Calibration:
    """Novelty is the logistic function of slope * (log distance - centre)."""

    centre: float
    slope: float


def calibrate(distances: np.ndarray, weights: np.ndarray, refused: float) -> Calibration:
    """One half at the weighted median of validation cells; `AT_THRESHOLD` where just `refused` of their weight, or
    less, lies beyond."""
    order = np.argsort(distances)
    logs, reached = np.log(distances[order]), np.cumsum(weights[order]) / weights.sum()
    centre = float(logs[np.searchsorted(reached, 0.5)])
    border = float(logs[min(len(logs) - 1, int(np.searchsorted(reached, 1 - refused)))])
    return Calibration(centre, float(np.log(AT_THRESHOLD / (1 - AT_THRESHOLD)) / max(border - centre, 1e-6)))


def uncalibrated(novelty: np.ndarray) -> np.ndarray:
    """The distances that gave a novelty with centre 0 and slope 1."""
    sure = np.clip(novelty.astype(np.float64), 1e-9, 1 - 1e-7)
    return np.asarray(sure / (1 - sure))


class Novelty(nn.Module):
    """float32 (N, d) features -> (N,) novelty, in plain operators; within what float16 can hold for any picture."""

    def __init__(self, fitted: Gaussians, calibration: Calibration) -> None:
        super().__init__()
        root = np.sqrt(len(fitted.shift))  # taken out before the squares, which would else leave float16's range
        self.register_buffer("white", torch.from_numpy(fitted.white / root).float())
        self.register_buffer("offset", torch.from_numpy(fitted.shift @ fitted.white / root).float())
        self.register_buffer("means", torch.from_numpy(fitted.means / root).float()[None])
        self.centre, self.slope = calibration.centre, calibration.slope

    def forward(self, features: Tensor) -> Tensor:
        z = features @ self.white - self.offset
        distance = (z[:, None] - self.means).square().sum(2).amin(1)
        return torch.sigmoid(self.slope * (torch.log(distance + 1e-6) - self.centre))


def weights_of(laboratories: Sequence[str], shares: Mapping[str, float]) -> np.ndarray:
    """float64 (n,): the cells of each laboratory together weigh its share; those of unnamed ones nothing."""
    names = np.array(laboratories)
    weights = np.zeros(len(names))
    for name, share in shares.items():
        weights[names == name] = share / max(1, int((names == name).sum()))
    return weights


@torch.no_grad()
def fit_network(checkpoint: Path, stored: StoredCells) -> Gaussians:
    """Of training cells, as the detector crops them (six tenths), changed as in training (three tenths), and as whole
    pictures of pbc."""
    network, plan, _ = load_network(checkpoint)
    rng = training.seed_everything(0, 0)
    names = np.array([cell.dataset for cell in stored.cells])
    inside = stored.select(TRAIN)
    inside = inside[np.isin(names[inside], list(SHARES))]
    if not len(inside):
        raise ValueError(f"training cells: got none of {', '.join(SHARES)}, expected some to tell novel ones by")
    home = inside[names[inside] == HOME]
    home = rng.permutation(home)[:HOME_CELLS]
    plain = np.concatenate([inside[names[inside] != HOME], home])
    changed, whole = rng.choice(plain, min(len(plain), HOME_CELLS)), home[::3]

    def features(batch: Tensor) -> np.ndarray:
        return torch.cat(network.describe_at(batch)[1], 1).numpy()

    def crops(cells: np.ndarray, *, whole: bool) -> list[np.ndarray]:
        return [class_crop(stored.cells[i], plan.input_px, plan.margin, whole=whole) for i in cells]

    found = []
    for cells, is_whole in ((plain, False), (whole, True)):
        for start in training.progress(range(0, len(cells), 64), -(-len(cells) // 64), "novelty"):
            x = torch.from_numpy(np.stack(crops(cells[start : start + 64], whole=is_whole)))
            found.append(features(x.permute(0, 3, 1, 2).float() / 255))
    how = Augmentation(margin=plan.margin)
    for start in range(0, len(changed), 64):
        part = changed[start : start + 64]
        found.append(features(make_batch(stored.squares, stored.boxes, part, plan.input_px, rng, how)))
    weights = [0.6 * weights_of(names[plain].tolist(), SHARES)]
    weights += [np.full(len(whole), 0.1 / max(1, len(whole))), np.full(len(changed), 0.3 / max(1, len(changed)))]
    classes = stored.classes[np.concatenate([plain, whole, changed])]
    return fit(np.concatenate(found), classes, np.concatenate(weights))
