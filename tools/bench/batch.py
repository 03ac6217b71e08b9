"""What a larger batch saves on a CPU: processor time of a frame and of a crop, by how many go into one run.

    python -m tools.bench batch --json docs/benchmarks/batch-cpu.json

One thread of ONNX Runtime; rounds go through all batches in turn; medians. Processor time, not wall-clock time, so that
what else the machine does hardly counts. Resizing, suppression and cropping are in it.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime
from rich.console import Console
from rich.table import Table

from engines.backends.onnxruntime import Threads
from engines.models.loading import load_classifier, load_detector
from streamer.commands.compile import read_frames
from streamer.config import DEFAULT_CLASSIFIER
from tools.commands import command_parser

SOURCE = "sim:seed=5,cells=12"
BATCHES = (1, 2, 4, 8)
FRAMES = 8


def by_batch(runs: dict[int, Callable[[], object]], items: int, rounds: int) -> dict[int, float]:
    """Median processor milliseconds of one item, for each batch; every run does all items."""
    for run in runs.values():
        run()  # the first run allocates
    spent: dict[int, list[float]] = {batch: [] for batch in runs}
    for _ in range(rounds):
        for batch, run in runs.items():
            started = time.thread_time()
            run()
            spent[batch].append((time.thread_time() - started) * 1000 / items)
    return {batch: round(median(times), 2) for batch, times in spent.items()}


def detector_ms(name: str, frames: Sequence[np.ndarray], rounds: int) -> dict[int, float]:
    """Of a frame."""
    runs: dict[int, Callable[[], object]] = {}
    for batch in BATCHES:
        detector = load_detector(name, backend="onnxruntime", threads=Threads(1), batch=batch)

        def run(detector=detector, batch=batch) -> None:  # type: ignore[no-untyped-def]
            for start in range(0, len(frames), batch):
                detector.detect(frames[start : start + batch])

        runs[batch] = run
    return by_batch(runs, len(frames), rounds)


def classifier_ms(name: str, frames: Sequence[np.ndarray], rounds: int) -> dict[int, float]:
    """Of a crop."""
    classifier = load_classifier(name, backend="onnxruntime", threads=Threads(1))
    boxes = np.array([[x, 100, x + 80, 180] for x in range(0, 8 * FRAMES, 8)], np.float32)
    crops = classifier.crop(frames[0], boxes)[: max(BATCHES)]
    runs: dict[int, Callable[[], object]] = {}
    for batch in BATCHES:

        def run(batch=batch) -> None:  # type: ignore[no-untyped-def]
            for start in range(0, len(crops), batch):
                classifier.classify_batch(crops[start : start + batch])

        runs[batch] = run
    return by_batch(runs, len(crops), rounds)


def main(arguments: Sequence[str]) -> int:
    parser = command_parser("tools.bench batch", __doc__)
    parser.add_argument("--detector", default="yolov5n-blood", metavar="NAME|FILE")
    parser.add_argument("--classifier", default=DEFAULT_CLASSIFIER, metavar="NAME|FILE")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    frames = read_frames(SOURCE, FRAMES)
    results = {
        "frame_ms": detector_ms(options.detector, frames, options.rounds),
        "crop_ms": classifier_ms(options.classifier, frames, options.rounds),
    }
    table = Table("batch", *map(str, BATCHES), box=None, pad_edge=False)
    for name, times in results.items():
        table.add_row(name, *(f"{ms:.2f}" for ms in times.values()))
    Console().print(table)
    if options.json is not None:
        document = {
            "command": "python -m tools.bench batch " + " ".join(arguments),
            "machine": platform.machine(),
            "onnxruntime": onnxruntime.__version__,
            "frame_px": list(frames[0].shape[1::-1]),
            **results,
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    return 0
