"""Count the white cells of a simulated slide, compare with the truth, and list every error.

    python -m tools.evaluate unique-cells sim:seed=11,cells=2000,pattern=mixed
    python -m tools.evaluate unique-cells sim:seed=3,cells=60,pattern=mixed --detector yolov5n-blood --json errors.json

With `density=5,dwell=1,travel=2` 2000 cells are some 2200 frames instead of 11 300; `noise=3,blur=3,vignette=3` is
three times the usual. docs/counting.md has what was measured so.

Without `--detector` the boxes are the true ones, each side shaken by `--jitter` pixels: what is wrong then is wrong in
the tracking or in the slide map. The truth is every white cell that an accepted, placed frame shows whole. An error is
a cell that was `missed`, `doubled` (counted more than once) or `false` (counted where none is), or one counted though
no such frame shows it whole (`early`); each is listed with its place on the slide and its frames.
"""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import numpy.typing as npt

from engines.models.loading import load_detector
from streamer.analysis.quality import assess
from streamer.counting.slide_map import SlideConfig, SlideMap
from streamer.records import Cell, Detections
from streamer.run.slide_stage import STAGE
from streamer.sources.simulated import SlideParameters, VirtualSlide
from streamer.sources.simulated.stage_motion import MOVE
from streamer.stage.placement import Placement
from streamer.stage.readings import Reading
from streamer.stage.tracker import StageTracker
from tools.commands import command_parser

KINDS = ("white", "red", "platelet", "nucleated red")
Find = Callable[[npt.NDArray[np.uint8], int], Detections]
"""(picture, frame_id) -> what is in it."""


def true_boxes(slide: VirtualSlide, jitter_px: float) -> Find:
    """A detector that knows the truth; boxes of cells cut by the frame's edge end at the edge."""
    rng = np.random.default_rng(slide.parameters.seed)
    limits = np.array([slide.parameters.width, slide.parameters.height] * 2, np.float64)

    def find(_image: npt.NDArray[np.uint8], frame_id: int) -> Detections:
        seen = [cell for cell in slide.truth(frame_id).cells if cell.fraction_visible > 0.15]
        exact = np.array([cell.box_px for cell in seen], np.float64).reshape(-1, 4)
        shaken = (exact + rng.normal(0, jitter_px, exact.shape)).clip(0, limits)
        return Detections(
            boxes_px=np.where((exact <= 0) | (exact >= limits), exact, shaken).astype(np.float32),
            scores=np.ones(len(seen), np.float32),
            labels=np.array([KINDS.index(cell.cell.kind) for cell in seen], np.intp),
            label_names=("WBC", "RBC", "platelet", "erythroblast"),
            kinds=KINDS,
            truncated=False,
        )

    return find


def run(slide: VirtualSlide, find: Find, min_score: float) -> dict[str, Any]:
    """All frames of one pass; the figures, with every error in `errors`."""
    tracker, slide_map = StageTracker(STAGE), SlideMap(SlideConfig(min_score=min_score))
    size = slide.parameters.width, slide.parameters.height
    usable: list[int] = []
    rejected: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    placements: dict[int, Placement] = {}
    offsets: dict[int, tuple[float, float]] = {}
    stage_ms, map_ms = [], []
    for frame_id in range(len(slide)):
        image = slide.render(frame_id)
        quality = assess(image)
        start = time.perf_counter()
        said = slide.readings.point(frame_id)
        reading = Reading.said(said, slide.readings.error_um, slide.readings.um_per_px)
        placement = tracker.update(
            tracker.prepare(image),
            may_start=quality.accepted,
            reading=reading,
            unusable=said is not None and reading is None,
        )
        stage_ms.append((time.perf_counter() - start) * 1000)
        detections = find(image, frame_id)
        start = time.perf_counter()
        slide_map.update(placement, detections, size, frame_id, accepted=quality.accepted)
        map_ms.append((time.perf_counter() - start) * 1000)
        rejected.update(quality.reasons)
        if placement.position is None or placement.anchor is None:
            lost[placement.reason or ""] += 1
            continue
        placements[frame_id] = placement
        anchor = tracker.anchor_position(placement.anchor)
        offsets[frame_id] = placement.position.x_px - anchor.x_px, placement.position.y_px - anchor.y_px
        if quality.accepted:
            usable.append(frame_id)
    whole = slide_map.counts()
    slide_map.finish(tracker.finish().corrections)
    origins, place_errors = _places(slide, tracker, placements, offsets)
    cells = [cell for cell in slide_map.cells() if cell.kind == "white" and not cell.partial]
    expected = slide.white_cells_seen(usable)
    return {
        "frames": len(slide),
        "rejected": dict(rejected),
        "lost": dict(lost),
        "islands": len(tracker.islands),
        "keyframes": tracker.keyframes,
        "positions": None if tracker.positions is None else msgspec.structs.asdict(tracker.positions),
        "place_error_px": place_errors,
        "expected": len(expected),
        "counted": len(cells),
        "partial": slide_map.counts().partial_white,
        "red": whole.red,
        "platelets": whole.platelets,
        "stage_ms_median": float(np.median(stage_ms)),
        "map_ms_median": float(np.median(map_ms)),
        "errors": _errors(slide, cells, set(expected), origins),
    }


