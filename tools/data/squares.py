"""Typed cells of all laboratories as small squares in one memory-mapped array, so that training decodes nothing.

A square holds every look at its cell: 1.3 times the box, and the look of a fixed physical size, `LOOK_RED_CELLS` red
cells wide, which shows how large the cell is. All squares have gone through one resampling, whatever their source.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from engines.geometry import centred_squares, crop_squares, diameters
from streamer.sources import simulated
from tools.data import ABNORMAL_CLASSES, ABNORMAL_SUBCLASSES, TRAIN, CellPicture
from tools.data.crops import part_of_cell, read_attributes, read_image, set_name
from tools.data.located import LocatedCell

STORED_PX = 256
SUBCLASS_NAMES = tuple(ABNORMAL_SUBCLASSES)
LOOK_RED_CELLS = 3.2
"""Side of the look of a fixed size, in diameters of the red cells around: some 24 µm, wider than a smear's cells."""
_BOXES, _RED_CELLS = 1.9, 1.2 * LOOK_RED_CELLS
"""Side of a square cut from a field, over the box's longer side or the red cells' diameter, whichever asks for more:
crops of 1.3 boxes, turned by any angle, fit in."""
SINGLE_CELL_SETS = frozenset({"pbc", "deepapl", "marrow"})
"""Sets whose pictures hold one cell: the square is the picture."""
SIMULATED = "simulated"
SIMULATED_RED_PX = (30.0, 60.0)
_VERSION = 1


class Pictures(Sequence[np.ndarray]):
    """Pictures uint8 (256, 256, 3) BGR by number, of several arrays one behind the other: those that are maps of files
    stay there."""

    def __init__(self, *arrays: np.ndarray) -> None:
        self.arrays = arrays
        self._ends = np.cumsum([len(array) for array in arrays])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, number: Any) -> Any:
        which = int(np.searchsorted(self._ends, number, side="right"))
        return self.arrays[which][number - (self._ends[which - 1] if which else 0)]


@dataclass(frozen=True)
class Squares:
    """n cells to train or measure on."""

    squares: Pictures
    boxes: np.ndarray
    """float32 (n, 4), the cell's box in px of its square."""
    rbc_px: np.ndarray
    """float32 (n,), the red cells' diameter in px of the square; NaN where too few were seen to tell."""
    classes: np.ndarray
    """int64 (n,), index into `ABNORMAL_CLASSES`."""
    subclasses: np.ndarray
    """int64 (n,), index into `SUBCLASS_NAMES`, -1 where unknown."""
    attributes: np.ndarray
    """int64 (n, 11), index into the values of each of `crops.ATTRIBUTES`, -1 where nobody looked."""
    laboratories: np.ndarray
    """text (n,)."""
    parts: np.ndarray
    """text (n,): train, validation or holdout."""
    cells: tuple[LocatedCell, ...]

    def select(self, part: str) -> np.ndarray:
        """int64 indices of the cells of one part."""
        return np.nonzero(self.parts == part)[0]


def load_squares(
    root: Path, folder: Path, located: Sequence[LocatedCell], parts: Mapping[str, str], left_out: Sequence[str] = ()
) -> Squares:
    """The squares of located cells, from `folder` (4 GB), made there by the first call (about two minutes). `parts`
    gives the part of each picture; of laboratories that are `left_out` every cell is for validation."""
    told = [[one.cell.key, one.cell.box_px, one.rbc_px] for one in located]
    digest = hashlib.sha256(json.dumps([_VERSION, STORED_PX, told]).encode()).hexdigest()[:16]
    path = folder / f"squares-{digest}.npy"
    boxes_path = path.with_suffix(".boxes.npy")
    if not (path.exists() and boxes_path.exists()):
        _fill(path, boxes_path, located)
    placed = np.load(boxes_path)
    cells = [one.cell for one in located]
    return Squares(
        squares=Pictures(np.load(path, mmap_mode="r")),
        boxes=placed[:, :4],
        rbc_px=placed[:, 4],
        classes=np.array([ABNORMAL_CLASSES.index(c.cell_class) for c in cells], np.int64),
        subclasses=np.array([SUBCLASS_NAMES.index(c.subclass) if c.subclass else -1 for c in cells], np.int64),
        attributes=read_attributes(root, cells),
        laboratories=np.array([set_name(cell) for cell in cells]),
        parts=np.array([part_of_cell(cell, parts, left_out) for cell in cells]),
        cells=tuple(located),
    )


