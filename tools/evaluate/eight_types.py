"""Measure a classifier: every set, seen as the detector crops it and as whole single-cell pictures.

    python -m tools.evaluate mobilenetv3-small --part validation --json figures.json --plots runs/plots

MODEL is a name of the zoo or an ONNX file with its card beside it.
--margins looks at cells otherwise than the card says: once, or twice, the second time mirrored.
Cells whose set has no box are cropped by the detector's. `validation` chose the model, its temperature and threshold;
`holdout` is for the last measurement only. "NAME whole" are single-cell pictures as a whole, "NAME fields" whole fields
with one typed cell, which is looked for as `leukostream classify` does, and "chula_wbc fused" has one entry a physical
cell with all its looks pooled. "junk" are crops that show no white cell: which of them the model calls unlike its
training cells. Limits are for the cells of a slide together.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from engines.base import Array, Classifications, attribute_columns
from engines.geometry import iou_matrix
from engines.models.classifier import Classifier
from engines.models.detector import Detector
from engines.models.loading import load_classifier, load_detector
from streamer.analysis.field_search import FieldSearch
from tools.commands import command_parser
from tools.data import CELL_CLASSES, PARTS, SUBCLASSES, CellPicture, data_root, load_splits, read_cells
from tools.data.crops import (
    SUBCLASS_NAMES,
    add_margins,
    cluster_of,
    part_of_cell,
    read_attributes,
    read_image,
    set_name,
    with_margins,
)
from tools.data.junk import junk_crops
from tools.data.located import with_found_boxes
from tools.data.unique import UNIQUE_CELLS, fused, looks_of_cells
from tools.metrics import classification as measures

SINGLE_CELL_SETS = ("pbc", "wbc_masks/jtsc", "wbc_masks/cellavision", "bccd_crops")
"""Sets whose pictures hold one cell, so that they are measured as whole pictures too."""
SEARCHED = ("bccd", "txl_pbc")
"""Sets of whole fields most of which show one white cell, of known type."""
FIELDS = ("chula_wbc", "bccd")
"""Sets of whole fields, in which a detector may look for the cells."""


@dataclass(frozen=True)
class Predictions:
    """What a model said of n cells, beside the truth."""

    cells: list[CellPicture]
    looks: Classifications
    attributes: np.ndarray | None = None
    """int64 (n, 11), the true ones, -1 where nobody looked; None where no cell was looked at."""

    @property
    def probabilities(self) -> np.ndarray:
        """float32 (n, 8)."""
        return self.looks.probabilities

    @property
    def subclass_probabilities(self) -> np.ndarray:
        """float32 (n, 5)."""
        return self.looks.subclass_probabilities

    @property
    def truth(self) -> np.ndarray:
        """int64 (n,)."""
        return np.array([CELL_CLASSES.index(c.cell_class) for c in self.cells], np.int64)


class Model:
    """A classifier to be measured, run exactly as the stream runs it."""

    def __init__(self, source: str, classifier: Classifier | None = None) -> None:
        """`classifier`: one that was loaded already."""
        self.source = source
        if classifier is not None:
            self.classifier = classifier
        elif source.endswith(".pt"):
            raise ValueError(
                f"{source}: got a checkpoint, expected a model that runs; make it by: "
                f"python -m tools.export eight-types {source} --name trial --out runs/trial --parts"
            )
        else:
            self.classifier = load_classifier(source)
        if self.classifier.class_names != CELL_CLASSES:
            raise ValueError(f"classes of {source}: got {self.classifier.class_names}, expected {CELL_CLASSES}")

    @property
    def threshold(self) -> float:
        """The probability below which a cell is "unclassified"; 0 for one that was not fitted yet."""
        return self.classifier.threshold

    @property
    def novelty(self) -> float | None:
        """The novelty above which a look is unlike the training cells; None where the model does not say."""
        return self.classifier.card.thresholds.novelty

    @property
    def temperature(self) -> float | None:
        """What the logits were divided by in the graph, None where the card doesn't say."""
        return self.classifier.card.training.get("temperature")

    def predict(
        self, cells: Sequence[CellPicture], *, whole: bool = False, search: FieldSearch | None = None
    ) -> Predictions:
        """Probabilities of cells, cropped by their boxes, or by what `search` finds in their pictures; or the whole
        pictures."""
        found = []
        for cell in cells:
            image = read_image(cell.path)
            searched = None if search is None else search.white_cell(image)
            if searched is not None:
                found.append(self.classifier.classify(image, searched.box_px, searched.rbc_px))
            elif whole or search is not None:
                found.append(self.classifier.classify_crops([image]))
            else:
                found.append(self.classifier.classify(image, np.array([cell.box_px], np.float32)))
        return Predictions(list(cells), joined(found))


