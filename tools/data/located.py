"""Cells as the stream would see them: boxed by the detector, at a magnification that is told by the red cells.

Labelled boxes are drawn tighter or wider than a detector's, a few sets have none, and none says how large a red cell
is. What a classifier is taught and measured with comes from here, so that no figure rests on a label's box.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from engines.base import Detections
from engines.geometry import Image, iou_matrix
from engines.models.detector import Detector
from engines.models.loading import load_detector
from engines.models.scale import long_side_for, measure_rbc_diameter
from tools.data.crops import read_image, set_name
from tools.data.readers import CellPicture
from tools.data.splits import cached

DETECTOR = "yolov5n-blood"
"""It has seen no picture of krd, deepapl and marrow."""
MEASURED = 24
"""Pictures of a laboratory at most whose red cells are measured together, where one picture shows few."""
OWN_SCALE = "krd"
"""A set of whole fields of several magnifications: each is measured by itself."""
_LEAST_OVERLAP = 0.3
_VERSION = 2


@dataclass(frozen=True, slots=True)
class LocatedCell:
    """A cell with the detector's box (`found`), or, where it saw none there, the set's own; `rbc_px` is the usual
    diameter of the red cells in px of the cell's picture, None where too few were seen."""

    cell: CellPicture
    found: bool
    rbc_px: float | None


def locate(cells: Sequence[CellPicture], detector: Detector | None = None) -> list[LocatedCell]:
    """The cells in their order, from the user's cache after the first time (some three minutes).

    ValueError for a picture that can't be decoded.
    """
    detector = load_detector(DETECTOR, backend="onnxruntime") if detector is None else detector
    told = [[cell.key, cell.box_px, cell.box_is_guess] for cell in cells]
    digest = hashlib.sha256(json.dumps([_VERSION, detector.card.sha256, told]).encode()).hexdigest()[:16]
    rows = cached(f"located-{digest}.json", lambda: _locate(cells, detector))
    return [
        LocatedCell(replace(cell, box_px=tuple(box)) if found else cell, found, rbc_px)
        for cell, (box, found, rbc_px) in zip(cells, rows, strict=True)
    ]


def with_found_boxes(cells: Sequence[CellPicture]) -> list[CellPicture]:
    """The cells in their order, those whose set has no box (`box_is_guess`) with the detector's, where it finds one:
    a guess, in these, would be all that is known of the cell but its class."""
    guessed = [cell for cell in cells if cell.box_is_guess]
    boxes = {one.cell.key: one.cell.box_px for one in locate(guessed)} if guessed else {}
    return [replace(cell, box_px=boxes[cell.key]) if cell.box_is_guess else cell for cell in cells]


_Row = tuple[tuple[float, ...], bool, float | None]


def _locate(cells: Sequence[CellPicture], detector: Detector) -> list[_Row]:
    rows: dict[int, _Row] = {}
    for i, _, found, rbc_px in detections_at_scale(cells, detector):
        box = box_of(cells[i], found, detector.card.thresholds.operating)
        rows[i] = (cells[i].box_px if box is None else box, box is not None, rbc_px)
    return [rows[i] for i in range(len(cells))]


def detections_at_scale(
    cells: Sequence[CellPicture], detector: Detector
) -> Iterator[tuple[int, Image, Detections, float | None]]:
    """For each cell, not in their order: its number, its picture, what the detector finds there at the magnification
    that the stream would choose, and the usual diameter of the red cells in px, None where too few were seen."""
    views: dict[tuple[str, str, int, int], list[int]] = defaultdict(list)
    for i, cell in enumerate(cells):
        views[set_name(cell), cell.slide or "", cell.width_px, cell.height_px].append(i)
    for view, indices in views.items():
        width, height = view[2:]
        usual = detector if max(width, height) >= detector.long_side_px else detector.with_long_side(max(width, height))
        places = np.linspace(0, len(indices) - 1, min(MEASURED, len(indices))).astype(int)
        sample = [read_image(cells[indices[place]].path) for place in places]
        together = measure_rbc_diameter(usual, sample)
        for i in indices:
            picture = read_image(cells[i].path)
            own = measure_rbc_diameter(usual, [picture]) if view[0] == OWN_SCALE else None
            rbc_px = own or together
            side = None if rbc_px is None else long_side_for(usual, width, height, rbc_px)
            at_scale = usual if side is None else usual.with_long_side(side)
            (found,) = at_scale.detect([picture])
            yield i, picture, found, rbc_px


def box_of(cell: CellPicture, found: Detections, least_score: float) -> tuple[float, ...] | None:
    """The nucleated cell that is meant: of a labelled box the one that overlaps it most, else the one in the middle of
    the picture, or the nearest to it."""
    nucleated = np.isin(np.array(found.kinds)[found.labels], ("white", "nucleated red"))
    boxes = found.boxes_px[nucleated & (found.scores >= least_score)]
    if not len(boxes):
        return None
    if not cell.box_is_guess:
        overlaps = iou_matrix(np.array([cell.box_px], np.float32), boxes)[0]
        best = int(overlaps.argmax())
        return tuple(boxes[best].tolist()) if overlaps[best] >= _LEAST_OVERLAP else None
    middle = np.array([cell.width_px, cell.height_px]) / 2
    distances = np.linalg.norm((boxes[:, :2] + boxes[:, 2:]) / 2 - middle, axis=1)
    best = int(distances.argmin())
    x1, y1, x2, y2 = boxes[best].tolist()
    within = x1 < middle[0] < x2 and y1 < middle[1] < y2
    return (x1, y1, x2, y2) if within else None
