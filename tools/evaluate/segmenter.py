"""Measure a segmenter on the masks of wbc_masks and krd, as the stream uses it: crops around the cell, by the engine.

    python -m tools.evaluate deeplabv3-xception --part test --json runs/deeplabv3-xception/test.json
    python -m tools.evaluate runs/zoo/deeplabv3-xception.onnx --masks runs/masks

`--part` is of the split that tools.train segmenter deals, by the same seed: by laboratory and class, 70, 10 and 20 %;
of krd it is the part of every other model, the holdout part as `test`.
IoU, accuracies and F1 are of the masks' own pixels, the labels brought to their size, so that networks of any input can
be compared; F1 is the mean of background, cytoplasm and nucleus. `mean_iou_but_edges` counts what is wrong within one
of these pixels of a border of the true mask as right: how much of the rest is a question of where exactly a border was
drawn. `mean_iou_at_input` is of the network's pixels, the true masks brought to their size. The errors of the measures
compare what the stream would publish with the same measures of the true masks. `cell_iou` is of nucleus and cytoplasm
taken together. The masks of krd show no more than that: it has `cell_iou` and `global_accuracy` of cell and background
alone, and is no part of `all`, which is of wbc_masks. `--masks` draws truth (above) and what was found (below), nucleus
red, cell green.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from engines.geometry import square_around
from engines.models.loading import load_segmenter
from engines.models.segmenter import CLASSES, Segmenter
from engines.models.shape import Shape, measure
from tools.commands import command_parser
from tools.data import TRAIN, VALIDATION, data_root
from tools.data.masks import CELL, MASK_SETS, WHOLE_CELLS, cell_box, crop_mask, figures, masked_pictures
from tools.data.protocols import TEST

ACROSS, SHOWN_PX = 8, 128
MEASURES = ("nucleus_area_px", "cytoplasm_area_px", "nucleus_to_cytoplasm_ratio")


def evaluate(
    segmenter: Segmenter,
    root: Path,
    part: str,
    seed: int,
    drawn: list[np.ndarray] | None = None,
    sets: Sequence[str] | None = None,
) -> dict[str, dict[str, Any]]:
    """Figures by laboratory, and of all whose masks part nucleus from cytoplasm; a picture of each cell is added to
    `drawn`. sets: some of `MASK_SETS`; None: wbc_masks, and what else of them is there."""
    if sets is None:
        sets = [name for name in MASK_SETS if name == "wbc_masks" or (root / name).is_dir()]
    size = segmenter.card.input.height_px  # type: ignore[union-attr]
    tables: dict[str, np.ndarray] = {}
    cells: Counter[str] = Counter()
    pairs: dict[str, list[tuple[Shape, Shape]]] = {}
    for picture in masked_pictures(root, sets, seed):
        if picture.part != part:
            continue
        laboratory = picture.laboratory
        image, mask = picture.read()
        box = cell_box(mask)
        crops = segmenter.crop(image, box)
        found = segmenter.segment(crops)[0]
        truth = crop_mask(mask, box[0], size, segmenter.margin)
        side = square_around(box[0].tolist(), segmenter.margin)[2]
        full = crop_mask(mask, box[0], side, segmenter.margin)
        enlarged = resampled(found, side)
        table = tables.setdefault(laboratory, np.zeros((3, CELL + 1, len(CLASSES)), np.int64))
        for place, (true, said) in enumerate(((full, enlarged), (but_edges(full, enlarged), enlarged), (truth, found))):
            np.add.at(table[place], (true.ravel(), said.ravel()), 1)
        cells[laboratory] += 1
        if laboratory != WHOLE_CELLS:
            margins = (side / (box[0, 2] - box[0, 0]), side / (box[0, 3] - box[0, 1]))
            both = measure(found, side, margins), measure(full, side, margins)
            pairs.setdefault(laboratory, []).append(both)
        if drawn is not None:
            drawn.append(np.vstack([outlined(crops[0], truth), outlined(crops[0], found)]))
    out = {name: _entry(tables[name], pairs[name]) for name in sorted(pairs)}
    if pairs:
        all_pairs = [pair for each in pairs.values() for pair in each]
        out["all"] = _entry(np.sum([tables[name] for name in pairs], 0), all_pairs)
    if WHOLE_CELLS in tables:
        out[WHOLE_CELLS] = _rounded({"cells": cells[WHOLE_CELLS], **figures(tables[WHOLE_CELLS][0])})
    return out


def resampled(labels: np.ndarray, size: int) -> np.ndarray:
    """uint8 (size, size) of square labels: where several lie under a pixel, the one with the largest share."""
    shares = np.eye(len(CLASSES), dtype=np.float32)[labels]
    way = cv2.INTER_AREA if size < len(labels) else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(shares, (size, size), interpolation=way).argmax(2), np.uint8)


def but_edges(true: np.ndarray, found: np.ndarray) -> np.ndarray:
    """The true labels (h, w), with those found wherever the true mask has them there or at one of eight neighbours."""
    out = true.copy()
    for label in range(len(CLASSES)):
        near = cv2.dilate((true == label).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        out[near & (found == label)] = label
    return out


def _entry(tables: np.ndarray, pairs: Sequence[tuple[Shape, Shape]]) -> dict[str, Any]:
    """`tables` (3, 4, 3): confusion of the masks' own pixels, of those but edges, and of the network's."""
    entry: dict[str, Any] = {"cells": len(pairs), **figures(tables[0])}
    for name, iou in entry.pop("iou").items():
        entry[f"{name}_iou"] = iou
    entry["mean_iou_but_edges"] = figures(tables[1])["mean_iou"]
    entry["mean_iou_at_input"] = figures(tables[2])["mean_iou"]
    for name in MEASURES:
        got = [(getattr(found, name), getattr(truth, name)) for found, truth in pairs]
        errors = [abs(found / truth - 1) for found, truth in got if found is not None and truth is not None]
        entry[f"{name.removesuffix('_px')}_error_median"] = float(np.median(errors)) if errors else None
    entry["not_measured"] = sum(found.nucleus_to_cytoplasm_ratio is None for found, _ in pairs)
    entry["same_lobes"] = float(np.mean([found.nuclear_lobes == truth.nuclear_lobes for found, truth in pairs]))
    return _rounded(entry)


def _rounded(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in entry.items()}


def outlined(crop: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """uint8 (SHOWN_PX, SHOWN_PX, 3): the crop with the outlines of cell (green) and nucleus (red)."""
    size = (SHOWN_PX, SHOWN_PX)
    out = cv2.resize(crop, size, interpolation=cv2.INTER_LINEAR)
    large = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    for inside, colour in ((large > 0, (0, 255, 0)), (large == CLASSES.index("nucleus"), (0, 0, 255))):
        outlines, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(out, outlines, -1, colour, 1)
    return np.asarray(out)


def sheet(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures of one size in rows of ACROSS, the last row filled up with black."""
    blank = np.zeros_like(pictures[0])
    full = [*pictures, *[blank] * (-len(pictures) % ACROSS)]
    return np.vstack([np.hstack(full[start : start + ACROSS]) for start in range(0, len(full), ACROSS)])


