"""What is drawn on a mosaic: the counted cells with their numbers, names of islands, a legend with a scale bar."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from engines.geometry import Image
from streamer.dashboard.palette import class_colour, in_order
from streamer.mosaic.scale import Scale

INK = (60, 52, 56)
PAPER = (255, 255, 255)
LEGEND_PX = 34
LABEL_FROM_PX = 14
"""Cells smaller than this in the picture get a ring in their colour and no letters."""
NUMBER_FROM_PX = 28
"""Cells smaller than this get no number: it would be longer than they are wide."""

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
    cell_id: int


def draw(canvas: Image, marks: Iterable[CellMark]) -> None:
    """Ring each cell in the colour of its class, with its letters and number beside it; thin rings for cells only seen
    cut."""
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
            number = f" {mark.cell_id}" if mark.side_px >= NUMBER_FROM_PX else ""
            _write(canvas, letters(mark.class_name) + number, at, size, colour, outlined=True)


def letters(class_name: str) -> str:
    """One to four letters for a class."""
    return _LETTERS.get(class_name) or "".join(word[0].upper() for word in class_name.split()[:3]) or "?"


def caption(canvas: Image, text: str, corner: tuple[int, int]) -> None:
    """Above a rectangle that begins at `corner`."""
    _write(canvas, text, (corner[0], corner[1] - 8), 0.5, INK)


def legend(width: int, title: str, counts: Mapping[str, int], scale: float, measure: Scale | None) -> Image:
    """(H, width, 3): what the picture is, how long a stretch of it is on the slide, and each class in its colour with
    its count. `scale`: pixels of the picture per pixel of the frames; `measure` of these, None: not known."""
    zoom = _zoom(width)
    row_px, margin, size = round(LEGEND_PX * zoom), round(16 * zoom), 0.55 * zoom
    entries = [(name, f"{letters(name)} {name} {counts[name]}") for name in in_order(list(counts))]
    rows: list[list[tuple[str, str]]] = [[]]
    x = margin
    for name, text in entries:
        length = round(34 * zoom) + _length(text, size)
        if rows[-1] and x + length > width:
            rows.append([])
            x = margin
        rows[-1].append((name, text))
        x += length
    first = 1 + (measure is not None)
    below = np.full((row_px * (first + len(rows)), width, 3), 255, np.uint8)
    _write(below, title, (margin, round(22 * zoom)), size, INK)
    if measure is not None:
        _scale_bar(below, (margin, row_px + round(14 * zoom)), measure, measure.um_per_px / scale, zoom)
    for place, row in enumerate(rows):
        x, y = margin, row_px * (first + place) + round(20 * zoom)
        for name, text in row:
            at = x + round(7 * zoom), y - round(5 * zoom)
            cv2.circle(below, at, round(7 * zoom), _bgr(class_colour(name)), -1, cv2.LINE_AA)
            _write(below, text, (x + round(20 * zoom), y), size, INK)
            x += round(34 * zoom) + _length(text, size)
    return below


def legend_height(counts: Sequence[str], width: int) -> int:
    """What `legend` may be high at most, for so many classes."""
    zoom = _zoom(width)
    return round(LEGEND_PX * zoom) * (3 + round(len(counts) * 220 * zoom) // max(width, round(220 * zoom)))


def _zoom(width: int) -> float:
    """Of the legend, so that it is read where a large picture is seen whole."""
    return min(4.0, max(1.0, width / 1500))


def _scale_bar(canvas: Image, at: tuple[int, int], measure: Scale, um_per_px: float, zoom: float) -> None:
    """The longest bar of 1, 2 or 5 times a power of ten µm that takes a fifth of the picture's width at most."""
    most_um = canvas.shape[1] / 5 * um_per_px
    power = 10.0 ** math.floor(math.log10(most_um))
    length_um = max(step * power for step in (1, 2, 5) if step * power <= most_um)
    x, y = at
    end, thick = x + round(length_um / um_per_px), max(2, round(3 * zoom))
    canvas[y - thick // 2 : y - thick // 2 + thick, x:end] = INK
    for tick in (x, end - thick):
        canvas[y - 3 * thick : y + 3 * thick, tick : tick + thick] = INK
    text = f"{length_um / 1000:g} mm" if length_um >= 1000 else f"{length_um:g} um"
    by_cells = " (red cells taken for 7.5 um)" if measure.ruler == "red cells" else ""
    _write(canvas, text + by_cells, (end + round(12 * zoom), y + round(6 * zoom)), 0.55 * zoom, INK)


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
