"""The picture that `leukostream explain` makes: what was looked at, the same under its evidence, and words about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from engines.geometry import Image
from engines.models.explainer import COLOURS, EvidenceMap, overlay

LEAST_SHOWN_PX = 256
"""Pictures are enlarged to at least this height before anything is laid over them."""
LEAST_WIDTH_PX = 560
"""Of the sheet, so that its words have room."""
INK, PAPER = (60, 52, 56), 255
LINE_PX, MARGIN_PX, BAR_PX = 24, 8, 120
FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True, slots=True, eq=False)
class ShownCell:
    evidence: EvidenceMap
    box_px: tuple[float, float, float, float] | None
    """What is taken for the cell is the ellipse in it; None: nobody found it, and all heat is shown."""
    text: str
    """Class and probability."""
    outside_share: float | None
    """Of the heat; None: no heat, or no box."""


def sheet(picture: Image, cells: Sequence[ShownCell]) -> Image:
    """The picture, beside it the same under the evidence within its cells, a line or a mark a cell, and a legend."""
    factor = max(1, -(-LEAST_SHOWN_PX // picture.shape[0]))
    plain, heated = (_enlarged(one, factor) for one in (picture, overlay(picture, [cell.evidence for cell in cells])))
    numbers = [f"{number}  " if len(cells) > 1 else "" for number in range(1, len(cells) + 1)]
    for number, cell in zip(numbers, cells, strict=True):
        if cell.box_px is not None:
            _mark(heated, [factor * side for side in cell.box_px], number.strip())
    gap = np.full((len(plain), MARGIN_PX, 3), PAPER, np.uint8)
    pictures = np.concatenate([plain, gap, heated], axis=1)
    lines = [number + _words(cell) for number, cell in zip(numbers, cells, strict=True)]
    return _with_words(pictures, lines or ["no white cell found"])


def _words(cell: ShownCell) -> str:
    if cell.box_px is None:
        return f"{cell.text}; no cell found to hold the heat to"
    if cell.outside_share is None:
        return f"{cell.text}; no evidence anywhere"
    return f"{cell.text}; {100 * cell.outside_share:.0f} % of the heat lay outside of the cell, not shown"


def _enlarged(picture: Image, factor: int) -> Image:
    if factor == 1:
        return picture.copy()
    return np.asarray(cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC), np.uint8)


def _mark(canvas: Image, box_px: Sequence[float], number: str) -> None:
    x1, y1, x2, y2 = box_px
    centre, axes = (round((x1 + x2) / 2), round((y1 + y2) / 2)), (round((x2 - x1) / 2), round((y2 - y1) / 2))
    cv2.ellipse(canvas, centre, axes, 0, 0, 360, INK, 1, cv2.LINE_AA)
    if number:
        at = max(0, round(x1)), max(16, round(y1) - 4)
        for colour, thick in (((255, 255, 255), 4), (INK, 1)):
            cv2.putText(canvas, number, at, FONT, 0.6, colour, thick, cv2.LINE_AA)


def _with_words(pictures: Image, lines: Sequence[str]) -> Image:
    """Over a white strip with a line each, and what the colours mean."""
    width = max(LEAST_WIDTH_PX, pictures.shape[1])
    aside = np.full((pictures.shape[0], width - pictures.shape[1], 3), PAPER, np.uint8)
    words = np.full((LINE_PX * (len(lines) + 1) + MARGIN_PX, width, 3), PAPER, np.uint8)
    for row, line in enumerate(lines):
        _write(words, line, (MARGIN_PX, LINE_PX * (row + 1) - 6))
    baseline = LINE_PX * (len(lines) + 1) - 6
    ramp = cv2.applyColorMap(np.linspace(0, 255, BAR_PX, dtype=np.uint8)[None], COLOURS)
    _write(words, "evidence: none", (MARGIN_PX, baseline))
    left = MARGIN_PX + 128
    words[baseline - 11 : baseline + 1, left : left + BAR_PX] = ramp
    _write(words, "most of this cell. Research use only.", (left + BAR_PX + 8, baseline))
    return np.concatenate([np.concatenate([pictures, aside], axis=1), words])


def _write(canvas: Image, text: str, at: tuple[int, int]) -> None:
    plain = text.encode("ascii", "replace").decode()  # all that the font has
    cv2.putText(canvas, plain, at, FONT, 0.48, INK, 1, cv2.LINE_AA)