def _fill(path: Path, boxes_path: Path, located: Sequence[LocatedCell]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    shape = (len(located), STORED_PX, STORED_PX, 3)
    try:
        squares = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)
        placed = np.empty((len(located), 5), np.float32)
        for i, one in enumerate(located):
            whole = one.cell.dataset in SINGLE_CELL_SETS
            squares[i], placed[i] = square_of(read_image(one.cell.path), one.cell.box_px, one.rbc_px, whole=whole)
        squares.flush()
        np.save(boxes_path, placed)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)  # a picture that can't be decoded doesn't leave 4 GB behind


def square_of(
    image: np.ndarray, box_px: Sequence[float], rbc_px: float | None, *, whole: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The square uint8 (256, 256, 3) around a box of a picture, or the `whole` picture, and float32 (5,): the box and
    the red cells' diameter in px of the square, NaN where it is None."""
    x1, y1, x2, y2 = box_px
    if whole:
        height, width = image.shape[:2]
        way = cv2.INTER_AREA if max(height, width) > STORED_PX else cv2.INTER_LINEAR
        square = np.asarray(cv2.resize(image, (STORED_PX, STORED_PX), interpolation=way))
        left, top, scale = 0.0, 0.0, STORED_PX / max(height, width)
    else:
        side = max(_BOXES * max(x2 - x1, y2 - y1), _RED_CELLS * (rbc_px or 0.0))
        around = centred_squares(np.array([box_px], np.float32), side)
        square = crop_squares(image, around, (STORED_PX, STORED_PX))[0]
        left, top = around[0, :2].tolist()
        scale = STORED_PX / side
    box = (np.array([x1 - left, y1 - top, x2 - left, y2 - top]) * scale).tolist()
    return square, np.array([*box, np.nan if rbc_px is None else rbc_px * scale], np.float32)


def with_simulated(stored: Squares, fields: int, seed: int) -> Squares:
    """`stored` and the whole white cells of `fields` simulated fields, all for training: the demo is to be read as well
    as real frames are."""
    squares, placed, cells = [], [], []
    for number, (image, boxes_px, kinds, names) in enumerate(
        simulated.training_fields(seed, fields, 640, 480, red_px=SIMULATED_RED_PX)
    ):
        height, width = image.shape[:2]
        red = boxes_px[np.array(kinds) == "red"]
        rbc_px = float(np.median(diameters(red))) if len(red) else None
        for i, (box, kind, name) in enumerate(zip(boxes_px.tolist(), kinds, names, strict=True)):
            label = ABNORMAL_SUBCLASSES.get(name, name)
            inside = box[0] > 1 and box[1] > 1 and box[2] < width - 1 and box[3] < height - 1
            if kind == "white" and label in ABNORMAL_CLASSES and inside:
                key = f"{SIMULATED}/{seed}/{number}/{i}"
                subclass = name if name in ABNORMAL_SUBCLASSES else None
                four = (box[0], box[1], box[2], box[3])
                cell = CellPicture(SIMULATED, key, Path(key), width, height, four, label, subclass)
                square, place = square_of(image, four, rbc_px)
                squares.append(square)
                placed.append(place)
                cells.append(LocatedCell(cell, False, rbc_px))
    places, n = np.stack(placed), len(cells)
    subclasses = [SUBCLASS_NAMES.index(c.cell.subclass) if c.cell.subclass else -1 for c in cells]
    return Squares(
        squares=Pictures(*stored.squares.arrays, np.stack(squares)),
        boxes=np.concatenate([stored.boxes, places[:, :4]]),
        rbc_px=np.concatenate([stored.rbc_px, places[:, 4]]),
        classes=np.concatenate([stored.classes, [ABNORMAL_CLASSES.index(c.cell.cell_class) for c in cells]]),
        subclasses=np.concatenate([stored.subclasses, subclasses]),
        attributes=np.concatenate([stored.attributes, np.full((n, stored.attributes.shape[1]), -1)]),
        laboratories=np.concatenate([stored.laboratories, np.full(n, SIMULATED)]),
        parts=np.concatenate([stored.parts, np.full(n, TRAIN)]),
        cells=(*stored.cells, *cells),
    )
