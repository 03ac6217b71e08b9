"""The current frame with its boxes in half blocks: each terminal cell is two square pixels, one above the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from rich.cells import cell_len
from rich.color import Color, ColorType
from rich.color_triplet import ColorTriplet
from rich.segment import Segment
from rich.style import Style

from streamer.dashboard.canvas import Line, blank, crop
from streamer.dashboard.graphics import PictureSegment
from streamer.dashboard.palette import PLAIN, box_colour, ink
from streamer.dashboard.state import Picture
from streamer.protocol import messages

Colours = Literal["truecolor", "256", "few", "none"]
"""The colours of the terminal. With "few" (16) and "none" the boxes are drawn without the picture."""

GROUND_RGB = (24, 18, 30)
"""Background of the boxes without a picture."""
FAINT_SHARE = 0.45
"""Opacity of the boxes of red cells and platelets over the picture."""
SMALLEST_BOX_PX = 8
"""Red cells and platelets with boxes smaller than this, in drawn pixels, are points."""
NO_COLOUR = 0xFFFFFFFF
LABEL_COLUMNS = 56
"""From this width on, white cells are labelled with their class."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a frame lies in the drawing: `drawn_px = frame_px * scale + (left_px, top_px)`; two drawn pixels a cell."""

    scale_x: float
    scale_y: float
    left_px: int
    top_px: int
    width_px: int
    height_px: int

    def box(self, box_px: Sequence[float]) -> tuple[int, int, int, int]:
        """First and last column, first and last row (x1, y1, x2, y2, all inclusive) that a frame's box covers."""
        x1, y1, x2, y2 = box_px
        first_x, last_x = _span(x1 * self.scale_x, x2 * self.scale_x, self.width_px)
        first_y, last_y = _span(y1 * self.scale_y, y2 * self.scale_y, self.height_px)
        return first_x + self.left_px, first_y + self.top_px, last_x + self.left_px, last_y + self.top_px


def _span(low: float, high: float, size: int) -> tuple[int, int]:
    first = min(max(int(low), 0), size - 1)
    last = min(max(math.ceil(high) - 1, first), size - 1)
    return first, last


def place(frame_width: int, frame_height: int, columns: int, rows: int) -> Placement:
    """Fit a whole frame into `columns` x `rows` terminal cells, centred, at its aspect ratio."""
    room_width, room_height = columns, rows * 2
    scale = min(room_width / frame_width, room_height / frame_height)
    width = min(room_width, max(1, round(frame_width * scale)))
    height = min(room_height, max(1, round(frame_height * scale)))
    return Placement(
        scale_x=width / frame_width,
        scale_y=height / frame_height,
        left_px=(room_width - width) // 2,
        top_px=(room_height - height) // 4 * 2,
        width_px=width,
        height_px=height,
    )


def rows_needed(frame_width: int, frame_height: int, columns: int) -> int:
    """Terminal rows that a frame takes at the full width of `columns`."""
    return max(1, math.ceil(columns * frame_height / frame_width / 2))


def draw(
    frame: messages.FrameMessage,
    picture: Picture | None,
    columns: int,
    rows: int,
    colours: Colours = "truecolor",
    *,
    red_cells: bool = False,
) -> list[Line]:
    """The frame and the boxes of its white cells as exactly `columns` x `rows` cells; the boxes alone where `picture`
    is None. `red_cells`: those of red cells and platelets too."""
    where = place(frame.width, frame.height, columns, rows)
    if colours == "none":
        return _outlines(frame, where, columns, rows, red_cells)
    pixels = np.empty((where.height_px, where.width_px, 3), np.uint8)
    if picture is None or colours == "few":
        pixels[:] = GROUND_RGB[::-1]
    else:
        shrink(picture, pixels)
    faint = pixels.copy()
    whites: list[tuple[messages.Detection, tuple[int, int, int, int]]] = []
    for detection in frame.detections:
        x1, y1, x2, y2 = where.box(detection.box_px)
        box = (x1 - where.left_px, y1 - where.top_px, x2 - where.left_px, y2 - where.top_px)
        if _is_white(detection):
            whites.append((detection, box))
        if not detection.counted if _is_white(detection) else red_cells:
            _outline(faint, _visible(box), box_colour(detection.kind, _class_of(detection)))
    cv2.addWeighted(faint, FAINT_SHARE, pixels, 1.0 - FAINT_SHARE, 0.0, dst=pixels)
    for detection, box in whites:
        if detection.counted:
            _outline(pixels, box, box_colour(detection.kind, _class_of(detection)))
    labels = [_label(detection, where, box) for detection, box in whites]
    texts = _texts(labels, where) if columns >= LABEL_COLUMNS else {}
    return half_blocks(pixels, where, columns, rows, texts, colours)


