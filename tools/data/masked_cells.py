"""Cells with masks as a segmenter in training sees them: crops, and how they change from epoch to epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from engines.geometry import crop_squares
from tools.data import TRAIN
from tools.data.augment import Augmentation, degrade, relight
from tools.data.masks import WHOLE_CELLS, cell_box, crop_mask, masked_pictures

STRETCH = 0.05
"""Of crops: deviation of the axes' scales."""
BENDS = 5
"""Points along a side that bending moves."""
ALIKE = 20
"""Two pictures are of one light where their lighter parts differ by less than so many grey levels in each channel."""


@dataclass(frozen=True)
class Changes:
    """How crops change from epoch to epoch."""

    zoom: tuple[float, float] = (0.75, 1.4)
    """Factor of the margin: how loose a box may be."""
    shift: float = 0.1
    """The centre's move, at most, in the cell's longer side."""
    bend: float = 0.0
    """Deviation of a smooth field of moves, in the crop's side; 0: nothing is bent."""
    swap: float = 0.0
    """Share of crops whose surroundings, other cells' neighbours, come from another training cell of one light."""
    light: Augmentation = field(default_factory=lambda: Augmentation(cut_share=0.0))
    """Light, focus and detector's noise; no cut cell, whose mask would have to be cut with it."""


@dataclass(frozen=True, eq=False)
class MaskedCells:
    """n cells: images uint8 (n, px, px, 3) BGR, masks uint8 (n, px, px) of the labels of `CLASSES`, or those of
    `WHOLE_CELLS` of background and `CELL`, the laboratory and the part of each. Where they are crops, `wide` are the
    images and masks of twice the side around the same middles, at the same scale."""

    images: np.ndarray
    masks: np.ndarray
    laboratories: list[str]
    parts: list[str]
    margin: float | None = None
    wide: tuple[np.ndarray, np.ndarray] | None = None
    changes: Changes = field(default_factory=Changes)

    def select(self, part: str) -> np.ndarray:
        """Indices of the cells of one part."""
        return np.flatnonzero(np.array(self.parts) == part)

    @property
    def whole(self) -> np.ndarray:
        """bool (n,): the cells whose masks do not part nucleus from cytoplasm."""
        return np.array([name == WHOLE_CELLS for name in self.laboratories], bool)


