"""Labelled fields for training, each with its own slide, scale, stain, lamp and focus."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from streamer.sources.simulated.optics import Optics
from streamer.sources.simulated.parameters import SlideParameters
from streamer.sources.simulated.smear import Smear
from streamer.sources.simulated.tiles import Tiles
from streamer.sources.simulated.truth import cells_in_frame

LOOKS_OF_A_FIELD = {
    "segmented neutrophil": 0.24,
    "band neutrophil": 0.08,
    "eosinophil": 0.15,
    "basophil": 0.13,
    "lymphocyte": 0.17,
    "monocyte": 0.15,
    "metamyelocyte": 0.02,
    "myelocyte": 0.02,
    "promyelocyte": 0.01,
    "erythroblast": 0.03,
}
"""Rare classes are common here, so that all are learnt."""
MIN_VISIBLE = 0.25
"""Cells with a smaller share in the field get no box."""

Field = tuple[NDArray[np.uint8], NDArray[np.float32], list[str], list[str]]


def training_fields(
    seed: int, count: int, width: int, height: int, *, red_px: tuple[float, float] = (18.0, 90.0)
) -> Iterator[Field]:
    """`count` labelled fields; the same for the same arguments.

    Yields (image, boxes_px, kinds, classes): image uint8 (height, width, 3) BGR; boxes_px float32 (n, 4)
    x1, y1, x2, y2; kinds: white, red, platelet, nucleated red; classes: subclass where the cell has one, else class.
    red_px: range of the diameter of red cells.
    """
    for index in range(count):
        yield _field(np.random.default_rng([seed, 41, index]), width, height, red_px)


def _field(rng: np.random.Generator, width: int, height: int, red_px: tuple[float, float]) -> Field:
    largest = min(red_px[1], min(width, height) / 4)
    red = float(np.exp(rng.uniform(np.log(min(red_px[0], largest)), np.log(largest))))
    parameters = SlideParameters(
        seed=int(rng.integers(2**32)),
        width=width,
        height=height,
        red=red,
        noise=float(rng.gamma(2.0, 0.6)),
        blur=1.0,
        vignette=float(rng.uniform(0, 3)),
        cast=float(rng.uniform(0, 1.6)),
    )
    room = width * height / red**2
    white = int(np.clip(rng.poisson(min(0.012 * room, 6)), 1, max(0.03 * room, 1)))
    names = list(LOOKS_OF_A_FIELD)
    looks = [str(look) for look in rng.choice(names, white, p=list(LOOKS_OF_A_FIELD.values()))]
    border = int(1.5 * red)
    smear = Smear(
        parameters.seed,
        width + 2 * border,
        height + 2 * border,
        looks,
        red_px=red,
        crowding=float(rng.uniform(0.10, 0.50)),
        margin_px=float(0.2 * border),
    )
    optics = Optics(parameters)
    motion = (0.0, 0.0) if rng.random() < 0.7 else (float(rng.normal(0, 0.06 * red)), float(rng.normal(0, 0.06 * red)))
    defocus = optics.defocus_px(float(rng.normal(0, 1.2)))
    margin = optics.margin_px(motion, defocus)
    stain = rng.uniform(0.75, 1.3) * rng.uniform(0.9, 1.1, 3)
    tiles = Tiles(smear, stain=(float(stain[0]), float(stain[1]), float(stain[2])))
    view = tiles.view(border - margin, border - margin, width + 2 * margin, height + 2 * margin)
    image = optics.expose(view, 0, margin, (0.0, 0.0), motion, defocus)
    cells = cells_in_frame(
        smear.cells_in(border, border, border + width, border + height), border, border, width, height
    )
    visible = [cell for cell in cells if cell.fraction_visible >= MIN_VISIBLE]
    boxes = np.array([cell.box_px for cell in visible], dtype=np.float32).reshape(-1, 4)
    classes = [cell.cell.subclass or cell.cell.class_name for cell in visible]
    return image, boxes, [cell.cell.kind for cell in visible], classes
