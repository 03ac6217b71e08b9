"""Measure a published classifier on the cells of its classes: every set, as the stream crops them and as pictures.

    python -m tools.evaluate ml-cnn --part validation
    python -m tools.evaluate mobilenetv3-small --five-types --json docs/results/mobilenetv3-small.json
    python -m tools.evaluate ml-cnn --margins 1.2 1.4

The model is a name or an ONNX file with its card. Cells of classes that it does not name are left out. --five-types
measures a model of more classes as the publications' are: on cells of the five types alone, its probabilities of other
classes left out. Of wbc_masks, txl_pbc and bcd all cells are measured where the model was not trained on them:
laboratories that it never saw; "wbc_masks" are both of that set together. Cells whose set has no box are cropped by the
detector's; limits are for cells of a slide together. --margins looks at cells otherwise than the
card says: once, or twice, the second time mirrored; its figures are of no card.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from engines.models.classifier import Classifier
from engines.models.loading import load_classifier, load_detector
from engines.zoo.figures import MeasuredOn, figure_tables
from tools.commands import command_parser
from tools.data import PARTS, VALIDATION, CellPicture, data_root, load_splits, read_cells
from tools.data.blasts import BLAST_CLASSES, FINDER, FINDER_PX, blast_parts, read_blasts
from tools.data.crops import add_margins, cluster_of, measured_on, part_of_cell, read_image, set_name, with_margins
from tools.data.located import with_found_boxes
from tools.metrics import classification as measures

FIVE_TYPES = ("basophil", "eosinophil", "lymphocyte", "monocyte", "neutrophil")
PICTURES_OF_CELLS = ("pbc", "bccd_crops", "all_idb2")
"""Sets that are measured as whole pictures too, as `leukostream classify` takes them."""
OTHER_LABORATORIES = ("wbc_masks", "txl_pbc", "bcd")
"""Sets all of whose cells are for validation where they did not train a model."""
_AT_ONCE = 64


def probabilities_of(classifier: Classifier, cells: Sequence[CellPicture], *, whole: bool = False) -> np.ndarray:
    """float32 (n, classes) of cells, cropped by their boxes, or of the whole pictures."""
    return _probabilities(classifier, cells, whole, lambda said: said)[0]


def _probabilities(
    classifier: Classifier,
    cells: Sequence[CellPicture],
    whole: bool,
    untempered: Callable[[np.ndarray], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """`probabilities_of`, and the same of looks that `untempered` changed before they were pooled."""
    found = [np.zeros((0, len(classifier.class_names)), np.float32)]
    before = list(found)
    for start in range(0, len(cells), _AT_ONCE):
        members = cells[start : start + _AT_ONCE]
        images = [read_image(cell.path) for cell in members]
        if whole:
            crops = classifier.crop_pictures(images)
        else:
            boxes = [np.array([cell.box_px], np.float32) for cell in members]
            crops = np.concatenate([classifier.crop(image, box) for image, box in zip(images, boxes, strict=True)])
        looks = classifier.classify_batch(crops.reshape(-1, *crops.shape[2:]))
        changed = replace(looks, probabilities=untempered(looks.probabilities))
        found.append(looks.pooled(crops.shape[1]).probabilities)
        before.append(changed.pooled(crops.shape[1]).probabilities)
    return np.concatenate(found), np.concatenate(before)


def among(probabilities: np.ndarray, names: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    """float32 (n, wanted) of float32 (n, names): the shares that the wanted classes have among themselves."""
    chosen = np.maximum(probabilities[:, [list(names).index(name) for name in wanted]], 1e-12)
    return np.asarray(chosen / chosen.sum(1, keepdims=True), np.float32)


def cells_of(names: Sequence[str], part: str, trained: Sequence[str] = ()) -> list[CellPicture]:
    """The cells of a part whose class is one of `names`; of ALL-IDB2 where these are its classes. All of `unseen`
    laboratories is for validation."""
    root = data_root()
    if set(names) <= set(BLAST_CLASSES):
        cells = read_blasts(root, load_detector(FINDER, long_side_px=FINDER_PX))
        return [cell for cell, own in zip(cells, blast_parts(cells, root), strict=True) if own == part]
    splits = load_splits(root)
    return with_found_boxes(
        [
            cell
            for cell in read_cells(root)
            if cell.cell_class in names
            and (VALIDATION if unseen(cell, trained) else part_of_cell(cell, splits)) == part
        ]
    )


def unseen(cell: CellPicture, trained: Sequence[str]) -> bool:
    """Whether a cell is of a laboratory that is not among the sets that were `trained` on."""
    return cell.dataset in OTHER_LABORATORIES and set_name(cell) not in trained and cell.dataset not in trained


def by_set(
    part: str, names: Sequence[str], trained: Sequence[str], limit: int | None = None
) -> dict[str, list[CellPicture]]:
    """`cells_of` by set, at most `limit` a set; unseen laboratories together too."""
    found: dict[str, list[CellPicture]] = {}
    for cell in cells_of(names, part, trained):
        for title in {set_name(cell), cell.dataset} if unseen(cell, trained) else {set_name(cell)}:
            found.setdefault(title, []).append(cell)
    return {
        title: cells if limit is None else cells[:: max(1, len(cells) // limit)]
        for title, cells in sorted(found.items())
    }


def evaluate(
    classifier: Classifier,
    part: str,
    *,
    limit: int | None = None,
    untempered: Callable[[np.ndarray], np.ndarray] | None = None,
    types: Sequence[str] | None = None,
) -> dict[str, dict[str, Any]]:
    """Figures by set, "NAME whole" for whole pictures; at most `limit` cells a set. `untempered` takes calibrated
    probabilities of one look back to what they were before; `types` are the classes to be measured, by default all."""
    names = classifier.class_names if types is None else tuple(types)
    out = {}
    for title, cells in by_set(part, names, classifier.card.training.get("data", ()), limit).items():
        truth = np.array([names.index(cell.cell_class) for cell in cells])
        for whole in (False, True) if title in PICTURES_OF_CELLS else (False,):
            said, plain = _probabilities(classifier, cells, whole, untempered or (lambda given: given))
            found = among(said, classifier.class_names, names)
            before = None if untempered is None else among(plain, classifier.class_names, names)
            entry = measures.card_entry(
                measures.figures(
                    found, truth, names, classifier.threshold, before, clusters=[cluster_of(cell) for cell in cells]
                ),
                class_limits=True,
            )
            out[f"{title} whole" if whole else title] = entry
    return out


def card_tables(
    classifier: Classifier,
    name: str,
    parts: Sequence[str],
    limit: int | None = None,
    untempered: Callable[[np.ndarray], np.ndarray] | None = None,
) -> dict[MeasuredOn, dict[str, Any]]:
    """The figures of model `name`'s card: `evaluate` for each part, with the command that measures it."""
    return {
        measured_on(title, part): {"command": f"python -m tools.evaluate {name} --part {part}", **entry}
        for part in parts
        for title, entry in evaluate(classifier, part, limit=limit, untempered=untempered).items()
    }


