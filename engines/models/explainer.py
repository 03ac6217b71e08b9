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
from engines.zoo.crops import CropInput

Map = npt.NDArray[np.float32]
"""(H, W) in pixels of a picture, 0 to 1: the largest evidence is 1, unless there is none."""


@dataclass(frozen=True, slots=True, eq=False)
class EvidenceMap:
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
    input: CropInput
    """What the looks are."""
    rbc_px: float | None = None
    """Diameter of the red cells in px of the frame, None where it is not known."""

    def in_frame(self, rows: slice, rbc_px: float | None) -> CellMaps:
        """The cells of one frame, as views."""
        return replace(self, values=self.values[rows], probabilities=self.probabilities[rows], rbc_px=rbc_px)

    def of(self, cell: int, class_index: int, box_px: Sequence[float]) -> tuple[tuple[int, int, int], Map]:
        """The map (h, w) of one class of one cell, 0 to 1, on the look that is surer of it, and the square (left, top,
        side) in px of the frame that it covers, for a cell whose box is `box_px`."""
        surer = int(self.probabilities[cell, :, class_index].argmax())
        values = self.values[cell, surer, class_index]
        if self.input.is_mirrored(surer, self.rbc_px):
            values = values[:, ::-1]
        return _square(self.input, surer, box_px, self.rbc_px), _to_one(values)


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

    def turned_maps(self, crops: Image) -> tuple[Classifications, npt.NDArray[np.float32]]:
        """What `maps` gives, but for the maps: means over all ways in which the crops can be turned and mirrored, each
        turned back. A network prefers places by its padding, whatever they show: single maps of `efficientnet-lite0`
        lie to the lower right of every cell. That cancels out."""
        looks, total = self.maps(crops)
        ways = [(turns, mirrored) for mirrored in (False, True) for turns in range(4)][1:]
        if crops.shape[1] != crops.shape[2]:
            ways = [(turns, mirrored) for turns, mirrored in ways if turns % 2 == 0]
        for turns, mirrored in ways:
            changed = np.rot90(crops[:, :, ::-1] if mirrored else crops, turns, (1, 2))
            maps = np.rot90(self.maps(np.ascontiguousarray(changed))[1], -turns, (2, 3))
            total = total + (maps[..., ::-1] if mirrored else maps)
        return looks, total / np.float32(1 + len(ways))

    def look(self, crops: Image) -> tuple[Classifications, CellMaps]:
        """What the classifier says of cells in a frame, from k looks at each, uint8 (n,k,h,w,3), and all their maps."""
        n, k, *shape = crops.shape
        if not n:  # no run, so that nothing says how large the maps are
            none = np.zeros((0, k, len(self.card.classes), 1, 1), np.float32)
            return self.classifier.classify_batch(crops), CellMaps(none, none[..., 0, 0], self.classifier.input)
        looks, maps = self.maps(crops.reshape(n * k, *shape))
        values = maps.reshape(n, k, *maps.shape[1:])
        probabilities = looks.probabilities.reshape(n, k, looks.probabilities.shape[1])
        return looks.pooled(k), CellMaps(values, probabilities, self.classifier.input)

    def explain_cell(self, picture: Image, class_index: int | None = None, *, turned: bool = False) -> EvidenceMap:
        """A picture of one cell, uint8 (H,W,3) BGR, looked at as `Classifier.classify_crops` does, whole and its
        middle; the map is that of the look that is surer of the class. `class_index`: of the class to explain, None
        for the likeliest. `turned`: by `turned_maps`, in eight times the time."""
        whole = [0.0, 0.0, float(picture.shape[1]), float(picture.shape[0])]
        crops = self.classifier.crop_pictures([picture])[0]
        squares = [square_around(whole, share) for share in self.classifier.shares]
        return self._surer(crops, squares, None, class_index, turned)

    def explain_boxes(
        self,
        frame: Image,
        boxes_px: Boxes,
        class_index: int | None = None,
        rbc_px: float | None = None,
        *,
        turned: bool = False,
    ) -> list[EvidenceMap]:
        """The cells in boxes (n,4) of a frame uint8 (H,W,3) BGR, one result a box; `rbc_px` as for `Classifier`, the
        rest as for `explain_cell`."""
        crops, crop_input = self.classifier.crop(frame, boxes_px, rbc_px), self.classifier.input
        return [
            self._surer(
                looks,
                [_square(crop_input, look, box, rbc_px) for look in range(crop_input.looks)],
                rbc_px,
                class_index,
                turned,
            )
            for looks, box in zip(crops, boxes_px.tolist(), strict=True)
        ]

    def _surer(
        self,
        crops: Image,
        squares: Sequence[tuple[int, int, int]],
        rbc_px: float | None,
        class_index: int | None,
        turned: bool,
    ) -> EvidenceMap:
        """Of the looks (k,h,w,3) at a cell, each at one of `squares`, the map of the one that is surer."""
        looks, maps = self.turned_maps(crops) if turned else self.maps(crops)
        together = looks.pooled()
        chosen = int(together.probabilities[0].argmax()) if class_index is None else class_index
        surer = int(looks.probabilities[:, chosen].argmax())
        values = maps[surer, chosen]
        if self.classifier.input.is_mirrored(surer, rbc_px):
            values = values[:, ::-1]
        return _evidence(together, chosen, squares[surer], values)


def _square(crop_input: CropInput, look: int, box_px: Sequence[float], rbc_px: float | None) -> tuple[int, int, int]:
    squares, margin = crop_input.looked_at(look, np.array([box_px], np.float32), rbc_px)
    return square_around(squares[0].tolist(), margin)


def _evidence(looks: Classifications, chosen: int, square: tuple[int, int, int], values: Map) -> EvidenceMap:
    resized = cv2.resize(values, (square[2], square[2]), interpolation=cv2.INTER_LINEAR)
    return EvidenceMap(looks, chosen, square, _to_one(resized))


def _to_one(values: npt.NDArray[Any]) -> Map:
    """Over its largest value, unless that is zero."""
    largest = float(values.max())
    return np.asarray(values / largest if largest > 0 else values, np.float32)


def within(evidence: EvidenceMap, box_px: Sequence[float]) -> tuple[EvidenceMap, float | None]:
    """The evidence inside the ellipse of a cell's box (x1, y1, x2, y2), and the share of all of it that lay outside;
    None where there is none.

    Grad-CAM is as coarse as the network's last layer, and shows what moved the class, not what a cell is: heat beside
    the cell is context, or chance.
    """
    left, top, side = evidence.square_px
    x1, y1, x2, y2 = box_px
    centre_x, centre_y = (x1 + x2) / 2 - left - 0.5, (y1 + y2) / 2 - top - 0.5
    y, x = np.mgrid[:side, :side]
    radii = max((x2 - x1) / 2, 0.5), max((y2 - y1) / 2, 0.5)
    inside = ((x - centre_x) / radii[0]) ** 2 + ((y - centre_y) / radii[1]) ** 2 <= 1
    kept = np.where(inside, evidence.map, np.float32(0))
    total = float(evidence.map.sum())
    return replace(evidence, map=_to_one(kept)), 1 - float(kept.sum()) / total if total > 0 else None


COLOURS = cv2.COLORMAP_TURBO


def overlay(picture: Image, evidence: Sequence[EvidenceMap], *, opacity: float = 0.55) -> Image:
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
