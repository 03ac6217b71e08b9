"""ALL-IDB2: single cells of leukaemic and healthy blood, blast or not; measured with, and never part of what ships."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from engines.models.detector import Detector
from tools.data import TRAIN, VALIDATION, CellPicture, DataSetMissing
from tools.data.crops import read_image
from tools.data.splits import bucket, build_groups

BLAST_CLASSES = ("blast", "non-blast")
FINDER, FINDER_PX = "yolov5n-blood", 192
"""Who finds the cell in a picture of 257 px, and the long side at which red cells have their usual size for it."""

_VALIDATION_SHARE = 0.3
_USUAL_SHARE = 0.35
"""Side of a cell over its picture, where none was found: mostly platelets."""


def read_blasts(root: Path, finder: Detector) -> list[CellPicture]:
    """All cells of the set, in the order of its labels, boxed by the largest white cell over the picture's centre, else
    by a centred square (`box_is_guess`). DataSetMissing where the set is not there."""
    folder = root / "all_idb2"
    if not (folder / "labels.csv").exists():
        raise DataSetMissing(
            f"data set all_idb2: got no {folder / 'labels.csv'}, expected it; the set is given on request for research"
        )
    with open(folder / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return list(_cells(folder, rows, finder))


def _cells(folder: Path, rows: Sequence[dict[str, str]], finder: Detector) -> Iterator[CellPicture]:
    for row in rows:
        image = read_image(folder / row["file"])
        height, width = image.shape[:2]
        box = found_box(image, finder)
        half = np.array([width, height]) / 2
        side = _USUAL_SHARE * max(width, height) / 2
        guess = (*(half - side).tolist(), *(half + side).tolist())
        yield CellPicture(
            dataset="all_idb2",
            key=f"all_idb2/{row['file']}",
            path=folder / row["file"],
            width_px=width,
            height_px=height,
            box_px=guess if box is None else box,
            cell_class=row["class"],
            box_is_guess=box is None,
        )


def found_box(image: np.ndarray, finder: Detector) -> tuple[float, float, float, float] | None:
    """The largest box of a white cell that covers the centre of a picture, None where there is none."""
    (found,) = finder.detect([image])
    boxes = found.boxes_px[[found.kinds[label] == "white" for label in found.labels]]
    centre = np.array([image.shape[1], image.shape[0]]) / 2
    boxes = boxes[((boxes[:, :2] < centre) & (centre < boxes[:, 2:])).all(1)]
    if not len(boxes):
        return None
    x1, y1, x2, y2 = boxes[np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).argmax()].tolist()
    return x1, y1, x2, y2


def blast_groups(cells: Sequence[CellPicture], root: Path) -> list[str]:
    """The group of each cell: pictures that show the same."""
    group_of = {key: group for group, keys in build_groups(root).items() for key in keys}
    return [group_of[cell.key] for cell in cells]


def blast_parts(cells: Sequence[CellPicture], root: Path) -> list[str]:
    """The part of each cell: about three tenths of the groups are for validation, the rest trains."""
    return [VALIDATION if bucket(group) < _VALIDATION_SHARE else TRAIN for group in blast_groups(cells, root)]
