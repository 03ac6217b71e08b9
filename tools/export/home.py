"""Make the home cells of a classifier: NAME.home.npz beside its card, for `leukostream adapt` (engines/zoo/home.py).

    python -m tools.export home mobilenetv3-small
    python -m tools.export home runs/lite0/efficientnet-lite0.onnx

What its last layer reads of cells of validation and holdout of the sets that trained it (`[training] data` of the
card), at most `--cells` of each class, and of blasts, `--blasts`: also where the classifier has no such class. Made
anew whenever the classifier's file changes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engines.models.adaptation import BLAST
from engines.models.site import SiteAdapter
from engines.zoo.home import SUFFIX, HomeCells
from tools.commands import command_parser
from tools.data import TRAIN, CellPicture, load_splits, read_cells
from tools.evaluate.adapt import cell_features
from tools.evaluate.verdict import SETS
from tools.export.cards import ZOO

BLASTS_FROM = "deepapl"
NEVER = ("wbc_masks",)
"""The laboratory of validation: nothing of it ships."""


def chosen(trained: Sequence[str], classes: Sequence[str], cells: int, blasts: int, seed: int = 0) -> list[CellPicture]:
    """Of the sets that trained a classifier of `classes`, cells that did not, at most `cells` of each class, sets in
    turn; and blasts."""
    parts = load_splits()
    by_class: dict[str, dict[str, list[CellPicture]]] = defaultdict(lambda: defaultdict(list))
    for name in dict.fromkeys((*(name for name in trained if name in SETS and name not in NEVER), BLASTS_FROM)):
        found = [cell for cell in read_cells(sets=(name,)) if name not in trained or parts[cell.key] != TRAIN]
        for i in np.random.default_rng(seed).permutation(len(found)).tolist():
            cell = found[i]
            if cell.cell_class == BLAST or (cell.cell_class in classes and name in trained):
                by_class[cell.cell_class][name].append(cell)
    picked: list[CellPicture] = []
    for name, of_sets in sorted(by_class.items()):
        most = blasts if name == BLAST else cells
        in_turn = [row for rows in _zipped(list(of_sets.values())) for row in rows]
        picked += in_turn[:most]
    return picked


def _zipped(lists: Sequence[list[CellPicture]]) -> list[list[CellPicture]]:
    """First of each, second of each, …"""
    return [[one[i] for one in lists if i < len(one)] for i in range(max(map(len, lists), default=0))]


def main(arguments: Sequence[str]) -> None:
    """Command line; prints the path of the file."""
    parser = command_parser("tools.export home", __doc__)
    parser.add_argument("classifier", metavar="NAME|FILE")
    parser.add_argument("--cells", type=int, default=60, help="of each class at most (default 60)")
    parser.add_argument("--blasts", type=int, default=150, help="at most (default 150)")
    args = parser.parse_args(arguments)
    adapter = SiteAdapter(args.classifier, backend="onnxruntime")
    if adapter.card.sha256 is None:
        raise ValueError(f"{args.classifier}: got a model without a hash, expected one")
    cells = chosen(adapter.card.training.get("data", ()), adapter.card.class_names, args.cells, args.blasts)
    home = HomeCells(
        cell_features(cells, adapter).astype(np.float32), tuple(c.cell_class for c in cells), adapter.card.sha256
    )
    folder = Path(args.classifier).parent if Path(args.classifier).is_file() else ZOO
    path = folder / f"{Path(adapter.card.file).stem}{SUFFIX}"
    path.write_bytes(home.to_bytes())
    print(path)
