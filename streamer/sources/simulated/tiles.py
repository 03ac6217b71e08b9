"""The slide without lamp, lens and sensor: the light that passes each place, painted tile by tile."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from streamer.sources.simulated.kept import Kept
from streamer.sources.simulated.painting import Sprite, outline_of, paint
from streamer.sources.simulated.shapes import Floats
from streamer.sources.simulated.smear import BLOCK_PX, RED_SHAPES, PlacedCell, RedCell, Smear


class Tiles:
    """Transmitted light of a smear. Tiles are painted on first use, and the last `kept` are cached.

    stain: strength of the slide's stain, as a factor on the density of B, G, R.
    """

    def __init__(self, smear: Smear, kept: int = 48, stain: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> None:
        self._smear = smear
        self._stain = np.asarray(stain, dtype=np.float32)
        self._tiles: Kept[tuple[int, int], NDArray[np.uint8]] = Kept(kept, self._paint_tile)
        self._sprites: Kept[PlacedCell, Sprite] = Kept(4 * kept, self._paint_placed)
        self._red: Kept[int, Sprite] = Kept(RED_SHAPES, self._paint_red)

    def view(self, left_px: int, top_px: int, width_px: int, height_px: int) -> NDArray[np.uint8]:
        """uint8 (height, width, 3) BGR of any part of the slide or beyond it, 255 = clear glass; the caller owns it."""
        out = np.empty((height_px, width_px, 3), dtype=np.uint8)
        for column, row in _blocks_of(left_px, top_px, width_px, height_px):
            x, y = column * BLOCK_PX, row * BLOCK_PX
            x1, y1 = max(x, left_px), max(y, top_px)
            x2, y2 = min(x + BLOCK_PX, left_px + width_px), min(y + BLOCK_PX, top_px + height_px)
            tile = self._tiles((column, row))[y1 - y : y2 - y, x1 - x : x2 - x]
            out[y1 - top_px : y2 - top_px, x1 - left_px : x2 - left_px] = tile
        return out

    def paint_one(self, left_px: int, top_px: int, width_px: int, height_px: int) -> bool:
        """Paint one tile that `view` of that part would have to paint; False if there is none."""
        for block in _blocks_of(left_px, top_px, width_px, height_px):
            if block not in self._tiles:
                self._tiles(block)
                return True
        return False

    def __len__(self) -> int:
        """Tiles in the cache."""
        return len(self._tiles)

    def _paint_tile(self, block: tuple[int, int]) -> NDArray[np.uint8]:
        left, top = block[0] * BLOCK_PX, block[1] * BLOCK_PX
        right, bottom = left + BLOCK_PX, top + BLOCK_PX
        density = np.zeros((BLOCK_PX, BLOCK_PX, 3), dtype=np.float32)
        for near in self._smear.blocks_near(left, top, right, bottom):
            for red in near.red:
                if _overlaps(red.cell.box_px, left, top, right, bottom):
                    _add(density, self._turn_red(red), left, top)
            for placed in near.placed:
                if _overlaps(placed.cell.box_px, left, top, right, bottom):
                    _add(density, self._sprites(placed), left, top)
        cv2.exp(density * -self._stain, density)
        return np.asarray(cv2.convertScaleAbs(density, alpha=255.0), dtype=np.uint8)

    def _paint_placed(self, placed: PlacedCell) -> Sprite:
        rng = np.random.default_rng(placed.key)
        outline = outline_of(placed.look, rng, self._smear.red_px)
        return paint(placed.look, outline, rng, self._smear.red_px, placed.cell.x_px, placed.cell.y_px)

    def _paint_red(self, shape: int) -> Sprite:
        rng = np.random.default_rng(self._smear.red_key(shape))
        outline = outline_of("red", rng, self._smear.red_px)
        return paint("red", outline, rng, self._smear.red_px, 0.0, 0.0)

    def _turn_red(self, red: RedCell) -> Sprite:
        plain = self._red(red.shape)
        x1, y1, x2, y2 = red.cell.box_px
        left, top = int(np.floor(x1)) - 1, int(np.floor(y1)) - 1
        size = int(np.ceil(x2)) + 1 - left, int(np.ceil(y2)) + 1 - top
        cos, sin = float(np.cos(red.angle)) * red.scale, float(np.sin(red.angle)) * red.scale
        # Pixel centres lie at half pixels. The sprite's own centre is at (-left_px, -top_px) of its picture.
        cx, cy = -plain.left_px - 0.5, -plain.top_px - 0.5
        tx, ty = red.cell.x_px - left - 0.5, red.cell.y_px - top - 0.5
        matrix = np.array([[cos, -sin, tx - cos * cx + sin * cy], [sin, cos, ty - sin * cx - cos * cy]])
        turned = cv2.warpAffine(plain.density, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        return Sprite(np.asarray(turned * np.float32(red.strength), dtype=np.float32), left, top)


def _blocks_of(left_px: int, top_px: int, width_px: int, height_px: int) -> Iterator[tuple[int, int]]:
    for row in range(top_px // BLOCK_PX, (top_px + height_px - 1) // BLOCK_PX + 1):
        for column in range(left_px // BLOCK_PX, (left_px + width_px - 1) // BLOCK_PX + 1):
            yield column, row


def _overlaps(box_px: tuple[float, float, float, float], x1: int, y1: int, x2: int, y2: int) -> bool:
    return box_px[0] < x2 + 2 and box_px[2] > x1 - 2 and box_px[1] < y2 + 2 and box_px[3] > y1 - 2


def _add(density: Floats, sprite: Sprite, left: int, top: int) -> None:
    """Add a sprite's density to a tile whose first pixel is at (left, top) of the slide."""
    x, y = sprite.left_px - left, sprite.top_px - top
    height, width = sprite.density.shape[:2]
    x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + width, density.shape[1]), min(y + height, density.shape[0])
    if x1 < x2 and y1 < y2:
        density[y1:y2, x1:x2] += sprite.density[y1 - y : y2 - y, x1 - x : x2 - x]
