"""The look of laboratories: how much light their cells and plasma let through, and how its colours vary together.

A cell of one laboratory takes on the colours of another by the linear map in optical density that carries mean and
covariance of crops of the first to those of the second (Monge-Kantorovitch, Pitié & Kokaram 2007). The other one needs
no typed cells: any white cell's box will do. Statistics are means over several cells on both sides, so that the map
is one of laboratories, and doesn't paint a lymphocyte as the eosinophil beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from engines.geometry import crop_squares
from tools.data import TRAIN, Field, blood_label, load_splits, read_fields

_LEAST_VARIANCE = 3e-4
"""Added to each channel's variance of optical density: what a channel doesn't show is not made up from its noise."""
_CELLS = 300
"""Cells of one laboratory at most."""
_MARGIN = 1.6
UNTYPED = "txl_pbc", "bcd"
"""Sets whose white cells carry no type. Of txl_pbc only the laboratory whose pictures are in no other set."""
_OWN_WIDTH_PX = 575


@dataclass(frozen=True)
class Appearances:
    """Means (n, 3) and covariances (n, 3, 3) of the optical density, B, G, R, of n crops of each laboratory."""

    means: Mapping[str, np.ndarray]
    covariances: Mapping[str, np.ndarray]

    def maps(self, laboratories: Sequence[str], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """For cells of the laboratories: matrices (n, 3, 3) and offsets (n, 3), density @ matrix + offset being that
        of a laboratory drawn at random, as far towards it as drawn at random too."""
        names = sorted(self.means)
        matrices, offsets = np.empty((len(laboratories), 3, 3)), np.empty((len(laboratories), 3))
        for i, name in enumerate(laboratories):
            mean, covariance = self._draw(name, rng)
            other, wanted = self._draw(names[int(rng.integers(len(names)))], rng)
            share = rng.uniform(0.3, 1.0)
            matrix = (1 - share) * np.eye(3) + share * colour_map(covariance, wanted)
            matrices[i] = matrix
            offsets[i] = (1 - share) * mean + share * other - mean @ matrix
        return matrices, offsets

    def _draw(self, name: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        chosen = rng.integers(len(self.means[name]), size=int(rng.integers(3, 9)))
        return self.means[name][chosen].mean(0), self.covariances[name][chosen].mean(0)


def colour_map(covariance: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The symmetric (3, 3) that turns colours of one covariance into those of another, to be multiplied from the
    right."""
    least = _LEAST_VARIANCE * np.eye(3)
    root = _square_root(covariance + least)
    inverse = np.linalg.inv(root)
    return np.asarray(inverse @ _square_root(root @ (wanted + least) @ root) @ inverse)


def _square_root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T)


def statistics(crop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (3,) and covariance (3, 3) of the optical density of a crop uint8 (h, w, 3)."""
    density = -np.log((crop.reshape(-1, 3).astype(np.float64) + 1) / 256)
    return density.mean(0), np.cov(density.T)


def gather(crops: Mapping[str, Sequence[np.ndarray]]) -> Appearances:
    """The appearances of crops by laboratory; a laboratory without crops is left out."""
    measured = {name: [statistics(c) for c in some] for name, some in crops.items() if len(some) > 0}
    return Appearances(
        {name: np.stack([m for m, _ in rows]) for name, rows in measured.items()},
        {name: np.stack([c for _, c in rows]) for name, rows in measured.items()},
    )


def typed_crops(squares: Sequence[np.ndarray], boxes: np.ndarray, names: np.ndarray) -> dict[str, list[np.ndarray]]:
    """Up to 300 crops 64 px wide of each named set, evenly taken from its cells."""
    crops: dict[str, list[np.ndarray]] = {}
    for name in sorted(set(names.tolist())):
        own = np.nonzero(names == name)[0]
        chosen = own[np.linspace(0, len(own) - 1, min(_CELLS, len(own))).astype(int)]
        crops[name] = [crop_squares(squares[i], boxes[i][None], (64, 64), _MARGIN)[0] for i in chosen]
    return crops


def untyped_crops(root: Path) -> dict[str, list[np.ndarray]]:
    """Crops of white cells without a type, by set, from pictures that train."""
    splits = load_splits(root)
    crops: dict[str, list[np.ndarray]] = {name: [] for name in UNTYPED}
    for field in read_fields(root, UNTYPED):
        boxes = _white_boxes(field)
        if splits[field.key] != TRAIN or not len(boxes) or len(crops[field.dataset]) >= _CELLS:
            continue
        if field.dataset == "txl_pbc" and field.width_px != _OWN_WIDTH_PX:
            continue
        image = np.asarray(cv2.imread(str(field.path), cv2.IMREAD_COLOR))
        crops[field.dataset].extend(crop_squares(image, boxes, (64, 64), _MARGIN))
    return crops


def _white_boxes(field: Field) -> np.ndarray:
    return np.array([b.box_px for b in field.boxes if blood_label(b.label) == "WBC"], np.float32).reshape(-1, 4)
