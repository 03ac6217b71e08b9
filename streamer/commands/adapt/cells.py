"""The cells of a laboratory that people have named: of CSV files and of journals."""

from __future__ import annotations

import csv
import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import cv2
import numpy as np

from engines.base import UsageError, near
from engines.geometry import Boxes, Image
from engines.models.adaptation import AdaptationError
from engines.models.classifier import Classifier
from engines.zoo.card import Card
from streamer.analysis.field_search import FieldSearch
from streamer.commands.classify import LIMITS
from streamer.commands.recount import opened, recounted
from streamer.journal import JournalError, SeenFrame, StoredSession
from streamer.records import UNCLASSIFIED
from streamer.run.session import picture_window
from streamer.sources.images import Unreadable, read_image

_JOURNAL = b"SQLite format 3\0"
_COLUMNS = ("file", "class")
_BOXES_KEPT = 4
"""Of a cell, to find that of its picture among: the picture is of one of the first frames that show it."""


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
    """(line, values by column); columns besides `file`, `class` and `slide` are passed over."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            names = [(name or "").strip() for name in rows.fieldnames or ()]
            missing = [name for name in _COLUMNS if name not in names]
            if missing:
                raise UsageError(
                    f"{path}: got the columns {', '.join(names) or 'none'}, expected a first line file,class "
                    "(and slide, if known)"
                )
            for values in rows:
                row = {(name or "").strip(): value or "" for name, value in values.items() if isinstance(value, str)}
                if not row.get("file", "").strip() or not row.get("class", "").strip():
                    raise UsageError(f"{path} line {rows.line_num}: got no file or no class, expected both")
                yield rows.line_num, row
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: got no text in UTF-8 ({error}), expected a CSV file or a journal") from error


def _of_journal(path: str, classifier: Classifier) -> Iterator[NamedCell]:
    """The cells that people gave a class, as their pictures show them."""
    given = without = 0
    with opened(path) as journal:
        for stored in journal.sessions:
            for found in _of_session(stored, classifier, path):
                given += 1
                without += found is None
                if found is not None:
                    yield found
    if not given:
        raise JournalError(
            f"journal {path}: got no cell that a person corrected or confirmed, expected some; give them their class: "
            "leukostream control ENDPOINT reclassify CELL CLASS"
        )
    if given == without:
        raise JournalError(
            f"journal {path}: got no picture of its {given} corrected cells, expected one of each; give a CSV file "
            "with pictures of them"
        )


def _of_session(stored: StoredSession, classifier: Classifier, path: str) -> Iterator[NamedCell | None]:
    """None for a cell without a picture."""
    boxes: defaultdict[int, list[tuple[Boxes, int, int]]] = defaultdict(list)

    def each(seen: SeenFrame) -> None:
        for number, box in zip(stored.cells_of(seen.frame_id), seen.detections.boxes_px, strict=True):
            if number >= 0 and len(boxes[number]) < _BOXES_KEPT:
                boxes[number].append((box, seen.width, seen.height))

    count = recounted(stored, each).count
    cells = [
        cell
        for cell in chain(count.cells(), count.uncounted_cells())
        if cell.reclassified and cell.class_name != UNCLASSIFIED
    ]
    wanted = {cell.cell_id for cell in cells}
    pictures: dict[int, tuple[int, bytes]] = {}
    for number, jpeg in stored.pictures():
        cell_id = count.cell(number).cell_id
        if cell_id in wanted:
            pictures.setdefault(cell_id, (number, jpeg))
    for cell in cells:
        index = class_index(cell.class_name, classifier.card, f"journal {path}: cell {cell.cell_id}")
        if cell.cell_id not in pictures:
            yield None
            continue
        number, jpeg = pictures[cell.cell_id]
        decoded = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        if decoded is None:
            raise JournalError(f"journal {path}: picture of cell {cell.cell_id}: got no JPEG, expected one")
        picture = np.asarray(decoded, np.uint8)
        yield NamedCell(classifier.crop(picture, _box_in(picture, boxes[number]))[0], index, stored.id)


def _box_in(picture: Image, boxes: Sequence[tuple[Boxes, int, int]]) -> Boxes:
    """(1,4) where a cell lies in its own picture: as in the frame that the picture was cut from, which is the one where
    the cut has its size."""
    height, width = picture.shape[:2]
    for box, frame_width, frame_height in boxes:
        left, top, right, bottom = picture_window(box, frame_width, frame_height)
        if (right - left, bottom - top) == (width, height):
            return np.asarray((box - np.array([left, top] * 2))[None], np.float32)
    return np.array([[0, 0, width, height]], np.float32)


def check(cells: Sequence[NamedCell], paths: Sequence[str]) -> None:
    """AdaptationError where no file gave a cell."""
    if not cells:
        raise AdaptationError(f"{', '.join(paths)}: got no cell, expected a hundred or so")
