"""How far a crop is from all training cells: a Gaussian around each class, with one covariance, in feature space.

The features are the channel means of three early feature maps, not what the heads see: the last layers have learnt to
see cells in everything, so that there junk lies among the cells (docs/models.md has the measurements).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from engines.geometry import crop_squares
from tools.architectures.mobilenetv3 import MobileNetV3Small
from tools.data import TRAIN
from tools.data.augment import Augmentation, make_batch
from tools.data.crops import StoredCells, class_crop
from tools.data.simulated import NAME as SIMULATED
from tools.data.simulated import with_simulated
from tools.train import loop
from tools.train.eight_types import HOME, Plan, load_network

RIDGE = 0.03
"""Added to the covariance of features of spread 1: directions in which training cells never differ count little."""
AT_THRESHOLD = 0.99
"""The novelty of a crop at the threshold, by calibration; that of the median validation cell is one half."""

SHARES = {"pbc": 0.5, "chula_wbc": 0.2, "bccd": 0.15, "wbc_masks": 0.1, "simulated": 0.05}
"""What each laboratory's cells weigh where novelty is fitted; without weights everything but pbc would be novel."""
HOME_CELLS = 2400
"""Cells of pbc that novelty is fitted on; of the other laboratories all."""
SIMULATED_FIELDS = 60
"""The most simulated fields whose cells it is fitted on, where the network was trained on such."""
WAYS = {"plain": 0.6, "changed": 0.3, "whole": 0.1}
"""What the ways in which cells are looked at weigh."""


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

    white: Tensor
    offset: Tensor
    means: Tensor

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
def fit_network(checkpoint: Path, stored: StoredCells, margins: Sequence[float]) -> Gaussians:
    """Of the cells that trained a network: as the stream looks at them, `margins` times their boxes, the second look
    mirrored (six tenths), changed as in training (three tenths), and as whole pictures of pbc."""
    network, plan, _ = load_network(checkpoint)
    rng = loop.seed_everything(0, 0)
    pools = [stored]
    if plan.simulated_fields:
        pools.append(with_simulated(_emptied(stored), min(plan.simulated_fields, SIMULATED_FIELDS), plan.seed))
    parts = [part for pool in pools for part in _features(network, plan, pool, margins, rng)]
    if not parts:
        raise ValueError(f"training cells: got none of {', '.join(SHARES)}, expected some to tell novel ones by")
    weights = np.empty(sum(len(part.classes) for part in parts))
    ways = np.concatenate([np.full(len(part.classes), part.way) for part in parts])
    names = np.concatenate([part.laboratories for part in parts])
    for way, share in WAYS.items():
        seen = ways == way
        shares = SHARES if way == "plain" else {}
        weights[seen] = share * (weights_of(names[seen].tolist(), shares) if shares else 1 / max(1, int(seen.sum())))
    features = np.concatenate([part.features for part in parts])
    return fit(features, np.concatenate([part.classes for part in parts]), weights)


@dataclass(frozen=True)
class _Part:
    """n training cells seen in one way: features float32 (n, d), classes int64 (n,), laboratories (n,) text."""

    way: str
    features: np.ndarray
    classes: np.ndarray
    laboratories: np.ndarray


def _emptied(stored: StoredCells) -> StoredCells:
    none = slice(0, 0)
    return replace(
        stored,
        squares=stored.squares[none],
        boxes=stored.boxes[none],
        classes=stored.classes[none],
        subclasses=stored.subclasses[none],
        attributes=stored.attributes[none],
        cells=[],
        parts=[],
    )


def _features(
    network: MobileNetV3Small, plan: Plan, pool: StoredCells, margins: Sequence[float], rng: np.random.Generator
) -> list[_Part]:
    names = np.array([cell.dataset for cell in pool.cells])
    inside = pool.select(TRAIN)
    inside = inside[np.isin(names[inside], list(SHARES))]
    home = rng.permutation(inside[names[inside] == HOME])[:HOME_CELLS]
    plain = np.concatenate([inside[names[inside] != HOME], home])
    if not len(plain):
        return []
    changed = rng.choice(plain, min(len(plain), HOME_CELLS))
    augmentation = Augmentation(margin=plan.margin)

    def plainly(cells: np.ndarray) -> Tensor:
        looks = [_crop(pool, i, plan.input_px, margins[place % len(margins)]) for place, i in enumerate(cells)]
        return as_input([look[:, ::-1] if place % len(margins) else look for place, look in enumerate(looks)])

    def wholly(cells: np.ndarray) -> Tensor:
        return as_input([class_crop(pool.cells[i], plan.input_px, 1.0, whole=True) for i in cells])

    def as_input(looks: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack(looks)).permute(0, 3, 1, 2).float() / 255

    def changedly(cells: np.ndarray) -> Tensor:
        return make_batch(pool.squares, pool.boxes, cells, plan.input_px, rng, augmentation)

    parts = []
    for way, cells, look in (("plain", plain, plainly), ("whole", home[::3], wholly), ("changed", changed, changedly)):
        found = []
        for start in loop.progress(range(0, len(cells), 64), -(-len(cells) // 64), f"novelty, {way}"):
            means = network.describe_at(look(cells[start : start + 64]))[1]
            found.append(torch.cat(means, 1).numpy())
        if found:
            parts.append(_Part(way, np.concatenate(found), pool.classes[cells], names[cells]))
    return parts


def _crop(pool: StoredCells, i: int, input_px: int, margin: float) -> np.ndarray:
    """Of the picture itself; simulated cells have none but their square."""
    if pool.cells[i].dataset != SIMULATED:
        return class_crop(pool.cells[i], input_px, margin)
    return np.asarray(crop_squares(pool.squares[i], pool.boxes[i : i + 1], (input_px, input_px), margin)[0])
