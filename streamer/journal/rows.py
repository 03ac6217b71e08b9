"""The contents of the journal's rows, and arrays as columns: little-endian, bit by bit."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from engines.base import Attribute
from engines.models.classifier import Classifier
from engines.models.detector import Detector
from engines.models.own_classes import OwnClasses
from engines.models.segmenter import Segmenter
from engines.zoo.slide_flags import SlideFlag
from streamer.counting.decision import ClassDecision
from streamer.counting.evidence import EvidenceState
from streamer.counting.fusion import Names
from streamer.counting.known import Known, known_of
from streamer.counting.size_correction import Place
from streamer.counting.slide_count import Checkpoint
from streamer.counting.slide_map import SlideState
from streamer.looking.plan import CellsInDoubt, KnownCells
from streamer.looking.state import AreaState
from streamer.records import Classifications, MeasuredLook, Review
from streamer.stage.hidden import HiddenParts, Mask
from streamer.stage.placement import Correction

_CORRECTION = np.dtype([("anchor", "<i4"), ("island", "<i4"), ("dx_px", "<f8"), ("dy_px", "<f8")])


HiddenRow = tuple[int, int, int, bytes]
"""Of hidden parts: frame pixels per pixel of the mask, its height and width, and the mask."""


class _CheckpointRow(msgspec.Struct, frozen=True, kw_only=True):
    frame_id: int
    frames: int
    accepted: int
    told: tuple[int, int, tuple[tuple[str, int], ...]] | None
    told_at_frame: int
    islands: dict[int, int]
    names: Names
    cells: dict[str, tuple[str, tuple[int, ...], bytes]]
    """(dtype, shape, bytes) of each column."""
    sums: dict[str, tuple[str, tuple[int, ...], bytes]]
    area: Mapping[int, tuple[float, float, Sequence[Place]]] | None = None
    """None before 2.0."""
    visits: bytes = b""
    visit_looks: bytes | None = None
    """None: of before they were kept."""
    hidden: HiddenRow | None = None
    shapes: tuple[MeasuredLook, ...] = ()
    evidence: EvidenceState | None = None
    review: Review | None = None
    """None: of a journal of before there were reviews."""


_KnownRow = tuple[bytes, bytes, bytes]
"""Numbers, boxes and labels of cells."""


class _AreaRow(msgspec.Struct, frozen=True, kw_only=True):
    waiting: bytes
    doubts: tuple[tuple[int, tuple[_KnownRow, _KnownRow, _KnownRow]], ...]
    """Island; cells whose class, presence and extent are in doubt."""
    proof: tuple[int, int, int, int]
    every_frame: bool


class _Reviewer(msgspec.Struct):
    reviewer: str | None = None


def now_utc() -> str:
    """ISO 8601 with microseconds and Z."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class GivenCommand:
    """A command as received, and its outcome."""

    run_id: str
    by: str
    """Who gave it."""
    request_id: str
    request: str
    """Its name: "pause", "reclassify"."""
    body: str
    """The whole request, JSON."""
    refused: str | None = None
    """Code of the refusal; None: carried out."""
    reason: str | None = None
    given_utc: str = field(default_factory=now_utc)

    @property
    def reviewer(self) -> str:
        """Who says something of a cell: the initials in the request, or else the name of the key."""
        return msgspec.json.decode(self.body, type=_Reviewer).reviewer or self.by


class ModelId(msgspec.Struct, frozen=True, kw_only=True):
    """Identifies a model."""

    name: str
    sha256: str | None
    """Of the model's file; None for scripted models, which have none."""


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """Whatever decides how the frames of a session are counted. A session resumes only with the same rules."""

    detector: ModelId
    classifier: ModelId | None
    """None: every white cell is unclassified."""
    operating_score: float
    """Detections below it are not counted."""
    long_side_px: int
    """Of the detector's input."""
    label_names: tuple[str, ...]
    kinds: tuple[str, ...]
    """Of each label."""
    class_names: tuple[str, ...] = ()
    class_threshold: float = 0.0
    """Cells whose best class is less probable are unclassified."""
    subclass_names: tuple[str, ...] = ()
    subclass_parents: tuple[str, ...] = ()
    novel_above: float | None = None
    """Cells are unclassified if all their looks are more novel; None: none is."""
    attributes: tuple[Attribute, ...] = ()
    attributes_of: tuple[str, ...] = ()
    """The classes whose cells have them."""
    segmenter: ModelId | None = None
    """None: no cell is measured."""
    known: Known | None = None
    """What the classifier knows, for the verdict; None: of before there were verdicts, or no classifier ran. A session
    is resumed though it changed."""
    error_rates: dict[str, float] = {}
    """By class, as the classifier's card says; what flags say of errors."""
    slide_flags: tuple[SlideFlag, ...] = ()
    """As the classifier's card says: classes of which single cells flag no slide."""