def main(argv: Sequence[str]) -> int:
    parser = command_parser("tools.evaluate", __doc__)
    parser.add_argument("model")
    parser.add_argument("--part", choices=PARTS, default=VALIDATION)
    parser.add_argument("--limit", type=int, help="cells a set at most")
    parser.add_argument("--five-types", action="store_true", help="measure the five types alone")
    add_margins(parser)
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args(argv)
    classifier = load_classifier(options.model)
    if options.margins:
        classifier = Classifier(with_margins(classifier.card, options.margins), classifier.engine)
    types = FIVE_TYPES if options.five_types else None
    found = evaluate(classifier, options.part, limit=options.limit, types=types)
    shown = Table("set", "cells", "accuracy", "balanced", "calibration error", "classified", "right of those")
    for name, entry in found.items():
        keys = ("accuracy", "balanced_accuracy", "calibration_error", "classified", "accuracy_classified")
        shown.add_row(name, str(entry["cells"]), *(f"{entry[k]:.3f}" if k in entry else "-" for k in keys))
    Console(stderr=True, width=None if sys.stderr.isatty() else 120).print(shown)
    if options.json:
        command = f"python -m tools.evaluate {options.model} --part {options.part}"
        command += f" --margins {' '.join(map(str, options.margins))}" if options.margins else ""
        command += " --five-types" * options.five_types
        document = {
            "model": classifier.card.name,
            "sha256": classifier.card.sha256,
            "classes": list(types or classifier.class_names),
            "figures": figure_tables(
                {measured_on(title, options.part): {"command": command, **entry} for title, entry in found.items()}
            ),
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0