def joined(parts: Sequence[Classifications]) -> Classifications:
    """Classifications of one model, one after the other; ValueError where there are none."""
    if not parts:
        raise ValueError("classifications: got none to join, expected at least one")
    attributes, novelty = [p.attribute_probabilities for p in parts], [p.novelty for p in parts]
    return replace(
        parts[0],
        probabilities=np.concatenate([p.probabilities for p in parts]),
        subclass_probabilities=np.concatenate([p.subclass_probabilities for p in parts]),
        attribute_probabilities=_all_or_none(attributes),
        novelty=_all_or_none(novelty),
    )


def _all_or_none(parts: Sequence[Array | None]) -> Array | None:
    given = [part for part in parts if part is not None]
    return np.concatenate(given) if len(given) == len(parts) else None


def collect(
    model: Model, cells: Sequence[CellPicture], root: Path, sets: Sequence[str] | None = None
) -> dict[str, Predictions]:
    """Predictions by set, with those that the module's first lines tell of; None: of all sets."""
    out: dict[str, Predictions] = {}
    for name in sorted({set_name(c) for c in cells}):
        of_set = [c for c in cells if set_name(c) == name]
        if sets is not None and name not in sets:
            continue
        found = read_attributes(root, of_set) if name == "pbc" else None
        out[name] = replace(model.predict(of_set), attributes=found)
        whole = f"{name} whole"
        if name in SINGLE_CELL_SETS and (sets is None or whole in sets):
            out[whole] = replace(model.predict(of_set, whole=True), attributes=found)
        if name in SEARCHED and (sets is None or f"{name} fields" in sets):
            times = Counter(cell.key for cell in of_set)
            alone = [cell for cell in of_set if times[cell.key] == 1]
            search = FieldSearch(load_detector("yolov5n-blood"))
            out[f"{name} fields"] = model.predict(alone, search=search)
        if name == "chula_wbc" and (root / UNIQUE_CELLS).exists():
            groups = looks_of_cells(of_set, root)
            firsts = [of_set[group[0]] for group in groups]
            out["chula_wbc fused"] = Predictions(firsts, fused(out[name].looks, of_set, groups))
    return out


def subclass_share(found: Predictions) -> measures.Share:
    """Cells of known subclass whose likeliest child of the true parent is the true one."""
    hits = trials = 0
    for cell, p in zip(found.cells, found.subclass_probabilities, strict=True):
        if cell.subclass is not None:
            children = [i for i, s in enumerate(SUBCLASS_NAMES) if SUBCLASSES[s] == cell.cell_class]
            hits += SUBCLASS_NAMES[children[int(p[children].argmax())]] == cell.subclass
            trials += 1
    return measures.Share(hits, trials)


def attribute_figures(found: Predictions) -> dict[str, dict[str, Any]]:
    """Of every attribute: macro-F1 (over the values that occur), accuracy and the cells that somebody looked at; empty
    where nobody did or the model says nothing."""
    values = found.looks.attribute_probabilities
    if values is None or found.attributes is None:
        return {}
    rows = {}
    columns = attribute_columns(found.looks.attributes)
    for attribute, own, truth in zip(found.looks.attributes, columns, found.attributes.T, strict=True):
        known = truth >= 0
        if known.any():
            table = measures.confusion(truth[known], values[known][:, own].argmax(1), len(own))
            rows[attribute.name] = {
                "macro_f1": measures.macro_f1(table),
                "accuracy": float(np.trace(table) / known.sum()),
                "cells": int(known.sum()),
                "confusion": table.tolist(),
            }
    return rows