def load_cells(
    root: Path, input_px: int, seed: int, margin: float | None = None, sets: Sequence[str] = ("wbc_masks",)
) -> MaskedCells:
    """All cells of some of `MASK_SETS`: whole pictures resized to squares, or with `margin` the square around each
    cell, its side `margin` times the longer side of the cell's box."""
    pictures = masked_pictures(root, sets, seed)
    images, masks = [], []
    for picture in pictures:
        image, mask = picture.read()
        if margin is None:
            images.append(cv2.resize(image, (input_px, input_px), interpolation=cv2.INTER_AREA))
            masks.append(cv2.resize(mask, (input_px, input_px), interpolation=cv2.INTER_NEAREST))
        else:
            box = cell_box(mask)
            images.append(crop_squares(image, box, (2 * input_px, 2 * input_px), 2 * margin)[0])
            masks.append(crop_mask(mask, box[0], 2 * input_px, 2 * margin))
    laboratories = [picture.laboratory for picture in pictures]
    parts = [picture.part for picture in pictures]
    whole = np.stack(images), np.stack(masks)
    if margin is None:
        return MaskedCells(*whole, laboratories, parts)
    middle = slice(input_px // 2, input_px // 2 + input_px)
    return MaskedCells(
        whole[0][:, middle, middle], whole[1][:, middle, middle], laboratories, parts, margin=margin, wide=whole
    )


def batch_of(cells: MaskedCells, chosen: np.ndarray, rng: np.random.Generator | None) -> tuple[Tensor, Tensor]:
    """float32 (n, 3, px, px) in 0..1 and int64 (n, px, px). With `rng` augmented: whole pictures are turned by quarters
    and mirrored; crops are turned, mirrored, moved, zoomed and stretched, and their light and focus change."""
    images, masks = cells.images[chosen], cells.masks[chosen]
    if rng is not None and cells.wide is not None:
        images, masks = (np.stack(part) for part in zip(*(_looked_at(cells, i, rng) for i in chosen), strict=True))
        return relight(torch.from_numpy(images), rng, cells.changes.light), torch.from_numpy(masks).long()
    if rng is not None:
        turned = []
        for image, mask in zip(images, masks, strict=True):
            turns, mirrored = int(rng.integers(4)), rng.random() < 0.5
            image, mask = np.rot90(image, turns), np.rot90(mask, turns)
            turned.append((image[:, ::-1], mask[:, ::-1]) if mirrored else (image, mask))
        images, masks = (np.stack(part) for part in zip(*turned, strict=True))
    x = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
    return x, torch.from_numpy(np.ascontiguousarray(masks)).long()


def _looked_at(cells: MaskedCells, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A crop of a cell as a detector's box and a microscope might give it, and its mask."""
    light = cells.changes.light
    crop, truth, zoom = _turned(cells, index, rng)
    if cells.changes.swap and rng.random() < cells.changes.swap:
        own = [i for i in cells.select(TRAIN) if i != index and cells.laboratories[i] == cells.laboratories[index]]
        if own:
            other, occupied, _ = _turned(cells, int(rng.choice(own)), rng)
            crop = surrounded(crop, truth, other, occupied, rng)
    return degrade(crop, light.margin * zoom, rng, light), truth


def surrounded(
    crop: np.ndarray, truth: np.ndarray, other: np.ndarray, occupied: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The cell of a crop, and what lies up to a twentieth of the side around it, in the surroundings of another crop,
    uint8 (px, px, 3); the crop itself where their light differs. The other's cell stays out, the seam is soft."""
    plasma = (np.percentile(each.reshape(-1, 3), 80, axis=0) for each in (crop, other))
    if np.abs(np.subtract(*plasma)).max() >= ALIKE:
        return crop
    reach = int(rng.uniform(0, 0.05) * len(crop))
    kept = ((truth > 0) | (occupied > 0)).astype(np.uint8)
    wider = cv2.dilate(kept, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1,) * 2))
    share = np.maximum(cv2.GaussianBlur(wider.astype(np.float32), (0, 0), 0.8), truth > 0)[..., None]
    return np.asarray(np.rint(crop * share + other * (1 - share)), np.uint8)


def _turned(cells: MaskedCells, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
    """A crop of a cell turned, moved, zoomed, stretched and bent, its mask, and the factor of the margin."""
    assert cells.wide is not None
    assert cells.margin is not None
    image, mask = cells.wide[0][index], cells.wide[1][index]
    px = cells.images.shape[1]
    zoom = rng.uniform(*cells.changes.zoom)
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    stretch = np.exp(rng.normal(0, STRETCH, 2)) * (rng.choice((-1.0, 1.0)), 1.0)
    linear = turn @ np.diag(stretch) / zoom
    shift = cells.changes.shift
    centre = px - 0.5 + rng.uniform(-shift, shift, 2) * px / cells.margin
    back = np.linalg.inv(linear)
    y, x = np.mgrid[:px, :px] - (px - 1) / 2
    places = np.stack([x, y], -1) @ back.T + centre
    if cells.changes.bend:
        moves = rng.normal(0, cells.changes.bend * px, (BENDS, BENDS, 2))
        places += cv2.resize(moves, (px, px), interpolation=cv2.INTER_CUBIC)
    across, down = (np.ascontiguousarray(places[..., axis], np.float32) for axis in (0, 1))
    crop = cv2.remap(image, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    truth = cv2.remap(mask, across, down, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
    return np.asarray(crop), np.asarray(truth), zoom


def drawn(cells: MaskedCells, rng: np.random.Generator) -> np.ndarray:
    """As many indices of training cells as there are, equally many of each laboratory; of small ones some twice."""
    chosen = cells.select(TRAIN)
    names = sorted({cells.laboratories[i] for i in chosen})
    share = -(-len(chosen) // len(names))
    parts = []
    for name in names:
        own = np.array([i for i in chosen if cells.laboratories[i] == name])
        parts.append(np.concatenate([rng.permutation(own) for _ in range(-(-share // len(own)))])[:share])
    return rng.permutation(np.concatenate(parts))
