"""White cells of the simulated slide as a small part of training, so that the demo is read as well as real frames are.

They never choose anything: all of them are in the training part.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from streamer.sources import simulated
from tools.data import CELL_CLASSES, SUBCLASSES, TRAIN, CellPicture
from tools.data.crops import ATTRIBUTES, SUBCLASS_NAMES, StoredCells, store_square

NAME = "simulated"
RED_PX = (30.0, 60.0)
"""Diameters of red cells in the fields: what cameras show of them, and the demo."""


def with_simulated(stored: StoredCells, fields: int, seed: int) -> StoredCells:
    """`stored` and the whole white cells of `fields` simulated fields 640x480, each with another stain, lamp and focus.

    All squares are then in memory. Raises ValueError where no field shows a whole white cell.
    """
    squares, boxes, cells = [], [], []
    for number, (image, boxes_px, kinds, names) in enumerate(
        simulated.training_fields(seed, fields, 640, 480, red_px=RED_PX)
    ):
        height, width = image.shape[:2]
        for i, (box, kind, name) in enumerate(zip(boxes_px.tolist(), kinds, names, strict=True)):
            class_ = SUBCLASSES.get(name, name)
            inside = box[0] > 1 and box[1] > 1 and box[2] < width - 1 and box[3] < height - 1
            if kind != "white" or class_ not in CELL_CLASSES or not inside:
                continue
            subclass = name if name in SUBCLASSES else None
            key = f"{NAME}/{seed}/{number}/{i}"
            cell = CellPicture(
                NAME,
                key,
                Path(key),
                width,
                height,
                (box[0], box[1], box[2], box[3]),
                class_,
                subclass,
                slide=str(number),
            )
            square, box_in_square = store_square(cell, image)
            squares.append(square)
            boxes.append(box_in_square)
            cells.append(cell)
    if not cells:
        raise ValueError(f"simulated cells: got no whole white cell in {fields} fields, expected some; give more")
    return StoredCells(
        squares=np.concatenate([stored.squares, np.stack(squares)]),
        boxes=np.concatenate([stored.boxes, np.stack(boxes)]),
        classes=np.concatenate([stored.classes, [CELL_CLASSES.index(cell.cell_class) for cell in cells]]),
        subclasses=np.concatenate(
            [stored.subclasses, [SUBCLASS_NAMES.index(cell.subclass) if cell.subclass else -1 for cell in cells]]
        ),
        cells=[*stored.cells, *cells],
        parts=[*stored.parts, *[TRAIN] * len(cells)],
        attributes=np.concatenate([stored.attributes, np.full((len(cells), len(ATTRIBUTES)), -1)]),
    )
