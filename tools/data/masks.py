"""Cells with masks of nucleus and cytoplasm: reading them, cropping them as the stream does, figures of pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from engines.geometry import square_around
from engines.models.segmenter import CLASSES
from tools.data.protocols import published_split
from tools.data.splits import UnionFind, hash_links, hash_signs, read_grey

SHARES = (0.7, 0.1, 0.2)
"""Of the training, validation and test part."""


def masked_parts(root: Path, rows: Sequence[Mapping[str, str]], seed: int) -> list[str]:
    """The part of each row of labels.csv, at random by laboratory and class; pictures that show one cell (their
    perceptual hashes say so: jtsc has four such pairs) are in one part. ValueError where a picture can't be decoded."""
    names = [row["image"] for row in rows]
    kinds = [f"{name.split('/')[0]} {row['class']}" for name, row in zip(names, rows, strict=True)]
    signs = np.stack([hash_signs(read_grey(root / "wbc_masks" / name)) for name in names])
    same: UnionFind[str] = UnionFind(names)
    for one, other in hash_links(names, signs):
        same.union(one, other)
    return published_split(kinds, [same.root(name) for name in names], SHARES, seed)


def cell_box(mask: np.ndarray) -> np.ndarray:
    """float32 (1, 4) box in px of a mask's nucleus and cytoplasm; the whole picture where it has none."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return np.array([[0, 0, mask.shape[1], mask.shape[0]]], np.float32)
    return np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], np.float32)


def crop_mask(mask: np.ndarray, box: np.ndarray, size: int, margin: float) -> np.ndarray:
    """uint8 (size, size): the labels that belong to `crop_squares` of the picture; background outside it."""
    left, top, side = square_around(box.tolist(), margin)
    steps = np.floor((np.arange(size) + 0.5) * side / size).astype(int)
    y, x = top + steps, left + steps
    out = np.zeros((size, size), np.uint8)
    rows, columns = (y >= 0) & (y < mask.shape[0]), (x >= 0) & (x < mask.shape[1])
    out[np.ix_(rows, columns)] = mask[np.ix_(y[rows], x[columns])]
    return out


def read_masked(root: Path, row: dict[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """Picture and mask of a row of labels.csv. ValueError where they are none."""
    image = cv2.imread(str(root / "wbc_masks" / row["image"]), cv2.IMREAD_COLOR)
    mask = cv2.imread(str(root / "wbc_masks" / row["mask"]), cv2.IMREAD_GRAYSCALE)
    if image is None or mask is None or mask.shape != image.shape[:2] or mask.max(initial=0) >= len(CLASSES):
        raise ValueError(f"{row['image']}: got no picture with a mask of 0, 1 and 2 of its size; fetch wbc_masks again")
    return image, mask


def figures(table: np.ndarray) -> dict[str, Any]:
    """Of a confusion table of pixels (true, predicted): global and mean accuracy, IoU by class, mean F1 of the classes;
    `mean_iou` of cytoplasm and nucleus, `mean_iou_of_three` with the background, weighted by the class's pixels."""
    hits, true, named = np.diag(table).astype(float), table.sum(1), table.sum(0)
    iou = hits / np.maximum(true + named - hits, 1)
    return {
        "global_accuracy": float(hits.sum() / table.sum()),
        "mean_accuracy": float((hits / np.maximum(true, 1)).mean()),
        "iou": dict(zip(CLASSES, iou.tolist(), strict=True)),
        "mean_iou": float(iou[1:].mean()),
        "mean_iou_of_three": float(iou.mean()),
        "weighted_iou": float((iou * true).sum() / true.sum()),
        "f1": float((2 * hits / np.maximum(true + named, 1)).mean()),
    }