def _places(
    slide: VirtualSlide,
    tracker: StageTracker,
    placements: dict[int, Placement],
    offsets: dict[int, tuple[float, float]],
) -> tuple[dict[int, npt.NDArray[np.float64]], dict[str, float]]:
    """Where each island's zero lies on the slide, and how far frames at rest are from their true places."""
    motion = slide.motion
    gaps: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for frame_id, placement in placements.items():
        if placement.anchor is None or motion.state[frame_id] == MOVE:
            continue
        anchor, offset = tracker.anchor_position(placement.anchor), offsets[frame_id]
        x, y = float(motion.x_px[frame_id]), float(motion.y_px[frame_id])
        gaps[anchor.island].append((anchor.x_px + offset[0] - x, anchor.y_px + offset[1] - y))
    origins = {island: np.median(np.array(values), axis=0) for island, values in gaps.items()}
    errors = np.concatenate([np.linalg.norm(np.array(v) - origins[i], axis=1) for i, v in gaps.items()])
    median, p95, largest = np.percentile(errors, (50, 95, 100)).tolist()
    return origins, {"median": median, "p95": p95, "max": largest}


def _errors(
    slide: VirtualSlide, cells: list[Cell], expected: set[int], origins: dict[int, npt.NDArray[np.float64]]
) -> list[dict[str, Any]]:
    truth = slide.white_cells()
    boxes = np.array([cell.box_px for cell in truth])
    centres, reach = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).max(1) / 2
    found: dict[int, list[Cell]] = defaultdict(list)
    errors: list[dict[str, Any]] = []
    for cell in cells:
        place = np.array([cell.x_px, cell.y_px]) - origins.get(cell.island, np.zeros(2))
        distances = np.linalg.norm(centres - place, axis=1) / reach
        nearest = int(distances.argmin())
        if distances[nearest] < 1:
            found[truth[nearest].cell_id].append(cell)
        else:
            errors.append(_entry("false", place, [cell]))
    for known, centre in zip(truth, centres, strict=True):
        counted = found.get(known.cell_id, [])
        if len(counted) > 1:
            errors.append(_entry("doubled", centre, counted))
        elif counted and known.cell_id not in expected:
            errors.append(_entry("early", centre, counted))
        elif not counted and known.cell_id in expected:
            errors.append(_entry("missed", centre, []))
    return errors


def _entry(kind: str, place: npt.NDArray[np.float64], cells: list[Cell]) -> dict[str, Any]:
    return {
        "error": kind,
        "x_px": round(float(place[0]), 1),
        "y_px": round(float(place[1]), 1),
        "cells": [cell.cell_id for cell in cells],
        "looks": [cell.looks for cell in cells],
        "frames": [[cell.first_frame_id, cell.last_frame_id] for cell in cells],
    }


def main(arguments: Sequence[str]) -> int:
    parser = command_parser("tools.evaluate unique-cells", __doc__)
    parser.add_argument("slide", help="sim:seed=7,cells=200,pattern=mixed")
    parser.add_argument("--detector", metavar="NAME|FILE", help="a detector instead of the true boxes")
    parser.add_argument("--jitter", type=float, default=1.0, metavar="PX", help="of the true boxes (default 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write figures and errors here")
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    slide = VirtualSlide(SlideParameters.parse(options.slide))
    size = slide.parameters.width, slide.parameters.height
    min_score = 0.0
    if options.detector:
        detector = load_detector(options.detector, frame_size=size)
        min_score = detector.card.thresholds.operating
        result = run(slide, lambda image, _: detector.detect([image])[0], min_score)
    else:
        result = run(slide, true_boxes(slide, options.jitter), min_score)
    for name, value in result.items():
        if name != "errors":
            print(f"{name:>16}: {value}")
    for error in result["errors"]:
        print(f"{error['error']:>16}: at ({error['x_px']}, {error['y_px']}), cells {error['cells']}, {error['frames']}")
    kinds = Counter(error["error"] for error in result["errors"])
    print(f"{'errors':>16}: {', '.join(f'{count} {kind}' for kind, count in kinds.items()) or 'none'}")
    gap = result["counted"] - result["expected"]
    print(f"{'difference':>16}: {gap:+d} of {result['expected']} ({100 * gap / max(result['expected'], 1):+.2f} %)")
    if options.json:
        options.json.write_text(json.dumps({"slide": options.slide, "detector": options.detector, **result}) + "\n")
    return 0
