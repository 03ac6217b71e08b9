"""Crops -> classes, and where on each crop the evidence for a class lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from engines.base import Classifications, Engine, ModelFormatError
from engines.geometry import Boxes, Image, square_around
from engines.graphs.gradcam import CAM
from engines.models.classifier import Classifier
from engines.zoo.card import Card

Map = npt.NDArray[np.float32]
"""(H, W) in pixels of a picture, 0 to 1: the largest evidence is 1, unless there is none."""


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """One cell: its class probabilities, the class that is explained, and where the evidence for it lies."""

    looks: Classifications
    """One row."""
    class_index: int
    square_px: tuple[int, int, int]
    """(left, top, side) of what was looked at, in pixels of the picture; parts of it may lie outside."""
    map: Map
    """(side, side) of that square."""


@dataclass(frozen=True, slots=True, eq=False)
class CellMaps:
    """Grad-CAM of every class on each of k looks at n cells, as small as the network makes it."""

    values: npt.NDArray[np.float32]
    """(n, k, classes, h, w)"""
    probabilities: npt.NDArray[np.float32]
    """(n, k, classes)"""
    margins: tuple[float, ...]
    """Side of each look's square over the longer side of the box."""
    mirrored: tuple[bool, ...]

    def __getitem__(self, rows: slice) -> CellMaps:
        """Some of the cells, as views."""
        return replace(self, values=self.values[rows], probabilities=self.probabilities[rows])

    def of(self, cell: int, class_index: int, box_px: Sequence[float]) -> tuple[tuple[int, int, int], Map]:
        """The map (h, w) of one class of one cell, 0 to 1, on the look that is surer of it, and the square (left, top,
        side) in px of the frame that it covers, for a cell whose box is `box_px`."""
        surer = int(self.probabilities[cell, :, class_index].argmax())
        values = self.values[cell, surer, class_index]
        return square_around(box_px, self.margins[surer]), _to_one(values[:, ::-1] if self.mirrored[surer] else values)


class Explainer:
    """A classifier whose engine gives Grad-CAM maps of every class."""

    def __init__(self, card: Card, engine: Engine) -> None:
        """ModelFormatError unless `engine` has the output `cam` for each of the card's classes."""
        self.classifier = Classifier(card, engine)
        found = [spec.shape for spec in engine.outputs if spec.name == CAM]
        if not found or found[0][1] != len(card.classes):
            got = ", ".join(f"{spec.name} {spec.shape}" for spec in engine.outputs)
            raise ModelFormatError(
                f"model {card.name!r}: outputs: got {got}, expected {CAM} (N,{len(card.classes)},h,w)"
            )

    @property
    def card(self) -> Card:
        return self.classifier.card

    def maps(self, crops: Image) -> tuple[Classifications, npt.NDArray[np.float32]]:
        """What the classifier says of crops uint8 (n,h,w,3) of its size, and their maps (n, classes, mh, mw)."""
        looks, outputs = self.classifier.classify_batch_with(crops, (CAM,))
        return looks, outputs[CAM]

    def look(self, crops: Image) -> tuple[Classifications, CellMaps]:
        """What the classifier says of cells in a frame, from k looks at each, uint8 (n,k,h,w,3), and all their maps."""
        n, k, *shape = crops.shape
        if not n:  # no run, so that nothing says how large the maps are
            none = np.zeros((0, k, len(self.card.classes), 1, 1), np.float32)
            return self.classifier.classify_batch(crops), CellMaps(none, none[..., 0, 0], self.classifier.margins, ())
        looks, maps = self.maps(crops.reshape(n * k, *shape))
        values = maps.reshape(n, k, *maps.shape[1:])
        probabilities = looks.probabilities.reshape(n, k, looks.probabilities.shape[1])
        mirrored = tuple(self.classifier.is_mirrored(look) for look in range(k))
        return looks.pooled(k), CellMaps(values, probabilities, self.classifier.margins, mirrored)

    def explain_cell(self, picture: Image, class_index: int | None = None) -> Evidence:
        """A picture of one cell, uint8 (H,W,3) BGR, looked at as `Classifier.classify_crops` does, whole and its
        middle; the map is that of the look that is surer of the class. `class_index`: of the class to explain, None
        for the likeliest."""
        whole = [0.0, 0.0, float(picture.shape[1]), float(picture.shape[0])]
        crops = self.classifier.crop_pictures([picture])[0]
        return self._surer(crops, whole, self.classifier.shares, class_index)

    def explain_boxes(self, frame: Image, boxes_px: Boxes, class_index: int | None = None) -> list[Evidence]:
        """The cells in boxes (n,4) of a frame uint8 (H,W,3) BGR, one result a box."""
        crops = self.classifier.crop(frame, boxes_px)
        return [
            self._surer(looks, box, self.classifier.margins, class_index)
            for looks, box in zip(crops, boxes_px.tolist(), strict=True)
        ]

    def _surer(
        self, crops: Image, box_px: Sequence[float], margins: Sequence[float], class_index: int | None
    ) -> Evidence:
        """Of the looks (k,h,w,3) at a cell, each `margins` times its box, the map of the one that is surer."""
        looks, maps = self.maps(crops)
        together = looks.pooled()
        chosen = int(together.probabilities[0].argmax()) if class_index is None else class_index
        surer = int(looks.probabilities[:, chosen].argmax())
        values = maps[surer, chosen]
        if self.classifier.is_mirrored(surer):
            values = values[:, ::-1]
        return _evidence(together, chosen, square_around(box_px, margins[surer]), values)


def _evidence(looks: Classifications, chosen: int, square: tuple[int, int, int], values: Map) -> Evidence:
    resized = cv2.resize(values, (square[2], square[2]), interpolation=cv2.INTER_LINEAR)
    return Evidence(looks, chosen, square, _to_one(resized))


def _to_one(values: npt.NDArray[Any]) -> Map:
    """Over its largest value, unless that is zero."""
    largest = float(values.max())
    return np.asarray(values / largest if largest > 0 else values, np.float32)


COLOURS = cv2.COLORMAP_TURBO


def overlay(picture: Image, evidence: Sequence[Evidence], *, opacity: float = 0.55) -> Image:
    """A copy of the picture with each cell's map laid over it: the stronger the evidence, the more colour."""
    height, width = picture.shape[:2]
    strength = np.zeros((height, width), np.float32)
    for cell in evidence:
        left, top, side = cell.square_px
        x1, y1, x2, y2 = max(0, left), max(0, top), min(width, left + side), min(height, top + side)
        if x1 < x2 and y1 < y2:
            part = cell.map[y1 - top : y2 - top, x1 - left : x2 - left]
            np.maximum(strength[y1:y2, x1:x2], part, out=strength[y1:y2, x1:x2])
    colours = cv2.applyColorMap((255 * strength).astype(np.uint8), COLOURS)
    share = (opacity * strength)[..., None]
    return np.asarray(np.rint(picture * (1 - share) + colours * share), np.uint8)
