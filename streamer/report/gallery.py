"""The cells of a slide as they are looked through: by class, the least sure first, each with its picture."""

from __future__ import annotations

import contextlib
import io
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from engines.base import LeukostreamError
from engines.geometry import Image
from streamer.counting.differential import NOT_LEUKOCYTES
from streamer.dashboard.palette import in_order
from streamer.dashboard.words import LEAST_CONFIDENCE, described
from streamer.journal import SeenFrame, StoredSession, decoded
from streamer.mosaic.pictures import Pictures
from streamer.mosaic.places import PlacedFrame
from streamer.protocol.messages import CellMessage, Evidence
from streamer.records import Cell
from streamer.run.session import picture_bounds
from streamer.sources.imageheader import read_header

PICTURE_PX = 80
"""Longer side of a cell's picture."""
PICTURE_QUALITY = 85
LARGEST_PX = 4096
"""Side of a cell's picture in the journal: larger ones were not written by leukostream."""

LEAST_PROBABILITY = 0.01
"""What is less probable is left out of a cell's probabilities."""

EVIDENCE_PX = 10
"""Side of an evidence map laid over a picture, which smooths it."""
EVIDENCE_OPACITY = 0.75
EVIDENCE_BGR = (0, 215, 255)
"""Yellow, which no Romanowsky stain gives."""

NUCLEATED_RED = "nucleated red cells"
NOT_TOLD_APART = "not told apart"
CUT = "cut by an edge of the frame"

Bounds = tuple[int, int, int, int]
"""left, top, right, bottom."""


@dataclass(frozen=True, slots=True)
class CellPicture:
    jpeg: bytes
    """Encoded anew from what the journal has, its longer side `PICTURE_PX` at most."""
    width: int
    height: int
    evidence_png: bytes | None
    """To be stretched over the picture: the less transparent, the more evidence for the cell's likeliest class. None
    where the journal has none of this look."""


@dataclass(frozen=True, slots=True)
class ShownCell:
    cell: Cell
    picture: CellPicture | None
    """None: the journal has none that can be read."""
    probabilities: Sequence[tuple[str, float]]
    """The likeliest first; those below `LEAST_PROBABILITY` are left out."""
    described: str
    """Its measures and attributes in words, those that the classifier is not sure of left out; empty for none."""

    @property
    def sureness(self) -> float:
        """Probability of its likeliest class; 0 where it has none."""
        return self.cell.class_probabilities.get(self.cell.top_class, 0.0)


@dataclass(frozen=True, slots=True)
class CellGroup:
    name: str
    """A class, or why its cells are in no percentage."""
    in_percentages: bool
    cells: Sequence[ShownCell]
    """The least sure first."""


@dataclass(frozen=True, slots=True)
class _Shown:
    """A look at a cell that has no picture."""

    rank: tuple[bool, float, float]
    """The larger the better: whether its frame was counted, the area of its box, the frame's focus."""
    frame: PlacedFrame
    """Its place on the slide is not known here."""
    box_px: tuple[float, float, float, float]


class PictureFinder:
    """Finds the picture of each cell in a journal, and where it lay in its frame; else in a frame that shows it.

    To be made before the frames are read: `see` needs each of them, `pictures` is what they come to.
    """

    def __init__(self, session: StoredSession) -> None:
        self._session = session
        self._found: dict[int, tuple[CellMessage, bytes]] = {}
        """By the number that the cell had then; a look at the whole cell before one at a cut one."""
        for header, jpeg in session.cell_messages():
            if jpeg is None:
                continue
            message = decoded(session, header)
            if isinstance(message, CellMessage):
                first = self._found.get(message.cell_id)
                if first is None or (first[0].partial and not message.partial):
                    self._found[message.cell_id] = message, jpeg
        self._frames: defaultdict[int, set[int]] = defaultdict(set)
        for number, (message, _) in self._found.items():
            if message.evidence is not None:
                self._frames[message.evidence.frame_id].add(number)
        self._bounds: dict[int, Bounds] = {}
        self._best: dict[int, _Shown] = {}
        """Of the numbers without a picture, the look that one can be cut out of best."""

    def see(self, seen: SeenFrame) -> None:
        self._note_best(seen)
        wanted = self._frames.get(seen.frame_id)
        if not wanted:
            return
        numbers = self._session.cells_of(seen.frame_id)
        for box in seen.detections.white_rows.tolist():
            if numbers[box] in wanted:
                box_px = seen.detections.boxes_px[box].tolist()
                self._bounds[numbers[box]] = picture_bounds(box_px, (seen.width, seen.height))

    def _note_best(self, seen: SeenFrame) -> None:
        detections = seen.detections
        rows = zip(detections.labels.tolist(), self._session.cells_of(seen.frame_id), strict=True)
        for box, (label, number) in enumerate(rows):
            if number < 0 or number in self._found or detections.kinds[label] not in ("white", "nucleated red"):
                continue
            x1, y1, x2, y2 = detections.boxes_px[box].tolist()
            focus = seen.focus or 0.0
            frame = PlacedFrame(seen.frame_id, 0, 0.0, 0.0, seen.width, seen.height, seen.file, seen.accepted, focus)
            look = _Shown((seen.accepted, (x2 - x1) * (y2 - y1), focus), frame, (x1, y1, x2, y2))
            if number not in self._best or look.rank > self._best[number].rank:
                self._best[number] = look

    def pictures(
        self, cells: Iterable[Cell], cell_of: Callable[[int], Cell], frames: Callable[[], Pictures] | None
    ) -> Mapping[int, CellPicture]:
        """By cell; `cell_of` says what a cell turned out to be. Where cells are one now, the first picture stays. What
        was published without one is cut out of `frames`; None, and LeukostreamError: they can't be had."""
        pictures = self._published(cell_of)
        missing = {cell.cell_id for cell in cells} - set(pictures)
        by_frame: defaultdict[int, list[tuple[int, _Shown]]] = defaultdict(list)
        for number, look in self._best.items():
            with contextlib.suppress(KeyError):  # of what turned out to be no white cell
                cell_id = cell_of(number).cell_id
                if cell_id in missing:
                    by_frame[look.frame.frame_id].append((cell_id, look))
        if by_frame and frames is not None:
            with contextlib.suppress(LeukostreamError), contextlib.closing(frames()) as opened:
                for frame, image in opened.of([looks[0][1].frame for looks in by_frame.values()]):
                    for cell_id, look in by_frame[frame.frame_id]:
                        left, top, right, bottom = picture_bounds(look.box_px, (frame.width, frame.height))
                        if right > left and bottom > top:
                            pictures.setdefault(cell_id, _picture(image[top:bottom, left:right], None, None))
        return pictures

    def _published(self, cell_of: Callable[[int], Cell]) -> dict[int, CellPicture]:
        pictures: dict[int, CellPicture] = {}
        for number, (message, jpeg) in self._found.items():
            cell = cell_of(number)
            if cell.cell_id not in pictures and (image := _decoded(jpeg)) is not None:
                evidence = message.evidence
                if evidence is not None and evidence.class_ != cell.top_class:
                    evidence = None
                pictures[cell.cell_id] = _picture(image, evidence, self._bounds.get(number))
        return pictures


