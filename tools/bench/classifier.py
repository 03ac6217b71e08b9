"""What it costs to name a cell, all looks at it together: several classifiers side by side.

    python -m tools.bench classifier mobilenetv3-small ml-cnn --json classifier.json

One thread of ONNX Runtime, cells in batches of `--batch`, cropping included; rounds go through all classifiers in turn;
medians of processor time, so that what else the machine does hardly counts.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
from rich.console import Console
from rich.table import Table

from engines.backends.onnxruntime import Threads
from engines.models.classifier import Classifier
from engines.models.loading import load_classifier
from streamer.commands.compile import read_frames
from streamer.config import DEFAULT_CLASSIFIER
from tools.commands import command_parser

SOURCE = "sim:seed=5,cells=12"
CELL_PX, RBC_PX = 80.0, 44.0


def cell_ms(classifiers: dict[str, Classifier], batch: int, rounds: int) -> dict[str, list[float]]:
    """Processor milliseconds of one cell by classifier, one value a round."""
    [frame] = read_frames(SOURCE, 1)
    left = np.linspace(0, frame.shape[1] - CELL_PX, batch, dtype=np.float32)
    boxes = np.stack([left, left * 0 + 100, left + CELL_PX, left * 0 + 100 + CELL_PX], axis=1)
    spent: dict[str, list[float]] = {name: [] for name in classifiers}
    for classifier in classifiers.values():
        classifier.classify(frame, boxes, RBC_PX)  # the first run allocates
    for _ in range(rounds):
        for name, classifier in classifiers.items():
            started = time.thread_time()
            classifier.classify(frame, boxes, RBC_PX)
            spent[name].append((time.thread_time() - started) * 1000 / batch)
    return spent


def main(arguments: Sequence[str]) -> int:
    """Command line."""
    parser = command_parser("tools.bench classifier", __doc__)
    parser.add_argument("models", nargs="*", default=[DEFAULT_CLASSIFIER], metavar="NAME|FILE")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    classifiers = {
        name: load_classifier(name, backend="onnxruntime", threads=Threads(1)) for name in dict.fromkeys(options.models)
    }
    table = Table("classifier", "looks", "ms a cell", "quartiles", box=None, pad_edge=False)
    rows: dict[str, Any] = {}
    for name, times in cell_ms(classifiers, options.batch, options.rounds).items():
        low, high = np.percentile(times, [25, 75]).round(2).tolist()
        rows[name] = {
            "sha256": classifiers[name].card.sha256,
            "looks": classifiers[name].input.looks,
            "ms": round(median(times), 2),
            "quartiles": [low, high],
        }
        table.add_row(name, str(rows[name]["looks"]), f"{rows[name]['ms']:.2f}", f"{low:.2f} to {high:.2f}")
    Console().print(table)
    if options.json is not None:
        document = {
            "command": "python -m tools.bench classifier " + " ".join(arguments),
            "machine": platform.machine(),
            "onnxruntime": onnxruntime.__version__,
            "batch": options.batch,
            "classifiers": rows,
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    return 0
