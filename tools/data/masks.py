"""Cells with masks: reading them, cropping them as the stream does, figures of pixels.

`wbc_masks` labels nucleus and cytoplasm, `krd` only the whole cell (`CELL`).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from engines.geometry import square_around
from engines.models.segmenter import CLASSES
from tools.data.protocols import TEST, published_split
from tools.data.readers import read_cells
from tools.data.splits import HOLDOUT, UnionFind, hash_links, hash_signs, load_splits, read_grey

MASK_SETS = ("wbc_masks", "krd")
WHOLE_CELLS = "krd"
"""The set, and the laboratory, whose masks do not part nucleus from cytoplasm."""
CELL = len(CLASSES)
"""A label of true masks alone, which no network gives: cytoplasm or nucleus, the mask does not say which."""
SHARES = (0.7, 0.1, 0.2)
"""Of the training, validation and test part of wbc_masks."""
_LEVEL = 127
"""Of krd's masks, which have 0 and 255: what is brighter is cell."""


@dataclass(frozen=True, slots=True)
class MaskedPicture:
    """A picture of a cell, and the file of its mask. name: its path in its set; laboratory: "jtsc" or "cellavision" of
    wbc_masks, else the set; part: "train", "validation" or "test"."""

    name: str
    laboratory: str
    part: str
    image: Path
    mask: Path

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """The picture uint8 (h, w, 3) BGR and its mask uint8 (h, w) of `CLASSES` or, of `WHOLE_CELLS`, 0 and `CELL`.
        ValueError where they are none."""
        image = cv2.imread(str(self.image), cv2.IMREAD_COLOR)
        mask = cv2.imread(str(self.mask), cv2.IMREAD_GRAYSCALE)
        whole = self.laboratory == WHOLE_CELLS
        if mask is not None and whole:
            mask = largest_piece(mask)
        largest = CELL if whole else len(CLASSES) - 1
        if image is None or mask is None or mask.shape != image.shape[:2] or mask.max(initial=0) > largest:
            expected, name = ("0 and 255", WHOLE_CELLS) if whole else ("0, 1 and 2", "wbc_masks")
            raise ValueError(f"{self.name}: got no picture with a mask of {expected} of its size; fetch {name} again")
        return image, mask


def masked_pictures(root: Path, sets: Sequence[str], seed: int) -> list[MaskedPicture]:
    """Those of some of `MASK_SETS`, in their order. wbc_masks is split at random by `seed` (`masked_parts`), krd as for
    every other model (`load_splits`, which needs all sets), its holdout as "test". ValueError or OSError where data is
    missing."""
    readers = {"wbc_masks": lambda: _wbc_masks(root, seed), "krd": lambda: _krd(root)}
    return [picture for name in sets for picture in readers[name]()]


def _wbc_masks(root: Path, seed: int) -> Iterator[MaskedPicture]:
    folder = root / "wbc_masks"
    with open(folder / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row, part in zip(rows, masked_parts(root, rows, seed), strict=True):
        name = row["image"]
        yield MaskedPicture(name, name.split("/")[0], part, folder / name, folder / row["mask"])


def _krd(root: Path) -> Iterator[MaskedPicture]:
    """Fields without a mask, or with an empty one, have no cell to learn from and are left out."""
    parts = load_splits(root)
    for cell in read_cells(root, ("krd",)):
        mask = cell.path.with_suffix(".mask.png")
        if mask.is_file() and (read_grey(mask) > _LEVEL).any():
            part = TEST if parts[cell.key] == HOLDOUT else parts[cell.key]
            yield MaskedPicture(cell.key, WHOLE_CELLS, part, cell.path, mask)


def largest_piece(mask: np.ndarray) -> np.ndarray:
    """uint8 (h, w): `CELL` where the largest connected piece of a mask of 0 and 255 is, else 0; the rest is specks."""
    count, labels, pieces, _ = cv2.connectedComponentsWithStats((mask > _LEVEL).astype(np.uint8))
    if count == 1:
        return np.zeros_like(mask)
    largest = 1 + int(pieces[1:, cv2.CC_STAT_AREA].argmax())
    return np.where(labels == largest, CELL, 0).astype(np.uint8)


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


def figures(table: np.ndarray) -> dict[str, Any]:
    """Of a confusion table of pixels, true by predicted, whose rows are `CLASSES` and, where it has a fourth, `CELL`:
    global and mean accuracy, IoU by class, mean F1 of the classes; `mean_iou` of cytoplasm and nucleus,
    `mean_iou_of_three` with the background, weighted by the class's pixels; `cell_iou` of cytoplasm and nucleus taken
    together. Of a table with pixels of `CELL` only global accuracy and `cell_iou`, where either class is right."""
    found_cell, true_cell = table[:, 1:].sum(), table[1:].sum()
    hit = table[1:, 1:].sum()
    cell_iou = float(hit / max(found_cell + true_cell - hit, 1))
    if table[CELL:].any():
        return {"global_accuracy": float((table[0, 0] + hit) / table.sum()), "cell_iou": cell_iou}
    table = table[:CELL]
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
        "cell_iou": cell_iou,
    }
