"""Measure the slide map: milliseconds a frame and megabytes at growing numbers of cells.

    python -m tools.bench slide --json slide.json
    python -m tools.bench slide --cells 1000 100000 --per-field 200

Cells are laid on a slide at random (none nearer to another than it would be side by side), a stage goes over it in a
raster with 20 % overlap, and every field's detections, with their boxes shaken, go into a SlideMap until it holds the
number asked for. What is measured are fields that come after that: half of them new ground, half seen before. Times
are of the processor, all threads together, so that what else the machine does hardly counts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from streamer.counting.slide_map import SlideMap
from streamer.records import Classifications, Detections, StagePosition
from streamer.stage.placement import Placement
from tools.commands import command_parser

WIDTH, HEIGHT = 1440, 900
CLASSES = ("basophil", "eosinophil", "erythroblast", "immature granulocyte", "lymphocyte", "monocyte", "neutrophil")


class Slide:
    """Cells at random places on a jittered grid: centres (n, 2), diameters (n,), kinds (n,): 0 white, 1 red, 2 plt."""

    def __init__(self, columns: int, rows: int, per_field: int, rng: np.random.Generator) -> None:
        self.columns, self.rows = columns, rows
        self.step_x, self.step_y = int(WIDTH * 0.8), int(HEIGHT * 0.8)
        pitch = float(np.sqrt(WIDTH * HEIGHT / per_field))
        across = int(((columns - 1) * self.step_x + WIDTH) / pitch)
        down = int(((rows - 1) * self.step_y + HEIGHT) / pitch)
        grid = np.stack(np.meshgrid(np.arange(across), np.arange(down)), -1).reshape(-1, 2) + 0.5
        self.centres = (grid + rng.uniform(-0.2, 0.2, grid.shape)) * pitch
        self.kinds = rng.choice(3, len(grid), p=(0.01, 0.92, 0.07))
        self.diameters = np.array([1.0, 0.6, 0.2])[self.kinds] * pitch * rng.uniform(0.9, 1.1, len(grid))
        self.order = np.argsort(self.centres[:, 1])
        self.ys = self.centres[self.order, 1]

    def field(self, x: float, y: float, rng: np.random.Generator) -> Detections:
        """What a detector would find in a frame at (x, y)."""
        first, last = np.searchsorted(self.ys, (y - 100, y + HEIGHT + 100))
        rows = self.order[first:last]
        half = self.diameters[rows, None] / 2
        boxes = np.concatenate([self.centres[rows] - half, self.centres[rows] + half], 1) - np.array([x, y] * 2)
        boxes += rng.normal(0, 1.0, boxes.shape)
        boxes = boxes.clip(0, (WIDTH, HEIGHT, WIDTH, HEIGHT))
        seen = ((boxes[:, 2:] - boxes[:, :2]) > 3).all(1)
        return Detections(
            boxes_px=boxes[seen].astype(np.float32),
            scores=rng.uniform(0.5, 1.0, int(seen.sum())).astype(np.float32),
            labels=self.kinds[rows[seen]],
            label_names=("WBC", "RBC", "platelet"),
            kinds=("white", "red", "platelet"),
            truncated=False,
        )

    def raster(self) -> Iterator[tuple[float, float]]:
        for row in range(self.rows):
            columns = range(self.columns) if row % 2 == 0 else range(self.columns - 1, -1, -1)
            for column in columns:
                yield column * self.step_x, row * self.step_y


def looks_at(detections: Detections, rng: np.random.Generator) -> Classifications:
    white = len(detections.white_rows)
    probabilities = rng.dirichlet(np.full(len(CLASSES), 0.2), white).astype(np.float32).reshape(white, len(CLASSES))
    return Classifications(probabilities, CLASSES, np.zeros((white, 0), np.float32), (), ())


def measure(cells: int, per_field: int, fields: int, seed: int) -> dict[str, float]:
    """Fill a slide map with about `cells` cells, then time `fields` more fields."""
    rng = np.random.default_rng(seed)
    side = int(np.ceil(np.sqrt(cells / per_field / 0.64))) + 3
    slide = Slide(side, side + fields // side + 2, per_field, rng)
    slide_map = SlideMap()
    known: list[tuple[float, float]] = []
    timed: list[float] = []
    boxes: list[int] = []
    raster = slide.raster()
    while len(timed) < fields:
        full = sum(len_of_map(slide_map)) >= cells
        old = full and len(timed) % 2 == 1
        place = known[int(rng.integers(len(known)))] if old else next(raster)
        known.append(place)
        detections = slide.field(*place, rng)
        looks = looks_at(detections, rng)
        placement = Placement(StagePosition(0, *place, 1.0), anchor=len(known) // 2)
        start = time.process_time()
        slide_map.update(placement, detections, (WIDTH, HEIGHT), len(known), looks)
        if full:
            timed.append((time.process_time() - start) * 1000)
            boxes.append(len(detections))
    held = sum(len_of_map(slide_map))
    return {
        "cells": held,
        "boxes_per_frame": float(np.median(boxes)),
        "ms_median": float(np.median(timed)),
        "ms_p95": float(np.percentile(timed, 95)),
        "megabytes": slide_map.bytes_used / 1e6,
    }


def len_of_map(slide_map: SlideMap) -> tuple[int, int, int]:
    counts = slide_map.counts()
    return counts.white, counts.red, counts.platelets


def main(arguments: Sequence[str]) -> int:
    parser = command_parser("tools.bench slide", __doc__)
    parser.add_argument("--cells", type=int, nargs="+", default=[1_000, 10_000, 100_000], metavar="N")
    parser.add_argument("--per-field", type=int, default=100, metavar="N", help="cells in a field (default 100)")
    parser.add_argument("--fields", type=int, default=200, metavar="N", help="fields to time (default 200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    options = parser.parse_args(arguments)
    rows = [measure(cells, options.per_field, options.fields, options.seed) for cells in options.cells]
    print(f"{'cells':>9} {'boxes/frame':>12} {'ms median':>10} {'ms p95':>8} {'MB':>8}")
    for row in rows:
        print(
            f"{row['cells']:>9.0f} {row['boxes_per_frame']:>12.0f} {row['ms_median']:>10.3f} {row['ms_p95']:>8.3f}"
            f" {row['megabytes']:>8.1f}"
        )
    if options.json:
        options.json.write_text(json.dumps({"bench": "slide", "seed": options.seed, "rows": rows}, indent=1) + "\n")
    return 0
