"""The map of the slide: where the stage has been, the white cells by class, and the current frame."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from rich.segment import Segment

from streamer.dashboard.canvas import Line, Span, fit, framed, span_len
from streamer.dashboard.chart import COUNTED, Chart, Island
from streamer.dashboard.palette import CAUTION, FAINT, PLAIN, STRONG, class_colour, in_order, ink, letter_mark
from streamer.dashboard.picture import Colours, Placement, half_blocks
from streamer.dashboard.state import DashboardState, SourceView
from streamer.dashboard.words import number
from streamer.protocol import messages

LARGEST_FRAME = 0.3
"""Largest size of a frame, as a share of the panel's shorter side, so that a new map doesn't shrink at once."""
SEARCH_STEPS = 20
LEGEND_FROM = 10
"""Rows, borders included, from which there is a legend below the map."""

# Ground, passed, counted: greys that differ in 256 colours too.
_GREYS: dict[Colours, tuple[int, int, int]] = {"truecolor": (12, 36, 60), "256": (12, 36, 60), "few": (0, 127, 127)}
HERE = "#f4f4f4"

_GLYPHS = " ·░"
_GLYPH_HERE = "□"


@dataclass(frozen=True, slots=True)
class Drawn:
    """Where an island lies in the drawing: `drawn_px = (slide_px - (left_px, top_px)) * scale + (x, y)`."""

    x: int
    y: int
    width: int
    height: int
    left_px: float
    top_px: float
    scale: float

    def point(self, x_px: float, y_px: float) -> tuple[int, int]:
        """(column, row) of a slide point, within the island."""
        column = min(max(int((x_px - self.left_px) * self.scale), 0), self.width - 1)
        row = min(max(int((y_px - self.top_px) * self.scale), 0), self.height - 1)
        return self.x + column, self.y + row


def map_panel(state: DashboardState, width: int, height: int, colours: Colours) -> list[Line]:
    """The map of the current source, the separate areas above it and the counted area below it."""
    view = state.current
    title: list[Span] = [("map", STRONG)]
    if view is None or not view.chart.islands:
        nothing = fit([(" no frame was placed yet", FAINT)], width - 2)
        return framed([nothing], width, height, title=title)
    if len(state.sources) > 1:
        title.append((f" of {view.name}", PLAIN))
    legend = _legend(view, width - 2) if height >= LEGEND_FROM else []
    lines = draw_map(view, width - 2, height - 2 - len(legend), colours)
    return framed([*lines, *legend], width, height, title=title, aside=_islands(view), foot=_extent(view.chart))


def draw_map(view: SourceView, columns: int, rows: int, colours: Colours) -> list[Line]:
    """All islands beside one another at one scale, as exactly `columns` x `rows` cells."""
    chart = view.chart
    places = arrange(chart, _frame_long_px(view), columns, 2 * rows)
    shown = np.zeros((2 * rows, columns), np.uint8)
    points: list[npt.NDArray[np.intp]] = []
    for island_number, where in places.items():
        island = chart.islands[island_number]
        shown[where.y : where.y + where.height, where.x : where.x + where.width] = _coverage(island, where)
        points.append(_points(island, where))
    cells = np.concatenate(points) if points else np.zeros((0, 3), np.intp)
    counts = np.bincount(cells[:, 2])
    cells = cells[np.argsort(-counts[cells[:, 2]], kind="stable")]  # rare classes last, on top of frequent ones
    frame = view.frame
    here = _here(frame, places) if frame is not None else None
    letters = {**view.letters(), "other": "?"}
    marks = [(letters[name], class_colour(name)) for name in (*chart.class_names, "other")]
    if colours == "none":
        return _glyphs(shown, cells, here, [letter for letter, _ in marks])
    pixels = np.array([[grey] * 3 for grey in _GREYS[colours]], np.uint8)[shown]
    if here is not None:
        cv2.rectangle(pixels, here[:2], here[2:], _bgr(HERE), 1)
    texts = _texts(cells, marks)
    return half_blocks(pixels, Placement(1.0, 1.0, 0, 0, columns, 2 * rows), columns, rows, texts, "truecolor")


def _texts(cells: npt.NDArray[np.intp], marks: Sequence[tuple[str, str]]) -> dict[int, list[tuple[int, str, str]]]:
    """Row -> (column, letter, colour) of the cells from left to right, one a character: the last one there."""
    at = {(y // 2, x): marks[min(code - 1, len(marks) - 1)] for x, y, code in cells.tolist()}
    texts: dict[int, list[tuple[int, str, str]]] = {}
    for (row, column), (letter, colour) in sorted(at.items()):
        texts.setdefault(row, []).append((column, letter, colour))
    return texts


def arrange(chart: Chart, frame_long_px: float, width: int, height: int) -> dict[int, Drawn]:
    """The place of each island in a drawing of `width` x `height` pixels: in rows by number, as large as all fit.

    If they don't fit at any scale, the islands that the stage left longest ago are omitted.
    """
    numbers = list(chart.islands)
    while numbers:
        sizes = {one: chart.islands[one].size_px for one in sorted(numbers)}
        largest = LARGEST_FRAME * min(width, height) / frame_long_px
        scale = _largest_scale(sizes, largest, width, height)
        if scale is not None:
            corners = _shelves(sizes, scale, width, height)
            if corners is not None:
                return {one: _drawn(chart.islands[one], corner, scale) for one, corner in corners.items()}
        numbers = numbers[max(1, len(numbers) // 8) :]
    return {}


def _largest_scale(sizes: Mapping[int, tuple[float, float]], largest: float, width: int, height: int) -> float | None:
    """The largest scale up to `largest` at which all fit; None if they never do."""
    if _shelves(sizes, largest, width, height) is not None:
        return largest
    if _shelves(sizes, 0.0, width, height) is None:
        return None
    fits, fits_not = 0.0, largest
    for _ in range(SEARCH_STEPS):
        middle = (fits + fits_not) / 2
        if _shelves(sizes, middle, width, height) is not None:
            fits = middle
        else:
            fits_not = middle
    return fits


def _shelves(
    sizes: Mapping[int, tuple[float, float]], scale: float, width: int, height: int
) -> dict[int, tuple[int, int]] | None:
    """Upper left corners of rectangles in rows with a gap of one pixel, centred; None if they don't fit."""
    corners: dict[int, tuple[int, int]] = {}
    x = y = deepest = broadest = 0
    for one, (width_px, height_px) in sizes.items():
        across, down = _pixels(width_px, scale), _pixels(height_px, scale)
        if x > 0 and x + across > width:
            x, y = 0, y + deepest + 1
            deepest = 0
        corners[one] = (x, y)
        deepest = max(deepest, down)
        broadest = max(broadest, x + across)
        x += across + 1
        if broadest > width or y + deepest > height:
            return None
    right, below = (width - broadest) // 2, (height - y - deepest) // 2
    return {one: (x + right, y + below) for one, (x, y) in corners.items()}


