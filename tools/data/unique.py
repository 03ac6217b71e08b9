"""The looks at one cell of chula_wbc, found by where its frames lie, and fused as the stream fuses them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from engines.base import Classifications
from streamer.counting.fusion import Fusion
from streamer.counting.matching import cut_sides
from streamer.counting.slide_map import SlideConfig
from tools.data import CellPicture
from tools.data.splits import UnionFind

UNIQUE_CELLS = Path("chula_wbc", "unique_cells.json")
_SAME = 0.5
"""Centres of boxes nearer than this share of the smaller box's side are one cell."""
Place = Mapping[str, float]
"""{island, x_px, y_px} of a frame."""


def same_cells(boxes: Iterable[tuple[Sequence[float], Place | None]]) -> list[list[int]]:
    """Indices of the boxes (left, top, right, bottom in px of their frame) of every physical cell of one slide, in the
    order of first boxes, given where their frames lie; a box in a frame without a place is a cell of its own."""
    union: UnionFind[int] = UnionFind()
    placed: list[tuple[int, float, np.ndarray, float]] = []
    for number, (box_px, place) in enumerate(boxes):
        union.union(number, number)
        if place is None:
            continue
        box = np.asarray(box_px, np.float64)
        centre, side = (box[:2] + box[2:]) / 2 + (place["x_px"], place["y_px"]), float((box[2:] - box[:2]).mean())
        for other, island, at, its_side in placed:
            if island == place["island"] and np.hypot(*(centre - at)) < _SAME * min(side, its_side):
                union.union(number, other)
        placed.append((number, place["island"], centre, side))
    return sorted(sorted(members) for members in union.groups().values())


def looks_of_cells(cells: Sequence[CellPicture], root: Path) -> list[list[int]]:
    """Indices of the looks at every physical cell, in the order of first looks.

    Frames that `unique_cells.json` doesn't place overlap no other: each of their boxes is a cell.
    """
    slides = json.loads((root / UNIQUE_CELLS).read_text())
    of_slide: dict[str | None, list[int]] = defaultdict(list)
    for i, cell in enumerate(cells):
        of_slide[cell.slide].append(i)
    found: list[list[int]] = []
    for slide, members in of_slide.items():
        places = slides.get(slide, {"positions": {}})["positions"]
        groups = same_cells((cells[i].box_px, places.get(cells[i].path.name)) for i in members)
        found += [[members[number] for number in group] for group in groups]
    return sorted(found)


def fused(looks: Classifications, cells: Sequence[CellPicture], groups: Sequence[Sequence[int]]) -> Classifications:
    """One row a group: its looks, one a cell, pooled as the slide map does it, cut cells counting less."""
    slide = SlideConfig()
    fusion = Fusion(slide.fusion)
    rows = fusion.new_rows(len(groups))
    row_of = np.empty(len(cells), np.intp)
    for row, group in zip(rows, groups, strict=True):
        row_of[list(group)] = row
    weights = np.array([slide.cut_weight if _is_cut(c, slide.sight.cut_share) else 1.0 for c in cells], np.float32)
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
