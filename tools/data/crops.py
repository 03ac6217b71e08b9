"""Cells as small squares in one memory-mapped array, so that an epoch decodes nothing.

A stored square is `STORED_PX` wide: a whole single-cell picture of pbc, or, of other sets, the square around the box
that is `MARGINS[set]` times its longer side. The box is kept in px of the square, so that any crop around it can be
cut later.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from engines.geometry import crop_squares
from engines.zoo.card import Card
from engines.zoo.crops import CropInput
from engines.zoo.figures import MeasuredOn
from tools.data import CELL_CLASSES, CELL_SETS, SUBCLASSES, VALIDATION, CellPicture, load_splits, read_cells

STORED_PX = 224
SUBCLASS_NAMES = tuple(SUBCLASSES)
MARGINS = {"bccd_crops": 1.0} | dict.fromkeys(
    ("bccd", "wbc_masks", "chula_wbc", "txl_pbc", "bcd", "krd", "simulated"), 1.9
)
"""Crops of 1.3 times the box, turned by any angle, fit into 1.9 times the box; bccd_crops hold nothing outside."""
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "cell_size": ("small", "big"),
    "cell_shape": ("round", "irregular"),
    "nucleus_shape": (
        "unsegmented-round",
        "unsegmented-indented",
        "unsegmented-band",
        "segmented-bilobed",
        "segmented-multilobed",
        "irregular",
    ),
    "nuclear_cytoplasmic_ratio": ("low", "high"),
    "chromatin_density": ("loosely", "densely"),
    "cytoplasm_vacuole": ("no", "yes"),
    "cytoplasm_texture": ("clear", "frosted"),
    "cytoplasm_colour": ("light blue", "blue", "purple blue"),
    "granule_type": ("nil", "small", "round", "coarse"),
    "granule_colour": ("nil", "pink", "purple", "red"),
    "granularity": ("no", "yes"),
}
"""The morphological attributes that WBCAtt names for cells of pbc, and their values."""
_CACHE_VERSION = 1


@dataclass(frozen=True)
class StoredCells:
    """n cells: `squares` uint8 (n, 224, 224, 3) BGR, a read-only map of a file; `boxes` float32 (n, 4) in px of the
    square; `classes` and `subclasses` int64 (n,), subclass -1 where unknown; `cells` where each came from."""

    squares: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    subclasses: np.ndarray
    cells: list[CellPicture]
    parts: list[str]
    attributes: np.ndarray
    """int64 (n, 11), index into the values of each of `ATTRIBUTES`, -1 where nobody looked."""

    def select(self, part: str) -> np.ndarray:
        """int64 indices of the cells of one part."""
        return np.nonzero(np.array(self.parts) == part)[0]


def read_image(path: Path) -> np.ndarray:
    """uint8 (h, w, 3) BGR. Raises ValueError for a file that is no picture."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"picture {path}: got a file that can't be decoded, expected an image")
    return np.asarray(image)


