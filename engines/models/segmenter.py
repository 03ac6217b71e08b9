"""Crops of cells -> masks of nucleus and cytoplasm -> measures of each cell."""

from __future__ import annotations

import numpy as np

from engines.base import CardError, Engine, ModelFormatError
from engines.geometry import Boxes, Image, crop_squares, square_around
from engines.graphs.graph import INPUT
from engines.models.shape import Mask, Shape, measure
from engines.zoo.card import Card
from engines.zoo.crops import CropInput, even_batches, filled

LABELS = "labels"
CLASSES = ("background", "cytoplasm", "nucleus")
"""The classes of a segmenter's card, in the order of the labels."""

_LARGEST_BATCH = 16
"""Crops a call where the engine names no limit: the white cells of nearly any field, little memory."""


class Segmenter:
    """A segmenter with its card. Safe from several threads at once."""

    def __init__(self, card: Card, engine: Engine) -> None:
        """ModelFormatError or CardError unless `engine` is a segmenter of the card's size, of `CLASSES`."""
        if not isinstance(card.input, CropInput) or card.task != "segmenter":
            raise CardError(f"model {card.name!r}: got a {card.task}, expected a segmenter")
        if card.class_names != CLASSES:
            raise CardError(
                f"model {card.name!r}: classes: got {', '.join(card.class_names)}, expected {', '.join(CLASSES)}"
            )
        self.card = card
        self.engine = engine
        self._input = card.input
        self._size = card.input.size
        self._batch = engine.max_batch or _LARGEST_BATCH
        self._input.check(card.name, engine)
        _check_outputs(card, engine, self._size)

    @property
    def margin(self) -> float:
        """Side of a crop over the longer side of its box."""
        return self._input.crop_margin

    def crop(self, frame: Image, boxes_px: Boxes) -> Image:
        """(n,h,w,3) crops of the cells in boxes (n,4) of a frame uint8 (H,W,3) BGR, as the segmenter takes them."""
        return crop_squares(frame, boxes_px, self._size, self.margin, self._input.border)

    def segment(self, crops: Image) -> Mask:
        """Labels uint8 (n,h,w) of crops uint8 (n,h,w,3): places in `CLASSES`."""
        n = len(crops)
        labels = np.empty((n, *self._size), np.uint8)
        for part in even_batches(n, self._batch):
            outputs = self.engine.infer({INPUT: filled(crops[part], self.engine)})
            labels[part] = outputs[LABELS][: part.stop - part.start]
        if labels.size and labels.max() >= len(CLASSES):
            raise ModelFormatError(
                f"model {self.card.name!r}: {LABELS}: got the label {labels.max()}, expected 0 to {len(CLASSES) - 1}"
            )
        return labels

    def measure(self, frame: Image, boxes_px: Boxes) -> list[Shape]:
        """Measures of the cells in boxes (n,4) of a frame; areas in its pixels."""
        labels = self.segment(self.crop(frame, boxes_px))
        shapes = []
        for one, (x1, y1, x2, y2) in zip(labels, boxes_px.tolist(), strict=True):
            side = square_around((x1, y1, x2, y2), self.margin)[2]
            shapes.append(measure(one, side, (side / max(1.0, x2 - x1), side / max(1.0, y2 - y1))))
        return shapes

    def close(self) -> None:
        self.engine.close()


def _check_outputs(card: Card, engine: Engine, size: tuple[int, int]) -> None:
    outputs = [(spec.name, spec.dtype, len(spec.shape)) for spec in engine.outputs]
    if (LABELS, np.dtype(np.uint8), 3) not in outputs:
        got = ", ".join(f"{spec.name} {spec.dtype} {spec.shape}" for spec in engine.outputs)
        raise ModelFormatError(
            f"model {card.name!r}: outputs: got {got}, expected {LABELS} uint8 (N,{size[0]},{size[1]})"
        )