PLACED_PX = 960
"""Longer side, at most, of a frame that is drawn as a picture."""


def placed(
    frame: messages.FrameMessage, picture: Picture, columns: int, rows: int, *, red_cells: bool = False
) -> list[Line]:
    """The frame and its boxes as a picture, for terminals that show them: exactly `columns` x `rows` cells."""
    where = place(frame.width, frame.height, columns, rows)
    scale = min(1.0, PLACED_PX / max(frame.width, frame.height))
    drawn = np.empty((max(1, round(frame.height * scale)), max(1, round(frame.width * scale)), 3), np.uint8)
    shrink(picture, drawn)
    for detection in frame.detections:
        if not (_is_white(detection) or red_cells):
            continue
        x1, y1, x2, y2 = (round(edge * scale) for edge in detection.box_px)
        colour = box_colour(detection.kind, _class_of(detection))
        _outline(drawn, (x1, y1, x2, y2), colour, 2 if detection.counted else 1)
        if _is_white(detection):
            name = _class_of(detection) or detection.label
            at = (max(0, x1), y1 - 5 if y1 > 16 else min(y2 + 14, drawn.shape[0] - 4))
            for width_px, ink_bgr in ((3, (255, 255, 255)), (1, (0, 0, 0))):
                cv2.putText(drawn, name, at, cv2.FONT_HERSHEY_SIMPLEX, 0.45, ink_bgr, width_px, cv2.LINE_AA)
    across, down = where.width_px, max(1, where.height_px // 2)
    left, top = where.left_px, where.top_px // 2
    line = [*blank(left), PictureSegment.of(drawn, across, down), *blank(columns - left - across)]
    lines = [*(blank(columns) for _ in range(top)), line]
    return [*lines, *(blank(columns) for _ in range(rows - len(lines)))]


def middle(picture: Picture, columns: int, rows: int) -> Picture:
    """The middle of a small picture, of the shape that `columns` x `rows` cells have."""
    height, width = picture.shape[:2]
    scale = min(width / columns, height / (rows * 2))
    across, down = max(1, round(columns * scale)), max(1, round(rows * 2 * scale))
    left, top = (width - across) // 2, (height - down) // 2
    return picture[top : top + down, left : left + across]


def thumbnail(picture: Picture, columns: int, rows: int, colours: Colours) -> list[Line]:
    """The middle of a small picture, as exactly `columns` x `rows` cells, all of them filled."""
    pixels = np.empty((rows * 2, columns, 3), np.uint8)
    shrink(middle(picture, columns, rows), pixels)
    return half_blocks(pixels, Placement(1.0, 1.0, 0, 0, columns, rows * 2), columns, rows, {}, colours)


def shrink(picture: Picture, into: npt.NDArray[np.uint8]) -> None:
    """Resize (H, W, 3) `picture` into the array `into` by area averages."""
    height, width = into.shape[:2]
    # Area averaging reads every pixel. Of a large frame every n-th is enough while a result averages four or more.
    step = max(1, min(picture.shape[0] // (height * 4), picture.shape[1] // (width * 4)))
    cv2.resize(picture[::step, ::step], (width, height), dst=into, interpolation=cv2.INTER_AREA)


def _is_white(detection: messages.Detection) -> bool:
    return detection.kind in ("white", "nucleated red")


def _class_of(detection: messages.Detection) -> str | None:
    """The fused class, else that of this look, else the detector's own class if it names any."""
    for name in (detection.class_, detection.look_class):
        if isinstance(name, str):
            return name
    return detection.label if detection.label.lower() != "wbc" else None


def _visible(box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """The box itself, or its middle if the outline would fill it."""
    x1, y1, x2, y2 = box
    if min(x2 - x1, y2 - y1) + 1 >= SMALLEST_BOX_PX:
        return box
    x, y = (x1 + x2) // 2, (y1 + y2) // 2
    return x, y, x, y


def _outline(pixels: Picture, box: tuple[int, int, int, int], colour: str, thickness: int = 1) -> None:
    red, green, blue = int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
    cv2.rectangle(pixels, box[:2], box[2:], (blue, green, red), thickness)


@dataclass(frozen=True, slots=True)
class _Label:
    text: str
    colour: str
    column: int
    above_row: int
    below_row: int


def _label(detection: messages.Detection, where: Placement, box: tuple[int, int, int, int]) -> _Label:
    x1, y1, _, y2 = box
    name = _class_of(detection) or detection.label
    return _Label(
        text=f" {name} ",
        colour=box_colour(detection.kind, _class_of(detection)),
        column=x1,
        above_row=(y1 + where.top_px) // 2 - 1,
        below_row=(y2 + where.top_px) // 2 + 1,
    )


def _texts(labels: Sequence[_Label], where: Placement) -> dict[int, list[tuple[int, str, str]]]:
    """Row -> (column of the picture, text, colour) from left to right, without labels that would cover others."""
    used: dict[int, list[tuple[int, str, str]]] = {}
    first = where.top_px // 2
    last = first + (where.height_px - 1) // 2
    for label in labels:
        text = crop(label.text, where.width_px)
        size = cell_len(text)
        column = max(0, min(label.column, where.width_px - size))
        for row in (label.above_row, label.below_row):
            free = all(column + size < at or at + cell_len(other) < column for at, other, _ in used.get(row, ()))
            if first <= row <= last and free:
                used.setdefault(row, []).append((column, text, label.colour))
                used[row].sort()
                break
    return used


def half_blocks(
    pixels: npt.NDArray[np.uint8],
    where: Placement,
    columns: int,
    rows: int,
    texts: dict[int, list[tuple[int, str, str]]],
    colours: Colours,
) -> list[Line]:
    codes = _colour_codes(pixels, colours)
    if len(codes) % 2:
        codes = np.concatenate([codes, np.full((1, codes.shape[1]), NO_COLOUR, codes.dtype)])
    pairs = (codes[0::2] << 32) | codes[1::2]
    left, right = where.left_px, columns - where.left_px - where.width_px
    top = where.top_px // 2
    lines: list[Line] = [blank(columns) for _ in range(top)]
    for row, keys in enumerate(pairs, start=top):
        line = blank(left)
        at = 0
        for column, text, colour in texts.get(row, ()):
            line += _runs(keys[at:column])
            line.append(Segment(text, ink("#ffffff", on=colour, bold=True)))
            at = column + cell_len(text)
        line += _runs(keys[at:])
        line += blank(right)
        lines.append(line)
    lines += [blank(columns) for _ in range(rows - len(lines))]
    return lines


def _colour_codes(pixels: npt.NDArray[np.uint8], colours: Colours) -> npt.NDArray[np.int64]:
    """(h, w) 0xRRGGBB of each pixel, rounded so that neighbours are often equal and styles are reused."""
    if colours == "256":
        # The 6 x 6 x 6 cube of xterm: 0, 95, 135, 175, 215, 255.
        steps = np.clip((pixels.astype(np.int64) - 35) // 40, 0, 5)
        levels = np.where(steps > 0, 55 + 40 * steps, 0)
    else:
        levels = (pixels & 0xF8).astype(np.int64) + 4
    codes: npt.NDArray[np.int64] = (levels[..., 2] << 16) | (levels[..., 1] << 8) | levels[..., 0]
    return codes


def _runs(keys: npt.NDArray[np.int64]) -> Line:
    """The cells of a part of a row, equal neighbours in one segment."""
    if not len(keys):
        return []
    starts = np.concatenate([[0], np.flatnonzero(keys[1:] != keys[:-1]) + 1])
    counts = np.diff(starts, append=len(keys))
    return [_cells(key, count) for key, count in zip(keys[starts].tolist(), counts.tolist(), strict=True)]


@lru_cache(maxsize=32768)
def _cells(key: int, count: int) -> Segment:
    """`count` cells of upper << 32 | lower colour; a lower one of 0xFFFFFFFF is not drawn."""
    lower = key & 0xFFFFFFFF
    style = Style.from_color(_colour(key >> 32), None if lower == NO_COLOUR else _colour(lower))
    return Segment("▀" * count, style)


@lru_cache(maxsize=32768)
def _colour(code: int) -> Color:
    return Color(f"#{code:06x}", ColorType.TRUECOLOR, None, ColorTriplet(code >> 16, code >> 8 & 255, code & 255))


def _outlines(frame: messages.FrameMessage, where: Placement, columns: int, rows: int, red_cells: bool) -> list[Line]:
    """The boxes of nucleated cells in half blocks without any colour."""
    inked = np.zeros((rows * 2, columns), np.uint8)
    for detection in frame.detections:
        x1, y1, x2, y2 = where.box(detection.box_px)
        if _is_white(detection):
            cv2.rectangle(inked, (x1, y1), (x2, y2), 1, 1)
        elif red_cells:
            inked[(y1 + y2) // 2, (x1 + x2) // 2] = 1
    glyphs = np.array([" ", "▀", "▄", "█"])[inked[0::2] + 2 * inked[1::2]]
    return [[Segment("".join(row), PLAIN)] for row in glyphs]
