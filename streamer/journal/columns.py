"""A journal's rows as data that may come from anywhere: each column has a type and limits, and one that does not fit is
one clear line.

Nothing that a journal says is believed before it was read here: not that a column is a number, nor that it is finite,
nor that arrays side by side are of one length.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from engines.base import LeukostreamError
from streamer.counting.cell_table import KINDS
from streamer.journal.rows import Rules
from streamer.journal.schema import JournalError, fault
from streamer.records import FARTHEST_UM, Detections
from streamer.sources.address import is_name

Number = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Flag = Annotated[int, Meta(ge=0, le=1)]
Side = Annotated[int, Meta(ge=1, le=1 << 16)]
"""Pixels of a frame."""
Place = Annotated[float, Meta(ge=-1e7, le=1e7)]
"""Pixels of the slide."""
Micrometres = Annotated[float, Meta(ge=-FARTHEST_UM, le=FARTHEST_UM)]
"""Of a stage."""
Measure = Annotated[float, Meta(ge=-1e9, le=1e9)]
"""Any other finite number."""

FAULTS = (ValueError, TypeError, LookupError, ArithmeticError, RecursionError, MemoryError, msgspec.MsgspecError)
"""What reading and counting raise of values that contradict each other."""


class Row(msgspec.Struct, frozen=True, array_like=True):
    """Columns of a table, in this order."""


class SessionRow(Row, frozen=True, array_like=True):
    number: Number
    id: str
    source: str
    address: str
    live: Flag
    created_utc: str
    rules: str
    next_seq: Annotated[int, Meta(ge=0)]
    ended: Flag
    end_corrections: bytes | None


class RunRow(Row, frozen=True, array_like=True):
    run_id: str
    started_utc: str
    program: str
    configuration: str


class FrameRow(Row, frozen=True, array_like=True):
    frame_id: Number
    captured_utc: str
    file: str | None
    width: Side
    height: Side
    island: Number | None
    x_px: Place | None
    y_px: Place | None
    quality: Measure | None
    anchor: Number | None
    lost: str | None
    corrections: bytes | None
    accepted: Flag
    reasons: str
    focus: Measure | None
    truncated: Flag
    boxes: bytes
    scores: bytes
    labels: bytes
    cells: bytes
    looked: Flag


class VisitRow(Row, frozen=True, array_like=True):
    """Of frames, what the coverage is made of."""

    frame_id: Number
    width: Side
    height: Side
    island: Number | None
    x_px: Place | None
    y_px: Place | None
    anchor: Number | None
    corrections: bytes | None
    accepted: Flag
    focus: Measure | None


class PartialLookRow(Row, frozen=True, array_like=True):
    cells: bytes
    boxes: bytes


class LookRow(Row, frozen=True, array_like=True):
    probabilities: bytes
    subclass_probabilities: bytes
    attributes: bytes | None
    novelty: Measure | None


class ShapeRow(Row, frozen=True, array_like=True):
    cell_id: Number
    quality: Measure
    measures: str


class EvidenceRow(Row, frozen=True, array_like=True):
    plasma: bytes | None
    red: bytes | None
    red_cells: Number | None
    progress: str | None


class CommandRow(Row, frozen=True, array_like=True):
    after_frame: Number | None
    run_id: str
    by: str
    request_id: str
    request: str
    body: str
    refused: str | None
    reason: str | None
    given_utc: str


class ReviewRow(Row, frozen=True, array_like=True):
    number: Number
    given_utc: str
    by: str
    body: str
    signed: bytes | None


class SlideInfoRow(Row, frozen=True, array_like=True):
    info: Annotated[str, Meta(max_length=1 << 15)]


class KeyframeRow(Row, frozen=True, array_like=True):
    number: Number
    island: Number
    x_px: Place
    y_px: Place
    announced_island: Number
    announced_x_px: Place
    announced_y_px: Place
    links: bytes


class KeyframePictureRow(Row, frozen=True, array_like=True):
    height: Side
    width: Side
    factor: Side
    contrast: Measure
    coherence: Measure
    smear: Measure
    rows: Side
    fine: bytes


class HiddenPartsRow(Row, frozen=True, array_like=True):
    frame_id: Number
    factor: Side | None
    rows: Side | None
    columns: Side | None
    mask: bytes | None


class FramePositionRow(Row, frozen=True, array_like=True):
    x_um: Micrometres | None
    y_um: Micrometres | None
    z_um: Micrometres | None
    um_per_px: Annotated[float, Meta(gt=0, le=1e3)] | None


class KeyframePositionRow(Row, frozen=True, array_like=True):
    number: Number
    x_um: Micrometres
    y_um: Micrometres
    epoch: Number


class MessageRow(Row, frozen=True, array_like=True):
    header: bytes
    jpeg: bytes | None


class PictureRow(Row, frozen=True, array_like=True):
    cell_id: Number
    jpeg: bytes


class PicturePlaceRow(Row, frozen=True, array_like=True):
    cell_id: Number
    session_seq: Annotated[int, Meta(ge=0)]


R = TypeVar("R", bound=Row)


@contextlib.contextmanager
def reading(path: Path, where: str) -> Iterator[None]:
    """JournalError that names the journal and `where` in it, for what can't be read or counted."""
    try:
        yield
    except LeukostreamError:
        raise
    except sqlite3.Error as error:
        raise fault(path, error) from error
    except FAULTS as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise JournalError(
            f"journal {path}: {where}: got what leukostream does not write ({said[:200]}), expected a whole journal;"
            " take a copy of it that is, or start anew with another --journal"
        ) from error