def rules_of(
    detector: Detector, classifier: Classifier | OwnClasses | None, segmenter: Segmenter | None = None
) -> Rules:
    card = detector.card
    rules = Rules(
        detector=ModelId(name=card.name, sha256=card.sha256),
        classifier=None,
        operating_score=card.thresholds.operating,
        long_side_px=detector.long_side_px,
        label_names=card.class_names,
        kinds=card.kinds,
        segmenter=None if segmenter is None else ModelId(name=segmenter.card.name, sha256=segmenter.card.sha256),
    )
    if classifier is None:
        return rules
    decision = ClassDecision.of(classifier)
    return msgspec.structs.replace(
        rules,
        classifier=ModelId(name=classifier.card.name, sha256=classifier.card.sha256),
        class_names=decision.class_names,
        class_threshold=decision.threshold,
        subclass_names=decision.subclass_names,
        subclass_parents=decision.subclass_parents,
        novel_above=decision.novel_above,
        attributes=decision.attributes,
        attributes_of=decision.attributes_of,
        known=known_of(classifier.card),
        error_rates=dict(decision.error_rates),
        slide_flags=decision.slide_flags,
    )


def decision_of(rules: Rules) -> ClassDecision | None:
    """None where no classifier ran."""
    if rules.classifier is None:
        return None
    return ClassDecision(
        rules.class_names,
        rules.class_threshold,
        rules.subclass_names,
        rules.subclass_parents,
        rules.novel_above,
        rules.attributes,
        rules.attributes_of,
        rules.error_rates,
        rules.slide_flags,
    )


def packed(array: npt.ArrayLike, dtype: str) -> bytes:
    return np.ascontiguousarray(array, dtype).tobytes()


def unpacked(blob: bytes, dtype: str, columns: int | None = None) -> npt.NDArray[Any]:
    """(n,), or (n, columns); a copy that may be written to."""
    array = np.frombuffer(blob, dtype).copy()
    return array if columns is None else array.reshape(-1, columns)


def packed_corrections(corrections: Sequence[Correction]) -> bytes | None:
    """None for none, as in most frames."""
    if not corrections:
        return None
    rows = [(one.anchor, one.island, one.dx_px, one.dy_px) for one in corrections]
    return np.array(rows, _CORRECTION).tobytes()


def unpacked_corrections(blob: bytes | None) -> tuple[Correction, ...]:
    """ValueError for what is none."""
    rows = np.frombuffer(blob or b"", _CORRECTION)
    if len(rows) and (rows["anchor"].min() < 0 or not (np.abs((rows["dx_px"], rows["dy_px"])) <= 1e7).all()):
        raise ValueError("corrections: got a move that is on no slide")
    return tuple(Correction(*row) for row in rows.tolist())


LookRow = tuple[bytes, bytes, bytes | None, float | None]
"""Probabilities, subclass probabilities, attribute probabilities, novelty."""


def unpacked_looks(rules: Rules, rows: Sequence[LookRow]) -> Classifications:
    """One row a white detection."""
    classes, subclasses = len(rules.class_names), len(rules.subclass_names)
    values = sum(len(attribute.values) for attribute in rules.attributes)
    described = unpacked(b"".join(row[2] or b"" for row in rows), "<f4").reshape(len(rows), values)
    novelty = np.array([row[3] for row in rows], np.float32) if rules.novel_above is not None else None
    return Classifications(
        probabilities=unpacked(b"".join(row[0] for row in rows), "<f4").reshape(len(rows), classes),
        class_names=rules.class_names,
        subclass_probabilities=unpacked(b"".join(row[1] for row in rows), "<f4").reshape(len(rows), subclasses),
        subclass_names=rules.subclass_names,
        subclass_parents=rules.subclass_parents,
        attribute_probabilities=described if rules.attributes else None,
        attributes=rules.attributes,
        novelty=novelty,
    )


def packed_checkpoint(checkpoint: Checkpoint) -> bytes:
    row = _CheckpointRow(
        frame_id=checkpoint.frame_id,
        frames=checkpoint.frames,
        accepted=checkpoint.accepted,
        told=checkpoint.published or None,
        told_at_frame=checkpoint.published_at_frame,
        islands=dict(checkpoint.islands),
        names=checkpoint.slide.names,
        cells=_packed_columns(checkpoint.slide.cells),
        sums=_packed_columns(checkpoint.slide.sums),
        area=checkpoint.area,
        visits=packed(checkpoint.slide.visits, "<f8"),
        visit_looks=packed(checkpoint.slide.visit_looks, "<i4"),
        hidden=packed_hidden(checkpoint.slide.hidden),
        shapes=checkpoint.shapes,
        evidence=checkpoint.evidence,
        review=checkpoint.review,
    )
    return msgspec.msgpack.encode(row)


