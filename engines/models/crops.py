"""What engines that look at crops have in common: one input, uint8 (N,h,w,3), of the card's size."""

from __future__ import annotations

import numpy as np

from engines.base import Engine, ModelFormatError
from engines.geometry import Image
from engines.zoo.card import Card

IMAGES = "images"


def check_crop_input(card: Card, engine: Engine, size: tuple[int, int]) -> None:
    """ModelFormatError unless `engine` takes crops of `size` (h, w) and nothing else."""
    inputs = [(spec.name, spec.shape[1:], spec.dtype) for spec in engine.inputs]
    if inputs != [(IMAGES, (*size, 3), np.dtype(np.uint8))]:
        got = ", ".join(f"{spec.name} {spec.dtype} {spec.shape}" for spec in engine.inputs)
        raise ModelFormatError(
            f"model {card.name!r}: inputs: got {got}, expected {IMAGES} uint8 (N,{size[0]},{size[1]},3) by its card"
        )


def filled(crops: Image, engine: Engine) -> Image:
    """The crops (n,h,w,3), filled up with black where the engine's file has a fixed batch."""
    fixed = engine.inputs[0].shape[0]
    if fixed is None or fixed == len(crops):
        return crops
    full = np.zeros((fixed, *crops.shape[1:]), np.uint8)
    full[: len(crops)] = crops
    return full
