"""The cells of a journal that people corrected or confirmed, looked at as the run looked at them.

Frames that can be had again, of the recording or the source of the run, show a cell with all that is around it; else
there is the picture of the cell in the journal, which ends a little outside its box and is a JPEG.
"""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

import cv2
import numpy as np

from engines.base import LeukostreamError
from engines.geometry import Boxes, Image
from engines.models.classifier import Classifier
from streamer.commands.output import remark
from streamer.counting.differential import NOT_CELLS
from streamer.counting.evidence import whole_red_cells_px
from streamer.journal import JournalError, SeenFrame, StoredSession
from streamer.journal.recounting import opened, recounted
from streamer.mosaic.pictures import Pictures, RecordedPictures, SourcePictures
from streamer.mosaic.places import PlacedFrame
from streamer.records import UNCLASSIFIED, Cell
from streamer.run.session import picture_bounds

_SIGHTS_KEPT = 4
"""Of a cell: its picture in the journal is of one of the first frames that show it."""
_FEWEST_RED_CELLS = 5


@dataclass(frozen=True, slots=True, eq=False)
class CorrectedCell:
    """A cell of a journal, and what a person called it."""

    crops: Image
    """uint8 (k,h,w,3): the looks at it."""
    class_name: str
    where: str
    """For errors."""
    session: str


@dataclass(frozen=True, slots=True, eq=False)
class _Sight:
    """A box of a cell in a frame."""

    frame: PlacedFrame
    box_px: Boxes
    """(4,)"""

    @property
    def whole(self) -> bool:
        x1, y1, x2, y2 = self.box_px.tolist()
        return bool(min(x1, y1) > 1 and x2 < self.frame.width - 1 and y2 < self.frame.height - 1)


def corrected_cells(path: str, classifier: Classifier) -> list[CorrectedCell]:
    """JournalError for a journal without such cells, and where neither frames nor pictures of them can be had."""
    found: list[CorrectedCell] = []
    given = 0
    with opened(path) as journal:
        for stored in journal.sessions:
            session = _Session(stored, classifier, path)
            given += len(session.cells)
            found += session.corrected()
    if not given:
        raise JournalError(
            f"journal {path}: got no cell that a person corrected or confirmed, expected some; give them their class: "
            "leukostream control ENDPOINT reclassify CELL CLASS"
        )
    if not found:
        raise JournalError(
            f"journal {path}: got no picture of its {given} corrected cells, expected one of each; give a CSV file "
            "with pictures of them"
        )
    return found


class _Session:
    """One session of a journal, counted again."""

    def __init__(self, stored: StoredSession, classifier: Classifier, path: str) -> None:
        self._stored, self._classifier, self._path = stored, classifier, path
        self._sights: defaultdict[int, list[_Sight]] = defaultdict(list)
        self._rbc_px: list[float] = []
        self._count = recounted(stored, self._see).count
        named = [
            cell
            for cell in chain(self._count.cells(), self._count.uncounted_cells())
            if cell.reclassified and cell.class_name != UNCLASSIFIED
        ]
        unknown = [name for name in NOT_CELLS if name not in classifier.card.class_names]
        self.cells: dict[int, Cell] = {cell.cell_id: cell for cell in named if cell.class_name not in unknown}
        if len(self.cells) < len(named):
            remark(
                f"journal {path}: {len(named) - len(self.cells)} cells are left out, called {' or '.join(unknown)}:"
                " the classifier has no such class"
            )

    def _see(self, seen: SeenFrame) -> None:
        frame = PlacedFrame(seen.frame_id, 0, 0.0, 0.0, seen.width, seen.height, seen.file, seen.accepted, 0.0)
        for number, box in zip(self._stored.cells_of(seen.frame_id), seen.detections.boxes_px, strict=True):
            if number >= 0 and len(self._sights[number]) < _SIGHTS_KEPT:
                self._sights[number].append(_Sight(frame, box))
        least = self._stored.rules.operating_score
        self._rbc_px += whole_red_cells_px(seen.detections, (seen.width, seen.height), least).tolist()

    def corrected(self) -> list[CorrectedCell]:
        """Those of the cells that can be seen again."""
        crops: dict[int, Image] = {}
        try:
            crops |= self._from_frames() if self.cells else {}
        except LeukostreamError as error:
            reason = str(error)
        else:
            reason = "some frames are gone"
        rest = self.cells.keys() - crops.keys()
        if rest and self._classifier.input.fixed_look_rbc is not None:
            remark(
                f"journal {self._path}: {len(rest)} cells are seen by their pictures alone, without the look of a "
                f"fixed size that a run has: {reason}"
            )
        crops |= self._from_pictures(rest)
        return [
            CorrectedCell(crops[number], cell.class_name, f"journal {self._path}: cell {number}", self._stored.id)
            for number, cell in self.cells.items()
            if number in crops
        ]

    def _from_frames(self) -> dict[int, Image]:
        """By cell; LeukostreamError where the frames can't be had."""
        wanted: defaultdict[int, list[tuple[int, _Sight]]] = defaultdict(list)
        for number, sights in self._sights_of_cells().items():
            best = next((sight for sight in sights if sight.whole), sights[0])
            wanted[best.frame.frame_id].append((number, best))
        rbc_px = float(np.median(self._rbc_px)) if len(self._rbc_px) >= _FEWEST_RED_CELLS else None
        crops: dict[int, Image] = {}
        with contextlib.closing(_frames(self._stored)) as pictures:
            for frame, image in pictures.of([cells[0][1].frame for cells in wanted.values()]):
                for number, sight in wanted[frame.frame_id]:
                    crops[number] = self._classifier.crop(image, sight.box_px[None], rbc_px)[0]
        return crops

    def _sights_of_cells(self) -> Mapping[int, list[_Sight]]:
        """By the number of a corrected cell, which may be of several that turned out to be one."""
        found: defaultdict[int, list[_Sight]] = defaultdict(list)
        for number, sights in self._sights.items():
            with contextlib.suppress(KeyError):  # of what is no white cell
                cell_id = self._count.cell(number).cell_id
                if cell_id in self.cells:
                    found[cell_id] += sights
        return found

    def _from_pictures(self, wanted: set[int]) -> dict[int, Image]:
        crops: dict[int, Image] = {}
        for number, jpeg in self._stored.pictures() if wanted else ():
            cell_id = self._count.cell(number).cell_id
            if cell_id not in wanted or cell_id in crops:
                continue
            decoded = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
            if decoded is None:
                raise JournalError(f"journal {self._path}: picture of cell {cell_id}: got no JPEG, expected one")
            picture = np.asarray(decoded, np.uint8)
            crops[cell_id] = self._classifier.crop(picture, self._box_in(picture, number))[0]
        return crops

    def _box_in(self, picture: Image, number: int) -> Boxes:
        """(1,4) where a cell lies in its own picture: as in the frame that the picture was cut from, which is the one
        where the cut has its size."""
        height, width = picture.shape[:2]
        for sight in self._sights[number]:
            left, top, right, bottom = picture_bounds(sight.box_px.tolist(), (sight.frame.width, sight.frame.height))
            if (right - left, bottom - top) == (width, height):
                return np.asarray((sight.box_px - np.array([left, top] * 2))[None], np.float32)
        return np.array([[0, 0, width, height]], np.float32)


def _frames(stored: StoredSession) -> Pictures:
    """Of the run's recording where it is there, else of its source."""
    runs = stored.runs()
    recorded = runs[-1].options.record if runs else None
    if recorded is not None and os.path.exists(recorded):
        return RecordedPictures(recorded, stored)
    return SourcePictures(stored)
