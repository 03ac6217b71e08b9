"""Crops that show no white cell, such as a careless detector, a dirty slide or another camera could give: what a
classifier should call unlike anything it was trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from tools.data import Field, blood_label, load_splits, read_fields
from tools.data.crops import read_image

Boxes = np.ndarray
"""float32 (n, 4), x1, y1, x2, y2."""

FIELDS = "txl_pbc"
"""The set whose boxes are complete: what has no box there is no cell."""
OTHERWISE = 1.5
"""Side of a white cell in red-cell diameters, in fields that show none."""
DRAWN_PX, DRAWN_BOX_PX = 192, 128
"""Side of a drawn picture, and of the box in its middle."""

Crop = Callable[[np.ndarray, Boxes], np.ndarray]
"""(picture uint8 (H, W, 3) BGR, n boxes) -> crops (n, …), `Classifier.crop` for one."""


def junk_crops(root: Path, part: str, crop: Crop, each: int, seed: int = 0) -> dict[str, np.ndarray]:
    """By kind `each` crops (fewer where the fields give no more), (n, …) as `crop` gives them.

    Of fields of one part: "background", "red cell", "red cells" (two to four side by side), "platelet", "cut" (a white
    cell of which a third or less lies in the frame), "far out of focus" (white cells). Drawn: "blob" (stain on
    plasma), "texture" (noise of all scales, gratings, patches, in colours of a smear and others).
    """
    rng = np.random.default_rng(seed)
    splits = load_splits(root)
    fields = [f for f in read_fields(root, (FIELDS,)) if splits[f.key] == part]
    found: dict[str, list[np.ndarray]] = {kind: [] for kind in (*_PLACES, "cut", "far out of focus")}

    def add(kind: str, image: np.ndarray, boxes: Boxes) -> None:
        if len(found[kind]) < each and len(boxes):
            found[kind] += list(crop(image, np.asarray(boxes, np.float32)))

    for i in rng.permutation(len(fields)):
        image = read_image(fields[i].path)
        boxes = _by_label(fields[i])
        for kind, places in _PLACES.items():
            add(kind, image, places(boxes, image.shape[:2], rng)[:3])
        for box in boxes["WBC"][:2]:
            add("cut", *_moved_out(image, box, rng))
            if len(found["far out of focus"]) < each:
                add("far out of focus", _unfocused(image, box, rng), box[None])
    crops = {kind: np.stack(some[:each]) for kind, some in found.items() if some}
    middle = np.array([[-1, -1, 1, 1]], np.float32) * DRAWN_BOX_PX / 2 + DRAWN_PX / 2
    for kind, draw in (("blob", _blob), ("texture", _texture)):
        crops[kind] = np.concatenate([crop(draw(rng), middle) for _ in range(each)])
    return crops


def _by_label(field: Field) -> dict[str, Boxes]:
    boxes: dict[str, list[tuple[float, ...]]] = {"WBC": [], "RBC": [], "platelet": []}
    for one in field.boxes:
        boxes[blood_label(one.label)].append(one.box_px)
    return {label: np.array(some, np.float32).reshape(-1, 4) for label, some in boxes.items()}


def _background(boxes: dict[str, Boxes], size: Sequence[int], rng: np.random.Generator) -> Boxes:
    all_boxes = np.concatenate(list(boxes.values()))
    if not len(all_boxes):
        return np.zeros((0, 4), np.float32)
    white, red = boxes["WBC"], boxes["RBC"]
    sides = (white if len(white) else red)[:, 2:] - (white if len(white) else red)[:, :2]
    side = float(np.median(sides.max(1))) * (1.0 if len(white) else OTHERWISE) if len(sides) else 50.0
    corners = rng.uniform(0, 1, (200, 2)) * np.maximum(1, np.array([size[1] - side, size[0] - side]))
    squares = np.concatenate([corners, corners + side], 1)
    low, high = np.maximum(squares[:, None, :2], all_boxes[:, :2]), np.minimum(squares[:, None, 2:], all_boxes[:, 2:])
    covered = np.maximum(high - low, 0).prod(2).sum(1) / side**2
    return np.asarray(squares[covered < 0.12], np.float32)


def _red_cell(boxes: dict[str, Boxes], size: Sequence[int], rng: np.random.Generator) -> Boxes:
    return rng.permutation(boxes["RBC"])[:1]


def _platelet(boxes: dict[str, Boxes], size: Sequence[int], rng: np.random.Generator) -> Boxes:
    return rng.permutation(boxes["platelet"])


def _red_cells(boxes: dict[str, Boxes], size: Sequence[int], rng: np.random.Generator) -> Boxes:
    """Boxes around a red cell and its nearest neighbours, without a white cell in them."""
    red, white = boxes["RBC"], boxes["WBC"]
    if len(red) < 4:
        return np.zeros((0, 4), np.float32)
    centres = (red[:, :2] + red[:, 2:]) / 2
    nearest = np.argsort(np.linalg.norm(centres - centres[rng.integers(len(red))], axis=1))[: rng.integers(2, 5)]
    around = np.concatenate([red[nearest, :2].min(0), red[nearest, 2:].max(0)])
    inside = np.minimum(white[:, 2:], around[2:]) - np.maximum(white[:, :2], around[:2])
    return np.zeros((0, 4), np.float32) if (inside > 0).all(1).any() else around[None]


_PLACES: dict[str, Callable[[dict[str, Boxes], Sequence[int], np.random.Generator], Boxes]] = {
    "background": _background,
    "red cell": _red_cell,
    "red cells": _red_cells,
    "platelet": _platelet,
}


def _moved_out(image: np.ndarray, box: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, Boxes]:
    """The frame cut so that a sixth to a third of the cell's width is left, and the cell's whole box in it."""
    left = box[0] + rng.uniform(1 / 6, 1 / 3) * (box[2] - box[0])
    return image[:, : max(2, round(float(left)))], box[None]


def _unfocused(image: np.ndarray, box: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.12, 0.21) * float(max(box[2:] - box[:2]))))


def _plasma(rng: np.random.Generator) -> np.ndarray:
    """float32 (192, 192, 3): light and even, in the colours of smears."""
    colour = np.array([225, 205, 220]) + rng.normal(0, 12, 3)
    return np.asarray(colour + rng.normal(0, 3, (DRAWN_PX, DRAWN_PX, 3)), np.float32)


def _blob(rng: np.random.Generator) -> np.ndarray:
    """One to three even patches of stain with soft edges."""
    picture = _plasma(rng)
    y, x = (np.mgrid[:DRAWN_PX, :DRAWN_PX] - DRAWN_PX / 2) / DRAWN_BOX_PX
    for _ in range(rng.integers(1, 4)):
        angle = rng.uniform(0, np.pi)
        cx, cy = rng.uniform(-0.2, 0.2, 2)
        u = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
        v = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
        distance = np.hypot(u / rng.uniform(0.08, 0.35), v / rng.uniform(0.05, 0.25))
        mask = 1 / (1 + np.exp((distance - 1) * rng.uniform(4, 25)))
        colour = np.array([130, 60, 110]) + rng.normal(0, 30, 3)
        picture += mask[..., None] * (colour - picture)
    return np.asarray(np.clip(picture, 0, 255), np.uint8)


def _texture(rng: np.random.Generator) -> np.ndarray:
    kind = rng.integers(3)
    first, second = rng.uniform(20, 240, (2, 3))
    if kind == 0:  # noise whose strength falls with its frequency, as that of pictures does
        frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(DRAWN_PX), np.fft.fftfreq(DRAWN_PX)))
        frequency[0, 0] = np.inf
        waves = np.fft.fft2(rng.normal(size=(3, DRAWN_PX, DRAWN_PX))) / frequency ** rng.uniform(0.6, 1.6)
        noise = np.moveaxis(np.fft.ifft2(waves).real, 0, 2)
        picture = first + noise / noise.std() * rng.uniform(15, 60)
    elif kind == 1:
        y, x = np.mgrid[:DRAWN_PX, :DRAWN_PX] / DRAWN_PX
        angle, waves = rng.uniform(0, np.pi), rng.uniform(2, 14)
        share = np.sin(2 * np.pi * waves * (x * np.cos(angle) + y * np.sin(angle)))[..., None] / 2 + 0.5
        picture = first + share * (second - first)
    else:
        points, colours = rng.uniform(0, DRAWN_PX, (30, 2)), rng.uniform(20, 240, (30, 3))
        places = np.moveaxis(np.mgrid[:DRAWN_PX, :DRAWN_PX], 0, -1).reshape(-1, 1, 2)
        nearest = np.linalg.norm(places - points, axis=2).argmin(1)
        picture = colours[nearest].reshape(DRAWN_PX, DRAWN_PX, 3)
    return np.asarray(np.clip(picture + rng.normal(0, 4, picture.shape), 0, 255), np.uint8)
