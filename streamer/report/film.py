"""The visited area of the film: its picture where the frames can be had again, what was covered, where cells lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from engines.base import LeukostreamError
from streamer.journal import StoredSession
from streamer.mosaic.compose import USUAL_SIDE_PX, arrange, join, pictures_of
from streamer.mosaic.layout import Layout
from streamer.mosaic.places import Extent, PlacedFrame, needed
from streamer.mosaic.scale import Scale
from streamer.mosaic.visited import Visited
from streamer.records import Cell, CellId

LONG_SIDE_PX = 1800
PICTURE_QUALITY = 80
_GRID_CELLS = 12
"""Along the shorter side of a frame: how finely the covered area is measured."""

BARS_UM = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)


@dataclass(frozen=True, slots=True)
class CellMark:
    """A cell's place, in pixels of the picture."""

    cell_id: CellId
    class_name: str
    x: float
    y: float
    radius: float
    partial: bool


@dataclass(frozen=True, slots=True)
class Area:
    """A connected part of the film that was looked at, and the rectangle around it in pixels of the picture."""

    number: int
    """From 1 on, the one with most frames first."""
    x: float
    y: float
    width: float
    height: float
    frames: int
    frame_boxes: Sequence[tuple[float, float, float, float]]
    """x, y, width and height of the frames that cover it, where there is no picture."""


@dataclass(frozen=True, slots=True)
class Film:
    width: int
    height: int
    jpeg: bytes | None
    """None: the frames can't be had again, `why_no_picture` says why."""
    why_no_picture: str | None
    areas: Sequence[Area]
    marks: Sequence[CellMark]
    covered_mm2: float | None
    """None where no scale is known."""
    scale: Scale | None
    px_per_slide_px: float
    bar_um: float | None
    """Length of the scale bar; None where no scale is known."""
    bar_px: float

    @property
    def frames(self) -> int:
        return sum(area.frames for area in self.areas)


def film_of(
    session: StoredSession, visited: Visited, scale: Scale | None, recording: str | None, *, with_picture: bool
) -> Film | None:
    """None where no frame has a place on the slide. A picture that can't be made is a reason, and no error."""
    chosen = list(visited.islands)
    if not chosen:
        return None
    placed, extents = arrange(visited, chosen, LONG_SIDE_PX)
    jpeg: bytes | None = None
    why: str | None = "it was left out on request"
    if with_picture:
        try:
            jpeg, why = _picture(session, visited, chosen, recording), None
        except LeukostreamError as error:
            why = str(error).removeprefix("mosaic: ")
    bar_um, bar_px = _bar(scale, placed)
    return Film(
        width=placed.width,
        height=placed.height,
        jpeg=jpeg,
        why_no_picture=why,
        areas=[_area(number, visited, placed, extents, place, jpeg is None) for place, number in enumerate(chosen)],
        marks=_marks(visited, chosen, placed, extents),
        covered_mm2=None if scale is None else _covered_px(visited) * (scale.um_per_px / 1000) ** 2,
        scale=scale,
        px_per_slide_px=placed.scale,
        bar_um=bar_um,
        bar_px=bar_px,
    )


def _picture(session: StoredSession, visited: Visited, chosen: Sequence[int], recording: str | None) -> bytes:
    pictures = pictures_of(session, recording)
    try:
        canvas = join(visited, chosen, pictures, LONG_SIDE_PX).canvas
    finally:
        pictures.close()
    return cv2.imencode(".jpg", canvas, [cv2.IMWRITE_JPEG_QUALITY, PICTURE_QUALITY])[1].tobytes()


def _area(
    island: int, visited: Visited, placed: Layout, extents: Mapping[int, Extent], place: int, with_frames: bool
) -> Area:
    extent, frames, scale, (x, y) = extents[island], visited.islands[island], placed.scale, placed.corners[place]

    def box(frame: PlacedFrame) -> tuple[float, float, float, float]:
        left, top = x + (frame.x_px - extent.left) * scale, y + (frame.y_px - extent.top) * scale
        return left, top, frame.width * scale, frame.height * scale

    return Area(
        number=place + 1,
        x=x,
        y=y,
        width=extent.width * scale,
        height=extent.height * scale,
        frames=len(frames),
        frame_boxes=[box(frame) for frame in needed(frames)] if with_frames else (),
    )


def _marks(visited: Visited, chosen: Sequence[int], placed: Layout, extents: Mapping[int, Extent]) -> list[CellMark]:
    marks = []
    for island, (x, y) in zip(chosen, placed.corners, strict=True):
        extent = extents[island]
        marks += [
            _mark(cell, extent, (x, y), placed.scale, visited.sides_px.get(cell.cell_id, USUAL_SIDE_PX))
            for cell in visited.cells.get(island, ())
        ]
    return marks


def _mark(cell: Cell, extent: Extent, corner: tuple[int, int], scale: float, side_px: float) -> CellMark:
    return CellMark(
        cell.cell_id,
        cell.class_name,
        corner[0] + (cell.x_px - extent.left) * scale,
        corner[1] + (cell.y_px - extent.top) * scale,
        max(5.0, 0.62 * side_px * scale),
        cell.partial,
    )


def _bar(scale: Scale | None, placed: Layout) -> tuple[float | None, float]:
    """Length of the bar in µm, and in pixels of the picture: about a fifth of its width."""
    if scale is None:
        return None, 0.0
    px_per_um = placed.scale / scale.um_per_px
    fitting = [length for length in BARS_UM if length * px_per_um <= placed.width / 5]
    length = float(fitting[-1] if fitting else BARS_UM[0])
    return length, length * px_per_um


def _covered_px(visited: Visited) -> float:
    """Square pixels of the slide that frames show."""
    total = 0.0
    for frames in visited.islands.values():
        step = max(1.0, min(min(frame.width, frame.height) for frame in frames) / _GRID_CELLS)
        left, top = min(frame.x_px for frame in frames), min(frame.y_px for frame in frames)
        right = max(frame.x_px + frame.width for frame in frames)
        bottom = max(frame.y_px + frame.height for frame in frames)
        seen = np.zeros((int((bottom - top) / step) + 2, int((right - left) / step) + 2), bool)
        for frame in frames:
            x, y = (frame.x_px - left) / step, (frame.y_px - top) / step
            seen[round(y) : round(y + frame.height / step), round(x) : round(x + frame.width / step)] = True
        total += float(seen.sum()) * step**2
    return total
