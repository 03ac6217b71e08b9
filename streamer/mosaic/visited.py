"""What a journal knows of the area that a session visited."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from streamer.journal import Recounted, SeenFrame, StoredSession, recounted
from streamer.mosaic.places import FinalPlaces, PlacedFrame
from streamer.records import Cell


@dataclass(frozen=True, slots=True, eq=False)
class Visited:
    """A session, counted again, and where it went."""

    counted: Recounted
    islands: Mapping[int, Sequence[PlacedFrame]]
    """By their numbers, those with most frames first."""
    cells: Mapping[int, Sequence[Cell]]
    """White and nucleated red ones, by island, those in no percentage among them."""
    sides_px: Mapping[int, float]
    """By cell, the largest side of its boxes."""
    lost: int
    """Frames without a place."""


def look_over(session: StoredSession, on_frame: Callable[[SeenFrame], None] = lambda seen: None) -> Visited:
    """Count a session again, for the places of its frames and cells as they are at its end. `on_frame` gets every
    frame once it is counted."""
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
        on_frame(seen)

    again = recounted(session, each)
    if session.ended:
        places.correct(session.end_corrections)
    islands: defaultdict[int, list[PlacedFrame]] = defaultdict(list)
    for frame in places.frames():
        islands[frame.island].append(frame)
    cells: defaultdict[int, list[Cell]] = defaultdict(list)
    for cell in chain(again.count.cells(), again.count.uncounted_cells()):
        cells[cell.island].append(cell)
    known = {cell.cell_id for of_island in cells.values() for cell in of_island}
    sides_px: dict[int, float] = {}
    for number, side in sides:
        with contextlib.suppress(KeyError):  # of what is no white cell
            cell_id = again.count.cell(number).cell_id
            if cell_id in known:
                sides_px[cell_id] = max(sides_px.get(cell_id, 0.0), side)
    by_size = dict(sorted(islands.items(), key=lambda item: (-len(item[1]), item[0])))
    return Visited(again, by_size, cells, sides_px, lost)
