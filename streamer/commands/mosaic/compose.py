"""A session of a journal as one picture."""

from __future__ import annotations

import contextlib
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import cv2
import numpy as np

from engines.base import LeukostreamError, UsageError
from engines.geometry import Image
from streamer.commands.mosaic import Options, marks
from streamer.commands.mosaic.layout import layout
from streamer.commands.mosaic.light import Light, estimate, reduced
from streamer.commands.mosaic.marks import CellMark
from streamer.commands.mosaic.pictures import Pictures, RecordedPictures, SourcePictures
from streamer.commands.mosaic.places import Extent, FinalPlaces, PlacedFrame, extent_of, needed, some
from streamer.commands.mosaic.stitching import stitched
from streamer.commands.output import say, writing
from streamer.journal import JournalError, SeenFrame, StoredSession, opened, recounted
from streamer.recording.format import FILE_HEADER_BYTES, version_of
from streamer.records import Cell

FORMATS = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
LIGHT_FRAMES = 60
"""Frames that the light is estimated from."""

LEAST_SIDE = 400
USUAL_SIDE_PX = 60.0
"""Of a cell whose box is not known."""


@dataclass(frozen=True, slots=True, eq=False)
class Visited:
    """What a journal knows of a session."""

    islands: Mapping[int, Sequence[PlacedFrame]]
    """By their numbers, those with most frames first."""
    cells: Mapping[int, Sequence[Cell]]
    """The counted ones, by island."""
    sides_px: Mapping[int, float]
    """By cell, the largest side of its boxes."""
    lost: int
    """Frames without a place."""


def mosaic(options: Options) -> int:
    """Write the picture to `options.out`, its longer side `max_side` pixels at most.

    UsageError for an `out` of another format and an unknown source or island, JournalError and RecordingError for the
    files, LeukostreamError where frames can't be had or the picture can't be written.
    """
    journal, out, max_side = options.journal, options.out, options.max_side
    if Path(out).suffix.lower() not in FORMATS:
        raise UsageError(f"-o {out}: got {Path(out).suffix or 'no suffix'}, expected one of {', '.join(FORMATS)}")
    if max_side < LEAST_SIDE:
        raise UsageError(f"--max-side: got {max_side}, expected at least {LEAST_SIDE}")
    _refuse_recording(journal)
    with opened(journal) as reader, contextlib.ExitStack() as stack:
        session = _session(reader.sessions, options.source, journal)
        visited = look_over(session)
        chosen = _islands(visited, options.island, session.source)
        pictures = _pictures(session, options.recording)
        stack.callback(pictures.close)
        picture, scale = compose(visited, chosen, pictures, max_side, session.source, with_marks=options.marks)
    _write(picture, out)
    frames = sum(len(visited.islands[number]) for number in chosen)
    cells = sum(len(visited.cells.get(number, ())) for number in chosen)
    missing = f"; {_counted(visited.lost, 'frame')} without a place, not in it" if visited.lost else ""
    say(
        f"{out}: {picture.shape[1]} x {picture.shape[0]} px, 1:{1 / scale:.3g}, {_counted(len(chosen), 'island')},"
        f" {_counted(frames, 'frame')}, {_counted(cells, 'cell')}{missing}"
    )
    return 0


def look_over(session: StoredSession) -> Visited:
    """Count a session again, for the places of its frames and cells as they are at its end."""
    places = FinalPlaces()
    sides: list[tuple[int, float]] = []
    lost = 0

    def each(seen: SeenFrame) -> None:
        nonlocal lost
        places.add(seen)
        lost += seen.placement.position is None
        boxes = seen.detections.boxes_px
        longest = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0.0).tolist()
        cells = session.cells_of(seen.frame_id)
        sides.extend((cell, side) for cell, side in zip(cells, longest, strict=True) if cell >= 0)

    counted = recounted(session, each).count
    if session.ended:
        places.correct(session.end_corrections)
    islands: defaultdict[int, list[PlacedFrame]] = defaultdict(list)
    for frame in places.frames():
        islands[frame.island].append(frame)
    cells: defaultdict[int, list[Cell]] = defaultdict(list)
    for cell in chain(counted.cells(), counted.uncounted_cells()):
        cells[cell.island].append(cell)
    known = {cell.cell_id for of_island in cells.values() for cell in of_island}
    sides_px: dict[int, float] = {}
    for number, side in sides:
        with contextlib.suppress(KeyError):  # of what is no white cell
            cell_id = counted.cell(number).cell_id
            if cell_id in known:
                sides_px[cell_id] = max(sides_px.get(cell_id, 0.0), side)
    by_size = dict(sorted(islands.items(), key=lambda item: (-len(item[1]), item[0])))
    return Visited(by_size, cells, sides_px, lost)


