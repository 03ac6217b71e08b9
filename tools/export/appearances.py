"""Write into a classifier's card how the pictures look that trained it: what a verdict compares a slide with.

    python -m tools.export appearances engines/zoo/mobilenetv3-small.toml

The colours of plasma and red cells and the width of the red cells, of training pictures of each of its sets
(`[training] data` of the card), grouped by their colours. Tables that the card had are replaced.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engines.models.classifier import Classifier
from engines.models.loading import load_classifier
from tools.commands import command_parser
from tools.data import TRAIN, CellPicture, load_splits, read_cells
from tools.data.crops import set_name
from tools.evaluate.verdict import SETS, SeenCell, seen_cells
from tools.export.cards import toml

GROUPS = 6
"""Of a laboratory at most."""
PICTURES = 120
"""Of a laboratory that are measured."""
LEAST_SHARE, LEAST_PICTURES = 0.02, 3
"""Of a group: smaller ones are a few odd pictures."""
HEADING = "[[appearances]]"


def appearances(classifier: Classifier, trained: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Rows for the card: how the pictures look that trained it, those of a laboratory in at most `GROUPS`
    groups."""
    parts = load_splits()
    for name in trained:
        if name not in SETS:
            continue
        cells = [c for c in read_cells(sets=(name,)) if parts[c.key] == TRAIN and c.cell_class != "platelet"]
        by_laboratory: dict[str, list[CellPicture]] = defaultdict(list)
        for cell in cells:
            by_laboratory[set_name(cell)].append(cell)
        for laboratory, own in sorted(by_laboratory.items()):
            chosen = [own[int(i)] for i in np.linspace(0, len(own) - 1, min(PICTURES, len(own)))]
            seen = [cell for cell in seen_cells(chosen, classifier) if cell.colours.red and cell.rbc_px]
            yield from _groups(laboratory, seen)


def _groups(laboratory: str, seen: Sequence[SeenCell]) -> Iterator[dict[str, Any]]:
    """Pictures grouped by their colours: k-means, begun with the pictures that lie farthest apart."""
    if len(seen) < GROUPS:
        return
    looks = np.array([[*(cell.colours.plasma or ()), *(cell.colours.red or ())] for cell in seen])
    centres = [np.median(looks, 0)]
    while len(centres) < GROUPS:
        distances = np.linalg.norm(looks[:, None] - np.array(centres)[None], axis=2).min(1)
        centres.append(looks[int(np.argsort(distances)[int(0.95 * len(looks))])])
    group = np.zeros(len(looks), int)
    for _ in range(20):
        group = np.linalg.norm(looks[:, None] - np.array(centres)[None], axis=2).argmin(1)
        centres = [looks[group == i].mean(0) if (group == i).any() else centres[i] for i in range(len(centres))]
    for i in range(len(centres)):
        mine = [cell for cell, own in zip(seen, group.tolist(), strict=True) if own == i]
        if len(mine) >= max(LEAST_PICTURES, LEAST_SHARE * len(seen)):
            middle = np.median(looks[group == i], 0).round(3).tolist()
            width = float(np.median(np.concatenate([cell.rbc_px for cell in mine])))
            yield {
                "laboratory": laboratory,
                "plasma": middle[:3],
                "red": middle[3:],
                "rbc_diameter_px": round(width, 1),
            }


def with_appearances(card: str, rows: Sequence[dict[str, Any]]) -> str:
    """The text of a card with these tables before its figures, in the place of those that it had."""
    parts = card.split("\n[")
    kept = [part for part in parts if not part.startswith(HEADING[1:])]
    place = next((i for i, part in enumerate(kept) if part.startswith("figures.")), len(kept))
    text = toml({"appearances": list(rows)}).strip()
    return "\n[".join([*kept[:place], text[1:] + "\n", *kept[place:]])


def main(arguments: Sequence[str]) -> None:
    """Command line."""
    parser = command_parser("tools.export appearances", __doc__)
    parser.add_argument("card", type=Path, metavar="CARD.toml", help="of a classifier; its ONNX file is beside it")
    path: Path = parser.parse_args(arguments).card
    classifier = load_classifier(str(path.with_suffix(".onnx")))
    rows = list(appearances(classifier, classifier.card.training.get("data", ())))
    path.write_text(with_appearances(path.read_text("utf-8"), rows), "utf-8")
    print(f"{path}: {len(rows)} appearances of {len({row['laboratory'] for row in rows})} laboratories")
