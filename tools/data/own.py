"""A laboratory's own cells, named by its people: the table that `leukostream export` writes, or one by hand.

    leukostream export slide.db --format csv -o own/cells.csv --pictures own
    python -m tools.train classifier --out runs/own --own own/cells.csv

Columns: `class`; `file` (or `picture`, as `export` has it) beside the table; and, where they are known, `subclass`,
`slide` or `session`, and `reviewed`: rows with a 0 there, which no person has looked at, are left out.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from streamer.records import UNCLASSIFIED
from streamer.run.session import PICTURE_MARGIN
from tools.data import ABNORMAL_CLASSES, ABNORMAL_SUBCLASSES, CellPicture
from tools.data.crops import read_image

OWN = "own"
"""The set that these cells are of, a laboratory beside the others."""


def own_cells(tables: Sequence[Path]) -> list[CellPicture]:
    """The reviewed cells of the tables. Their boxes are guesses: the middle of the picture, which a run cuts out a
    little wider than the cell. ValueError for a table or picture that can't be used, and where there is no cell."""
    cells = [cell for table in tables for cell in _cells(table)]
    if tables and not cells:
        raise ValueError(f"{', '.join(map(str, tables))}: got no cell that a person has named, expected some")
    return cells


def _cells(table: Path) -> Iterator[CellPicture]:
    try:
        text = table.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{table}: got '{error}', expected a table with columns file (or picture) and class"
        ) from error
    rows = csv.DictReader(text.splitlines())
    columns = rows.fieldnames or ()
    named = next((name for name in ("file", "picture") if name in columns), None)
    if named is None or "class" not in columns:
        raise ValueError(
            f"{table}: got columns {', '.join(columns) or 'none'}, expected file (or picture) and class; "
            "leukostream export --format csv --pictures DIR writes such a table"
        )
    for row in rows:
        label, subclass = row["class"] or "", row.get("subclass") or None
        if row.get("reviewed") == "0" or label == UNCLASSIFIED or not row[named]:
            continue
        where = f"{table} line {rows.line_num}"
        if label in ABNORMAL_SUBCLASSES:
            label, subclass = ABNORMAL_SUBCLASSES[label], label
        if label not in ABNORMAL_CLASSES or (subclass and ABNORMAL_SUBCLASSES.get(subclass) != label):
            known = ", ".join((*ABNORMAL_CLASSES, *ABNORMAL_SUBCLASSES))
            raise ValueError(f"{where}: got {subclass or label!r}, expected one of {known}")
        path = (table.parent / row[named]).resolve()
        height, width = read_image(path).shape[:2]
        edge = (1 - 1 / PICTURE_MARGIN) / 2
        yield CellPicture(
            OWN,
            f"{OWN}/{path}",
            path,
            width,
            height,
            (edge * width, edge * height, (1 - edge) * width, (1 - edge) * height),
            label,
            subclass,
            box_is_guess=True,
            slide=row.get("slide") or row.get("session") or None,
        )
