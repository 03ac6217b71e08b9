"""White cells in two groups, mononuclear and polymorphonuclear, as ML-CNN's first level is taught."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tools import data as datasets
from tools.architectures.mlcnn import CLASSES, group_of
from tools.data import leukocytes
from tools.data.fields import Field

SETS = ("pbc", "bccd", "chula_wbc")
SHARES: Mapping[str, float] = {"bccd": 0.1, "chula_wbc": 0.25}
"""Of the tiles; PBC's five types share the rest evenly."""


@dataclass(frozen=True)
class GroupField:
    """A field whose classes are the groups; `own`: the type of its (largest) typed cell, one of the five."""

    field: Field
    own: str


def group_fields(names: Sequence[str] = SETS) -> list[GroupField]:
    """Every picture of these sets with a cell of the five types, in a fixed order.

    Cells with a nucleus of other types, or of no known one, are places to ignore; chula_wbc labels some of its white
    cells, so that nothing else in it is background.
    """
    own = leukocytes.own_labels(datasets.data_root())
    bccd = {cell.key: cell.cell_class for cell in datasets.read_cells() if cell.dataset == "bccd"}
    made = []
    for item in datasets.read_fields(sets=tuple(names)):
        if item.dataset == "pbc" and not leukocytes.has_own_box(item, own.get(item.key)):
            continue
        if item.dataset == "bccd":
            named = bccd.get(item.key, "WBC")
            item = replace(item, boxes=tuple(replace(b, label=named) if b.label == "WBC" else b for b in item.boxes))
        typed = leukocytes.as_field(item, CLASSES)
        if not len(typed.classes):
            continue
        sides = typed.boxes_px[:, 2:] - typed.boxes_px[:, :2]
        groups = np.array([group_of(CLASSES[label]) for label in typed.classes], np.int64)
        complete = np.full(2, "WBC" in item.complete)
        largest = CLASSES[int(typed.classes[int(sides.prod(1).argmax())])]
        made.append(GroupField(replace(typed, classes=groups, complete=complete), largest))
    return made


def pools_of(fields: Iterable[GroupField]) -> dict[str, list[Field]]:
    """The fields by what a tile is drawn from: PBC's by type, the other sets each as one."""
    found: dict[str, list[Field]] = defaultdict(list)
    for one in fields:
        found[one.own if one.field.source == "pbc" else one.field.source].append(one.field)
    return dict(sorted(found.items()))


def shares_of(pools: Mapping[str, Sequence[Field]]) -> dict[str, float]:
    """Share of the tiles of each pool."""
    types = [name for name in pools if name not in SHARES]
    rest = 1 - sum(share for name, share in SHARES.items() if name in pools)
    return {name: SHARES.get(name, rest / max(1, len(types))) for name in pools}