def unpacked_checkpoint(blob: bytes) -> Checkpoint | None:
    """None for one from before 2.0, which lacks the accepted area. ValueError for what is none."""
    row = msgspec.msgpack.decode(blob, type=_CheckpointRow)
    if row.area is None:
        return None
    visits = unpacked(row.visits, "<f8", 5)
    visit_looks = np.ones(len(visits), np.int32) if row.visit_looks is None else unpacked(row.visit_looks, "<i4")
    if len(visit_looks) != len(visits):
        raise ValueError(f"visit_looks: got {len(visit_looks)}, expected one for each of {len(visits)} visits")
    columns = _unpacked_columns(row.cells), _unpacked_columns(row.sums)
    slide = SlideState(*columns, row.names, visits, visit_looks, unpacked_hidden(row.hidden))
    return Checkpoint(
        frame_id=row.frame_id,
        frames=row.frames,
        accepted=row.accepted,
        published=row.told or (),
        published_at_frame=row.told_at_frame,
        islands=row.islands,
        slide=slide,
        area=row.area,
        shapes=row.shapes,
        evidence=row.evidence,
        review=row.review or Review(),
    )


def packed_area(area: AreaState) -> bytes:
    doubts = tuple(
        (island, (_packed_known(one.classes), _packed_known(one.presence), _packed_known(one.extent)))
        for island, one in area.doubts
    )
    waiting = packed(area.waiting, "<f8")
    return msgspec.msgpack.encode(
        _AreaRow(waiting=waiting, doubts=doubts, proof=area.proof, every_frame=area.every_frame)
    )


def unpacked_area(blob: bytes) -> AreaState:
    """ValueError for what is none."""
    row = msgspec.msgpack.decode(blob, type=_AreaRow)
    doubts = tuple((island, CellsInDoubt(*map(_unpacked_known, known))) for island, known in row.doubts)
    return AreaState(unpacked(row.waiting, "<f8", 7), doubts, row.proof, row.every_frame)


def _packed_known(cells: KnownCells) -> _KnownRow:
    return packed(cells.cell_ids, "<i4"), packed(cells.boxes_px, "<f8"), packed(cells.labels, "<i2")


def _unpacked_known(row: _KnownRow) -> KnownCells:
    ids, boxes, labels = unpacked(row[0], "<i4"), unpacked(row[1], "<f8", 4), unpacked(row[2], "<i2")
    if not len(ids) == len(boxes) == len(labels):
        raise ValueError(f"got {len(ids)} cells, {len(boxes)} boxes and {len(labels)} labels, expected as many of each")
    return KnownCells(ids.astype(np.intp), boxes, labels.astype(np.intp))


def packed_hidden(hidden: HiddenParts | None) -> HiddenRow | None:
    return None if hidden is None else (hidden.factor, *hidden.mask.shape, packed_mask(hidden.mask))


def unpacked_hidden(row: HiddenRow | None) -> HiddenParts | None:
    return None if row is None else HiddenParts(unpacked_mask(row[3], (row[1], row[2])), row[0])


def packed_mask(mask: Mask) -> bytes:
    """Also of other bytes that are mostly zero."""
    return zlib.compress(np.ascontiguousarray(mask, np.uint8).tobytes(), 1)


def unpacked_mask(blob: bytes, shape: tuple[int, int]) -> Mask:
    """ValueError for one of another shape."""
    size = shape[0] * shape[1]
    try:
        mask = zlib.decompressobj().decompress(blob, size + 1)
    except zlib.error as error:
        raise ValueError(f"mask: got {error}, expected {shape} bytes") from None
    if len(mask) != size:
        raise ValueError(f"mask: got {len(mask)} bytes or more, expected {shape}")
    return np.frombuffer(mask, np.uint8).reshape(shape)


def _packed_columns(columns: Mapping[str, npt.NDArray[Any]]) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    dtypes = {name: column.dtype.newbyteorder("<") for name, column in columns.items()}
    return {
        name: (dtypes[name].str, column.shape, packed(column, dtypes[name].str)) for name, column in columns.items()
    }


def _unpacked_columns(columns: Mapping[str, tuple[str, tuple[int, ...], bytes]]) -> dict[str, npt.NDArray[Any]]:
    return {
        name: unpacked(blob, dtype).reshape(shape).astype(np.dtype(dtype).newbyteorder("="), copy=False)
        for name, (dtype, shape, blob) in columns.items()
    }
