"""A session as exports see it: counted again, under the names that may leave."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from streamer.interop.micrometres import MicrometrePlaces
from streamer.interop.pseudonyms import pseudonym_of, pseudonymous
from streamer.journal import Recounted, SeenFrame, StoredSession, recounted
from streamer.records import Cell


@dataclass(frozen=True, slots=True)
class ExportedSession:
    """A session, counted again, with the names of its pictures by cell."""

    stored: StoredSession
    """What is said of its slide may leave as it is."""
    result: Recounted
    observed_utc: str
    """When its last frame was captured, when it was begun where it has none; as the journal has it, not checked."""
    pseudonymised: bool = False
    """Whether the names of source, file and address, and the configuration that holds them, stay here."""
    production: bool = False
    """Whether results are for routine use; else they are marked as those of tests and research."""
    pictures: Mapping[int, str] = field(default_factory=dict)
    micrometres: MicrometrePlaces = field(default_factory=MicrometrePlaces)
    files: Mapping[int, str] = field(default_factory=dict)
    """Base name of the file of each frame that has one, by `frame_id`; not for those who may not know."""

    @property
    def pseudonym(self) -> uuid.UUID:
        return pseudonym_of(self.stored.id)

    @property
    def id(self) -> str:
        return str(self.pseudonym) if self.pseudonymised else self.stored.id

    @property
    def source(self) -> str:
        return f"slide-{self.pseudonym.hex[:12]}" if self.pseudonymised else self.stored.source

    @property
    def slide(self) -> str:
        """What people call it; where they said nothing, its source."""
        return self.stored.slide.name or self.source

    def observed(self) -> datetime:
        """`observed_utc`, checked. JournalError where it is no time."""
        with self.stored.reading("frames.captured_utc"):
            try:
                found = datetime.fromisoformat(self.observed_utc)
                return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).astimezone(UTC)
            except OverflowError as error:
                raise ValueError(str(error)) from error

    def file(self, seen: SeenFrame) -> str | None:
        """Of a frame; None where it has none, or none that may leave."""
        return None if self.pseudonymised else seen.file

    def picture_name(self, seen: SeenFrame) -> str:
        """The frame's file, or what it would be called: SOURCE-000012.png, by its frame_id."""
        return self.file(seen) or unnamed_frame(self.source, seen.frame_id)

    def cells(self) -> Iterator[Cell]:
        """The counted ones, then the others."""
        return chain(self.result.count.cells(), self.result.count.uncounted_cells())

    def boxes(self, seen: SeenFrame) -> Iterator[tuple[dict[str, Any], Cell | None]]:
        """A frame's boxes as they are exported, with the cell that each is known to show by now; those of cells that a
        person added have no score."""
        detections, rules = seen.detections, self.stored.rules
        looks = iter(()) if seen.looks is None else iter(seen.looks.probabilities.tolist())
        rows = zip(
            detections.boxes_px.tolist(),
            detections.scores.tolist(),
            detections.labels.tolist(),
            self.stored.cells_of(seen.frame_id),
            strict=True,
        )
        for box, score, label, number in rows:
            kind = detections.kinds[label]
            cell = None if number < 0 else self.result.count.cell(number)
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
            yield row, cell
        for number, box in self.result.corrections.added_on(seen.frame_id):
            cell = self.result.count.cell(number)
            yield (
                {
                    "box_px": list(box),
                    "label": rules.label_names[rules.kinds.index("white")],
                    "kind": "white",
                    "score": None,
                    "cell_id": number,
                    "class": cell.class_name,
                },
                cell,
            )


def unnamed_frame(source: str, frame_id: int) -> str:
    """What the picture of a frame without a file would be called."""
    return f"{source}-{frame_id:06}.png"


def exported(
    stored: StoredSession,
    pseudonymised: bool = False,
    production: bool = False,
    each: Callable[[], None] = lambda: None,
) -> ExportedSession:
    """Count a session again; `each` is called after every frame. JournalError for what of it can't be."""
    if pseudonymised:
        stored = replace(stored, slide=pseudonymous(stored.slide, stored.first_id))
    last = stored.created_utc

    def note(seen: SeenFrame) -> None:
        nonlocal last
        last = seen.captured_utc or last
        if seen.file is not None and not pseudonymised:
            files[seen.frame_id] = seen.file
        micrometres.add(seen)
        each()

    micrometres, files = MicrometrePlaces(), dict[int, str]()
    result = recounted(stored, note)
    micrometres.finish(stored, result.count.evidence(final=stored.ended).rbc_px)
    return ExportedSession(stored, result, last, pseudonymised, production, micrometres=micrometres, files=files)