def groups(cells: Iterable[Cell], pictures: Mapping[int, CellPicture]) -> list[CellGroup]:
    """First those in the percentages, in the order in which a differential lists them."""
    counted: defaultdict[str, list[ShownCell]] = defaultdict(list)
    others: defaultdict[str, list[ShownCell]] = defaultdict(list)
    for cell in cells:
        if is_in_percentages(cell):
            counted[cell.class_name].append(_shown(cell, pictures))
        elif cell.kind == "nucleated red" or cell.class_name == "erythroblast":
            others[NUCLEATED_RED].append(_shown(cell, pictures))
        else:
            others[CUT if cell.partial else f"{cell.class_name}s"].append(_shown(cell, pictures))
    return [
        CellGroup(name, of is counted, sorted(of[name], key=lambda one: (one.sureness, one.cell.cell_id)))
        for of in (counted, others)
        for name in in_order(list(of))
    ]


def is_in_percentages(cell: Cell) -> bool:
    """Whether a cell is one of `total` of the differential."""
    return cell.counted and not cell.partial and cell.kind == "white" and cell.class_name not in NOT_LEUKOCYTES


def _shown(cell: Cell, pictures: Mapping[int, CellPicture]) -> ShownCell:
    probable = sorted(cell.class_probabilities.items(), key=lambda item: -item[1])
    attributes = {name: one for name, one in (cell.attributes or {}).items() if one.confidence >= LEAST_CONFIDENCE}
    return ShownCell(
        cell,
        pictures.get(cell.cell_id),
        [(name, share) for name, share in probable if share >= LEAST_PROBABILITY],
        described(replace(cell, attributes=attributes)),
    )


def _decoded(jpeg: bytes) -> Image | None:
    """None for anything but a JPEG of a usual size."""
    header = read_header(io.BytesIO(jpeg))
    if header is None or header.format != "jpeg" or not 0 < max(header.width, header.height) <= LARGEST_PX:
        return None
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    return None if image is None else np.asarray(image, np.uint8)


def _picture(image: Image, evidence: Evidence | None, bounds: Bounds | None) -> CellPicture:
    height, width = image.shape[:2]
    scale = min(1.0, PICTURE_PX / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, PICTURE_QUALITY])[1].tobytes()
    fits = bounds is not None and (bounds[2] - bounds[0], bounds[3] - bounds[1]) == (width, height)
    png = _evidence_png(evidence, bounds) if evidence is not None and bounds is not None and fits else None
    return CellPicture(jpeg, *size, png)


def _evidence_png(evidence: Evidence, bounds: Bounds) -> bytes | None:
    """The map over the picture within `bounds`, both in pixels of the frame; None where it is no map."""
    left, top, side = evidence.square_px
    rows = evidence.map
    if side <= 0 or not rows or any(len(row) != len(rows[0]) for row in rows) or not rows[0]:
        return None
    values = np.clip(np.array(rows, np.float32), 0, 255)
    centres = (np.arange(EVIDENCE_PX, dtype=np.float32) + 0.5) / EVIDENCE_PX
    x = (bounds[0] + centres * (bounds[2] - bounds[0]) - left) / side * values.shape[1] - 0.5
    y = (bounds[1] + centres * (bounds[3] - bounds[1]) - top) / side * values.shape[0] - 0.5
    across, down = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
    strength = cv2.remap(values, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    shown = np.empty((EVIDENCE_PX, EVIDENCE_PX, 4), np.uint8)
    shown[..., :3] = EVIDENCE_BGR
    shown[..., 3] = np.rint(EVIDENCE_OPACITY * strength)
    return cv2.imencode(".png", shown)[1].tobytes()


def subclass_counts(group: CellGroup) -> list[tuple[str, int]]:
    """How many cells of a class have each of its subclasses, the commonest first, and last how many have none; empty
    where no cell has one."""
    counts = Counter(one.cell.subclass for one in group.cells if one.cell.subclass is not None)
    without = len(group.cells) - counts.total()
    return [*counts.most_common(), *([(NOT_TOLD_APART, without)] if counts and without else [])]
