"""Which cells lie where on the slide.

White cells are placed on the whole slide at once, so that their number is exact. Red cells and platelets are scattered
block by block on first use, from random numbers that depend only on the seed and the block. So the slide is the same
however the stage moves, and a large slide costs no more than a small one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from streamer.sources.simulated.kept import Kept
from streamer.sources.simulated.painting import LOOKS, outline_of
from streamer.sources.simulated.shapes import turned_extents_px

BLOCK_PX = 320
"""Side of a block, the unit in which red cells are scattered, pictures painted, and both cached."""
RED_SHAPES = 48
"""Number of different red cells painted; each red cell is one of them, turned, scaled and stained."""
_BLOCK_CELLS = 1 << 12

_PLACING, _PAINTING, _RED_BANK, _BLOCK, _THICKNESS = range(1, 6)

SUBCLASS_OF = {
    "segmented neutrophil": "neutrophil",
    "band neutrophil": "neutrophil",
    "metamyelocyte": "immature granulocyte",
    "myelocyte": "immature granulocyte",
    "promyelocyte": "immature granulocyte",
}
"""Subclass -> class, for the cell types that have both."""


@dataclass(frozen=True, slots=True)
class SlideCell:
    """One cell of the slide."""

    cell_id: int
    """Unique on the slide; the same for the same parameters."""
    kind: str
    """white, red, platelet, or nucleated red."""
    class_name: str
    """Class as the default classifier names it; "red blood cell" for red cells."""
    subclass: str | None
    x_px: float
    """Centre on the slide."""
    y_px: float
    box_px: tuple[float, float, float, float]
    """x1, y1, x2, y2 on the slide; fits tightly around the painted cell."""


@dataclass(frozen=True)
class PlacedCell:
    """A cell with a sprite of its own: any but a red cell."""

    cell: SlideCell
    look: str
    """Name in `painting.LOOKS`."""
    key: tuple[int, ...]
    """Seed of its random numbers."""


@dataclass(frozen=True)
class RedCell:
    """A red cell: one of the shapes of the slide, individually turned, scaled and stained."""

    cell: SlideCell
    shape: int
    """0..RED_SHAPES-1."""
    angle: float
    """Radians, from the right downwards."""
    scale: float
    strength: float
    """Of the stain; 1 is usual."""


@dataclass(frozen=True)
class Block:
    """The cells whose centre lies in one square of BLOCK_PX of the slide."""

    placed: tuple[PlacedCell, ...]
    red: tuple[RedCell, ...]

    def cells(self) -> Iterator[SlideCell]:
        for placed in self.placed:
            yield placed.cell
        for red in self.red:
            yield red.cell


class _Taken:
    """Circles that new cells must keep clear of."""

    def __init__(self, white: list[SlideCell]) -> None:
        room = len(white) + _BLOCK_CELLS
        self._x, self._y, self._radius = np.zeros((3, room))
        self._count = 0
        for cell in white:
            x1, y1, x2, y2 = cell.box_px
            self.add(cell.x_px, cell.y_px, (x2 - x1 + y2 - y1) / 4)
        self._white = self._count

    def add(self, x: float, y: float, radius: float) -> None:
        self._x[self._count], self._y[self._count], self._radius[self._count] = x, y, radius
        self._count += 1

    def fits(self, x: float, y: float, radius: float, closeness: float) -> bool:
        """Whether the circle is at least `closeness` times the sum of the radii away from all red ones.

        White cells push red ones aside: no more than a rim of them is ever overlapped.
        """
        used = slice(self._count)
        dx, dy = self._x[used] - x, self._y[used] - y
        reach = (self._radius[used] + radius) * closeness
        reach[: self._white] *= 0.93 / closeness
        return bool((dx * dx + dy * dy > reach * reach).all())


class Smear:
    """A stained smear of `width_px` x `height_px`.

    looks: one entry a white cell (or erythroblast), in random order, names of `painting.LOOKS`.
    red_px: usual diameter of a red cell. crowding: share of the area that red cells cover, 0..0.6.
    margin_px: least distance of the boxes of the cells in `looks` from the slide's edge.
    """

    def __init__(
        self,
        seed: int,
        width_px: int,
        height_px: int,
        looks: list[str],
        *,
        red_px: float,
        crowding: float = 0.37,
        margin_px: float = 0.0,
        kept_blocks: int = 256,
    ) -> None:
        self.seed = seed
        self.width_px = width_px
        self.height_px = height_px
        self.red_px = red_px
        self.crowding = crowding
        self._columns = -(-width_px // BLOCK_PX)
        self._rows = -(-height_px // BLOCK_PX)
        self.white = tuple(self._place(looks, margin_px))
        self._white_of_block: dict[tuple[int, int], list[PlacedCell]] = {}
        for placed in self.white:
            self._white_of_block.setdefault(self._block_of(placed.cell.x_px, placed.cell.y_px), []).append(placed)
        self._red_radii_px = np.stack(
            [
                outline_of("red", np.random.default_rng(self.red_key(shape)), red_px).radius_px
                for shape in range(RED_SHAPES)
            ]
        )
        thickness = np.random.default_rng([seed, _THICKNESS])
        self._waves = thickness.uniform(0.5, 1.5, (4, 4)) * np.array([1.0, 1.0, 2 * np.pi, 1.0])
        self._directions = thickness.uniform(0, 2 * np.pi, 4)
        self._blocks: Kept[tuple[int, int], Block] = Kept(kept_blocks, self._scatter)

    def red_key(self, shape: int) -> tuple[int, ...]:
        """Seed of the random numbers of a red-cell shape."""
        return (self.seed, _RED_BANK, shape)

    def cells(self) -> Iterator[SlideCell]:
        """All cells of the slide, block by block."""
        for row in range(self._rows):
            for column in range(self._columns):
                yield from self._blocks((column, row)).cells()

    def cells_in(self, x1: float, y1: float, x2: float, y2: float) -> list[SlideCell]:
        """Cells whose box overlaps that part of the slide, by id."""
        cells = [
            cell
            for block in self.blocks_near(x1, y1, x2, y2)
            for cell in block.cells()
            if cell.box_px[0] < x2 and cell.box_px[2] > x1 and cell.box_px[1] < y2 and cell.box_px[3] > y1
        ]
        return sorted(cells, key=lambda cell: cell.cell_id)

    def white_cells_within(self, x1: float, y1: float, x2: float, y2: float) -> Iterator[SlideCell]:
        """White cells whose whole box lies in that part of the slide."""
        first_column, first_row = self._block_of(x1, y1)
        last_column, last_row = self._block_of(x2, y2)
        for row in range(first_row, last_row + 1):
            for column in range(first_column, last_column + 1):
                for placed in self._white_of_block.get((column, row), ()):
                    box = placed.cell.box_px
                    inside = box[0] >= x1 and box[1] >= y1 and box[2] <= x2 and box[3] <= y2
                    if inside and placed.cell.kind == "white":
                        yield placed.cell

    def _block_of(self, x_px: float, y_px: float) -> tuple[int, int]:
        return int(x_px // BLOCK_PX), int(y_px // BLOCK_PX)

    def blocks_near(self, x1: float, y1: float, x2: float, y2: float) -> Iterator[Block]:
        """Blocks that may hold cells of that part of the slide."""
        reach = 2.2 * self.red_px
        first_column, first_row = self._block_of(x1 - reach, y1 - reach)
        last_column, last_row = self._block_of(x2 + reach, y2 + reach)
        for row in range(max(first_row, 0), min(last_row, self._rows - 1) + 1):
            for column in range(max(first_column, 0), min(last_column, self._columns - 1) + 1):
                yield self._blocks((column, row))

    def _make_placed(self, cell_id: int, look: str, x_px: float, y_px: float, key: tuple[int, ...]) -> PlacedCell:
        outline = outline_of(look, np.random.default_rng(key), self.red_px)
        x1, y1, x2, y2 = outline.extent_px()
        kind = {"platelet": "platelet", "erythroblast": "nucleated red"}.get(look, "white")
        return PlacedCell(
            SlideCell(
                cell_id=cell_id,
                kind=kind,
                class_name=SUBCLASS_OF.get(look, look),
                subclass=look if look in SUBCLASS_OF else None,
                x_px=x_px,
                y_px=y_px,
                box_px=(x_px + x1, y_px + y1, x_px + x2, y_px + y2),
            ),
            look,
            key,
        )

    def _place(self, looks: list[str], margin_px: float) -> Iterator[PlacedCell]:
        """White cells at random places, apart from each other if the slide has room."""
        rng = np.random.default_rng([self.seed, _PLACING])
        reach = max((LOOKS[look].radius for look in looks), default=1.0) * self.red_px * 1.25
        bin_px = 2 * reach
        bins: dict[tuple[int, int], list[tuple[float, float, float]]] = {}
        for index, look in enumerate(looks):
            key = (self.seed, _PAINTING, index)
            x1, y1, x2, y2 = outline_of(look, np.random.default_rng(key), self.red_px).extent_px()
            radius = max(x2, y2, -x1, -y1)
            best: tuple[float, float, float] | None = None
            for _ in range(40):
                x = rng.uniform(margin_px - x1, max(self.width_px - margin_px - x2, margin_px - x1 + 1))
                y = rng.uniform(margin_px - y1, max(self.height_px - margin_px - y2, margin_px - y1 + 1))
                column, row = int(x // bin_px), int(y // bin_px)
                gap = min(
                    (
                        float(np.hypot(x - ox, y - oy)) - radius - oradius
                        for dc in (-1, 0, 1)
                        for dr in (-1, 0, 1)
                        for ox, oy, oradius in bins.get((column + dc, row + dr), ())
                    ),
                    default=reach,
                )
                if best is None or gap > best[2]:
                    best = (x, y, gap)
                if gap > 0.06 * self.red_px:
                    break
            assert best is not None
            bins.setdefault((int(best[0] // bin_px), int(best[1] // bin_px)), []).append((*best[:2], radius))
            yield self._make_placed(index, look, best[0], best[1], key)

    def _local_crowding(self, x_px: float, y_px: float) -> float:
        """Share of the area that red cells cover around there: a smear varies in thickness."""
        wave = 0.0
        for (length, _, phase, size), direction in zip(self._waves, self._directions, strict=True):
            along = x_px * np.cos(direction) + y_px * np.sin(direction)
            wave += size * np.sin(2 * np.pi * along / (32 * self.red_px * length) + phase)
        return float(np.clip(self.crowding * (1 + 0.16 * wave), 0, 0.6))

    def _scatter(self, block: tuple[int, int]) -> Block:
        """The cells whose centre lies in that block."""
        column, row = block
        number = row * self._columns + column
        rng = np.random.default_rng([self.seed, _BLOCK, number])
        left, top = column * BLOCK_PX, row * BLOCK_PX
        width = min(BLOCK_PX, self.width_px - left)
        height = min(BLOCK_PX, self.height_px - top)
        taken = _Taken(
            [
                placed.cell
                for dc in (-1, 0, 1)
                for dr in (-1, 0, 1)
                for placed in self._white_of_block.get((column + dc, row + dr), ())
            ]
        )
        area = np.pi / 4 * self.red_px**2
        share = self._local_crowding(left + width / 2, top + height / 2)
        wanted = min(int(rng.poisson(share * width * height / area)), _BLOCK_CELLS // 2)
        centres = self._scatter_red(rng, taken, wanted, left, top, width, height)
        first_id = len(self.white) + number * _BLOCK_CELLS
        red = self._make_red(rng, centres, first_id)
        next_id = first_id + len(red)
        placed = list(self._white_of_block.get(block, ()))
        for _ in range(min(int(rng.poisson(0.085 * wanted)), _BLOCK_CELLS // 2)):
            x, y = left + rng.uniform(0, width), top + rng.uniform(0, height)
            if taken.fits(x, y, 0.2 * self.red_px, 0.9):
                placed.append(self._make_placed(next_id, "platelet", x, y, (self.seed, _PAINTING, next_id)))
                next_id += 1
        return Block(tuple(placed), tuple(red))

    def _scatter_red(
        self, rng: np.random.Generator, taken: _Taken, wanted: int, left: int, top: int, width: int, height: int
    ) -> list[tuple[float, float]]:
        """Centres of about `wanted` red cells: apart, some overlapping, a few in rouleaux."""
        radius = self.red_px / 2
        # Away from the block's border: the cells beyond it are unknown here, and must not be overlapped too often.
        inset = min(0.32 * self.red_px, width / 4, height / 4)
        centres: list[tuple[float, float]] = []
        for x, y, chance, closeness, overlapping, direction in rng.random((5 * wanted, 6)).tolist():
            if len(centres) >= wanted:
                break
            x = left + inset + x * (width - 2 * inset)
            y = top + inset + y * (height - 2 * inset)
            rouleau = 3 + int(chance / 0.012 * 4) if chance < 0.012 else 1
            gap = 0.55 + 0.35 * closeness if overlapping < 0.18 else 0.97
            angle = direction * 2 * np.pi
            for _ in range(rouleau):
                inside = inset <= x - left <= width - inset and inset <= y - top <= height - inset
                if not inside or not taken.fits(x, y, radius, gap):
                    break
                taken.add(x, y, radius)
                centres.append((x, y))
                x += 0.45 * self.red_px * float(np.cos(angle))
                y += 0.45 * self.red_px * float(np.sin(angle))
                angle += rng.normal(0, 0.2)
                gap = 0.40
        return centres

    def _make_red(self, rng: np.random.Generator, centres: list[tuple[float, float]], first_id: int) -> list[RedCell]:
        count = len(centres)
        shapes = rng.integers(RED_SHAPES, size=count)
        angles = rng.uniform(0, 2 * np.pi, count)
        scales = np.clip(rng.normal(1, 0.04, count), 0.9, 1.1)
        strengths = rng.uniform(0.85, 1.15, count)
        extents = turned_extents_px(self._red_radii_px[shapes], angles, scales)
        cells = []
        for index, (x, y) in enumerate(centres):
            x1, y1, x2, y2 = (float(edge) for edge in extents[index])
            box = (x + x1, y + y1, x + x2, y + y2)
            cell = SlideCell(first_id + index, "red", "red blood cell", None, x, y, box)
            look = float(angles[index]), float(scales[index]), float(strengths[index])
            cells.append(RedCell(cell, int(shapes[index]), *look))
        return cells
