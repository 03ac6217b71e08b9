"""What a hundred cells of a laboratory that trained nothing make of a classifier: `leukostream adapt`, measured.

    python -m tools.evaluate adapt --sets krd --cells 100 --draws 20 --json adapt.json
    python -m tools.evaluate adapt --classifier runs/lite0/efficientnet-lite0.onnx --sets wbc_masks

Of each laboratory whole groups of pictures (no picture, overlapping field, slide or patient on two sides) are drawn at
random until there are `--cells` cells; the classifier is adapted to these as the command does it, refusals included: a
profile that is refused leaves the classifier as it was. All other cells are judged: balanced accuracy over those of the
five types of which the laboratory has ten cells or more, by the likeliest class. Cells are boxed by the detector and
looked at as the stream does.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engines.graphs.last_layer import Floats, LastLayer
from engines.models.adaptation import BLAST, Adaptation, AdaptationError
from engines.models.last_layer_fit import Cells, Classes, log_probabilities
from engines.models.loading import load_detector
from engines.models.site import SiteAdapter
from streamer.config import DEFAULT_CLASSIFIER
from tools.commands import command_parser
from tools.data import CellPicture, read_cells
from tools.data.crops import set_name
from tools.data.located import DETECTOR, box_of, detections_at_scale
from tools.data.splits import build_groups, cached

SETS = ("krd", "wbc_masks", "deepapl", "txl_pbc", "chula_wbc", "bccd", "pbc")
FIVE = ("basophil", "eosinophil", "lymphocyte", "monocyte", "neutrophil")
FEWEST_OF_A_TYPE = 10
"""Of a laboratory: types of fewer cells are judged by chance, and are left out of its balanced accuracy."""
_VERSION = 1
_DECIMALS = 4


def cell_features(cells: Sequence[CellPicture], adapter: SiteAdapter) -> Floats:
    """(n, F) of cells as the stream looks at them, means over the looks; from the user's cache after the first time."""
    told = [[cell.key, cell.box_px] for cell in cells]
    text = json.dumps([_VERSION, adapter.card.sha256, told])
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    rows = cached(f"features-{digest}.json", lambda: np.round(_look(cells, adapter), _DECIMALS).tolist())
    return np.array(rows, np.float64).reshape(len(cells), -1)


def _look(cells: Sequence[CellPicture], adapter: SiteAdapter) -> Floats:
    detector = load_detector(DETECTOR, backend="onnxruntime")
    least = detector.card.thresholds.operating
    features = np.zeros((len(cells), adapter.base.weights.shape[1]))
    for i, picture, found, rbc_px in detections_at_scale(cells, detector):
        box = np.array([box_of(cells[i], found, least) or cells[i].box_px], np.float32)
        features[i] = adapter.features(adapter.classifier.crop(picture, box, rbc_px))[0]
    return features


@dataclass(frozen=True, slots=True)
class Judged:
    """Of the cells that a draw left over."""

    balanced: float
    """Mean recall over the types that occur."""
    recall: dict[str, float]
    blasts_misnamed: float | None
    """Share of blasts that are given another name, below the threshold none; None: there are none."""


def judged(
    layer: LastLayer, threshold: float, names: Sequence[str], types: Sequence[str], cells: Cells, blasts: Floats
) -> Judged:
    """Of cells of the classifier's classes `names`, those of some `types` of them, and of blasts (n, F)."""
    logs = log_probabilities(layer, cells.features)
    right = logs.argmax(1) == cells.classes
    recall = {name: float(right[own].mean()) for name in types if (own := cells.classes == names.index(name)).any()}
    misnamed = None
    if len(blasts):
        of_blasts = log_probabilities(layer, blasts)
        named = np.exp(of_blasts.max(1)) >= threshold
        if BLAST in names:
            named &= of_blasts.argmax(1) != names.index(BLAST)
        misnamed = float(named.mean())
    return Judged(float(np.mean(list(recall.values()))), recall, misnamed)


@dataclass(frozen=True, slots=True)
class Draw:
    """One hundred cells, and the others before and after."""

    cells: int
    before: Judged
    after: Judged
    left_out: float | None
    """Balanced accuracy that the command itself measures on the cells it was given; None where it takes none."""
    home: tuple[float, float] | None
    refusal: str | None


def draw(
    adaptation: Adaptation, cells: Cells, groups: Sequence[str], blasts: Floats, count: int, rng: np.random.Generator
) -> Draw:
    """Adapt to `count` cells of a laboratory, in whole `groups`, and judge the others."""
    chosen = drawn(groups, count, rng)
    rest, names = cells[~chosen], adaptation.class_names
    counts = np.bincount(cells.classes, minlength=len(names))
    types = [name for name in FIVE if name in names and counts[names.index(name)] >= FEWEST_OF_A_TYPE]
    before = judged(adaptation.base, adaptation.threshold, names, types, rest, blasts)
    own = np.flatnonzero(chosen)
    try:
        found = adaptation.adapted(cells[own], [groups[i] for i in own.tolist()])
    except AdaptationError as error:
        return Draw(len(own), before, before, None, None, str(error))
    after = judged(found.layer, found.threshold, names, types, rest, blasts)
    home = None
    if found.home_before is not None and found.home_after is not None:
        home = found.home_before.balanced_accuracy, found.home_after.balanced_accuracy
    return Draw(
        len(own),
        before,
        after if found.refusal is None else before,
        found.after.balanced_accuracy,
        home,
        found.refusal,
    )


