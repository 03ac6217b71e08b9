"""What a run for tools/bench/area.py gave, and arithmetic on it: cells side by side, area, lines, ratios."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.spatial

REACH_PX = 22.0
"""Cells of two runs that lie no further apart on the slide are one: half a red cell."""
GRID_PX = 16.0
"""Side of the squares by which the area of a slide is counted."""
SERIOUS = ("blast", "erythroblast", "immature granulocyte", "promyelocyte", "myelocyte", "metamyelocyte")
"""Classes and subclasses of which not one cell may be lost."""

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """A white or nucleated red cell that is counted, seen whole."""

    island: int
    x_px: float
    y_px: float
    class_name: str
    subclass: str | None

    @property
    def is_serious(self) -> bool:
        return self.class_name in SERIOUS or self.subclass in SERIOUS


@dataclass(frozen=True, slots=True)
class Agreement:
    """The cells of one run beside those of another over the same film."""

    first: int
    second: int
    both: int
    only_first: int
    only_second: int
    class_differs: int
    """Of those in both."""
    serious_lost: int
    """Only in the second run, and of a class of which none may be lost."""
    same_verdict: bool

    @classmethod
    def total(cls, parts: Sequence[Agreement]) -> Agreement:
        """Over several films."""
        sums = Counter[str]()
        for part in parts:
            sums.update({name: value for name, value in asdict(part).items() if name != "same_verdict"})
        names = (name for name in cls.__dataclass_fields__ if name != "same_verdict")
        return cls(**{name: sums[name] for name in names}, same_verdict=all(part.same_verdict for part in parts))


@dataclass(frozen=True, slots=True)
class Run:
    """One `leukostream run`."""

    frames: int
    frames_per_s: float
    """Between the first and the last frame published."""
    detector_px: float
    """Pixels of input tensors a frame, padding and all."""
    classifier_px: float
    processor_ms: float
    """A frame, feeder apart; loading the models is in it."""
    loading_ms: float
    """What of it was spent before the first thread started: a second a run, whatever the number of frames."""
    threads_ms: Mapping[str, float]
    """A frame, by thread: reader (with the feeder), placer, worker, tail."""
    feeder_ms: float
    peak_mb: float
    fields: float
    """Area visited, in fields of the camera."""
    dropped: Mapping[str, int]
    latency_ms: Mapping[str, float]
    cells: tuple[Place, ...]
    verdict: str

    @property
    def input_px(self) -> float:
        return self.detector_px + self.classifier_px

    def figures(self) -> dict[str, Any]:
        """What is kept of it, with counts in place of the cells."""
        kept = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "cells"}
        return kept | {"classes": dict(sorted(Counter(cell.class_name for cell in self.cells).items()))}


def read_run(lines: Path, figures: Path) -> Run:
    """From the messages and the figures of one process. ValueError where it published no two frames."""
    cost = json.loads(figures.read_text())
    messages = [json.loads(line) for line in lines.open()]
    frames = [one for one in messages if one["type"] == "frame"]
    if len(frames) < 2:
        raise ValueError(f"{lines}: got {len(frames)} frames, expected two or more")
    published = [frame["published_ns"] for frame in frames]
    health = {one["source"]: one for one in messages if one["type"] == "health"}
    dropped = Counter[str]()
    for source, one in health.items():
        dropped.update(one["sources"][source]["dropped"])
    late = [(frame["published_ns"] - frame["captured_ns"]) / 1e6 for frame in frames]
    final = [one for one in messages if one["type"] == "differential" and one["final"]]
    count = len(frames)
    return Run(
        frames=count,
        frames_per_s=(count - 1) * 1e9 / (published[-1] - published[0]),
        detector_px=cost["pixels"]["detector"] / count,
        classifier_px=cost["pixels"]["classifier"] / count,
        processor_ms=1000 * cost["processor_s"] / count,
        loading_ms=1000 * cost["loading_s"] / count,
        threads_ms={name: 1000 * seconds / count for name, seconds in sorted(cost["threads_s"].items())},
        feeder_ms=1000 * cost["feeder_s"] / count,
        peak_mb=cost["peak_mb"],
        fields=fields_visited(frames),
        dropped={reason: number for reason, number in sorted(dropped.items()) if number},
        latency_ms=dict(zip(("p50", "p99"), np.percentile(late, (50, 99)).tolist(), strict=True)),
        cells=cells_of(messages),
        verdict=final[-1]["verdict"]["state"] if final and final[-1]["verdict"] else "none",
    )


def cells_of(messages: Iterable[Message]) -> tuple[Place, ...]:
    """As they were published last."""
    last = {(one["source"], one["cell_id"]): one for one in messages if one["type"] == "cell"}
    return tuple(
        Place(one["island"], one["x_px"], one["y_px"], one["class"], one["subclass"])
        for one in last.values()
        if one["counted"] and not one["partial"]
    )


def fields_visited(frames: Iterable[Message]) -> float:
    """Area of the slide that placed and accepted frames show, in fields of the camera."""
    seen: set[tuple[str, int, int, int]] = set()
    field = 0.0
    for frame in frames:
        stage = frame["stage"]
        if stage is None or not frame["accepted"]:
            continue
        left, top = (round(stage[axis] / GRID_PX) for axis in ("x_px", "y_px"))
        columns, rows = (max(1, round(frame[side] / GRID_PX)) for side in ("width", "height"))
        field = columns * rows
        own = frame["source"], stage["island"]
        seen.update((*own, left + i, top + j) for i in range(columns) for j in range(rows))
    return len(seen) / field if field else 0.0


def agreement(first: Run, second: Run) -> Agreement:
    """What `first` has beside `second`, cell by cell: each the other's nearest, and near enough."""
    pairs = matched(first.cells, second.cells)
    missing = set(range(len(second.cells))) - {j for _, j in pairs}
    differ = sum(first.cells[i].class_name != second.cells[j].class_name for i, j in pairs)
    return Agreement(
        first=len(first.cells),
        second=len(second.cells),
        both=len(pairs),
        only_first=len(first.cells) - len(pairs),
        only_second=len(missing),
        class_differs=differ,
        serious_lost=sum(second.cells[j].is_serious for j in missing),
        same_verdict=first.verdict == second.verdict,
    )