def without_tenth(found: Predictions) -> dict[str, float | None]:
    """Accuracy and balanced accuracy once the least sure tenth of the cells is left out."""
    order = np.argsort(found.probabilities.max(1), kind="stable")[round(0.1 * len(found.cells)) :]
    table = measures.confusion(found.truth[order], found.probabilities[order].argmax(1), len(CELL_CLASSES))
    share = measures.Share(int(np.trace(table)), len(order)).value
    return {"accuracy": share, "balanced_accuracy": measures.balanced_accuracy(table)}


def junk(model: Model, part: str, root: Path | None = None, each: int = 150) -> dict[str, dict[str, Any]]:
    """By kind of junk: the crops, the share that is unlike the training cells, and the share that a run would give a
    white cell's class to."""
    card = model.classifier.card
    limit = 1.0 if card.thresholds.novelty is None else card.thresholds.novelty
    kinds = np.array(card.kinds) == "white"
    crops = junk_crops(data_root() if root is None else root, part, model.classifier.crop, each)
    rows = {}
    for kind, some in crops.items():
        looks = model.classifier.classify_batch(some)
        unlike = np.zeros(len(some), bool) if looks.novelty is None else looks.novelty > limit
        named = ~unlike & (looks.probabilities.max(1) >= model.threshold) & kinds[looks.probabilities.argmax(1)]
        rows[kind] = {
            "crops": len(some),
            "unlike_training": float(unlike.mean()),
            "named_white_cell": float(named.mean()),
        }
    return rows


def figures(
    found: Predictions, threshold: float, temperature: float | None, novelty: float | None = None
) -> dict[str, Any]:
    """All measures of one set, ready for JSON; a share carries its 95 % limits, for cells of a slide together where
    they have one. Classified is what is not below `threshold` and not above `novelty`."""
    truth, p = found.truth, found.probabilities
    clusters = [cluster_of(cell) for cell in found.cells]
    unlike = None
    if novelty is not None and found.looks.novelty is not None:
        unlike = np.asarray(found.looks.novelty) > novelty
    raw = None
    if temperature is not None:
        raw = measures.softmax(np.log(np.maximum(p, 1e-12)), 1 / temperature)
    reached = measures.threshold_for_risk(p, truth, 0.02)
    return {
        **measures.figures(p, truth, CELL_CLASSES, threshold, raw, unlike, clusters),
        "log_loss": measures.log_loss(p, truth),
        "subclass_accuracy": subclass_share(found).as_dict(),
        "threshold": threshold,
        "without_tenth": without_tenth(found),
        "unlike_training": None if unlike is None else measures.share_of(unlike, clusters).as_dict(),
        "attributes": attribute_figures(found),
        "threshold_for_2_percent_errors": None if reached is None else reached[0],
    }


def worst(found: Predictions, count: int = 20) -> list[dict[str, Any]]:
    """The mistakes made with the highest confidence."""
    truth, p = found.truth, found.probabilities
    wrong = np.nonzero(p.argmax(1) != truth)[0]
    order = wrong[np.argsort(-p[wrong].max(1), kind="stable")][:count]
    return [
        {
            "file": found.cells[i].key,
            "box_px": [round(v, 1) for v in found.cells[i].box_px],
            "true": found.cells[i].cell_class,
            "predicted": CELL_CLASSES[int(p[i].argmax())],
            "probability": round(float(p[i].max()), 4),
        }
        for i in order
    ]


