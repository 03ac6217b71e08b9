"""The frames that a journal holds, as they were counted."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from streamer.counting.slide_count import SeenFrame
from streamer.journal.columns import (
    FrameRow,
    HiddenPartsRow,
    LookRow,
    PartialLookRow,
    SessionRows,
    ShapeRow,
    VisitRow,
    check_detections,
    check_finite,
)
from streamer.journal.evidence import evidence_at, has_evidence
from streamer.journal.positions import has_positions, position_of
from streamer.journal.rows import Rules, unpacked, unpacked_corrections, unpacked_hidden, unpacked_looks
from streamer.journal.schema import has_table
from streamer.looking.plan import Candidate
from streamer.records import CellLooks, CellShape, Classifications, Detections, MeasuredLook, StagePosition
from streamer.stage.hidden import HiddenParts
from streamer.stage.placement import Placement


@dataclass(frozen=True, slots=True)
class _Kept:
    """Which tables of frames there are; earlier journals lack some."""

    evidence: bool
    positions: bool
    partial_looks: bool

    @classmethod
    def of(cls, database: sqlite3.Connection) -> _Kept:
        return cls(has_evidence(database), has_positions(database), has_table(database, "partial_looks"))


@dataclass(frozen=True, slots=True)
class StoredFrames(SessionRows):
    """Those of one session."""

    rules: Rules

    def counted(self, after: int = -1) -> Iterator[SeenFrame]:
        """All frames numbered above `after`, in order, exactly as they were counted."""
        hidden, kept = self._hidden_parts(), _Kept.of(self.database)
        for row in self.rows("frames", FrameRow, "AND frame_id > ? ORDER BY frame_id", after):
            yield self._frame(row, next((parts for since, parts in hidden if since <= row.frame_id), None), kept)

    def visited(self) -> Iterator[tuple[Candidate, bool]]:
        """All frames in order, as far as what was looked at depends on them, and whether the detector saw them."""
        partial: set[int] = set()
        with self.reading("partial_looks"):
            if has_table(self.database, "partial_looks"):
                sql = "SELECT frame_id FROM partial_looks WHERE session = ?"
                partial = {number for (number,) in self.database.execute(sql, (self.number,))}
        for row in self.rows("frames", VisitRow, "ORDER BY frame_id"):
            with self.reading(f"frames of frame {row.frame_id}"):
                corrections = unpacked_corrections(row.corrections)
            place = None
            if row.island is not None and row.x_px is not None and row.y_px is not None:
                place = StagePosition(row.island, row.x_px, row.y_px, 1.0)
            placement = Placement(place, row.anchor, corrections=corrections)
            sharpness = 1.0 if row.focus is None else row.focus
            candidate = Candidate(placement, (row.width, row.height), bool(row.accepted), sharpness)
            yield candidate, row.frame_id not in partial

    def _partial_look(self, frame_id: int) -> tuple[CellLooks | None] | None:
        """Of a frame that the detector did not see, its looks at known cells if any; None of any other frame."""
        row = next(self.rows("partial_looks", PartialLookRow, "AND frame_id = ?", frame_id), None)
        if row is None:
            return None
        with self.reading(f"partial_looks of frame {frame_id}"):
            cells, boxes = unpacked(row.cells, "<i4").astype("intp"), unpacked(row.boxes, "<f4", 4)
            if len(cells) != len(boxes) or (len(cells) and cells.min() < 0):
                raise ValueError(f"got {len(cells)} cells and {len(boxes)} boxes, expected as many of both")
            check_finite("boxes", boxes)
        return (CellLooks(cells, boxes, self._looks(frame_id, len(cells))) if len(cells) else None,)

    def _frame(self, row: FrameRow, hidden: HiddenParts | None, kept: _Kept) -> SeenFrame:
        where = f"of frame {row.frame_id}"
        partial = self._partial_look(row.frame_id) if kept.partial_looks else None
        colours, progress = evidence_at(self, row.frame_id) if kept.evidence else (None, None)
        stage_um, um_per_px = position_of(self, row.frame_id) if kept.positions else (None, None)
        with self.reading(f"frames.boxes {where}"):
            boxes = unpacked(row.boxes, "<f4", 4)
        with self.reading(f"frames.scores {where}"):
            scores = unpacked(row.scores, "<f4")
        with self.reading(f"frames.labels {where}"):
            labels = unpacked(row.labels, "<i2").astype("intp")
        with self.reading(f"frames.cells {where}"):
            cells = unpacked(row.cells, "<i4")
        with self.reading(f"frames.corrections {where}"):
            corrections = unpacked_corrections(row.corrections)
        with self.reading(f"frames.reasons {where}"):
            reasons = msgspec.json.decode(row.reasons, type=tuple[str, ...])
        with self.reading(f"frames {where}"):
            detections = Detections(
                boxes_px=boxes,
                scores=scores,
                labels=labels,
                label_names=self.rules.label_names,
                kinds=self.rules.kinds,
                truncated=bool(row.truncated),
            )
            check_detections(row, detections, cells)
            place = None
            if row.island is not None:
                if row.x_px is None or row.y_px is None or row.quality is None:
                    raise ValueError("x_px, y_px, quality: got none, expected them of a frame with an island")
                place = StagePosition(row.island, row.x_px, row.y_px, row.quality)
        return SeenFrame(
            frame_id=row.frame_id,
            width=row.width,
            height=row.height,
            placement=Placement(place, row.anchor, row.lost, corrections, hidden=hidden),
            detections=detections,
            looks=self._whole_looks(row, detections, partial is None),
            looked=partial is None,
            cell_looks=None if partial is None else partial[0],
            accepted=bool(row.accepted),
            reasons=reasons,
            focus=row.focus,
            file=row.file,
            captured_utc=row.captured_utc,
            shapes=self._shapes(row.frame_id),
            colours=colours,
            progress=progress,
            stage_um=stage_um,
            um_per_px=um_per_px,
        )

    def _whole_looks(self, row: FrameRow, detections: Detections, looked: bool) -> Classifications | None:
        if not row.looked:
            return None
        return self._looks(row.frame_id, len(detections.white_rows)) if looked else unpacked_looks(self.rules, [])

    def _looks(self, frame_id: int, white: int) -> Classifications:
        """One row a white box, of which there are `white`."""
        traits = "looks LEFT JOIN look_traits USING (session, frame_id, box)"
        rows = list(self.rows(traits, LookRow, "AND frame_id = ? ORDER BY box", frame_id))
        with self.reading(f"looks of frame {frame_id}"):
            if len(rows) != white:
                raise ValueError(f"got {len(rows)} rows, expected one for each of {white} white boxes")
            looks = unpacked_looks(self.rules, [msgspec.structs.astuple(row) for row in rows])
            check_finite("probabilities", looks.probabilities)
            check_finite("subclass_probabilities", looks.subclass_probabilities)
            check_finite("attributes", looks.attribute_probabilities)
            return looks

    def _hidden_parts(self) -> list[tuple[int, HiddenParts | None]]:
        """(first frame, what is hidden from there on), newest first; empty where a journal knows of none."""
        if not has_table(self.database, "hidden_parts"):
            return []
        parts: list[tuple[int, HiddenParts | None]] = []
        for row in self.rows("hidden_parts", HiddenPartsRow, "ORDER BY frame_id DESC"):
            with self.reading(f"hidden_parts.mask from frame {row.frame_id} on"):
                mask = None
                if row.mask is not None:
                    if row.factor is None or row.rows is None or row.columns is None:
                        raise ValueError("got no size of it, expected one")
                    mask = unpacked_hidden((row.factor, row.rows, row.columns, row.mask))
                parts.append((row.frame_id, mask))
        return parts

    def _shapes(self, frame_id: int) -> list[MeasuredLook]:
        """The measures made on a frame, in order."""
        if self.rules.segmenter is None:  # such journals have no such table
            return []
        rows = self.rows("shapes", ShapeRow, "AND frame_id = ?", frame_id)
        with self.reading(f"shapes.measures of frame {frame_id}"):
            return [
                MeasuredLook(row.cell_id, row.quality, msgspec.json.decode(row.measures, type=CellShape))
                for row in rows
            ]
