"""Tiny synthetic fields: dark discs (white cells) and pink discs (red cells) on a light ground."""

from __future__ import annotations

from functools import partial

import cv2
import numpy as np

from tools.data.fields import RBC, WBC, Field, FieldPool
from tools.data.tiles import TileMaker, TileOptions


def disc_field(seed: int, side_px: int = 120, complete: tuple[bool, bool, bool] = (True, True, True)) -> Field:
    """One white cell of 40 px and four red cells of 20 px in the corners."""
    rng = np.random.default_rng(seed)
    picture = np.full((side_px, side_px, 3), 225, np.uint8)
    boxes, classes = [], []
    places = [(side_px / 2, side_px / 2, 20, WBC)]
    places += [(x, y, 10, RBC) for x in (15, side_px - 15) for y in (15, side_px - 15)]
    for x, y, radius, label in places:
        x, y = x + rng.uniform(-3, 3), y + rng.uniform(-3, 3)
        colour = (120, 40, 70) if label == WBC else (150, 150, 210)
        cv2.circle(picture, (round(x), round(y)), radius, colour, -1)
        boxes.append((round(x) - radius, round(y) - radius, round(x) + radius, round(y) + radius))
        classes.append(label)
    return Field(
        name=f"disc-{seed}",
        source="disc",
        load=partial(np.copy, picture),
        boxes_px=np.array(boxes, np.float32),
        classes=np.array(classes, np.int64),
        complete=np.array(complete),
        rbc_diameter_px=20.0,
    )


def disc_maker(
    side_px: int = 128, complete: tuple[bool, bool, bool] = (True, True, True), rbc_px: tuple[float, float] = (16, 24)
) -> TileMaker:
    """Tiles of eight disc fields."""
    pool = FieldPool([disc_field(seed, complete=complete) for seed in range(8)], largest_rbc_px=80)
    return TileMaker({"disc": pool}, {"disc": 1.0}, 3, TileOptions(side_px=side_px, rbc_diameter_px=rbc_px))
