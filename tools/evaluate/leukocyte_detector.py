"""Measure a detector of kinds of leukocyte: AP of every class, and how often it calls a picture's own cell right.

    python -m tools.evaluate yolov5n-leukocyte --part validation
    python -m tools.evaluate runs/yolov5n-leukocyte/best.pt --long-sides 224,256 --out runs/measured

Frames go the way of the stream: letterbox, graph in ONNX Runtime, suppression as the card says. AP is COCO's (101
recalls). Pictures without the box of their own cell, or with another class in it, are left out unless --all is given.
With --second-stage a classifier names the nucleated cells instead, as `run` with both does: each of their boxes counts
for every class, by its score times the probability of the class.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from engines.backends.onnxruntime import OnnxRuntimeEngine, Threads
from engines.base import Detections
from engines.geometry import diameters, iou_matrix
from engines.graphs.graph import fix_input_shape
from engines.models.classifier import Classifier
from engines.models.detector import Detector, Engines
from engines.models.loading import load_classifier
from engines.models.own_classes import OwnClasses
from engines.zoo.card import Card, ClassEntry, DetectorInput, Thresholds
from engines.zoo.registry import compact, find
from tools import data as datasets
from tools.commands import command_parser
from tools.data import leukocytes
from tools.data.fields import Field
from tools.metrics.detection import summary, tally
from tools.metrics.predict import NMS_IOU, Found
from tools.train.checkpoints import graph_of

LEAST_SCORE = 0.01
LEAST_PROBABILITY = 0.005
"""Of a class that the second stage gives a box."""
PARENTS = datasets.SUBCLASSES


def card_of(name: str, names: Sequence[str], *, threshold: float, naming: float, long_side_px: int) -> Card:
    """The card of a network of these classes, without its figures."""
    classes = tuple(ClassEntry(label, leukocytes.kind_of(label), PARENTS.get(label)) for label in names)
    thresholds = Thresholds(threshold, NMS_IOU, "kind", naming)
    return Card(name, "detector", DetectorInput(long_side_px=long_side_px), classes, thresholds, f"{name}.onnx")


def load(
    model: str,
    long_side_px: int | None,
    threads: int,
    across: Literal["class", "kind"] | None = None,
    threshold: float | None = None,
) -> Detector:
    """A zoo name, an ONNX file with its card, or a checkpoint; at its card's scale, suppression and operating
    threshold, or others."""
    if model.endswith(".pt"):
        graph, description, _ = graph_of(Path(model))
        card = card_of("checkpoint", description["class_names"], threshold=0.3, naming=0.5, long_side_px=224)
    else:
        found = find(model, "detector")
        graph, card = compact(found), found.card
    usual = card.thresholds
    operating = usual.operating if threshold is None else threshold
    card = replace(card, thresholds=replace(usual, operating=operating, nms_across=across or usual.nms_across))

    def engine(height: int, width: int) -> OnnxRuntimeEngine:
        return OnnxRuntimeEngine(fix_input_shape(graph, 1, height, width), threads=Threads(threads))

    return Detector(card, Engines(engine), min_score=LEAST_SCORE, long_side_px=long_side_px)


class SecondStage:
    """A classifier that names a detector's nucleated cells, `names` being the classes that are measured."""

    def __init__(self, classifier: Classifier, names: Sequence[str]) -> None:
        self.classifier, self.names = classifier, tuple(names)

    def probabilities(self, picture: np.ndarray, boxes_px: np.ndarray, rbc_px: float | None) -> np.ndarray:
        """float64 (n, classes) of the cells in boxes (n, 4): those of a subclass are its class's times its own share of
        it; those of classes that the classifier lacks are 0."""
        looks = self.classifier.classify(picture, boxes_px, rbc_px)
        out = np.zeros((len(boxes_px), len(self.names)))
        for column, name in enumerate(self.names):
            own = PARENTS.get(name, name)
            if own not in looks.class_names:
                continue
            out[:, column] = looks.probabilities[:, looks.class_names.index(own)]
            if name in looks.subclass_names:
                out[:, column] *= looks.subclass_probabilities[:, looks.subclass_names.index(name)]
        return out

    def named(self, picture: np.ndarray, found: Detections) -> Found:
        """The detections with their nucleated cells named anew, each once for every class."""
        kinds = np.array([found.kinds[label] for label in found.labels], object)
        nucleated = np.isin(kinds, ("white", "nucleated red"))
        red = diameters(found.boxes_px[kinds == "red"])
        p = self.probabilities(picture, found.boxes_px[nucleated], float(np.median(red)) if len(red) else None)
        rows, labels = np.nonzero(p > LEAST_PROBABILITY)
        boxes = np.concatenate([found.boxes_px[~nucleated], found.boxes_px[nucleated][rows]])
        scores = np.concatenate([found.scores[~nucleated], found.scores[nucleated][rows] * p[rows, labels]])
        classes = np.concatenate([found.labels[~nucleated], labels]).astype(np.int64)
        order = np.argsort(-scores, kind="stable")
        return Found(boxes[order].astype(np.float32), scores[order].astype(np.float32), classes[order])