def matched(first: Sequence[Place], second: Sequence[Place]) -> list[tuple[int, int]]:
    """Indices of the cells that are each other's nearest, on one island and within reach."""
    if not first or not second:
        return []
    a, b = _points(first), _points(second)
    distances, of_first = scipy.spatial.KDTree(b).query(a)
    _, of_second = scipy.spatial.KDTree(a).query(b)
    near = zip(of_first.tolist(), distances.tolist(), strict=True)
    return [(i, j) for i, (j, away) in enumerate(near) if away <= REACH_PX and of_second[j] == i]


def _points(cells: Sequence[Place]) -> npt.NDArray[np.float64]:
    """(n, 3): islands lie far above one another."""
    return np.array([(cell.x_px, cell.y_px, 1e7 * cell.island) for cell in cells])


@dataclass(frozen=True, slots=True)
class Line:
    """A straight line through points, by least squares."""

    slope: float
    start: float
    """At 0."""
    largest_miss: float
    """Of a point, as a share of the line's rise over all points; 0 where there are two points."""

    @classmethod
    def through(cls, x: Sequence[float], y: Sequence[float]) -> Line:
        """ValueError for fewer than two different x."""
        if len(set(x)) < 2:
            raise ValueError(f"line: got {len(set(x))} different places, expected two or more")
        slope, start = np.polyfit(x, y, 1).tolist()
        misses = np.abs(np.asarray(y) - (start + slope * np.asarray(x)))
        rise = abs(slope) * (max(x) - min(x))
        return cls(slope, start, float(misses.max() / rise) if rise else 0.0)


def ratio(first: Sequence[float], second: Sequence[float]) -> float:
    """Median of the ratios of runs that took turns."""
    return median(one / other for one, other in zip(first, second, strict=True))


def card_arithmetic(carried: int, share: float) -> str:
    """How many cameras a GPU carries, by the pixels that its models are given a frame, as a share of before."""
    return (
        f"A GPU that carries {carried} cameras when every frame is looked at whole has room for "
        f"{int(carried / share)} by this measurement: its models are given {share:.3f} of the pixels a frame "
        f"({carried} / {share:.3f}). That is arithmetic on pixels and not a measurement on a card. Smaller inputs use "
        "it less well, and decoding, placing, cells and messages stay with the host for every frame, whatever the "
        "models are spared."
    )
