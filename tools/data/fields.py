"""Fields: pictures with boxes as the detector's training takes them, decoded once and held in memory at training
scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np

CLASS_NAMES = ("WBC", "RBC", "platelet")
WBC, RBC, PLATELET = range(3)


@dataclass(frozen=True)
class Field:
    """One picture: where it is, what is labelled in it, and how large a red cell is.

    boxes_px: float32 (n,4), x1 y1 x2 y2 in pixels of the picture; classes: int64 (n,). complete: bool (classes,),
    true where every object of that class has a box; an object of another class may be anywhere. ignore_px: float32
    (m,4), places that teach nothing (an unclear object, a neighbour that nobody labelled). rbc_diameter_px: of a
    typical red cell, in pixels of the picture.
    """

    name: str
    source: str
    load: Callable[[], np.ndarray]
    boxes_px: np.ndarray
    classes: np.ndarray
    complete: np.ndarray
    rbc_diameter_px: float
    ignore_px: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))

    def scaled(self, factor: float) -> Field:
        """The same field as a picture `factor` times as large."""
        return replace(
            self,
            boxes_px=self.boxes_px * np.float32(factor),
            ignore_px=self.ignore_px * np.float32(factor),
            rbc_diameter_px=self.rbc_diameter_px * factor,
        )


def read_picture(path: Path) -> np.ndarray:
    """uint8 (H,W,3) BGR; OSError where the file is no readable image."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise OSError(f"{path}: got no picture, expected a readable image; check the data set")
    return picture


def typical_rbc_diameter(boxes_px: np.ndarray, classes: np.ndarray, width: int, height: int, fallback: float) -> float:
    """Median side of the red-cell boxes that no edge of the picture cuts; `fallback` where there are fewer than
    three."""
    red = boxes_px[classes == RBC]
    inside = (red[:, :2] > 2).all(1) & (red[:, 2] < width - 2) & (red[:, 3] < height - 2)
    red = red[inside]
    if len(red) < 3:
        return fallback
    return float(np.median(np.sqrt((red[:, 2:] - red[:, :2]).prod(1))))


class FieldPool:
    """Fields with their decoded pictures, reduced so that no red cell is larger than `largest_rbc_px`.

    Holds uint8 BGR pictures; `picture(i)` returns a view that callers must not write to.
    """

    def __init__(self, fields: Sequence[Field], largest_rbc_px: float):
        self.fields: list[Field] = []
        self._pictures: list[np.ndarray] = []
        for item in fields:
            picture = item.load()
            factor = min(1.0, largest_rbc_px / item.rbc_diameter_px)
            if factor < 0.9:
                picture = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
                item = item.scaled(factor)
            self.fields.append(item)
            self._pictures.append(np.ascontiguousarray(picture))

    def __len__(self) -> int:
        return len(self.fields)

    def picture(self, index: int) -> np.ndarray:
        """uint8 (H,W,3) of field `index`."""
        return self._pictures[index]

    @property
    def nbytes(self) -> int:
        """Memory held by the pictures."""
        return sum(picture.nbytes for picture in self._pictures)
