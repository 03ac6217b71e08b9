"""What is drawn on a mosaic: the counted cells, names of islands, a legend."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from engines.geometry import Image
from streamer.dashboard.palette import class_colour, in_order

INK = (60, 52, 56)
PAPER = (255, 255, 255)
LEGEND_PX = 34
LABEL_FROM_PX = 14
"""Cells smaller than this in the picture get a ring in their colour and no letters."""

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_LETTERS = {
    "neutrophil": "N",
    "lymphocyte": "L",
    "monocyte": "M",
    "eosinophil": "E",
    "basophil": "B",
    "immature granulocyte": "IG",
    "erythroblast": "nRBC",
    "unclassified": "?",
}

Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class CellMark:
    """A cell in the picture."""

    x_px: float
    y_px: float
    side_px: float
    class_name: str
    partial: bool


def draw(canvas: Image, marks: Iterable[CellMark]) -> None:
    """Ring each cell in the colour of its class, with its letters beside it; thin rings for cells only seen cut."""
    for mark in marks:
        centre = round(mark.x_px), round(mark.y_px)
        radius = max(4, round(0.62 * mark.side_px))
        thick = 1 if mark.partial else max(2, round(radius / 26))
        colour = _bgr(class_colour(mark.class_name))
        cv2.circle(canvas, centre, radius, PAPER, thick + 2, cv2.LINE_AA)
        cv2.circle(canvas, centre, radius, colour, thick, cv2.LINE_AA)
        if mark.side_px >= LABEL_FROM_PX:
            size = float(np.clip(mark.side_px / 70, 0.4, 1.4))
            at = centre[0] + round(0.74 * radius), centre[1] - round(0.74 * radius)
            _write(canvas, letters(mark.class_name), at, size, colour, outlined=True)


def letters(class_name: str) -> str:
    """One to four letters for a class."""
    return _LETTERS.get(class_name) or "".join(word[0].upper() for word in class_name.split()[:3]) or "?"


def caption(canvas: Image, text: str, corner: tuple[int, int]) -> None:
    """Above a rectangle that begins at `corner`."""
    _write(canvas, text, (corner[0], corner[1] - 8), 0.5, INK)


def with_legend(canvas: Image, title: str, counts: dict[str, int]) -> Image:
    """The picture with two lines below it: what it is, and each class in its colour with its count."""
    width = canvas.shape[1]
    entries = [(name, f"{letters(name)} {name} {counts[name]}") for name in in_order(list(counts))]
    rows: list[list[tuple[str, str]]] = [[]]
    x = 16
    for name, text in entries:
        length = 34 + _length(text, 0.55)
        if rows[-1] and x + length > width:
            rows.append([])
            x = 16
        rows[-1].append((name, text))
        x += length
    below = np.full((LEGEND_PX * (1 + len(rows)), width, 3), 255, np.uint8)
    _write(below, title, (16, 22), 0.55, INK)
    for place, row in enumerate(rows):
        x, y = 16, LEGEND_PX * (1 + place) + 20
        for name, text in row:
            cv2.circle(below, (x + 7, y - 5), 7, _bgr(class_colour(name)), -1, cv2.LINE_AA)
            _write(below, text, (x + 20, y), 0.55, INK)
            x += 34 + _length(text, 0.55)
    return np.concatenate([canvas, below])


def legend_height(counts: Sequence[str], width: int) -> int:
    """What `with_legend` may add at most, for so many classes."""
    return LEGEND_PX * (2 + len(counts) * 220 // max(width, 220))


def _length(text: str, size: float) -> int:
    return int(cv2.getTextSize(text, _FONT, size, 1)[0][0])


def _write(
    canvas: Image, text: str, at: tuple[int, int], size: float, colour: Colour, *, outlined: bool = False
) -> None:
    plain = text.encode("ascii", "replace").decode()  # all that the font has
    thick = max(1, round(size * 1.4))
    if outlined:
        cv2.putText(canvas, plain, at, _FONT, size, PAPER, thick + 2, cv2.LINE_AA)
    cv2.putText(canvas, plain, at, _FONT, size, colour, thick, cv2.LINE_AA)


def _bgr(colour: str) -> Colour:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return blue, green, red
