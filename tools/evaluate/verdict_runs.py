"""The verdicts on whole runs: pictures of each laboratory counted as one slide, as `leukostream run` counts a folder.

    python -m tools.evaluate verdict-runs --json runs.json
    python -m tools.evaluate verdict-runs --classifier runs/classifier/trial.onnx --sets krd wbc_masks

Where a set trained the classifier, as its card says, the pictures are those of validation and holdout, else all;
`--pictures` at most. They are single fields and few, so that too few cells, one area of the film and classes that a
person has to see are left out of the verdict: what is left is what the pictures themselves say.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from engines.models.classifier import Classifier
from engines.models.detector import Detector
from engines.models.loading import load_classifier, load_detector
from streamer.config import DEFAULT_CLASSIFIER, DEFAULT_DETECTOR, VerdictConfig
from tools.commands import command_parser
from tools.data.crops import read_image, set_name
from tools.evaluate.verdict import SETS, chosen_cells
from tools.evaluate.whole_run import run_over

RULES = VerdictConfig(
    least_cells=1, least_extent_um=0.0, states={"person_needed": "ready for review", "smudge_cells": "ready for review"}
)


def pictures_of(name: str, trained: Sequence[str], most: int) -> dict[str, list[Path]]:
    """By laboratory of a set, its pictures in their order."""
    found: dict[str, dict[Path, None]] = defaultdict(dict)
    for cell in chosen_cells(name, trained, most):
        found[set_name(cell)][cell.path] = None
    return {laboratory: list(paths) for laboratory, paths in found.items()}


def verdict_of(
    paths: Sequence[Path], detector: Detector, classifier: Classifier, rules: VerdictConfig
) -> dict[str, Any]:
    """What a run over the pictures comes to, ready for JSON."""
    session = run_over((read_image(path) for path in paths), detector, classifier, rules)
    found = session.count.differential(final=True)
    assert found.verdict is not None
    return {
        "pictures": len(paths),
        "cells": found.total,
        "edge": found.edge,
        "unclassified": found.unclassified,
        "mean_novelty": session.count.novelty().mean,
        "state": found.verdict.state,
        "reasons": [msgspec.to_builtins(reason) for reason in found.verdict.reasons],
        "nearest": msgspec.to_builtins(found.verdict.nearest),
        "classes": {name: share.count for name, share in found.classes.items() if share.count},
    }


def table(rows: dict[str, dict[str, Any]], trained: Sequence[str]) -> list[str]:
    """The rows of a Markdown table."""
    lines = [
        "| laboratory | trained it | pictures | cells, cut ones | unclassified | verdict | reasons |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        reasons = Counter(
            reason["code"] for reason in row["reasons"] if RULES.state_of(reason["code"]) != "ready for review"
        )
        lines.append(
            f"| `{name}` | {'yes' if name.split('/')[0] in trained else 'no'} | {row['pictures']} | {row['cells']}, "
            f"{row['edge']} | {row['unclassified']} | {row['state']} | {', '.join(reasons) or '–'} |"
        )
    return lines


def main(arguments: Sequence[str]) -> None:
    """Command line."""
    parser = command_parser("tools.evaluate verdict-runs", __doc__)
    parser.add_argument("--detector", default=DEFAULT_DETECTOR, metavar="NAME|FILE")
    parser.add_argument("--classifier", default=DEFAULT_CLASSIFIER, metavar="NAME|FILE")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--pictures", type=int, default=150, help="of each set at most")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args(arguments)
    detector, classifier = load_detector(args.detector), load_classifier(args.classifier)
    trained = classifier.card.training.get("data", ())
    rows = {
        laboratory: verdict_of(paths, detector, classifier, RULES)
        for name in args.sets
        for laboratory, paths in pictures_of(name, trained, args.pictures).items()
    }
    print("\n".join(table(rows, trained)))
    if args.json is not None:
        command = f"python -m tools.evaluate verdict-runs --classifier {args.classifier} --pictures {args.pictures}"
        head = {"command": command, "classifier_sha256": classifier.card.sha256}
        args.json.write_text(json.dumps({**head, "laboratories": rows}, indent=1) + "\n")