def _pixels(size_px: float, scale: float) -> int:
    return max(1, math.ceil(size_px * scale))


def _drawn(island: Island, corner: tuple[int, int], scale: float) -> Drawn:
    width_px, height_px = island.size_px
    left, top = island.left * island.tile_px, island.top * island.tile_px
    return Drawn(*corner, _pixels(width_px, scale), _pixels(height_px, scale), left, top, scale)


def _coverage(island: Island, where: Drawn) -> npt.NDArray[np.uint8]:
    """(height, width) of 0, PASSED or COUNTED: a pixel has the value that half of it reaches."""
    size = (where.width, where.height)
    shares = [
        cv2.resize((island.seen >= level).astype(np.float32), size, interpolation=cv2.INTER_AREA)
        for level in (1, COUNTED)
    ]
    seen: npt.NDArray[np.uint8] = np.where(shares[1] >= 0.5, COUNTED, shares[0] >= 0.5).astype(np.uint8)
    return seen


def _points(island: Island, where: Drawn) -> npt.NDArray[np.intp]:
    """(n, 3) column, row and code of the cells."""
    rows, columns = np.nonzero(island.cells)
    x = np.minimum(((columns + 0.5) * island.tile_px * where.scale).astype(np.intp), where.width - 1)
    y = np.minimum(((rows + 0.5) * island.tile_px * where.scale).astype(np.intp), where.height - 1)
    return np.stack([x + where.x, y + where.y, island.cells[rows, columns].astype(np.intp)], axis=1)


