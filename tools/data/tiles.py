"""Training tiles: one canvas filled with parts of fields at a chosen cell size, a Mosaic of as many parts as fit.

The canvas is filled from a corner: a field is scaled until its red cells have the wanted diameter, cropped to the
free region (or laid whole into its corner), turned by a multiple of 90° and mirrored; what stays free on its right
and below is filled in the same way. So a tile of large cells is one crop, a tile of small ones a mosaic of many
fields, as the run-time sees a close-up or an overview.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from engines import geometry
from tools.data import field_appearance as appearance
from tools.data.fields import RBC, Field, FieldPool

CELL_PX = 8  # side of a cell of `Tile.known`
PAD = 114


@dataclass(frozen=True)
class Tile:
    """image: uint8 (S,S,3) BGR; targets: float32 (n,5) class, centre x, y, width, height in px;
    known: bool (classes, S/8, S/8), true where every object of that class has a target."""

    image: np.ndarray
    targets: np.ndarray
    known: np.ndarray


@dataclass(frozen=True)
class TileOptions:
    """How tiles are made. rbc_diameter_px: (smallest, largest) red cell, drawn log-uniformly.

    colour: (least, most) strength of the change of colour; stain_share, haze_share: of the parts that are stained
    anew, of the tiles with a veil of light. red: label of the red cells, which crops are not sought for.
    least_visible: part of a box that a cut must leave so that it is still taught; what is less is neither taught
    nor background.
    """

    side_px: int = 320
    rbc_diameter_px: tuple[float, float] = (11.0, 100.0)
    jitter: float = 0.15
    colour: tuple[float, float] = (0.2, 1.1)
    stain_share: float = 0.2
    haze_share: float = 0.12
    red: int = RBC
    largest_enlargement: float = 2.5
    least_visible: float = 0.4
    least_side_px: float = 4.0
    least_region_px: int = 40


class TileMaker:
    """Makes tile `number` from a seed and nothing else, so that training resumes exactly where it stopped."""

    def __init__(self, pools: Mapping[str, FieldPool], shares: Mapping[str, float], classes: int, options: TileOptions):
        missing = sorted(set(shares) - set(pools))
        if missing:
            raise ValueError(f"shares: got {missing}, expected names of pools: {sorted(pools)}")
        self.pools = [pools[name] for name in shares if shares[name] > 0 and len(pools[name])]
        weights = np.array([shares[name] for name in shares if shares[name] > 0 and len(pools[name])])
        if not len(weights):
            raise ValueError("shares: got no pool with fields in it, expected at least one")
        self.weights = weights / weights.sum()
        self.classes = classes
        self.options = options

    def make(self, seed: int, number: int) -> Tile:
        """Tile `number` of the endless series of this seed."""
        rng = np.random.default_rng((seed, number))
        o = self.options
        image = np.full((o.side_px, o.side_px, 3), PAD, np.uint8)
        known = np.ones((self.classes, o.side_px // CELL_PX, o.side_px // CELL_PX), bool)
        low, high = o.rbc_diameter_px
        diameter = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        main_pool = self.pools[int(rng.choice(len(self.pools), p=self.weights))]
        targets: list[np.ndarray] = []
        regions = [(0, 0, o.side_px, o.side_px)]
        first = True
        while regions:
            x, y, width, height = regions.pop()
            if min(width, height) < o.least_region_px:
                continue
            same = first or rng.random() < 0.5
            pool = main_pool if same else self.pools[int(rng.choice(len(self.pools), p=self.weights))]
            first = False
            index = int(rng.integers(len(pool)))
            used_w, used_h, boxes = self._place(
                rng, pool.fields[index], pool.picture(index), diameter, image, known, (x, y, width, height)
            )
            targets.append(boxes)
            regions.append((x + used_w, y, width - used_w, used_h))
            regions.append((x, y + used_h, width, height - used_h))
        if rng.random() < 0.6:
            image = appearance.vary_light(rng, image)
        if rng.random() < self.options.haze_share:
            image = appearance.vary_haze(rng, image)
        image = appearance.vary_sensor(rng, appearance.vary_optics(rng, image, diameter))
        return Tile(image, np.concatenate(targets), known)

    def _place(
        self,
        rng: np.random.Generator,
        item: Field,
        picture: np.ndarray,
        diameter: float,
        image: np.ndarray,
        known: np.ndarray,
        region: tuple[int, int, int, int],
    ) -> tuple[int, int, np.ndarray]:
        """Lay a part of `picture` into the corner of `region`; the used width and height, and the targets (n,5)."""
        o = self.options
        x0, y0, width, height = region
        scale = diameter * np.exp(rng.uniform(-o.jitter, o.jitter)) / item.rbc_diameter_px
        scale = float(min(scale, o.largest_enlargement))
        quarter_turns, mirrored = int(rng.integers(4)), rng.random() < 0.5
        if quarter_turns % 2:
            width, height = height, width
        full_h, full_w = picture.shape[:2]
        crop_w = min(full_w, max(1, round(width / scale)))
        crop_h = min(full_h, max(1, round(height / scale)))
        left, top = _crop_corner(rng, item, full_w, full_h, crop_w, crop_h, o.red)
        out_w, out_h = min(width, max(1, round(crop_w * scale))), min(height, max(1, round(crop_h * scale)))
        part = picture[top : top + crop_h, left : left + crop_w]
        smooth = rng.random() < 0.5
        if not smooth:  # as the run-time reduces frames: halved, then bilinear
            part = geometry.halved(part, int(max(0.0, -np.log2(scale))))
        part = cv2.resize(
            part, (out_w, out_h), interpolation=cv2.INTER_AREA if smooth and scale < 1 else cv2.INTER_LINEAR
        )
        part = np.rot90(part, quarter_turns)
        if mirrored:
            part = part[:, ::-1]
        if rng.random() < o.stain_share:
            part = appearance.vary_stain(rng, np.ascontiguousarray(part))
        if rng.random() < 0.9:
            part = appearance.vary_colour(rng, np.ascontiguousarray(part), rng.uniform(*o.colour))

        def moved(boxes_px: np.ndarray) -> np.ndarray:
            boxes = (boxes_px - (left, top, left, top)) * ((out_w / crop_w, out_h / crop_h) * 2)
            return turn_boxes(boxes, out_w, out_h, quarter_turns, mirrored)

        used_h, used_w = part.shape[:2]
        image[y0 : y0 + used_h, x0 : x0 + used_w] = part
        boxes, ignored = moved(item.boxes_px), moved(item.ignore_px)
        clipped = boxes.clip(0, (used_w, used_h, used_w, used_h))
        size = clipped[:, 2:] - clipped[:, :2]
        visible = size.prod(1) / np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(1), 1e-6)
        taught = (visible >= o.least_visible) & (size.min(1, initial=np.inf) >= o.least_side_px)
        unclear = ~taught & (visible > 0.03)

        offset = np.array((x0, y0, x0, y0))
        region_known = known[
            :, y0 // CELL_PX : -(-(y0 + used_h) // CELL_PX), x0 // CELL_PX : -(-(x0 + used_w) // CELL_PX)
        ]
        region_known[:] = item.complete[:, None, None]
        if not item.complete.all():
            _fill(known, _shrunk(clipped[taught], 0.8) + offset, True)
        _fill(known, ignored.clip(0, (used_w, used_h, used_w, used_h)) + offset, False)
        _fill(known, clipped[unclear] + offset, False)
        kept = clipped[taught] + offset
        targets = np.concatenate(
            (item.classes[taught, None], (kept[:, :2] + kept[:, 2:]) / 2, kept[:, 2:] - kept[:, :2]), axis=1
        )
        return used_w, used_h, targets.astype(np.float32)


def turn_boxes(boxes: np.ndarray, width: float, height: float, quarter_turns: int, mirrored: bool) -> np.ndarray:
    """Boxes (n,4) of a picture of `width` x `height` after np.rot90(picture, quarter_turns), then left-right
    mirroring."""
    for _ in range(quarter_turns % 4):
        x1, y1, x2, y2 = boxes.T
        boxes = np.stack((y1, width - x2, y2, width - x1), 1)
        width, height = height, width
    if mirrored:
        boxes = np.stack((width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]), 1)
    return boxes


def _crop_corner(
    rng: np.random.Generator, item: Field, full_w: int, full_h: int, crop_w: int, crop_h: int, red: int
) -> tuple[int, int]:
    """Left and top of a crop: around a labelled object for most crops, a white cell or platelet first, else
    anywhere."""
    left, top = int(rng.integers(full_w - crop_w + 1)), int(rng.integers(full_h - crop_h + 1))
    sought = item.boxes_px[item.classes != red] if rng.random() < 0.8 else item.boxes_px
    if len(sought) and (rng.random() < 0.6 or not item.complete.any()):
        box = sought[int(rng.integers(len(sought)))]
        centre = (box[:2] + box[2:]) / 2
        left = int(np.clip(centre[0] - rng.uniform(0.1, 0.9) * crop_w, 0, full_w - crop_w))
        top = int(np.clip(centre[1] - rng.uniform(0.1, 0.9) * crop_h, 0, full_h - crop_h))
    return left, top


def _shrunk(boxes: np.ndarray, factor: float) -> np.ndarray:
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * factor
    return np.concatenate((centre - half, centre + half), 1)


def _fill(known: np.ndarray, boxes: np.ndarray, value: bool) -> None:
    """Set the cells of `known` whose centres lie in one of the boxes (px of the tile)."""
    for x1, y1, x2, y2 in np.round(boxes / CELL_PX).astype(int).clip(0, known.shape[1]):
        known[:, y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)] = value