def drawn(groups: Sequence[str], count: int, rng: np.random.Generator) -> np.ndarray:
    """bool (n,): whole groups at random, `count` cells or a few more."""
    members: dict[str, list[int]] = defaultdict(list)
    for i, group in enumerate(groups):
        members[group].append(i)
    names = sorted(members)
    chosen = np.zeros(len(groups), bool)
    for place in rng.permutation(len(names)).tolist():
        if chosen.sum() >= count:
            break
        chosen[members[names[place]]] = True
    return chosen


def classes_of(cells: Sequence[CellPicture], names: Sequence[str]) -> Classes:
    """(n,) index into `names`, -1 for what is none of them."""
    return np.array([names.index(c.cell_class) if c.cell_class in names else -1 for c in cells], np.intp)


def measure(adapter: SiteAdapter, cells: Sequence[CellPicture], count: int, draws: int, seed: int) -> list[Draw]:
    """Of one laboratory."""
    adaptation, names = adapter.adaptation(), adapter.card.class_names
    features, classes = cell_features(cells, adapter), classes_of(cells, names)
    group_of = {key: group for group, keys in build_groups().items() for key in keys}
    known = np.flatnonzero(classes >= 0)
    groups = [group_of.get(cells[i].key, cells[i].key) for i in known.tolist()]
    is_blast = np.array([cell.cell_class == BLAST for cell in cells], bool)
    found = []
    for number in range(draws):
        rng = np.random.default_rng([seed, number])
        own = Cells(features[known], classes[known])
        found.append(draw(adaptation, own, groups, features[is_blast], count, rng))
    return found


def summary(draws: Sequence[Draw]) -> dict[str, Any]:
    """Means and the worst of some draws, for JSON."""
    before, after = ([getattr(one, when).balanced for one in draws] for when in ("before", "after"))
    found: dict[str, Any] = {
        "draws": len(draws),
        "refused": sum(one.refusal is not None for one in draws),
        "before": {"mean": float(np.mean(before)), "worst": min(before)},
        "after": {"mean": float(np.mean(after)), "worst": min(after)},
        "recall": {
            when: {name: _mean([getattr(one, when).recall.get(name) for one in draws]) for name in FIVE}
            for when in ("before", "after")
        },
        "left_out": _mean([one.left_out for one in draws]),
        "blasts_misnamed": {w: _mean([getattr(one, w).blasts_misnamed for one in draws]) for w in ("before", "after")},
        "home": {
            "before": _mean([one.home[0] if one.home else None for one in draws]),
            "after": _mean([one.home[1] if one.home else None for one in draws]),
        },
        "each": [[one.cells, one.before.balanced, one.after.balanced, one.refusal] for one in draws],
    }
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def table(result: Mapping[str, Any]) -> list[str]:
    """The result as the rows of a Markdown table."""
    lines = [
        "| laboratory | before, mean | worst | after, mean | worst | refused | home | blasts misnamed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in result.items():
        pairs = (row["home"], row["blasts_misnamed"])
        home, blasts = (
            "–" if pair["before"] is None else f"{pair['before']:.3f} -> {pair['after'] or pair['before']:.3f}"
            for pair in pairs
        )
        lines.append(
            f"| `{name}` | {row['before']['mean']:.3f} | {row['before']['worst']:.3f} | {row['after']['mean']:.3f} | "
            f"{row['after']['worst']:.3f} | {row['refused']} of {row['draws']} | {home} | {blasts} |"
        )
    return lines


def main(arguments: Sequence[str]) -> None:
    """Command line."""
    parser = command_parser("tools.evaluate adapt", __doc__)
    parser.add_argument("--classifier", default=DEFAULT_CLASSIFIER, metavar="NAME|FILE")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--trained", nargs="*", metavar="SET", help="sets that trained it (default: as its card says)")
    parser.add_argument("--cells", type=int, default=100, help="that are corrected")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--most", type=int, default=1500, help="cells of a set that are looked at (default 1500)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args(arguments)
    adapter = SiteAdapter(args.classifier, backend="onnxruntime")
    trained = adapter.card.training.get("data", ()) if args.trained is None else args.trained
    result: dict[str, Any] = {}
    for name in args.sets:
        if name in trained:
            print(f"{name}: left out, it trained the classifier")
            continue
        cells = [cell for cell in read_cells(sets=(name,)) if cell.cell_class != "platelet"]
        cells = [cells[i] for i in np.random.default_rng(args.seed).permutation(len(cells))[: args.most].tolist()]
        for laboratory in sorted({set_name(cell) for cell in cells}):
            own = [cell for cell in cells if set_name(cell) == laboratory]
            if len(own) < 1.5 * args.cells:
                print(f"{laboratory}: left out, {len(own)} cells are too few")
                continue
            result[laboratory] = summary(measure(adapter, own, args.cells, args.draws, args.seed))
    print("\n".join(table(result)))
    if args.json is not None:
        head = {
            "command": f"python -m tools.evaluate adapt --classifier {args.classifier} --cells {args.cells}",
            "classifier_sha256": adapter.card.sha256,
            "home_cells": adapter.adaptation().home is not None,
        }
        args.json.write_text(json.dumps({**head, "laboratories": result}, indent=1) + "\n")
