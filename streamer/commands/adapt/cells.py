"""The cells of a laboratory that people have named: of CSV files and of journals."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from engines.base import UsageError, near
from engines.geometry import Image
from engines.models.adaptation import AdaptationError
from engines.models.classifier import Classifier
from engines.zoo.card import Card
from streamer.analysis.field_search import FieldSearch
from streamer.commands.adapt.corrected import corrected_cells
from streamer.commands.classify import LIMITS
from streamer.records import UNCLASSIFIED
from streamer.sources.images import Unreadable, read_image

_JOURNAL = b"SQLite format 3\0"
_FILE = ("file", "picture")
"""The column that names the picture: as people write it, and as `leukostream export` does."""


@dataclass(frozen=True, slots=True, eq=False)
class NamedCell:
    """One cell, and what a person called it."""

    crops: Image
    """uint8 (k,h,w,3): the looks at it."""
    class_index: int
    slide: str
    """What cells belong together by: those of one slide, or of one picture."""


def named_cells(path: str, classifier: Classifier, search: FieldSearch | None) -> list[NamedCell]:
    """Of a journal or a CSV file. UsageError for a file that is neither, JournalError for what a journal lacks."""
    try:
        with open(path, "rb") as file:
            start = file.read(len(_JOURNAL))
    except OSError as error:
        raise UsageError(f"{path}: got '{error.strerror}', expected a journal or a CSV file with file,class") from error
    if start == _JOURNAL:
        return list(_of_journal(path, classifier))
    return list(_of_csv(path, classifier, search))


def class_index(name: str, card: Card, where: str) -> int:
    """Of a class, or of that which a subclass belongs to. UsageError for an unknown name."""
    parents = {entry.name: entry.parent for entry in card.subclasses}
    name = parents.get(name, name)
    if name not in card.class_names:
        known = (*card.class_names, *parents)
        raise UsageError(
            f"{where}: got the class {name!r}, expected one that {card.name} names: {', '.join(known)}"
            f"{near(name, known)}"
        )
    return card.class_names.index(name)


def _of_csv(path: str, classifier: Classifier, search: FieldSearch | None) -> Iterator[NamedCell]:
    seen: dict[bytes, tuple[int, str]] = {}
    for line, row in _rows(path):
        where = f"{path} line {line}"
        index = class_index(row["class"].strip(), classifier.card, where)
        file = Path(path).parent / row["file"].strip()
        read = read_image(file, LIMITS)
        if isinstance(read, Unreadable):
            raise UsageError(f"{where}: {file}: {read.detail}; expected a picture of a cell")
        digest = hashlib.sha256(read.pixels.tobytes()).digest()
        if digest in seen:
            if seen[digest][0] != index:
                raise UsageError(f"{where}: got the picture of {seen[digest][1]} again as another class, expected one")
            continue
        seen[digest] = index, where
        cell = None if search is None else search.white_cell(read.pixels)
        if cell is None:
            crops = classifier.crop_pictures([read.pixels])[0]
        else:
            crops = classifier.crop(read.pixels, cell.box_px, cell.rbc_px)[0]
        yield NamedCell(crops, index, (row.get("slide") or "").strip() or digest.hex())


def _rows(path: str) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, values by column) of the rows that a person has named: of an exported table `reviewed` says which. Columns
    besides `file` (or `picture`), `class` and `slide` are passed over."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            names = [(name or "").strip() for name in rows.fieldnames or ()]
            picture = next((name for name in _FILE if name in names), None)
            if picture is None or "class" not in names:
                raise UsageError(
                    f"{path}: got the columns {', '.join(names) or 'none'}, expected a first line file,class "
                    "(and slide, if known)"
                )
            for values in rows:
                row = {(name or "").strip(): value or "" for name, value in values.items() if isinstance(value, str)}
                if row.get("reviewed", "").strip() == "0" or row.get("class", "").strip() == UNCLASSIFIED:
                    continue
                row["file"] = row.get(picture, "")
                if not row["file"].strip() or not row.get("class", "").strip():
                    raise UsageError(f"{path} line {rows.line_num}: got no file or no class, expected both")
                yield rows.line_num, row
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: got no text in UTF-8 ({error}), expected a CSV file or a journal") from error


def _of_journal(path: str, classifier: Classifier) -> Iterator[NamedCell]:
    for one in corrected_cells(path, classifier):
        yield NamedCell(one.crops, class_index(one.class_name, classifier.card, one.where), one.session)


def check(cells: Sequence[NamedCell], paths: Sequence[str]) -> None:
    """AdaptationError where no file gave a cell."""
    if not cells:
        raise AdaptationError(f"{', '.join(paths)}: got no cell, expected a hundred or so")
