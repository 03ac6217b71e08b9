"""One row a white or nucleated red cell; those `counted` are in the differential, the others are only ever seen cut,
smudge cells or artefacts."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from typing import TextIO

import msgspec

from streamer.interop.sessions import ExportedSession
from streamer.records import Cell, CellShape, SlideInfo

FILE_COLUMN = "first_file"
"""Behind the places, where frames are files: the one that showed the cell first, `first_frame_id`."""

SHAPE_COLUMNS = tuple(name for name in CellShape.__struct_fields__ if name != "frame_id")
"""Behind the others, where a session had a segmenter."""

SLIDE_COLUMNS = ("slide", "accession", "operator", "instrument", "stain", "magnification", "um_per_px", "slide_fields")
"""Behind these, where people said something of a slide; its own fields are JSON."""

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")

COLUMNS = (
    *("session", "source", "cell_id", "island", "x_px", "y_px", "kind", "class", "subclass", "top_class", "looks"),
    *("partial", "first_frame_id", "last_frame_id", "picture", "unclassified_reason", "counted", "reviewed"),
)

PLACE_COLUMNS = ("x_um", "y_um", "stage_x_um", "stage_y_um")
"""Behind the classes and attributes: on the island and on the stage; empty where the size of a pixel, or how the camera
sees the stage, is not known."""


def write(sessions: Sequence[ExportedSession], file: TextIO) -> None:
    classes = list(dict.fromkeys(name for one in sessions for name in one.stored.rules.class_names))
    attributes = list(dict.fromkeys(attribute.name for one in sessions for attribute in one.stored.rules.attributes))
    rows = csv.writer(file, lineterminator="\n")
    attribute_columns = [column for name in attributes for column in (name, f"{name}_confidence")]
    measures = SHAPE_COLUMNS if any(one.stored.rules.segmenter is not None for one in sessions) else ()
    said = SLIDE_COLUMNS if any(one.stored.slide.or_none() for one in sessions) else ()
    described = [*(f"p({name})" for name in classes), *map(_text, attribute_columns)]
    file_column = (FILE_COLUMN,) if any(one.files for one in sessions) else ()
    rows.writerow([*COLUMNS, *described, *PLACE_COLUMNS, *file_column, *measures, *said])
    for one in sessions:
        slide = _slide(one.stored.slide) if said else ()
        for cell in one.cells():
            rows.writerow(
                [
                    *(_text(one.id), _text(one.source), cell.cell_id, cell.island),
                    *(f"{cell.x_px:.1f}", f"{cell.y_px:.1f}", cell.kind, _text(cell.class_name)),
                    *(_text(cell.subclass or ""), _text(cell.top_class), cell.looks, int(cell.partial)),
                    *(cell.first_frame_id, cell.last_frame_id, _text(one.pictures.get(cell.cell_id, ""))),
                    *(_text(cell.unclassified_reason or ""), int(cell.counted), int(cell.reclassified)),
                    *(_shown(cell.class_probabilities.get(name)) for name in classes),
                    *(text for name in attributes for text in _attribute(cell, name)),
                    *_micrometres(one.micrometres.on_island(cell)),
                    *_micrometres(one.micrometres.on_stage(cell)),
                    *(_text(one.files.get(cell.first_frame_id, "")) for _ in file_column),
                    *(_measure(cell, name) for name in measures),
                    *slide,
                ]
            )


def _slide(said: SlideInfo) -> list[str]:
    texts = (said.name, said.accession, said.operator, said.instrument, said.stain, said.magnification)
    scale = "" if said.um_per_px is None else f"{said.um_per_px:g}"
    fields = msgspec.json.encode(said.fields).decode() if said.fields else ""
    return [*(_text(text or "") for text in texts), scale, fields]


def _attribute(cell: Cell, attribute: str) -> tuple[str, str]:
    """Value and confidence of an attribute, empty where it is unknown."""
    value = (cell.attributes or {}).get(attribute)
    return ("", "") if value is None else (_text(value.value), _shown(value.confidence))


def _micrometres(place: tuple[float, float] | None) -> tuple[str, str]:
    return ("", "") if place is None else (f"{place[0]:.2f}", f"{place[1]:.2f}")


def _text(text: str) -> str:
    """A cell of words, behind an apostrophe where a spreadsheet would take it for a formula and run it."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def _measure(cell: Cell, name: str) -> str:
    """Empty for what was not measured."""
    value = getattr(cell.shape, name) if cell.shape is not None else None
    return "" if value is None else str(value) if isinstance(value, int) else f"{value:.4f}"


def _shown(probability: float | None) -> str:
    return "" if probability is None else f"{probability:.4f}"