class Measured:
    """Detections as `tally` takes them; keeps the milliseconds of the network and what white cells were called."""

    def __init__(self, detector: Detector, second_stage: SecondStage | None = None) -> None:
        self.detector = detector
        self.second_stage = second_stage
        self.own = OwnClasses.of(detector.card)
        self.network_ms: list[float] = []
        self.called: list[tuple[np.ndarray, list[str], list[str]]] = []
        """For each picture: boxes of its counted white cells, their classes and their labels."""

    def __call__(self, picture: np.ndarray) -> Found:
        (found,), timings = self.detector.detect_timed([picture])
        self.network_ms.append(timings.infer_ms)
        counted = found.scores >= self.detector.card.thresholds.operating
        white = np.flatnonzero(counted & np.array([found.kinds[label] == "white" for label in found.labels], bool))
        names: list[str] = []
        if self.own is not None:
            looks = self.own.looks(found, white)
            names = [looks.class_names[int(row.argmax())] for row in looks.probabilities]
        labels = [found.label_names[label] for label in found.labels[white]]
        self.called.append((found.boxes_px[white], names, labels))
        if self.second_stage is not None:
            return self.second_stage.named(picture, found)
        return Found(found.boxes_px, found.scores, found.labels.astype(np.int64))


def own_cells(fields: Sequence[tuple[str, Field]], measured: Measured, label_names: Sequence[str]) -> dict[str, Any]:
    """How many pictures' own white cells were found and called by the right class and the right label."""
    cells = right = exact = seen = 0
    for (own, item), (boxes, names, labels) in zip(fields, measured.called, strict=True):
        if leukocytes.kind_of(own) != "white":
            continue
        cells += 1
        label = leukocytes.label_of(own, label_names)
        truth = item.boxes_px[item.classes == label]
        if not len(boxes) or not len(truth):
            continue
        overlap = iou_matrix(truth, boxes)
        best = int(overlap.max(0).argmax())
        if overlap[:, best].max() < 0.5:
            continue
        seen += 1
        right += bool(names) and names[best] == PARENTS.get(own, own)
        exact += labels[best] == label_names[label]
    return {"cells": cells, "found": seen / cells, "class_accuracy": right / cells, "label_accuracy": exact / cells}


def evaluate(
    detector: Detector,
    part: str,
    *,
    limit: int | None = None,
    all_pictures: bool = False,
    classifier: Classifier | None = None,
) -> dict[str, Any]:
    """The figures of one part of PBC at the detector's scale; `classifier`: the second stage. What a picture's own cell
    was called is always the detector's word."""
    names = detector.card.class_names
    chosen: list[tuple[str, Field]] = []
    for own, members in leukocytes.pbc_fields(part, names, all_pictures=all_pictures).items():
        chosen += [(own, item) for item in members[:limit]]
    measured = Measured(detector, None if classifier is None else SecondStage(classifier, names))
    tallies, _ = tally((item for _, item in chosen), measured, len(names))
    figures = summary(tallies, names, np.ones(len(names), bool), detector.card.thresholds.operating)
    figures["classes"] = {name.replace(" ", "_"): entry for name, entry in figures["classes"].items()}
    return {
        "set": "pbc",
        "part": part,
        "long_side_px": detector.long_side_px,
        "network_ms": round(float(np.percentile(measured.network_ms, 10)), 2),
        **figures,
        "own_cells": {key: round(value, 4) for key, value in own_cells(chosen, measured, names).items()},
    }


def table(results: Sequence[dict[str, Any]]) -> Table:
    """The figures for people."""
    shown = Table("part", "long side", "class", "boxes", "recall", "precision", "AP@.5", "AP@[.5:.95]")
    for result in results:
        where = (f"{result['part']} ({result['pictures']})", str(result["long_side_px"]))
        for name, entry in result["classes"].items():
            values = (entry[key] for key in ("recall", "precision", "ap50", "ap50_95"))
            cells = ("-" if value is None else f"{value:.3f}" for value in values)
            shown.add_row(*where, name.replace("_", " "), str(entry["positives"]), *cells)
        own = result["own_cells"]
        mean = (f"{result['map50']:.4f}", f"{result['map50_95']:.4f}")
        shown.add_row(*where, "mean", "", f"{own['found']:.3f}", f"{own['class_accuracy']:.3f}", *mean, style="bold")
    return shown


def main(argv: Sequence[str]) -> int:
    parser = command_parser("tools.evaluate", __doc__)
    parser.add_argument("model")
    parser.add_argument("--part", choices=datasets.PARTS, default=datasets.VALIDATION)
    parser.add_argument("--long-sides", help="longer side of the input in px, comma-separated; else the card's")
    parser.add_argument("--across", choices=("class", "kind"), help="which boxes suppress one another; else the card's")
    parser.add_argument("--threshold", type=float, help="operating threshold; else the card's")
    parser.add_argument("--second-stage", metavar="CLASSIFIER", help="names the nucleated cells; a name or a file")
    parser.add_argument("--limit", type=int, help="pictures a class at most")
    parser.add_argument("--all", action="store_true", help="pictures without the box of their own cell too")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="folder for figures.json")
    options = parser.parse_args(argv)
    classifier = None if options.second_stage is None else load_classifier(options.second_stage, backend="onnxruntime")
    results = []
    for long_side_px in map(int, options.long_sides.split(",")) if options.long_sides else (None,):
        detector = load(options.model, long_side_px, options.threads, options.across, options.threshold)
        results.append(
            evaluate(detector, options.part, limit=options.limit, all_pictures=options.all, classifier=classifier)
        )
    Console(stderr=True, width=None if sys.stderr.isatty() else 140).print(table(results))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        given = argv
        command = "python -m tools.evaluate " + " ".join(map(str, given))
        figures = {"model": options.model, "command": command, "ap": "COCO, 101 recalls", "results": results}
        (options.out / "figures.json").write_text(json.dumps(figures, indent=1))
    return 0
