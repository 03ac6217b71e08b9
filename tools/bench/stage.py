"""Measure stage tracking on real slides whose frames' places are known: error, islands, unique cells, milliseconds.

    python -m tools.bench stage --json stage.json
    python -m tools.bench stage --slides B-57 E-14
    python -m tools.bench stage --overlay

The frames of each slide of `chula_wbc/unique_cells.json` go through the tracker in their order, their labelled boxes
through the slide map. The error is that of one frame's place against another's, over all pairs that overlap: as it was
said when the later of the two came, and as the map knows it at the end. With `--overlay` a clock, a logo, a crosshair
and a scale bar are burnt into the frames, a minute after one another. `cells` are the unique labelled cells. Times
are of the processor, all threads together, so that what else the machine does hardly counts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from streamer.analysis.quality import assess
from streamer.counting.slide_map import SlideMap
from streamer.records import Detections
from streamer.sources.simulated.overlay import burn_in
from streamer.stage.placement import Placement
from streamer.stage.tracker import StageTracker
from tools.commands import command_parser
from tools.data.crops import read_image
from tools.data.readers import data_root

Places = dict[str, tuple[int, float, float]]


@dataclass(frozen=True)
class SlideResult:
    islands: int
    cells: int
    partial: int
    lost: int
    rejected: int
    keyframes: int
    said: Places
    final: Places
    prepare_ms: list[float]
    update_ms: list[float]


def run_slide(folder: Path, names: list[str], boxes: dict[str, np.ndarray], overlay: bool = False) -> SlideResult:
    """One slide: frame file names in their order, and the labelled boxes (n, 4) of each."""
    tracker, slide_map = StageTracker(), SlideMap()
    placements: dict[str, Placement] = {}
    size = (0, 0)
    rejected, prepare_ms, update_ms = 0, [], []
    offsets: Places = {}
    for frame_id, name in enumerate(names):
        image = read_image(folder / name)
        size = (image.shape[1], image.shape[0])
        if overlay:
            burn_in(image, 61.0 * frame_id)
        start = time.process_time()
        prepared = tracker.prepare(image)
        between = time.process_time()
        placement = tracker.update(prepared)
        end = time.process_time()
        prepare_ms.append((between - start) * 1000)
        update_ms.append((end - between) * 1000)
        rejected += not assess(image).accepted
        placements[name] = placement
        if placement.position is not None and placement.anchor is not None:
            anchor = tracker.anchor_position(placement.anchor)
            here = placement.position
            offsets[name] = placement.anchor, here.x_px - anchor.x_px, here.y_px - anchor.y_px
        found = boxes[name]
        detections = Detections(
            boxes_px=found.astype(np.float32),
            scores=np.ones(len(found), np.float32),
            labels=np.zeros(len(found), np.intp),
            label_names=("WBC",),
            kinds=("white",),
            truncated=False,
        )
        slide_map.update(placement, detections, size, frame_id)
    slide_map.finish(tracker.finish().corrections)
    final: Places = {}
    for name, (number, x, y) in offsets.items():
        anchor = tracker.anchor_position(number)
        final[name] = anchor.island, anchor.x_px + x, anchor.y_px + y
    said = {n: (p.position.island, p.position.x_px, p.position.y_px) for n, p in placements.items() if p.position}
    return SlideResult(
        islands=len(tracker.islands),
        cells=slide_map.counts().white,
        partial=slide_map.counts().partial_white,
        lost=len(names) - len(said),
        rejected=rejected,
        keyframes=tracker.keyframes,
        said=said,
        final=final,
        prepare_ms=prepare_ms,
        update_ms=update_ms,
    )


def pair_errors(places: Places, truth: dict[str, dict[str, Any]], size: tuple[int, int]) -> list[float]:
    """Pixels between the measured and the true shift of every overlapping pair; infinite where it has none."""
    errors = []
    for a, b in combinations(truth, 2):
        dx, dy = truth[b]["x_px"] - truth[a]["x_px"], truth[b]["y_px"] - truth[a]["y_px"]
        if truth[a]["island"] != truth[b]["island"] or abs(dx) >= size[0] or abs(dy) >= size[1]:
            continue
        if a not in places or b not in places or places[a][0] != places[b][0]:
            errors.append(float("inf"))
            continue
        (_, ax, ay), (_, bx, by) = places[a], places[b]
        errors.append(float(np.hypot(bx - ax - dx, by - ay - dy)))
    return errors


def _spread(values: list[float]) -> dict[str, float]:
    median, p95, largest = np.percentile(values, (50, 95, 100)) if values else (np.nan,) * 3
    return {"median": float(median), "p95": float(p95), "max": float(largest)}


def main(arguments: Sequence[str]) -> int:
    parser = command_parser("tools.bench stage", __doc__)
    parser.add_argument("--data", type=Path, help="folder of the data sets (default: LEUKOSTREAM_DATA)")
    parser.add_argument("--slides", nargs="+", metavar="NAME", help="only these slides")
    parser.add_argument("--overlay", action="store_true", help="burn a clock and more into the frames")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    root = (options.data or data_root()) / "chula_wbc"
    slides = json.loads((root / "unique_cells.json").read_text())
    marks = json.loads((root / "annotations.json").read_text())
    image_of = {image["id"]: image for image in marks["images"]}
    names = {image["file_name"]: image["id"] for image in marks["images"]}
    labelled: dict[int, list[list[float]]] = {number: [] for number in image_of}
    for mark in marks["annotations"]:
        x, y, width, height = mark["bbox"]
        labelled[mark["image_id"]].append([x, y, x + width, y + height])
    rows: dict[str, Any] = {}
    said, final, prepare_ms, update_ms = [], [], [], []
    print(
        f"{'slide':>6} {'frames':>7} {'islands':>8} {'cells':>8} {'lost':>5} {'pairs':>6} {'px median':>10} {'p95':>6}"
    )
    for slide in options.slides or slides:
        truth = slides[slide]
        files = sorted(truth["positions"])
        size = (image_of[names[files[0]]]["width"], image_of[names[files[0]]]["height"])
        boxes = {name: np.array(labelled[names[name]], np.float64).reshape(-1, 4) for name in files}
        result = run_slide(root / "images", files, boxes, options.overlay)
        errors = pair_errors(result.final, truth["positions"], size)
        said += pair_errors(result.said, truth["positions"], size)
        final += errors
        prepare_ms += result.prepare_ms
        update_ms += result.update_ms
        spread = _spread(errors)
        print(
            f"{slide:>6} {len(files):>7} {result.islands:>4}/{truth['islands']:<3} {result.cells:>4}/"
            f"{truth['labelled_cells']:<3} {result.lost:>5} {len(errors):>6} {spread['median']:>10.2f}"
            f" {spread['p95']:>6.2f}"
        )
        rows[slide] = {
            "frames": len(files),
            "islands": result.islands,
            "true_islands": truth["islands"],
            "cells": result.cells,
            "true_cells": truth["labelled_cells"],
            "partial": result.partial,
            "lost": result.lost,
            "rejected": result.rejected,
            "keyframes": result.keyframes,
            "error_px": spread,
        }
    total_ms = [a + b for a, b in zip(prepare_ms, update_ms, strict=True)]
    figures = {
        "error_said_px": _spread(said),
        "error_final_px": _spread(final),
        "prepare_ms": _spread(prepare_ms),
        "update_ms": _spread(update_ms),
        "total_ms": _spread(total_ms),
    }
    for name, spread in figures.items():
        print(f"{name:>16}: median {spread['median']:.2f}, p95 {spread['p95']:.2f}, max {spread['max']:.2f}")
    if options.json:
        options.json.write_text(json.dumps({"bench": "stage", "slides": rows, **figures}, indent=1) + "\n")
    return 0
