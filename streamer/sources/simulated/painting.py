"""The appearance of cells: each is painted once as a sprite of optical density, from its own random numbers.

Optical density is -ln(transmitted share) per channel in B, G, R order. Densities add where cells overlap
(Beer-Lambert), so that two red cells darken each other as on glass. All sizes derive from the diameter of a
red cell in pixels. The densities were measured on May-Grünwald-Giemsa slides of peripheral blood.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from streamer.sources.simulated.shapes import (
    Floats,
    Outline,
    capsule,
    cover,
    ellipse,
    grain,
    make_outline,
    specks,
    union,
)

# Stain: optical density in B, G, R at full strength.
RED_CELL = (0.21, 0.33, 0.22)
CHROMATIN = (0.48, 2.05, 1.30)
CHROMATIN_LIGHT = (0.24, 0.92, 0.66)
CHROMATIN_LOOSE = (0.44, 1.62, 0.98)
CHROMATIN_LOOSE_LIGHT = (0.22, 0.86, 0.50)
PINK_CYTOPLASM = (0.11, 0.25, 0.16)
FINE_GRANULE = (0.10, 0.42, 0.30)
ORANGE_GRANULE = (0.55, 0.90, 0.29)
ORANGE_BETWEEN = (0.38, 0.55, 0.22)
DARK_GRANULE = (0.50, 2.00, 1.12)
BLUE_CYTOPLASM = (0.20, 0.62, 0.56)
GREY_BLUE_CYTOPLASM = (0.12, 0.38, 0.34)
AZUROPHIL_GRANULE = (0.25, 0.95, 0.50)
POLYCHROMATIC_CYTOPLASM = (0.22, 0.50, 0.42)
PLATELET_BODY = (0.12, 0.36, 0.24)
PLATELET_GRANULE = (0.30, 1.25, 0.72)


@dataclass(frozen=True)
class Sprite:
    """A painted cell.

    density: float32 (h, w, 3), optical density B, G, R. The sprite owns it: don't write to it.
    left_px, top_px: place of its first pixel on the slide.
    """

    density: Floats
    left_px: int
    top_px: int


@dataclass(frozen=True)
class Look:
    """What all cells of a type have in common. Radii are in red-cell diameters."""

    radius: float
    spread: float
    stretch: float
    lobing: float
    fuzz: float


LOOKS: dict[str, Look] = {
    "segmented neutrophil": Look(1.02, 0.06, 0.05, 0.015, 0.004),
    "band neutrophil": Look(1.02, 0.06, 0.05, 0.015, 0.004),
    "eosinophil": Look(1.06, 0.06, 0.05, 0.015, 0.010),
    "basophil": Look(1.00, 0.07, 0.06, 0.020, 0.018),
    "lymphocyte": Look(0.76, 0.11, 0.06, 0.035, 0.012),
    "monocyte": Look(1.26, 0.09, 0.09, 0.050, 0.009),
    "metamyelocyte": Look(1.08, 0.06, 0.05, 0.020, 0.004),
    "myelocyte": Look(1.12, 0.06, 0.05, 0.020, 0.004),
    "promyelocyte": Look(1.28, 0.06, 0.06, 0.025, 0.004),
    "erythroblast": Look(0.66, 0.08, 0.05, 0.025, 0.006),
    "platelet": Look(0.19, 0.18, 0.12, 0.060, 0.030),
    "red": Look(0.50, 0.05, 0.055, 0.020, 0.0),
}


def outline_of(kind_of_cell: str, rng: np.random.Generator, red_px: float) -> Outline:
    """The outline of a cell of that type. Painting the cell continues with the same `rng`."""
    look = LOOKS[kind_of_cell]
    size = float(np.clip(rng.normal(1, look.spread), 1 - 2 * look.spread, 1 + 2 * look.spread))
    return make_outline(rng, look.radius * size * red_px, stretch=look.stretch, lobing=look.lobing, fuzz=look.fuzz)


class _Canvas:
    """Coordinates, random numbers and the growing picture of one cell."""

    def __init__(self, outline: Outline, rng: np.random.Generator, red_px: float, x_px: float, y_px: float) -> None:
        x1, y1, x2, y2 = outline.extent_px()
        self.left_px = int(np.floor(x_px + x1)) - 1
        self.top_px = int(np.floor(y_px + y1)) - 1
        self.shape = (int(np.ceil(y_px + y2)) + 1 - self.top_px, int(np.ceil(x_px + x2)) + 1 - self.left_px)
        self.y, self.x = np.meshgrid(
            np.arange(self.shape[0], dtype=np.float32) + np.float32(self.top_px + 0.5 - y_px),
            np.arange(self.shape[1], dtype=np.float32) + np.float32(self.left_px + 0.5 - x_px),
            indexing="ij",
        )
        self.rng = rng
        self.red_px = red_px
        self.radius_px = float(outline.radius_px.mean())
        self.depth_px = outline.depth_px(self.x, self.y)
        self.body = cover(self.depth_px)
        self.density = np.zeros((*self.shape, 3), dtype=np.float32)

    def lay(self, stain: tuple[float, float, float], amount: Floats) -> None:
        """Add `amount` (h, w) of a stain."""
        self.density += amount[..., None] * np.asarray(stain, dtype=np.float32)

    def replace(self, colour: Floats, share: Floats) -> None:
        """Replace the density by `colour` (h, w, 3) where `share` (h, w) is 1."""
        self.density += share[..., None] * (colour - self.density)

    def grain(self, size: float) -> Floats:
        """Texture whose grains are about `size` red-cell diameters."""
        return grain(self.rng, self.shape, size * self.red_px)

    def specks(self, share: float, radius: float) -> Floats:
        """Granules of `radius` red-cell diameters over the whole canvas."""
        return specks(self.rng, self.shape, share, radius * self.red_px)

    def sprite(self) -> Sprite:
        """The picture, cut off at the outline."""
        strength = np.float32(self.rng.uniform(0.9, 1.1))
        return Sprite(self.density * (self.body * strength)[..., None], self.left_px, self.top_px)


def _floats(values: object) -> Floats:
    return np.asarray(values, dtype=np.float32)


def _mix(first: tuple[float, float, float], second: tuple[float, float, float], share: Floats) -> Floats:
    """From `first` where share is 0 to `second` where it is 1. float32 (h, w, 3)."""
    a, b = np.asarray(first, dtype=np.float32), np.asarray(second, dtype=np.float32)
    return np.asarray(a + share[..., None] * (b - a), dtype=np.float32)


def _paint_nucleus(c: _Canvas, depth_px: Floats, *, loose: bool = False, clumps: float = 0.022) -> Floats:
    """Lay chromatin into the shape `depth_px` (signed distance): clumps, lighter channels, a dark rim.

    loose: the open, redder net of a monocyte instead of dense clumps. Returns the nucleus's cover (h, w).
    """
    depth_px = depth_px + 0.012 * c.red_px * c.grain(0.09)
    shape = cover(depth_px, 1.2)
    texture = 0.8 * c.grain(clumps) + 0.5 * c.grain(clumps * 2.6)
    # Light channels between dark clumps: few in a dense nucleus, many in a loose one.
    lightness = _floats(1 / (1 + np.exp(-3.2 * (texture - (0.15 if loose else 0.65)), dtype=np.float32)))
    rim = np.exp(-((np.maximum(depth_px, 0) / (0.028 * c.red_px + 0.5)) ** 2), dtype=np.float32)
    lightness = _floats(lightness * (1 - rim) * 0.95)
    if loose:
        colour = _mix(CHROMATIN_LOOSE, CHROMATIN_LOOSE_LIGHT, lightness)
        colour += (0.25 * rim)[..., None] * np.asarray(CHROMATIN, dtype=np.float32)
    else:
        colour = _mix(CHROMATIN, CHROMATIN_LIGHT, lightness)
    c.replace(colour, shape)
    return shape


def _turned(point: tuple[float, float], angle: float) -> tuple[float, float]:
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    return point[0] * cos - point[1] * sin, point[0] * sin + point[1] * cos


def _lobed(c: _Canvas, lobes: int, *, size: float, ring: float, apart: float) -> Floats:
    """Lobes along a bent chain, neighbours joined by strands. Signed distance, px; sizes are in cell radii."""
    rng, radius = c.rng, c.radius_px
    start = rng.uniform(0, 2 * np.pi)
    arc = apart * (lobes - 1)
    shift = (rng.normal(0, 0.04) * radius, rng.normal(0, 0.04) * radius)
    centres = []
    parts: list[Floats] = []
    for index in range(lobes):
        angle = start + (index / max(lobes - 1, 1) - 0.5) * arc + rng.normal(0, 0.10)
        away = ring * (1 + rng.normal(0, 0.10))
        x, y = _turned((away * radius, 0.0), angle)
        centres.append((x + shift[0], y + shift[1]))
        long = size * rng.uniform(0.95, 1.22)
        wide = size * rng.uniform(0.72, 0.92)
        parts.append(
            ellipse(c.x, c.y, *centres[-1], long * radius, wide * radius, angle + np.pi / 2 + rng.normal(0, 0.45))
        )
    for first, second in itertools.pairwise(centres):
        parts.append(capsule(c.x, c.y, first, second, radius * rng.uniform(0.045, 0.085)))
    return _floats(np.minimum(union(parts, 0.06 * radius), c.depth_px - 0.03 * radius))


def _bent(c: _Canvas, *, ring: float, thick: float, arc: float) -> Floats:
    """A bent sausage: the nucleus of a band cell or a horseshoe. Signed distance, px; sizes are in cell radii."""
    rng, radius = c.rng, c.radius_px
    middle = rng.uniform(0, 2 * np.pi)
    steps = 9
    shift = _turned((-0.28 * ring * radius, 0.0), middle)
    points = []
    for index in range(steps):
        angle = middle + (index / (steps - 1) - 0.5) * arc
        away = ring * (1 + 0.06 * rng.normal())
        x, y = _turned((away * radius, 0.0), angle)
        points.append((x + shift[0], y + shift[1]))
    parts = []
    for index, (first, second) in enumerate(itertools.pairwise(points)):
        waist = 1 - 0.18 * np.exp(-(((index - steps / 2 + 1) / 1.6) ** 2))
        parts.append(capsule(c.x, c.y, first, second, thick * waist * radius * (1 + 0.05 * rng.normal())))
    return _floats(np.minimum(union(parts, 0.10 * radius), c.depth_px - 0.05 * radius))


def _oval(c: _Canvas, *, a: float, b: float, off: float, dent: float = 0.0) -> Floats:
    """A round or oval nucleus, off centre, with a dent. Signed distance, px; sizes are in cell radii."""
    rng, radius = c.rng, c.radius_px
    towards = rng.uniform(0, 2 * np.pi)
    x, y = _turned((off * radius, 0.0), towards)
    body = ellipse(c.x, c.y, x, y, a * radius, b * radius, towards + np.pi / 2 + rng.normal(0, 0.3))
    if dent > 0:
        side = towards + np.pi + rng.normal(0, 0.4)
        dx, dy = _turned((b * 1.18 * radius, 0.0), side)
        bite = ellipse(c.x, c.y, x + dx, y + dy, dent * radius, dent * 0.8 * radius, side)
        blend = 0.12 * radius
        overlap = np.maximum(blend - np.abs(body + bite), 0) / blend
        body = np.minimum(body, -bite) - overlap * overlap * (blend / 4)
    return _floats(np.minimum(body, c.depth_px - 0.035 * radius))


def _paint_neutrophil(c: _Canvas, nucleus: Floats) -> None:
    c.lay(PINK_CYTOPLASM, (1 + 0.13 * c.grain(0.10)) * (0.75 + 0.25 * np.clip(c.depth_px / (0.3 * c.radius_px), 0, 1)))
    c.lay(FINE_GRANULE, c.specks(0.30, 0.026) * 0.5 + c.specks(0.04, 0.028) * 0.6)
    _paint_nucleus(c, nucleus)


def _segmented(c: _Canvas) -> None:
    lobes = int(c.rng.choice([2, 3, 4, 5], p=[0.10, 0.50, 0.32, 0.08]))
    size = {2: 0.43, 3: 0.365, 4: 0.315, 5: 0.28}[lobes]
    apart = {2: 1.9, 3: 1.55, 4: 1.30, 5: 1.12}[lobes]
    _paint_neutrophil(c, _lobed(c, lobes, size=size, ring=0.47, apart=apart * c.rng.uniform(0.92, 1.1)))


def _band(c: _Canvas) -> None:
    _paint_neutrophil(c, _bent(c, ring=0.50, thick=0.225, arc=c.rng.uniform(3.4, 4.4)))


def _eosinophil(c: _Canvas) -> None:
    lobes = 2 if c.rng.random() < 0.85 else 3
    c.lay(ORANGE_BETWEEN, _floats(1 + 0.10 * c.grain(0.10)))
    granules = _floats(np.maximum(c.specks(0.75, 0.050), 0.85 * c.specks(0.5, 0.042)))
    c.replace(_mix(ORANGE_BETWEEN, ORANGE_GRANULE, granules), granules)
    c.lay((-0.12, -0.28, -0.14), c.specks(0.06, 0.022))
    size, apart = (0.43, 1.95) if lobes == 2 else (0.32, 1.5)
    nucleus = _lobed(c, lobes, size=size, ring=0.47, apart=apart * c.rng.uniform(0.9, 1.12))
    _paint_nucleus(c, nucleus, clumps=0.022)


def _basophil(c: _Canvas) -> None:
    c.lay(PINK_CYTOPLASM, 1.7 + 0.3 * c.grain(0.06))
    nucleus = _lobed(c, int(c.rng.choice([2, 3])), size=0.46, ring=0.34, apart=1.9)
    _paint_nucleus(c, nucleus, loose=True)
    crowd = c.rng.uniform(0.65, 1.25)
    granules = _floats(np.maximum(c.specks(crowd, 0.036), 0.9 * c.specks(0.35, 0.048)))
    c.replace(np.broadcast_to(np.asarray(DARK_GRANULE, dtype=np.float32), c.density.shape), granules)


def _lymphocyte(c: _Canvas) -> None:
    edge = np.clip(1 - c.depth_px / (0.16 * c.radius_px), 0, 1)
    c.lay(BLUE_CYTOPLASM, 0.50 + 0.35 * edge + 0.12 * c.grain(0.04))
    size = c.rng.uniform(0.88, 0.97)  # a thin rim of cytoplasm, wider on one side
    nucleus = _oval(
        c,
        a=size,
        b=size * c.rng.uniform(0.88, 0.97),
        off=c.rng.uniform(0.02, 0.08),
        dent=0.22 if c.rng.random() < 0.25 else 0.0,
    )
    _paint_nucleus(c, nucleus, loose=True)


def _monocyte(c: _Canvas) -> None:
    c.lay(GREY_BLUE_CYTOPLASM, c.rng.uniform(0.95, 1.5) + 0.15 * c.grain(0.025) + 0.10 * c.grain(0.10))
    c.lay(AZUROPHIL_GRANULE, c.specks(0.05, 0.018) * 0.35)
    shape = c.rng.random()
    if shape < 0.45:
        nucleus = _oval(c, a=0.78, b=0.66, off=0.10, dent=c.rng.uniform(0.26, 0.40))
    elif shape < 0.85:
        nucleus = _bent(c, ring=0.44, thick=0.32, arc=c.rng.uniform(3.0, 3.9))
    else:
        nucleus = _lobed(c, 3, size=0.44, ring=0.30, apart=1.7)
    share = _paint_nucleus(c, nucleus, loose=True)
    holes = np.zeros(c.shape, dtype=np.float32)
    for _ in range(int(c.rng.integers(2, 16))):
        x, y = _turned((c.rng.uniform(0.35, 0.92) * c.radius_px, 0.0), c.rng.uniform(0, 2 * np.pi))
        size = c.rng.uniform(0.03, 0.10) * c.radius_px
        holes = np.maximum(holes, cover(ellipse(c.x, c.y, x, y, size, size, 0.0), 1.6))
    c.density *= (1 - 0.85 * holes * (1 - 0.8 * share))[..., None]


def _metamyelocyte(c: _Canvas) -> None:
    _paint_neutrophil(c, _oval(c, a=0.66, b=0.44, off=0.26, dent=0.30))


def _myelocyte(c: _Canvas) -> None:
    c.lay(BLUE_CYTOPLASM, np.full(c.shape, 0.22, dtype=np.float32))
    _paint_neutrophil(c, _oval(c, a=0.62, b=0.52, off=0.28))


def _promyelocyte(c: _Canvas) -> None:
    c.lay(BLUE_CYTOPLASM, 0.62 + 0.08 * c.grain(0.06))
    _paint_nucleus(c, _oval(c, a=0.74, b=0.68, off=0.16), loose=True)
    c.lay(AZUROPHIL_GRANULE, c.specks(0.16, 0.030) * 0.8)


def _erythroblast(c: _Canvas) -> None:
    c.lay(POLYCHROMATIC_CYTOPLASM, 1 + 0.08 * c.grain(0.06))
    _paint_nucleus(c, _oval(c, a=0.56, b=0.54, off=c.rng.uniform(0.02, 0.16)), clumps=0.05)


def _platelet(c: _Canvas) -> None:
    c.lay(PLATELET_BODY, np.ones(c.shape, dtype=np.float32))
    c.lay(PLATELET_GRANULE, c.specks(0.65, 0.030) * cover(c.depth_px - 0.03 * c.red_px, 0.05 * c.red_px))


def _red(c: _Canvas) -> None:
    from_edge = np.clip(c.depth_px / c.radius_px, 0, 1)
    radius = c.rng.uniform(0.28, 0.62)
    pallor = c.rng.beta(2.0, 1.6) * 0.9
    squeeze = c.rng.uniform(1.0, 1.35)
    angle = c.rng.uniform(0, np.pi)
    x = (c.x * np.cos(angle) + c.y * np.sin(angle)) / c.radius_px - c.rng.normal(0, 0.05)
    y = (c.y * np.cos(angle) - c.x * np.sin(angle)) / c.radius_px * squeeze - c.rng.normal(0, 0.05)
    steepness = c.rng.uniform(1.6, 3.5)
    hollow = np.exp(-((np.hypot(x, y) / radius) ** steepness), dtype=np.float32)
    rim = np.exp(-(((from_edge - 0.09) / 0.09) ** 2), dtype=np.float32)
    thickness = (1 - pallor * hollow) * (0.78 + 0.22 * np.clip(from_edge / 0.25, 0, 1))
    c.lay(RED_CELL, _floats(thickness + 0.14 * rim + 0.02 * c.grain(0.05)))


_PAINTERS: dict[str, Callable[[_Canvas], None]] = {
    "segmented neutrophil": _segmented,
    "band neutrophil": _band,
    "eosinophil": _eosinophil,
    "basophil": _basophil,
    "lymphocyte": _lymphocyte,
    "monocyte": _monocyte,
    "metamyelocyte": _metamyelocyte,
    "myelocyte": _myelocyte,
    "promyelocyte": _promyelocyte,
    "erythroblast": _erythroblast,
    "platelet": _platelet,
    "red": _red,
}


def paint(
    kind_of_cell: str, outline: Outline, rng: np.random.Generator, red_px: float, x_px: float, y_px: float
) -> Sprite:
    """Paint one cell with its centre at (x_px, y_px) of the slide; `rng` continues from `outline_of`.

    What is painted lies within the outline's extent around the centre, up to half a pixel of antialiasing.
    """
    canvas = _Canvas(outline, rng, red_px, x_px, y_px)
    _PAINTERS[kind_of_cell](canvas)
    return canvas.sprite()
