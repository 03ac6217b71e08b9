"""Print how many pictures and cells of each set and class lie in each part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tools.commands import command_parser
from tools.data import CELL_SETS, FURTHER_CELL_SETS, PARTS, data_root, load_splits, read_cells, read_fields


def main(arguments: Sequence[str]) -> int:
    """Print the table."""
    command_parser("tools.data count", __doc__).parse_args(arguments)
    root = data_root()
    parts = load_splits(root)
    for title, rows in (
        ("fields", Counter((f.dataset, parts[f.key]) for f in read_fields(root))),
        (
            "cells",
            Counter(
                (f"{c.dataset} {c.cell_class}", parts[c.key])
                for c in read_cells(root, (*CELL_SETS, *FURTHER_CELL_SETS))
            ),
        ),
    ):
        print(title)
        for name in sorted({n for n, _ in rows}):
            print(f"  {name:32}", "  ".join(f"{p} {rows[name, p]:5}" for p in PARTS))
    return 0
