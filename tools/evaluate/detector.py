"""Measure a detector: AP, recall, false alarms and the best threshold by class, set and part.

    python -m tools.evaluate yolov5n-blood --out runs/evaluation
    python -m tools.evaluate runs/yolov5n-blood/best.pt --sets chula_wbc --part holdout --draw runs/pictures
    python -m tools.evaluate yolov5n-blood --long-sides 320,416,512,640

The model is a name of the zoo, an ONNX file with the uint8 input and the compact head, or a checkpoint of
tools.train detector. AP is COCO's (101 recalls); classes of which a set labels only some objects get recall alone, and
detections that match no label are counted beside it, since nobody knows how many of them are cells (--as-labelled
takes them for mistakes, as published figures of BCCD do). Limits are of 95 %: Clopper-Pearson for recall, a bootstrap
over pictures for AP. Milliseconds are those of the network on --threads cores, the 10th percentile: what else the
machine does can only add to it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import torch
from rich.console import Console
from rich.table import Table

from engines.base import LeukostreamError
from engines.zoo.registry import find, zoo_names
from tools.commands import command_parser
from tools.data import sets
from tools.data.fields import CLASS_NAMES, WBC, Field
from tools.metrics.average_precision import ClassTally
from tools.metrics.detection import confusion, summary, tally
from tools.metrics.errors import COLOURS_BGR, Mistake, mistakes, sheet
from tools.metrics.plots import plot_confusion, plot_precision_recall
from tools.metrics.predict import Found, OnnxPredictor, StreamPredictor, TorchPredictor
from tools.train.yolov5 import load_averaged

MEASURED = "measured"


def make_predictor(
    model: str, long_side_px: int | str, threads: int
) -> OnnxPredictor | TorchPredictor | StreamPredictor:
    """A predictor for a zoo name, an ONNX file or a checkpoint; FileNotFoundError names what was looked for.

    "measured" as the long side: as the stream runs it, which needs a card.
    """
    if long_side_px == MEASURED:
        return StreamPredictor(model, threads=threads)
    long_side_px = int(long_side_px)
    path = Path(model)
    if path.suffix == ".pt":
        return TorchPredictor(load_averaged(path)[0], long_side_px)
    if model in zoo_names():
        return OnnxPredictor(find(model, "detector").proto, long_side_px, threads=threads)
    if path.suffix != ".onnx" or not path.exists():
        raise FileNotFoundError(f"model: got {model!r}, expected a zoo name, a .onnx or a .pt file that is there")
    return OnnxPredictor(onnx.load(path), long_side_px, threads=threads)


def draw(picture: np.ndarray, item: Field, found: Found, threshold: float) -> np.ndarray:
    """A copy of the picture with the labels (thin, white) and the detections of at least `threshold` (by class, with
    score for white cells)."""
    out = picture.copy()
    line = max(1, round(max(picture.shape) / 700))
    for x1, y1, x2, y2 in item.boxes_px.round().astype(int):
        cv2.rectangle(out, (int(x1), int(y1)), (int(x2), int(y2)), (255, 255, 255), line)
    for box, value, label in zip(found.boxes_px, found.scores, found.classes, strict=True):
        if value < threshold:
            continue
        x1, y1, x2, y2 = (int(v) for v in box.round())
        cv2.rectangle(out, (x1, y1), (x2, y2), COLOURS_BGR[label % len(COLOURS_BGR)], line + 1)
        if label == WBC:
            place = (x1, max(12, y1 - 3))
            cv2.putText(out, f"{value:.2f}", place, cv2.FONT_HERSHEY_SIMPLEX, 0.4 * line, COLOURS_BGR[WBC], line)
    return out


def table(results: list[dict[str, Any]]) -> Table:
    """The figures for people."""
    shown = Table(
        "set", "long side", "ms", "class", "labels", "recall", "false alarms", "AP@.5", "AP@[.5:.95]", "best F1 at"
    )
    for result in results:
        for name, entry in result["classes"].items():
            whole = entry["false_alarms"] is not None
            shown.add_row(
                f"{result['set']} {result['part']} ({result['pictures']})",
                str(result["long_side_px"]),
                "-" if result["network_ms"] is None else f"{result['network_ms']:.1f}",
                name,
                str(entry["positives"]),
                f"{entry['recall']:.3f} [{entry['recall_low']:.3f}, {entry['recall_high']:.3f}]",
                str(entry["false_alarms"]) if whole else f"? ({entry['unlabelled_detections']})",
                f"{entry['ap50']:.3f}{interval(entry, 'ap50')}" if whole else "-",
                f"{entry['ap50_95']:.3f}" if whole else "-",
                f"{entry['best_f1']:.3f} {entry['best_f1_threshold']:.2f}" if whole and entry["best_f1"] else "-",
            )
        if result["map50"] is not None:
            shown.add_row("", "", "", "mean", "", "", "", f"{result['map50']:.3f}{interval(result, 'map50')}")
    return shown


def interval(entry: dict[str, Any], name: str) -> str:
    """The limits of a figure for people, nothing where it has none."""
    return f" [{entry[f'{name}_low']:.3f}, {entry[f'{name}_high']:.3f}]" if f"{name}_low" in entry else ""


def write_errors(errors: list[Mistake], folder: Path, threshold: float, each: int = 20, sheets: int = 5) -> None:
    """errors.json with all, and the worst as sheets of `each` pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "errors.json").write_text(json.dumps([mistake.as_dict() for mistake in errors], indent=1))
    for number in range(min(sheets, -(-len(errors) // each))):
        cv2.imwrite(str(folder / f"{number + 1:02}.png"), sheet(errors[each * number :][:each], threshold))


def main(argv: Sequence[str]) -> int:
    parser = command_parser("tools.evaluate", __doc__)
    parser.add_argument("model")
    parser.add_argument("--sets", default="txl_pbc,chula_wbc", help="names, comma-separated")
    parser.add_argument("--part", choices=("train", "validation", "holdout"), default="validation")
    parser.add_argument(
        "--long-sides",
        default="640",
        help="longer side of the input in px, comma-separated; measured: as the stream chooses it",
    )
    parser.add_argument("--threshold", type=float, default=0.35, help="operating score, for recall and false alarms")
    parser.add_argument("--limit", type=int, default=sys.maxsize, help="pictures a set at most")
    parser.add_argument("--as-labelled", action="store_true", help="take the labels of every class for complete")
    parser.add_argument("--draws", type=int, default=1000, help="of the bootstrap; 0: no limits of AP")
    parser.add_argument("--out", type=Path, help="folder for figures.json, precision_recall.png and confusion.png")
    parser.add_argument("--errors", type=Path, help="folder for the mistakes, worst first: errors.json and sheets")
    parser.add_argument("--error-classes", default=",".join(CLASS_NAMES), help="classes whose mistakes are listed")
    parser.add_argument("--draw", type=Path, help="folder for the pictures with labels and detections")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 140)
    results: list[dict[str, Any]] = []
    curves: dict[str, list[ClassTally]] = {}
    tables: dict[str, np.ndarray] = {}
    errors: list[Mistake] = []
    for name in options.sets.split(","):
        fields = sets.fields_of(name, options.part)[: options.limit]
        if not fields:
            console.print(f"set {name!r}: got no {options.part} picture, expected some; see tools/data")
            return 1
        for text in options.long_sides.split(","):
            long_side_px = text if text == MEASURED else int(text)
            try:
                predictor = make_predictor(options.model, long_side_px, options.threads)
            except (FileNotFoundError, LeukostreamError) as error:
                console.print(str(error))
                return 2
            tallies, found = tally(fields, predictor, len(CLASS_NAMES))
            complete = np.ones(len(CLASS_NAMES), bool) if options.as_labelled else fields[0].complete
            times = predictor.network_ms if isinstance(predictor, OnnxPredictor) else []
            results.append(
                {
                    "set": name,
                    "part": options.part,
                    "long_side_px": long_side_px,
                    "network_ms": round(float(np.percentile(times, 10)), 2) if times else None,
                    "as_labelled": options.as_labelled,
                    **summary(tallies, CLASS_NAMES, complete, options.threshold, draws=options.draws),
                }
            )
            if complete.any():
                curves[f"{name} {long_side_px}"] = tallies
            if complete.all():
                tables[f"{name} {long_side_px}"] = confusion(found, len(CLASS_NAMES), options.threshold)
            if options.errors:
                chosen = [CLASS_NAMES.index(c) for c in options.error_classes.split(",")]
                errors += mistakes(found, options.threshold, chosen)
            if options.draw:
                folder = options.draw / f"{name}-{options.part}-{long_side_px}"
                folder.mkdir(parents=True, exist_ok=True)
                for item, detections in found:
                    picture = draw(item.load(), item, detections, options.threshold)
                    cv2.imwrite(str(folder / f"{Path(item.name).stem}.png"), picture)
    console.print(table(results))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        command = "python -m tools.evaluate " + " ".join(map(str, argv))
        figures = {"model": options.model, "command": command, "ap": "COCO, 101 recalls", "results": results}
        (options.out / "figures.json").write_text(json.dumps(figures, indent=1))
        if curves:
            plot_precision_recall(curves, CLASS_NAMES, options.out / "precision_recall.png")
        if tables:
            plot_confusion(tables, CLASS_NAMES, options.out / "confusion.png")
    if options.errors:
        write_errors(sorted(errors, key=lambda mistake: -mistake.score), options.errors, options.threshold)
    return 0