def main(argv: Sequence[str]) -> int:
    parser = command_parser("tools.evaluate", __doc__)
    parser.add_argument("model")
    parser.add_argument("--part", choices=(TRAIN, VALIDATION, TEST), default=VALIDATION)
    parser.add_argument("--seed", type=int, default=0, help="of the split")
    parser.add_argument("--sets", help=f"comma-separated, of {','.join(MASK_SETS)} (default: those that are there)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--masks", type=Path, help="folder for pictures of the masks")
    options = parser.parse_args(argv)
    sets = options.sets.split(",") if options.sets else None
    if sets and not set(sets) <= set(MASK_SETS):
        parser.error(f"--sets: got {options.sets}, expected some of {','.join(MASK_SETS)}")
    drawn: list[np.ndarray] | None = [] if options.masks else None
    found = evaluate(load_segmenter(options.model), data_root(), options.part, options.seed, drawn, sets)
    keys = (
        *("mean_iou", "nucleus_iou", "cytoplasm_iou", "cell_iou"),
        *("global_accuracy", "f1", "nucleus_area_error_median"),
    )
    shown = Table("set", "cells", *(key.replace("_", " ") for key in keys))
    for name, entry in found.items():
        shown.add_row(name, str(entry["cells"]), *("-" if entry.get(k) is None else f"{entry[k]:.3f}" for k in keys))
    Console(stderr=True, width=None if sys.stderr.isatty() else 120).print(shown)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    if drawn:
        options.masks.mkdir(parents=True, exist_ok=True)
        for number, start in enumerate(range(0, len(drawn), 4 * ACROSS)):
            path = options.masks / f"{options.part}-{number}.png"
            cv2.imwrite(str(path), sheet(drawn[start : start + 4 * ACROSS]))
            print(path)
    return 0
