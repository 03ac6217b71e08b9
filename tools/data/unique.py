"""The looks at one cell of chula_wbc, found by where its frames lie, and fused as the stream fuses them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from engines.base import Classifications
from streamer.counting.fusion import Fusion
from streamer.counting.matching import cut_sides
from streamer.counting.slide_map import SlideConfig
from tools.data import CellPicture

UNIQUE_CELLS = Path("chula_wbc", "unique_cells.json")
_SAME = 0.5
"""Centres of boxes nearer than this share of the longer side are one cell."""


def looks_of_cells(cells: Sequence[CellPicture], root: Path) -> list[list[int]]:
    """Indices of the looks at every physical cell, in the order of first looks.

    Frames that `unique_cells.json` doesn't place overlap no other: each of their boxes is a cell.
    """
    slides = json.loads((root / UNIQUE_CELLS).read_text())
    found: list[list[int]] = []
    placed: dict[tuple[str, int], list[tuple[np.ndarray, list[int]]]] = defaultdict(list)
    for i, cell in enumerate(cells):
        position = slides.get(cell.slide, {"positions": {}})["positions"].get(cell.path.name)
        if position is None:
            found.append([i])
            continue
        box = np.array(cell.box_px)
        centre = (box[:2] + box[2:]) / 2 + (position["x_px"], position["y_px"])
        reach = _SAME * (box[2:] - box[:2]).max()
        island = placed[str(cell.slide), int(position["island"])]
        looks = next((looks for place, looks in island if np.linalg.norm(place - centre) < reach), None)
        if looks is None:
            looks = []
            found.append(looks)
            island.append((centre, looks))
        looks.append(i)
    return found


def fused(looks: Classifications, cells: Sequence[CellPicture], groups: Sequence[Sequence[int]]) -> Classifications:
    """One row a group: its looks, one a cell, pooled as the slide map does it, cut cells counting less."""
    slide = SlideConfig()
    fusion = Fusion(slide.fusion)
    rows = fusion.new_rows(len(groups))
    row_of = np.empty(len(cells), np.intp)
    for row, group in zip(rows, groups, strict=True):
        row_of[list(group)] = row
    weights = np.array([slide.cut_weight if _is_cut(c, slide.cut_share) else 1.0 for c in cells], np.float32)
    fusion.add(row_of, looks, weights)
    return replace(
        looks,
        probabilities=fusion.probabilities(rows),
        subclass_probabilities=fusion.subclass_probabilities(rows),
        attribute_probabilities=fusion.attribute_probabilities(rows) if looks.attributes else None,
        novelty=None if looks.novelty is None else fusion.novelty(rows),
    )


def _is_cut(cell: CellPicture, cut_share: float) -> bool:
    edge_px = cut_share * max(cell.width_px, cell.height_px)
    return bool(cut_sides(np.array([cell.box_px], np.float32), cell.width_px, cell.height_px, edge_px).any())