def store_square(cell: CellPicture, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The square uint8 (224, 224, 3) of a cell and its box float32 (4,) in px of the square."""
    box = np.array(cell.box_px, np.float32)
    if cell.dataset == "pbc":
        if image.shape[:2] != (STORED_PX, STORED_PX):
            scale = np.array([STORED_PX / image.shape[1], STORED_PX / image.shape[0]] * 2, np.float32)
            image, box = cv2.resize(image, (STORED_PX, STORED_PX), interpolation=cv2.INTER_AREA), box * scale
        return image, box
    margin = MARGINS[cell.dataset]
    square = crop_squares(image, box[None], (STORED_PX, STORED_PX), margin)[0]
    sides = box[2:] - box[:2]
    half = 0.5 * STORED_PX / margin * sides / sides.max()
    return square, np.concatenate([STORED_PX / 2 - half, STORED_PX / 2 + half]).astype(np.float32)


def load_stored(
    root: Path, folder: Path, left_out: Sequence[str] = (), *, sets: Sequence[str] = CELL_SETS
) -> StoredCells:
    """All cells of some sets, from `folder` (1.9 GB for all), made there by the first call (about a minute). Of sets
    that are `left_out` none is for training."""
    cells = read_cells(root, sets)
    splits = load_splits(root)
    text = json.dumps([_CACHE_VERSION, MARGINS, STORED_PX, [[c.key, c.box_px] for c in cells]])
    path = folder / f"cells-{hashlib.sha256(text.encode()).hexdigest()[:16]}.npy"
    boxes_path = path.with_suffix(".boxes.npy")
    if not (path.exists() and boxes_path.exists()):
        _fill(path, boxes_path, cells)
    return StoredCells(
        squares=np.load(path, mmap_mode="r"),
        boxes=np.load(boxes_path),
        classes=np.array([CELL_CLASSES.index(c.cell_class) for c in cells]),
        subclasses=np.array([SUBCLASS_NAMES.index(c.subclass) if c.subclass else -1 for c in cells]),
        cells=cells,
        parts=[part_of_cell(c, splits, left_out) for c in cells],
        attributes=read_attributes(root, cells),
    )


def read_attributes(root: Path, cells: Sequence[CellPicture]) -> np.ndarray:
    """int64 (n, 11) of cells: what pbc/labels.csv says, -1 where it says nothing."""
    with open(root / "pbc" / "labels.csv", newline="") as file:
        rows = {f"pbc/images/{row['file']}": row for row in csv.DictReader(file)}
    found = np.full((len(cells), len(ATTRIBUTES)), -1, np.int64)
    for out, cell in zip(found, cells, strict=True):
        row = rows.get(cell.key, {})
        for i, (name, values) in enumerate(ATTRIBUTES.items()):
            if row.get(name):
                out[i] = values.index(row[name])
    return found


def _fill(path: Path, boxes_path: Path, cells: Sequence[CellPicture]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    shape = (len(cells), STORED_PX, STORED_PX, 3)
    squares = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)
    boxes = np.empty((len(cells), 4), np.float32)
    for i, cell in enumerate(cells):
        squares[i], boxes[i] = store_square(cell, read_image(cell.path))
    squares.flush()
    np.save(boxes_path, boxes)
    part.replace(path)


def part_of_cell(cell: CellPicture, splits: Mapping[str, str], left_out: Sequence[str] = ()) -> str:
    """The part of a cell by its picture's group; all of the sets that are `left_out` (`set_name`) are for validation: a
    laboratory that the weights have not seen."""
    return VALIDATION if set_name(cell) in left_out else splits[cell.key]


def set_name(cell: CellPicture) -> str:
    """The set of a cell; the two laboratories of wbc_masks count as two sets."""
    return "/".join(cell.key.split("/")[:2]) if cell.dataset == "wbc_masks" else cell.dataset


def cluster_of(cell: CellPicture) -> str:
    """What a cell belongs together with in measurements: its slide or patient, else its picture."""
    return cell.slide or cell.key


def class_crop(cell: CellPicture, input_px: int, margin: float, *, whole: bool = False) -> np.ndarray:
    """uint8 (input_px, input_px, 3): the crop that the stream would give for the cell's box, or, where `whole`, the
    whole picture as `leukostream classify` takes single-cell files."""
    image = read_image(cell.path)
    box = np.array([0, 0, image.shape[1], image.shape[0]] if whole else cell.box_px, np.float32)
    return np.asarray(crop_squares(image, box[None], (input_px, input_px), 1.0 if whole else margin)[0])


def mirrored_looks(looks: Sequence[np.ndarray]) -> np.ndarray:
    """(n, k, h, w, 3) of the k looks (n, h, w, 3) at n cells, every one after the first mirrored, as the stream has
    them."""
    return np.stack([look[:, :, ::-1] if number else look for number, look in enumerate(looks)], 1)


def measured_on(title: str, part: str) -> MeasuredOn:
    """What the figures of a title are of in a card: "wbc_masks/jtsc whole" is a set and a view of its cells."""
    dataset, _, view = title.partition(" ")
    return MeasuredOn(dataset, view, part)


class _Margins(argparse.Action):
    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, _: Any = None
    ) -> None:
        if len(values) > 2:
            parser.error(f"--margins: got {len(values)} looks, expected one or two")
        setattr(namespace, self.dest, values)


def add_margins(parser: argparse.ArgumentParser) -> None:
    """The option --margins: a list of one or two numbers, or None."""
    told = "sides of the one or two looks at a cell over its box, the second one mirrored"
    parser.add_argument("--margins", type=float, nargs="+", action=_Margins, help=told)


def with_margins(card: Card, margins: Sequence[float]) -> Card:
    """The card of a classifier that looks at each cell once or twice, `margins` times its box; the second time
    mirrored."""
    if not isinstance(card.input, CropInput) or len(margins) not in (1, 2):
        raise ValueError(f"margins of {card.name}: got {list(margins)}, expected one or two of a classifier")
    second = margins[1] if len(margins) == 2 else None
    return replace(card, input=replace(card.input, crop_margin=margins[0], mirrored_margin=second))
