"""Cells of the five types, as the published classifiers are taught and measured by them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from engines.geometry import crop_squares
from tools.architectures.published import CLASSES
from tools.data.augment import Augmentation, make_batch
from tools.data.crops import StoredCells, mirrored_looks
from tools.data.protocols import Protocol, published_split
from tools.data.splits import build_groups


class Cells:
    """The typed cells of some sets with their parts; crops of `margin` times the box, or the whole picture at 0."""

    def __init__(self, stored: StoredCells, sets: Sequence[str], margin: float, strength: float = 1.0) -> None:
        self.stored = stored
        self.margin = margin
        self.augmentation = Augmentation(margin=margin or 1.3).weakened(strength)
        wanted = [i for i, c in enumerate(stored.cells) if c.dataset in sets and c.cell_class in CLASSES]
        if not wanted:
            raise ValueError(f"--sets: got {', '.join(sets)}, expected sets with cells of the five types")
        self.indices = np.array(wanted)
        self.classes = [stored.cells[i].cell_class for i in wanted]
        self.keys = [stored.cells[i].key for i in wanted]
        self.parts = [stored.parts[i] for i in wanted]

    def pictures(self, chosen: np.ndarray, input_px: int, margin: float | None = None) -> np.ndarray:
        """uint8 (n, input_px, input_px, 3) BGR of the cells numbered `chosen`, unchanged; by another margin than the
        training's where one is given."""
        margin = self.margin if margin is None else margin
        out = np.empty((len(chosen), input_px, input_px, 3), np.uint8)
        for row, index in zip(out, self.indices[chosen], strict=True):
            square = self.stored.squares[index]
            side = float(square.shape[0])
            box = self.stored.boxes[index] if margin else np.array([0, 0, side, side], np.float32)
            row[:] = crop_squares(square, box[None], (input_px, input_px), margin or 1.0)[0]
        return out

    def looks(self, chosen: np.ndarray, input_px: int, margins: Sequence[float]) -> np.ndarray:
        """uint8 (n, k, input_px, input_px, 3) BGR, one look a margin as engines.models.classifier has them: the second
        is mirrored."""
        return mirrored_looks([self.pictures(chosen, input_px, margin) for margin in margins])

    def crops(self, chosen: np.ndarray, input_px: int) -> Tensor:
        """float32 (n, 3, input_px, input_px) in 0..1 of the cells numbered `chosen`, unchanged."""
        return as_input(self.pictures(chosen, input_px))

    def augmented(self, chosen: np.ndarray, input_px: int, rng: np.random.Generator) -> Tensor:
        """The same cells, cut and relit at random (tools.data.augment)."""
        squares, boxes = self.stored.squares, self.stored.boxes
        return make_batch(squares, boxes, self.indices[chosen], input_px, rng, self.augmentation).contiguous()

    def groups(self) -> list[str]:
        """The group of each cell: what shows the same picture or slide."""
        group_of = {key: group for group, keys in build_groups().items() for key in keys}
        return [group_of[key] for key in self.keys]

    def split(self, protocol: Protocol, repetition: int) -> list[str]:
        """The publication's random split of a repetition."""
        return published_split(self.classes, self.groups(), protocol.shares, repetition)


def as_input(pictures: np.ndarray) -> Tensor:
    """uint8 (n, h, w, 3) BGR -> float32 (n, 3, h, w) in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 255