def compose(
    visited: Visited, chosen: Sequence[int], pictures: Pictures, max_side: int, source: str, *, with_marks: bool
) -> tuple[Image, float]:
    """(picture, its scale) of the islands `chosen`."""
    kept = {number: needed(visited.islands[number]) for number in chosen}
    extents = {number: extent_of(visited.islands[number]) for number in chosen}
    light = _light([frame for frames in kept.values() for frame in frames], pictures)
    counts = Counter(cell.class_name for number in chosen for cell in visited.cells.get(number, ()))
    room = max_side - marks.legend_height(list(counts), max_side)
    placed = layout([(extents[number].width, extents[number].height) for number in chosen], room)
    canvas = np.full((placed.height, placed.width, 3), 255, np.uint8)
    for number, (x, y) in zip(chosen, placed.corners, strict=True):
        part = stitched(kept[number], extents[number], placed.scale, light, pictures)
        if with_marks:
            cells = visited.cells.get(number, ())
            marks.draw(part, (_mark(cell, extents[number], placed.scale, visited.sides_px) for cell in cells))
        height, width = part.shape[:2]
        canvas[y : y + height, x : x + width] = part
        marks.caption(canvas, f"island {number}: {_counted(len(visited.islands[number]), 'frame')}", (x, y))
    frames = sum(len(visited.islands[number]) for number in chosen)
    size = f"{_counted(counts.total(), 'cell')}, {_counted(frames, 'frame')}, 1:{1 / placed.scale:.3g}"
    title = f"{source}: {size}. Research use only."
    return marks.with_legend(canvas, title, counts if with_marks else {}), placed.scale


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _mark(cell: Cell, extent: Extent, scale: float, sides_px: Mapping[int, float]) -> CellMark:
    return CellMark(
        (cell.x_px - extent.left) * scale,
        (cell.y_px - extent.top) * scale,
        sides_px.get(cell.cell_id, USUAL_SIDE_PX) * scale,
        cell.class_name,
        cell.partial,
    )


def _light(frames: Sequence[PlacedFrame], pictures: Pictures) -> Light:
    """Of the frames of the commonest size."""
    sizes = Counter((frame.width, frame.height) for frame in frames)
    size = max(sizes, key=lambda size: sizes[size])
    alike = sorted((frame for frame in frames if (frame.width, frame.height) == size), key=lambda frame: frame.frame_id)
    small = [reduced(image) for _, image in pictures.of(some(alike, LIGHT_FRAMES))]
    if not small:
        raise LeukostreamError(
            "mosaic: got no picture of any frame, expected those of the journal; give the recording of the same run"
        )
    return estimate(small)


def _refuse_recording(path: str) -> None:
    with contextlib.suppress(OSError), open(path, "rb") as file:
        if version_of(file.read(FILE_HEADER_BYTES)) is not None:
            raise JournalError(
                f"mosaic {path}: got a recording, expected a journal, which knows where the frames lie; make one with:"
                f" leukostream run --source replay:{path} --journal slide.db, then leukostream mosaic slide.db -o …"
            )


def _session(sessions: Sequence[StoredSession], source: str | None, where: str) -> StoredSession:
    by_source = {session.source: session for session in sessions}
    if source is None and len(by_source) == 1:
        return sessions[-1]
    if source is None or source not in by_source:
        got = "several sources" if source is None else f"source {source!r}"
        raise UsageError(f"mosaic {where}: got {got}, expected --source with one of: {', '.join(by_source)}")
    return by_source[source]


def _islands(visited: Visited, island: int | None, source: str) -> list[int]:
    if not visited.islands:
        raise LeukostreamError(f"mosaic: got no frame of {source!r} that has a place on the slide, expected some")
    if island is not None and island not in visited.islands:
        known = ", ".join(map(str, sorted(visited.islands)[:20]))
        raise UsageError(f"--island: got {island}, expected one of {source!r}: {known}")
    return list(visited.islands) if island is None else [island]


def _pictures(session: StoredSession, recording: str | None) -> Pictures:
    if recording is not None:
        return RecordedPictures(recording, session)
    runs = session.runs()
    recorded = runs[-1].options.record if runs else None
    if recorded is not None and os.path.exists(recorded):
        return RecordedPictures(recorded, session)
    return SourcePictures(session)


def _write(picture: Image, out: str) -> None:
    done, encoded = cv2.imencode(Path(out).suffix.lower(), picture)
    if not done:
        raise LeukostreamError(f"-o {out}: got a picture that can't be encoded, expected one; try .png")
    with writing(out) as file:
        file.write(encoded.tobytes())
