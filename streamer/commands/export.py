"""`leukostream export`: what a journal holds, for other programs.

csv: one row a white or nucleated red cell; those `counted` are in the differential, the others are only ever seen cut,
smudge cells or artefacts. coco: the frames and their boxes, with the detector's labels as categories; frames of video,
cameras and the simulated slide, which have no file, are called SOURCE-000012.png after their frame_id. json:
everything. The cells' pictures go into a folder of their own.
"""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any, Literal, TextIO, get_args

import msgspec

from streamer.commands.options import Parser
from streamer.commands.output import output_folder, reporting, writing
from streamer.journal import Recounted, SeenFrame, StoredSession, opened, recounted
from streamer.protocol.factory import attribute_messages
from streamer.records import Cell, CellShape

SHAPE_COLUMNS = tuple(name for name in CellShape.__struct_fields__ if name != "frame_id")
"""Behind the others, where a session had a segmenter."""

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")

Format = Literal["csv", "coco", "json"]

COLUMNS = (
    *("session", "source", "cell_id", "island", "x_px", "y_px", "kind", "class", "subclass", "top_class", "looks"),
    *("partial", "first_frame_id", "last_frame_id", "picture", "unclassified_reason", "counted"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    journal: str
    format: Format
    out: str
    """A file; "-": standard output."""
    pictures: str | None
    """The folder for the cells' pictures; None: they are left out."""


def add_options(parser: Parser) -> None:
    parser.add_argument("journal", metavar="JOURNAL", help="what run --journal wrote")
    output = parser.add_argument_group("output", "what to write, and where")
    output.add_argument(
        "--format",
        choices=get_args(Format),
        required=True,
        help="a row a cell (csv), the frames and their boxes (coco), or everything (json)",
    )
    output.add_argument("-o", dest="out", metavar="FILE|-", required=True, help="-: standard output")
    output.add_argument("--pictures", metavar="DIR", help="write the cells' pictures there")


def main(options: Options) -> int:
    return export(options.journal, options.format, options.out, options.pictures)


@dataclass(frozen=True, slots=True)
class _Counted:
    """A session, counted again, with the names of its pictures by cell."""

    stored: StoredSession
    result: Recounted
    pictures: dict[int, str]

    def cells(self) -> Iterator[Cell]:
        return chain(self.result.count.cells(), self.result.count.uncounted_cells())


def export(path: str, format_: Format, out: str, pictures: str | None) -> int:
    """Write the journal at `path` to the file `out` ("-": standard output), and its pictures to a folder.

    JournalError for the journal, LeukostreamError for what can't be written.
    """
    with opened(path) as journal, _writing(out) as file:
        sessions = []
        for stored in journal.sessions:
            result = recounted(stored)
            sessions.append(_Counted(stored, result, _write_pictures(stored, result, pictures)))
        WRITERS[format_](sessions, file)
    return 0


def _write_csv(sessions: Sequence[_Counted], file: TextIO) -> None:
    classes = list(dict.fromkeys(name for one in sessions for name in one.stored.rules.class_names))
    attributes = list(dict.fromkeys(attribute.name for one in sessions for attribute in one.stored.rules.attributes))
    rows = csv.writer(file, lineterminator="\n")
    attribute_columns = [column for name in attributes for column in (name, f"{name}_confidence")]
    measures = SHAPE_COLUMNS if any(one.stored.rules.segmenter is not None for one in sessions) else ()
    rows.writerow([*COLUMNS, *(f"p({name})" for name in classes), *map(_text, attribute_columns), *measures])
    for one in sessions:
        for cell in one.cells():
            rows.writerow(
                [
                    *(_text(one.stored.id), _text(one.stored.source), cell.cell_id, cell.island),
                    *(f"{cell.x_px:.1f}", f"{cell.y_px:.1f}", cell.kind, _text(cell.class_name)),
                    *(_text(cell.subclass or ""), _text(cell.top_class), cell.looks, int(cell.partial)),
                    *(cell.first_frame_id, cell.last_frame_id, _text(one.pictures.get(cell.cell_id, ""))),
                    *(_text(cell.unclassified_reason or ""), int(cell.counted)),
                    *(_shown(cell.class_probabilities.get(name)) for name in classes),
                    *(text for name in attributes for text in _attribute(cell, name)),
                    *(_measure(cell, name) for name in measures),
                ]
            )


def _attribute(cell: Cell, attribute: str) -> tuple[str, str]:
    """Value and confidence of an attribute, empty where it is unknown."""
    value = (cell.attributes or {}).get(attribute)
    return ("", "") if value is None else (_text(value.value), _shown(value.confidence))


def _text(text: str) -> str:
    """A cell of words, behind an apostrophe where a spreadsheet would take it for a formula and run it."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def _measure(cell: Cell, name: str) -> str:
    """Empty for what was not measured."""
    value = getattr(cell.shape, name) if cell.shape is not None else None
    return "" if value is None else str(value) if isinstance(value, int) else f"{value:.4f}"


def _shown(probability: float | None) -> str:
    return "" if probability is None else f"{probability:.4f}"


def _write_coco(sessions: Sequence[_Counted], file: TextIO) -> None:
    labels = list(dict.fromkeys(name for one in sessions for name in one.stored.rules.label_names))
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for one in sessions:
        for seen in one.stored.frames():
            images.append(
                {
                    "id": len(images) + 1,
                    "file_name": seen.file or f"{one.stored.source}-{seen.frame_id:06}.png",
                    "width": seen.width,
                    "height": seen.height,
                    "source": one.stored.source,
                    "frame_id": seen.frame_id,
                    "date_captured": seen.captured_utc,
                }
            )
            for box in _boxes(one, seen):
                x1, y1, x2, y2 = box["box_px"]
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": len(images),
                        "category_id": labels.index(box["label"]) + 1,
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": (x2 - x1) * (y2 - y1),
                        "iscrowd": 0,
                        "score": box["score"],
                        "attributes": {"cell_id": box["cell_id"], "class": box["class"]},
                    }
                )
    categories = [{"id": number, "name": name} for number, name in enumerate(labels, start=1)]
    _write({"images": images, "annotations": annotations, "categories": categories}, file)


def _write_json(sessions: Sequence[_Counted], file: TextIO) -> None:
    file.write('{"sessions":[')
    for number, one in enumerate(sessions):
        stored = one.stored
        head = {
            "session": stored.id,
            "source": stored.source,
            "address": stored.address,
            "created_utc": stored.created_utc,
            "ended": stored.ended,
            "rules": stored.rules,
            "runs": [
                {**asdict(run), "configuration": msgspec.Raw(run.configuration.encode())} for run in stored.runs()
            ],
            "differential": one.result.differential,
            "cells": [
                {
                    **asdict(cell),
                    "attributes": attribute_messages(cell.attributes),
                    "picture": one.pictures.get(cell.cell_id),
                }
                for cell in one.cells()
            ],
        }
        file.write("," if number else "")
        file.write(msgspec.json.encode(head).decode()[:-1] + ',"frames":[')
        for place, seen in enumerate(stored.frames()):  # one at a time: a session may have a hundred thousand
            file.write(("," if place else "") + "\n")
            _write(_frame(one, seen), file)
        file.write("]}")
    file.write("]}\n")


def _frame(one: _Counted, seen: SeenFrame) -> dict[str, Any]:
    return {
        "frame_id": seen.frame_id,
        "captured_utc": seen.captured_utc,
        "file": seen.file,
        "width": seen.width,
        "height": seen.height,
        "stage": seen.placement.position,
        "lost": seen.placement.reason,
        "accepted": seen.accepted,
        "reasons": seen.reasons,
        "focus": seen.focus,
        "truncated": seen.detections.truncated,
        "detections": list(_boxes(one, seen)),
    }


def _boxes(one: _Counted, seen: SeenFrame) -> Iterator[dict[str, Any]]:
    """A frame's boxes with the cell that each is known to show by now."""
    detections, rules = seen.detections, one.stored.rules
    looks = iter(()) if seen.looks is None else iter(seen.looks.probabilities.tolist())
    rows = zip(
        detections.boxes_px.tolist(),
        detections.scores.tolist(),
        detections.labels.tolist(),
        one.stored.cells_of(seen.frame_id),
        strict=True,
    )
    for box, score, label, number in rows:
        kind = detections.kinds[label]
        cell = None if number < 0 else one.result.count.cell(number)
        row = {
            "box_px": box,
            "label": detections.label_names[label],
            "kind": kind,
            "score": score,
            "cell_id": None if cell is None else cell.cell_id,
            "class": cell.class_name if cell is not None and cell.kind == "white" else None,
        }
        if kind == "white" and seen.looks is not None:
            row["look_probabilities"] = dict(zip(rules.class_names, next(looks), strict=True))
        yield row


def _write(value: object, file: TextIO) -> None:
    file.write(msgspec.json.encode(value).decode())


def _write_pictures(stored: StoredSession, result: Recounted, folder: str | None) -> dict[int, str]:
    """Name of each cell's picture, by cell; where cells turned out to be one, the first picture stays."""
    names: dict[int, str] = {}
    if folder is None:
        return names
    made = output_folder(folder, "--pictures")
    with reporting("--pictures", folder, "a folder that can be written"):
        for number, jpeg in stored.pictures():
            cell_id = result.count.cell(number).cell_id
            if cell_id not in names:
                names[cell_id] = f"{stored.source}-{stored.number}-{cell_id:06}.jpg"
                (made / names[cell_id]).write_bytes(jpeg)
    return names


@contextlib.contextmanager
def _writing(out: str) -> Iterator[TextIO]:
    """`out` for text in UTF-8."""
    with writing(out) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        try:
            yield text
        finally:
            text.detach()  # flushes; the file is not ours to close


WRITERS: dict[Format, Callable[[Sequence[_Counted], TextIO], None]] = {
    "csv": _write_csv,
    "coco": _write_coco,
    "json": _write_json,
}
