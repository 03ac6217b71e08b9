"""What a segmenter measured of the counted white cells: of every cell its best look so far.

A cell is segmented when it is first seen whole in a counted frame, and again when a look is better by a step of
`look_quality`, one to three times a cell as a rule. (Keeping the median of all looks was rejected: a cell under a
moving stage has some forty, of which the blurred ones and those beside the edge are the worse measured.) Which look is
the best depends on the looks alone and not on their order, so that a resumed run keeps the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from statistics import median

import numpy as np
import numpy.typing as npt

from engines.geometry import square_around
from engines.models.segmenter import Segmenter
from streamer.counting.matching import MAYBE_CUT_SHARE, cut_sides
from streamer.records import Cell, CellId, CellShape, Detections, Frame, MeasuredLook, Observation

STEP = 0.1
"""A look has to be better by about so much to be segmented again."""
BEYOND_EDGE = 0.7
"""What a look counts whose surroundings the frame cuts, against one with all of them."""


def look_quality(score: float, focus: float, whole_square: bool) -> float:
    """0 to 1 in steps of STEP: how sure the detector is, times how sharp the frame (1 from a focus of 1)."""
    value = score * min(1.0, focus) * (1.0 if whole_square else BEYOND_EDGE)
    return round(math.floor(value / STEP + 1e-6) * STEP, 6)


class ShapeBook:
    """The best look at each cell, and what was measured on it."""

    def __init__(self) -> None:
        self._best: dict[CellId, MeasuredLook] = {}

    def __len__(self) -> int:
        return len(self._best)

    def of(self, cell_id: CellId) -> CellShape | None:
        """None: no look at it was segmented."""
        look = self._best.get(cell_id)
        return None if look is None else look.shape

    def quality(self, cell_id: CellId) -> float:
        """Of the best look; below any where there is none."""
        look = self._best.get(cell_id)
        return -1.0 if look is None else look.quality

    def on(self, cells: Iterable[Cell]) -> Iterator[Cell]:
        """These cells with what was measured of them."""
        for cell in cells:
            shape = self.of(cell.cell_id)
            yield cell if shape is None else replace(cell, shape=shape)

    def add(self, look: MeasuredLook) -> None:
        """Keep a look where it is the better one, of equals the earlier one."""
        known = self._best.get(look.cell_id)
        if known is None or _rank(look) > _rank(known):
            self._best[look.cell_id] = look

    def add_all(self, looks: Iterable[MeasuredLook]) -> None:
        for look in looks:
            self.add(look)

    def join(self, joined: Iterable[tuple[CellId, CellId | None]]) -> list[CellId]:
        """(number, number of the cell that it turned out to be): that one has the looks of both. Returns those cells
        that are measured otherwise now."""
        changed = []
        for gone, kept in joined:
            look = self._best.pop(gone, None) if kept is not None else None
            if look is None or kept is None:
                continue
            before = self._best.get(kept)
            self.add(MeasuredLook(kept, look.quality, look.shape))
            if self._best[kept] is not before:
                changed.append(kept)
        return changed

    def looks(self) -> tuple[MeasuredLook, ...]:
        """All that it knows, for another book to `add`."""
        return tuple(self._best.values())


def _rank(look: MeasuredLook) -> tuple[float, int]:
    return look.quality, -look.shape.frame_id


class ShapeMeter:
    """Segments the counted white cells of a frame that have no look as good yet."""

    def __init__(
        self,
        segmenter: Segmenter,
        um_per_px: float | None = None,
        um_per_px_for: Callable[[Frame], float | None] = lambda frame: None,
    ) -> None:
        """`um_per_px`: micrometres a pixel of the frames, where somebody gave it; None: as `um_per_px_for` says, and
        where that is None there are no areas in µm²."""
        self.segmenter = segmenter
        self._um_per_px = um_per_px
        self._um_per_px_for = um_per_px_for

    def measure(
        self,
        frame: Frame,
        focus: float | None,
        detections: Detections,
        observations: Sequence[Observation],
        cells: Mapping[CellId, Cell],
        book: ShapeBook,
    ) -> list[MeasuredLook]:
        """All of a frame in one batch. `cells`: the counted ones among `observations`, as they are now."""
        chosen: list[tuple[int, CellId, float]] = []
        for row in clear_of_edges(detections.boxes_px, frame.width, frame.height).tolist():
            seen = observations[row]
            cell = cells.get(seen.cell_id) if seen.cell_id is not None and seen.counted else None
            if cell is None or cell.kind != "white" or detections.kinds[detections.labels[row]] != "white":
                continue
            inside = _is_inside(detections.boxes_px[row].tolist(), self.segmenter.margin, frame.image.shape)
            quality = look_quality(float(detections.scores[row]), 1.0 if focus is None else focus, inside)
            if quality > book.quality(cell.cell_id) and all(cell.cell_id != known for _, known, _ in chosen):
                chosen.append((row, cell.cell_id, quality))
        if not chosen:
            return []
        um_per_px = self._um_per_px or self._um_per_px_for(frame)
        shapes = self.segmenter.measure(frame.image, detections.boxes_px[[row for row, _, _ in chosen]])
        return [
            MeasuredLook(
                cell_id,
                quality,
                CellShape(
                    frame_id=frame.frame_id,
                    nucleus_area_um2=_in_um2(shape.nucleus_area_px, um_per_px),
                    cytoplasm_area_um2=_in_um2(shape.cytoplasm_area_px, um_per_px),
                    nucleus_to_cytoplasm_ratio=shape.nucleus_to_cytoplasm_ratio,
                    **asdict(shape),
                ),
            )
            for (_, cell_id, quality), shape in zip(chosen, shapes, strict=True)
        ]


def _in_um2(area_px: float | None, um_per_px: float | None) -> float | None:
    return None if area_px is None or um_per_px is None else area_px * um_per_px * um_per_px


def clear_of_edges(boxes_px: npt.NDArray[np.float32], width: int, height: int) -> npt.NDArray[np.intp]:
    """Rows of the boxes (n,4) that show whole cells of a frame."""
    return np.flatnonzero(~cut_sides(boxes_px, width, height, MAYBE_CUT_SHARE * max(width, height)).any(1))


def _is_inside(box_px: Sequence[float], margin: float, size: Sequence[int]) -> bool:
    left, top, side = square_around(box_px, margin)
    return left >= 0 and top >= 0 and left + side <= size[1] and top + side <= size[0]


def summary(cells: Iterable[Cell]) -> str:
    """One line: how many cells were measured, and the median nucleus-to-cytoplasm ratio and lobes by class."""
    white = [cell for cell in cells if cell.kind == "white"]
    by_class: dict[str, list[CellShape]] = {}
    for cell in white:
        if cell.shape is not None and cell.shape.nucleus_area_px is not None:
            by_class.setdefault(cell.class_name, []).append(cell.shape)
    medians_of = []
    for name, shapes in sorted(by_class.items(), key=lambda pair: -len(pair[1])):
        ratios = [one.nucleus_to_cytoplasm_ratio for one in shapes if one.nucleus_to_cytoplasm_ratio is not None]
        lobes = [one.nuclear_lobes for one in shapes if one.nuclear_lobes is not None]
        ratio = f"{median(ratios):.2f}" if ratios else "not measured"
        medians_of.append(f"{name} {ratio}, {median(lobes):g}")
    count = sum(map(len, by_class.values()))
    medians = f"; median nucleus-to-cytoplasm ratio and lobes: {'; '.join(medians_of)}" if medians_of else ""
    return f"shapes: nucleus measured in {count} of {len(white)} white cells{medians}"