def plot(found: Predictions, title: str, path: Path) -> None:
    """Confusion matrix and reliability diagram as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    table = measures.confusion(found.truth, found.probabilities.argmax(1), len(CELL_CLASSES))
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(13, 5.5))
    left.imshow(table / np.maximum(1, table.sum(1, keepdims=True)), cmap="Blues", vmin=0, vmax=1)
    for (i, j), n in np.ndenumerate(table):
        if n:
            left.text(j, i, str(n), ha="center", va="center", color="white" if 2 * n > table[i].sum() else "black")
    left.set_xticks(range(len(CELL_CLASSES)), CELL_CLASSES, rotation=40, ha="right")
    left.set_yticks(range(len(CELL_CLASSES)), CELL_CLASSES)
    left.set(xlabel="predicted", ylabel="true", title=title)
    rows = measures.reliability(found.probabilities, found.truth)
    right.plot([0, 1], [0, 1], color="grey", linewidth=1)
    right.scatter([c for c, _, _ in rows], [c + g for c, g, _ in rows], [400 * s + 8 for _, _, s in rows])
    right.set(xlabel="confidence", ylabel="share right", xlim=(0, 1), ylim=(0, 1.02), title="reliability")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def boxed_by(detector: Detector, cells: Sequence[CellPicture]) -> list[CellPicture]:
    """The cells of fields that a detector finds, with its box (of nucleated cells the one that overlaps the label's
    most, by half at least) instead of the label's."""
    out = []
    for cell in cells:
        if cell.dataset not in FIELDS:
            continue
        found = detector.detect([read_image(cell.path)])[0]
        nucleated = np.isin(np.array(found.kinds)[found.labels], ("white", "nucleated red"))
        boxes = found.boxes_px[nucleated & (found.scores >= detector.card.thresholds.operating)]
        overlaps = iou_matrix(np.array([cell.box_px], np.float32), boxes)[0]
        if len(boxes) and overlaps.max() >= 0.5:
            out.append(replace(cell, box_px=tuple(boxes[overlaps.argmax()].tolist())))
    return out


def evaluate(
    model: Model,
    part: str,
    root: Path | None = None,
    detector: Detector | None = None,
    sets: Sequence[str] | None = None,
    left_out: Sequence[str] = (),
) -> dict[str, Predictions]:
    """Predictions for all cells of one part of all sets, or of some; with a detector, for those of fields that it
    finds. Sets that training `left_out` are validation as a whole."""
    if part not in PARTS:
        raise ValueError(f"part: got {part!r}, expected one of {', '.join(PARTS)}")
    root = data_root() if root is None else root
    splits = load_splits(root)
    cells = with_found_boxes([c for c in read_cells(root) if part_of_cell(c, splits, left_out) == part])
    if detector is not None:
        named = len([c for c in cells if c.dataset in FIELDS])
        cells = boxed_by(detector, cells)
        print(f"{detector.card.name} finds {len(cells)} of {named} cells of {', '.join(FIELDS)}", file=sys.stderr)
    return collect(model, cells, root, sets)


def main(arguments: Sequence[str]) -> None:
    """Command line."""
    parser = command_parser("tools.evaluate", __doc__)
    parser.add_argument("model", help="name of the zoo, or ONNX file")
    parser.add_argument("--part", choices=PARTS, default="validation")
    parser.add_argument("--detector", metavar="NAME|FILE", help="crop fields by its boxes, not by the labels'")
    add_margins(parser)
    parser.add_argument("--left-out", nargs="+", default=[], metavar="SET", help="sets that did not train it")
    parser.add_argument("--json", type=Path, help="write all figures here (default: standard output)")
    parser.add_argument("--plots", type=Path, help="folder for confusion matrices and reliability diagrams")
    args = parser.parse_args(arguments)
    model = Model(args.model)
    if args.margins:
        looks = model.classifier
        model = Model(args.model, Classifier(with_margins(looks.card, args.margins), looks.engine))
    detector = load_detector(args.detector) if args.detector else None
    found = evaluate(model, args.part, detector=detector, left_out=args.left_out)
    result = {
        "model": args.model,
        "part": args.part,
        "detector": args.detector,
        "margins": model.classifier.margins,
        "left_out": args.left_out,
        "sets": {
            name: {**figures(f, model.threshold, model.temperature, model.novelty), "worst": worst(f)}
            for name, f in found.items()
        },
        "junk": None if model.novelty is None else junk(model, args.part),
    }
    if args.plots:
        for name, f in found.items():
            plot(f, f"{name}, {args.part}", args.plots / f"{name.replace('/', '-').replace(' ', '-')}.png")
    text = json.dumps(result, indent=1)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(text + "\n")
        for name, row in result["sets"].items():
            a = row["accuracy"]
            line = f"{name:28} {a['value']:.4f} ({a['low']:.3f}–{a['high']:.3f})  n {a['trials']}"
            line += f"  balanced {row['balanced_accuracy']:.4f}  calibration error {row['calibration_error']:.3f}"
            line += f"  log loss {row['log_loss']:.3f}"
            if row["unlike_training"]:
                line += f"  unlike training {row['unlike_training']['value']:.4f}"
            print(line, file=sys.stderr)
    else:
        print(text)