def columns_of(row: type[Row]) -> str:
    """For a SELECT."""
    return ", ".join(row.__struct_fields__)


def checked(row_type: type[R], row: tuple[Any, ...]) -> R:
    """ValueError that names the column which does not fit."""
    try:
        return msgspec.convert(row, row_type)
    except msgspec.ValidationError as error:
        names = row_type.__struct_fields__
        raise ValueError(re.sub(r"\$\[(\d+)\]", lambda found: names[int(found[1])], str(error))) from None


@dataclass(frozen=True, slots=True)
class SessionRows:
    """The rows of one session, checked."""

    database: sqlite3.Connection
    path: Path
    """Of the journal, for errors."""
    number: int

    def reading(self, what: str) -> AbstractContextManager[None]:
        """JournalError that names the session and `what` of it, for all that can't be read or counted within."""
        return reading(self.path, f"{what} of session {self.number}")

    def rows(self, table: str, row_type: type[R], rest: str, *values: object) -> Iterator[R]:
        """The rows of this session; `rest`: what stands behind WHERE session = ?."""
        sql = f"SELECT {columns_of(row_type)} FROM {table} WHERE session = ? {rest}"
        with self.reading(table):
            for row in self.database.execute(sql, (self.number, *values)):
                yield checked(row_type, row)

    def value(self, table: str, column: str, rest: str, *values: object) -> Any:
        """The first row's; None without any."""
        with self.reading(f"{table}.{column}"):
            sql = f"SELECT {column} FROM {table} WHERE session = ? {rest}"
            row = self.database.execute(sql, (self.number, *values)).fetchone()
            return None if row is None else row[0]


def check_source(name: str) -> str:
    """It becomes part of file names."""
    if not is_name(name):
        raise ValueError(f"source: got {name!r}, expected letters, digits, _ and -")
    return name


def check_rules(rules: Rules) -> Rules:
    """ValueError for names and kinds that don't fit each other."""
    if len(rules.kinds) != len(rules.label_names) or not set(rules.kinds) <= set(KINDS):
        raise ValueError(f"kinds: got {rules.kinds} of the labels {rules.label_names}, expected {', '.join(KINDS)}")
    parents = rules.subclass_parents
    if len(parents) != len(rules.subclass_names) or not set(parents) <= set(rules.class_names):
        raise ValueError(f"subclass_parents: got {parents}, expected a class for each of {rules.subclass_names}")
    return rules


def check_detections(row: FrameRow, detections: Detections, cells: npt.NDArray[np.int32]) -> None:
    """ValueError for boxes, scores, labels and cells of a frame that don't fit each other, or the frame."""
    boxes, labels = detections.boxes_px, detections.labels
    lengths = {len(boxes), len(detections.scores), len(labels), len(cells)}
    if len(lengths) > 1:
        raise ValueError(f"boxes, scores, labels, cells: got {sorted(lengths)} of them, expected as many of each")
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(detections.label_names):
        last = len(detections.label_names) - 1
        raise ValueError(f"labels: got {labels.min()} to {labels.max()}, expected 0 to {last}")
    longer = max(row.width, row.height)
    if not (np.abs(boxes) <= 2 * longer).all() or not np.isfinite(detections.scores).all():  # NaN is not <= either
        raise ValueError(f"boxes, scores: got values that are not of a frame of {row.width} x {row.height} px")


def check_finite(name: str, values: npt.NDArray[Any] | None) -> None:
    if values is not None and not np.isfinite(values).all():
        raise ValueError(f"{name}: got a value that is no finite number")
