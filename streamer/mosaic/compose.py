"""A session of a journal as one picture."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engines.base import LeukostreamError
from engines.geometry import Image
from streamer.journal import StoredSession
from streamer.mosaic import marks
from streamer.mosaic.layout import Layout, layout
from streamer.mosaic.light import Light, estimate, reduced
from streamer.mosaic.marks import CellMark
from streamer.mosaic.pictures import Pictures, RecordedPictures, SourcePictures
from streamer.mosaic.places import Extent, PlacedFrame, extent_of, needed, some
from streamer.mosaic.scale import Scale
from streamer.mosaic.stitching import size_of, stitch
from streamer.mosaic.visited import Visited
from streamer.records import Cell

LIGHT_FRAMES = 60
"""Frames that the light is estimated from."""

USUAL_SIDE_PX = 60.0
"""Of a cell whose box is not known."""

IN_MEMORY_BYTES = 512 << 20
"""Of a picture; a larger one is drawn in a temporary file."""


@dataclass(frozen=True, slots=True, eq=False)
class JoinedIslands:
    """Islands side by side on one canvas."""

    canvas: Image
    placed: Layout
    """Its corners are those of `islands`."""
    islands: tuple[int, ...]
    extents: Mapping[int, Extent]
    """By island, in slide pixels."""

    def places(self, visited: Visited) -> Iterator[tuple[Cell, float, float]]:
        """The cells of these islands, each with its x and y in pixels of the canvas."""
        for number, (x, y) in zip(self.islands, self.placed.corners, strict=True):
            extent, scale = self.extents[number], self.placed.scale
            for cell in visited.cells.get(number, ()):
                yield cell, x + (cell.x_px - extent.left) * scale, y + (cell.y_px - extent.top) * scale


def join(visited: Visited, chosen: Sequence[int], pictures: Pictures, max_side: int) -> JoinedIslands:
    """The islands `chosen`, without marks and captions, the longer side `max_side` pixels at most.

    LeukostreamError where frames can't be had.
    """
    kept = {number: needed(visited.islands[number]) for number in chosen}
    placed, extents = arrange(visited, chosen, max_side)
    light = _light([frame for frames in kept.values() for frame in frames], pictures)
    canvas = _paper(placed.height, placed.width)
    for number, (x, y) in zip(chosen, placed.corners, strict=True):
        width, height = size_of(extents[number], placed.scale)
        part = canvas[y : y + height, x : x + width]
        stitch(part, kept[number], extents[number], placed.scale, light, pictures)
    return JoinedIslands(canvas, placed, tuple(chosen), extents)


def arrange(visited: Visited, chosen: Sequence[int], max_side: int) -> tuple[Layout, dict[int, Extent]]:
    """Where `join` puts the islands `chosen`, and what of the slide each covers, in slide pixels."""
    extents = {number: extent_of(visited.islands[number]) for number in chosen}
    return layout([(extents[number].width, extents[number].height) for number in chosen], max_side), extents


@dataclass(frozen=True, slots=True, eq=False)
class Composed:
    """The picture of a session: the islands above, the legend of the same width below."""

    canvas: Image
    legend: Image
    scale: float
    """Pixels of the picture per pixel of the frames."""

    @property
    def width(self) -> int:
        return int(self.canvas.shape[1])

    @property
    def height(self) -> int:
        return int(self.canvas.shape[0] + self.legend.shape[0])


def compose(
    visited: Visited,
    chosen: Sequence[int],
    pictures: Pictures,
    max_side: int,
    name: str,
    *,
    with_marks: bool,
    measure: Scale | None = None,
) -> Composed:
    """The islands `chosen` of the slide `name`, with captions and a legend; LeukostreamError as of `join`. `measure`:
    of the frames, for the scale bar; None: not known."""
    counts = Counter(cell.class_name for number in chosen for cell in visited.cells.get(number, ()))
    joined = join(visited, chosen, pictures, max_side - marks.legend_height(list(counts), max_side))
    scale = joined.placed.scale
    for number, (x, y) in zip(chosen, joined.placed.corners, strict=True):
        extent = joined.extents[number]
        if with_marks:
            part = joined.canvas[y:, x:][: max(1, round(extent.height * scale)), : max(1, round(extent.width * scale))]
            marks.draw(part, (_mark(cell, extent, scale, visited.sides_px) for cell in visited.cells.get(number, ())))
        marks.caption(joined.canvas, f"island {number}: {plural(len(visited.islands[number]), 'frame')}", (x, y))
    frames = sum(len(visited.islands[number]) for number in chosen)
    size = f"{plural(counts.total(), 'cell')}, {plural(frames, 'frame')}, 1:{1 / scale:.3g}"
    title = f"{name}: {size}. Research use only."
    width = joined.canvas.shape[1]
    return Composed(joined.canvas, marks.legend(width, title, counts if with_marks else {}, scale, measure), scale)


def _paper(height: int, width: int) -> Image:
    """White; where it is large, in a file without a name rather than in memory."""
    shape = (height, width, 3)
    if height * width * 3 <= IN_MEMORY_BYTES:
        return np.full(shape, 255, np.uint8)
    with tempfile.TemporaryFile() as file:
        canvas = np.memmap(file, np.uint8, "w+", shape=shape)  # keeps the file open until it is gone itself
    for top in range(0, height, 1024):
        canvas[top : top + 1024] = 255
    return canvas


def plural(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _mark(cell: Cell, extent: Extent, scale: float, sides_px: Mapping[int, float]) -> CellMark:
    return CellMark(
        (cell.x_px - extent.left) * scale,
        (cell.y_px - extent.top) * scale,
        sides_px.get(cell.cell_id, USUAL_SIDE_PX) * scale,
        cell.class_name,
        cell.partial,
        cell.cell_id,
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


def pictures_of(session: StoredSession, recording: str | None) -> Pictures:
    """The frames of a session: those of the file `recording`, else of the run's own recording, else its source's.

    RecordingError for what is no recording of this session, LeukostreamError where frames can't be had again.
    """
    if recording is not None:
        return RecordedPictures(recording, session)
    runs = session.runs()
    recorded = runs[-1].options.record if runs else None
    if recorded is not None and os.path.exists(recorded):
        return RecordedPictures(recorded, session)
    return SourcePictures(session)