def _here(frame: messages.FrameMessage, places: Mapping[int, Drawn]) -> tuple[int, int, int, int] | None:
    """The current frame in the drawing, x1, y1, x2, y2 inclusive; None if it was not placed."""
    stage = frame.stage
    where = places.get(stage.island) if stage is not None else None
    if stage is None or where is None:
        return None
    first = where.point(stage.x_px, stage.y_px)
    last = where.point(stage.x_px + frame.width - 1, stage.y_px + frame.height - 1)
    return *first, *last


def _glyphs(
    shown: npt.NDArray[np.uint8],
    cells: npt.NDArray[np.intp],
    here: tuple[int, int, int, int] | None,
    letters: Sequence[str],
) -> list[Line]:
    """The map without colours, two rows of pixels per line."""
    signs = np.array(list(_GLYPHS))[np.maximum(shown[0::2], shown[1::2])]
    if here is not None:
        x1, y1, x2, y2 = here
        for row in {y1 // 2, y2 // 2}:
            signs[row, x1 : x2 + 1] = _GLYPH_HERE
        for column in (x1, x2):
            signs[y1 // 2 : y2 // 2 + 1, column] = _GLYPH_HERE
    for x, y, code in cells.tolist():
        signs[y // 2, x] = letters[min(code - 1, len(letters) - 1)]
    return [[Segment("".join(row), PLAIN)] for row in signs.tolist()]


def _islands(view: SourceView) -> list[Span]:
    chart, frame = view.chart, view.frame
    stage = frame.stage if frame is not None else None
    count = len(chart.islands) + chart.given_up
    if frame is not None and stage is None:
        return [("not found on the map", ink(CAUTION))]
    if count == 1 or stage is None or stage.island not in chart.islands:
        return []
    return [(f"{number(count)} separate areas, now in {sorted(chart.islands).index(stage.island) + 1}", FAINT)]


def _extent(chart: Chart) -> list[Span]:
    counted, passed = chart.fields
    about, decimals = ("", 1) if chart.is_fine else ("about ", 0)
    spans: list[Span] = [(f"{about}{number(counted, decimals)} fields of view counted", FAINT)]
    if passed >= 0.05:
        spans.append((f", {number(passed, decimals)} only passed", FAINT))
    if chart.missed:
        spans.append((f", {number(chart.missed)} frames and cells not drawn", ink(CAUTION)))
    return spans


def _legend(view: SourceView, width: int) -> list[Line]:
    """The classes on the map with their colours; empty if not all fit, since the differential has them too."""
    spans: list[Span] = []
    letters = view.letters()
    for name in in_order(list(view.chart.class_names)):
        spans += [("  ", PLAIN), letter_mark(letters, name), (f" {name}", FAINT)]
    return [fit(spans, width, "centre")] if spans and span_len(spans) <= width else []


def _frame_long_px(view: SourceView) -> float:
    frame = view.frame
    return float(max(1, frame.width, frame.height)) if frame is not None else 640.0


def _bgr(colour: str) -> tuple[int, int, int]:
    return int(colour[5:7], 16), int(colour[3:5], 16), int(colour[1:3], 16)
