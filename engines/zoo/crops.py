"""The crops that a classifier or segmenter takes: their size, what of a cell they show, and whether an engine fits."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from engines.base import CardError, Engine, ModelFormatError
from engines.geometry import Border, Boxes, Image, centred_squares
from engines.graphs.graph import INPUT
from engines.zoo.table import Table


@dataclass(frozen=True, slots=True)
class CropInput:
    """Input of a classifier or segmenter: one tensor, uint8 (N,height_px,width_px,3)."""

    height_px: int
    width_px: int
    channels: str = "bgr"
    crop_margin: float = 1.3
    """Side of the square crop over the longer side of the box."""
    mirrored_margin: float | None = None
    """The same of a second, mirrored look at each cell (of a picture of one cell the second look is mirrored then);
    None: one look a cell."""
    pad_value: int | None = None
    """Grey outside the frame; None repeats the frame's border, which looks less like an object."""
    middle_share: float = 0.65
    """Of a picture of one cell: the part of its side that the second look shows."""
    fixed_look_rbc: float | None = None
    """Side of the second look at a cell in diameters of the red cells around it, which shows how large the cell is;
    it is not mirrored. Where the magnification is not known the second look is that of `mirrored_margin`. None: it
    always is."""

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of a crop in px."""
        return self.height_px, self.width_px

    @property
    def looks(self) -> int:
        """How often a cell in a frame is looked at."""
        return 1 if self.mirrored_margin is None else 2

    def is_fixed(self, look: int, rbc_px: float | None) -> bool:
        """Whether the first (0) or second (1) look at a cell has a fixed physical size, where red cells are `rbc_px`
        wide in the frame; None: unknown."""
        return look == 1 and self.fixed_look_rbc is not None and rbc_px is not None

    def is_mirrored(self, look: int, rbc_px: float | None) -> bool:
        """Whether the first (0) or second (1) look at a cell is mirrored."""
        return look == 1 and self.mirrored_margin is not None and not self.is_fixed(look, rbc_px)

    def looked_at(self, look: int, box_px: Boxes, rbc_px: float | None) -> tuple[Boxes, float]:
        """Boxes float32 (n,4) and the side of the look's squares over their longer sides, for cells in boxes (n,4)."""
        if self.fixed_look_rbc is not None and rbc_px is not None and look == 1:
            return centred_squares(box_px, self.fixed_look_rbc * rbc_px), 1.0
        return box_px, self.crop_margin if look == 0 or self.mirrored_margin is None else self.mirrored_margin

    @property
    def border(self) -> Border:
        return "replicate" if self.pad_value is None else self.pad_value

    def check(self, model: str, engine: Engine) -> None:
        """ModelFormatError unless the engine of that model takes crops of this size and nothing else."""
        inputs = [(spec.name, spec.shape[1:], spec.dtype) for spec in engine.inputs]
        if inputs != [(INPUT, (*self.size, 3), np.dtype(np.uint8))]:
            got = ", ".join(f"{spec.name} {spec.dtype} {spec.shape}" for spec in engine.inputs)
            raise ModelFormatError(
                f"model {model!r}: inputs: got {got}, expected {INPUT} uint8 (N,{self.height_px},{self.width_px},3) "
                "by its card"
            )


def read_crop_input(settings: Table) -> CropInput:
    """The [input] of the card of a classifier or segmenter."""
    read = CropInput(
        height_px=settings.whole("height_px", low=1),
        width_px=settings.whole("width_px", low=1),
        channels=settings.choice("channels", ("bgr", "rgb"), "bgr"),
        crop_margin=settings.number("crop_margin", 1.3, low=0.1, high=10),
        mirrored_margin=settings.number("mirrored_margin", low=0.1, high=10) if "mirrored_margin" in settings else None,
        pad_value=settings.whole("pad_value", low=0, high=255) if "pad_value" in settings else None,
        middle_share=settings.number("middle_share", 0.65, low=0.1, high=1),
        fixed_look_rbc=settings.number("fixed_look_rbc", low=0.5, high=20) if "fixed_look_rbc" in settings else None,
    )
    if read.fixed_look_rbc is not None and read.mirrored_margin is None:
        raise CardError(
            f"{settings.where}: got fixed_look_rbc without mirrored_margin, expected both; mirrored_margin is the "
            "second look at frames of unknown magnification"
        )
    settings.done()
    return read


def even_batches(crops: int, most: int) -> list[slice]:
    """As few batches of at most `most` crops as will do, of sizes that differ by one at most.

    A small rest would be computed by other kernels than a full batch, and its last bits differ (ONNX Runtime's matrix
    products of fewer than four rows).
    """
    batches = -(-crops // most)
    ends = [crops * number // batches for number in range(batches + 1)] if batches else [0]
    return [slice(*pair) for pair in pairwise(ends)]


def filled(crops: Image, engine: Engine) -> Image:
    """The crops (n,h,w,3), filled up with black where the engine's file has a fixed batch."""
    fixed = engine.inputs[0].shape[0]
    if fixed is None or fixed == len(crops):
        return crops
    full = np.zeros((fixed, *crops.shape[1:]), np.uint8)
    full[: len(crops)] = crops
    return full
