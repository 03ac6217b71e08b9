"""Letterbox, boxes and crops: pure functions that the stream and the training share.

Boxes are float32 (n,4) x1,y1,x2,y2 in continuous pixel coordinates: the first pixel of an image spans 0 to 1, so a
box over a whole image is (0, 0, width, height).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

Boxes = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]
Border = Literal["replicate"] | int
"""What lies outside an image: its outermost pixels repeated, or one grey value."""

_suppress: Any = cv2.dnn.NMSBoxesBatched  # its annotations know lists only; arrays are faster


@dataclass(frozen=True, slots=True)
class Letterbox:
    """How a frame lies inside a detector's input: scaled by one factor, centred, the rest padded.

    The two factors differ only by the rounding of the scaled picture to whole pixels; both are exact.
    """

    input_width: int
    input_height: int
    halvings: int
    """Times that the frame is first halved by 2x2 means; an odd last row or column is left out."""
    inner_width: int
    inner_height: int
    """Size of the scaled picture inside the input."""
    left: int
    top: int
    scale_x: float
    scale_y: float

    def to_input(self, boxes_px: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Boxes in full-frame pixels -> input pixels; the dtype stays."""
        moved: npt.NDArray[Any] = boxes_px * self._scale(boxes_px.dtype) + self._offset(boxes_px.dtype)
        return moved

    def to_frame(self, boxes_px: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Boxes in input pixels -> full-frame pixels, not clipped; the dtype stays."""
        moved: npt.NDArray[Any] = (boxes_px - self._offset(boxes_px.dtype)) / self._scale(boxes_px.dtype)
        return moved

    def _scale(self, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        return np.array([self.scale_x, self.scale_y, self.scale_x, self.scale_y], dtype)

    def _offset(self, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        return np.array([self.left, self.top, self.left, self.top], dtype)


def input_size(width: int, height: int, long_side: int, stride: int = 32) -> tuple[int, int]:
    """Width and height of the input for frames of a size: the longer side as near `long_side` as `stride` lets it be,
    the other as the frame's aspect wants it, rounded up to `stride`."""
    longest = max(stride, round(long_side / stride) * stride)
    scale = longest / max(width, height)
    # A hair less than the exact quotient: 640 * (480 / 640) must not become 480.0000001 and round up a whole stride.
    other = math.ceil(min(width, height) * scale / stride - 1e-6) * stride
    other = max(stride, other)
    return (longest, other) if width >= height else (other, longest)


def fit_letterbox(width: int, height: int, input_width: int, input_height: int) -> Letterbox:
    """The letterbox that puts a frame of `width` x `height` into an input, as large as fits."""
    scale = min(input_width / width, input_height / height)
    inner_width = min(input_width, max(1, round(width * scale)))
    inner_height = min(input_height, max(1, round(height * scale)))
    halvings = 0
    while (width >> (halvings + 1)) >= inner_width and (height >> (halvings + 1)) >= inner_height:
        halvings += 1
    return Letterbox(
        input_width=input_width,
        input_height=input_height,
        halvings=halvings,
        inner_width=inner_width,
        inner_height=inner_height,
        left=(input_width - inner_width) // 2,
        top=(input_height - inner_height) // 2,
        scale_x=inner_width / (width >> halvings << halvings),
        scale_y=inner_height / (height >> halvings << halvings),
    )


def letterbox(image: Image, fit: Letterbox, out: Image, pad_value: int = 114, half: Image | None = None) -> None:
    """Scale `image` (H,W,3) into `out` (input_height, input_width, 3), padded with `pad_value`.

    Halving first, then bilinear: 0.7 ms for 1440x900 to 640x400 where INTER_AREA takes 8 ms and bilinear alone,
    which skips pixels, 0.5 ms. `half`: `halved(image, 1)`, where the caller has it; nothing but time depends on it.
    """
    bottom, right = fit.top + fit.inner_height, fit.left + fit.inner_width
    out[: fit.top] = pad_value
    out[bottom:] = pad_value
    out[fit.top : bottom, : fit.left] = pad_value
    out[fit.top : bottom, right:] = pad_value
    small = halved(image, fit.halvings) if half is None or not fit.halvings else halved(half, fit.halvings - 1)
    _resize_into(small, out[fit.top : bottom, fit.left : right])


def halved(image: Image, times: int) -> Image:
    """`image` halved `times` times by 2x2 means; an odd last row or column is left out."""
    for _ in range(times):
        height, width = image.shape[0] // 2, image.shape[1] // 2
        even = image[: 2 * height, : 2 * width]
        image = cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    return image


def _resize_into(image: Image, out: Image) -> None:
    if image.shape == out.shape:
        out[:] = image
        return
    height, width = out.shape[:2]
    resized = cv2.resize(image, (width, height), dst=out, interpolation=cv2.INTER_LINEAR)
    if not np.shares_memory(resized, out):  # cv2 allocates anew where it dislikes the layout of `dst`
        out[:] = resized


def clip_boxes(boxes_px: Boxes, width: float, height: float) -> Boxes:
    """Boxes cut to the frame; those wholly outside get no area."""
    limits = np.array([width, height, width, height], boxes_px.dtype)
    return np.clip(boxes_px, 0, limits)


def areas(boxes: Boxes) -> npt.NDArray[np.float32]:
    """(n,) areas; 0 for boxes turned inside out."""
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    product: npt.NDArray[np.float32] = sides[:, 0] * sides[:, 1]
    return product


def iou_matrix(a: Boxes, b: Boxes) -> npt.NDArray[np.float32]:
    """(len(a), len(b)) intersection over union; 0 where both boxes have no area."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    sides = np.maximum(high - low, 0)
    shared = sides[..., 0] * sides[..., 1]
    union = areas(a)[:, None] + areas(b)[None, :] - shared
    iou: npt.NDArray[np.float32] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return iou


def nms(
    boxes: Boxes, scores: npt.NDArray[np.floating[Any]], groups: npt.NDArray[np.integer[Any]], iou: float
) -> npt.NDArray[np.intp]:
    """Greedy non-maximum suppression within each group; the indices kept, best score first.

    A box goes when it overlaps a kept one of its group and of a higher score (of a lower index among equals) by more
    than `iou`. Boxes without area are no boxes, and go too.

    OpenCV's loop takes 0.6 ms for 1200 candidates of 200 cells and lets other threads run; vectorised NumPy, with a
    grid or a sweep to find the pairs, took twice to five times as long.
    """
    order = np.argsort(-scores, kind="stable")
    sides = boxes[order, 2:] - boxes[order, :2]
    solid = (sides > 0).all(1)
    order, sides = order[solid], sides[solid]
    if len(order) < 2:
        return order
    corners = boxes[order, :2] - boxes[order, :2].min(0)  # OpenCV sets groups apart by an offset that assumes >= 0
    rectangles = np.hstack([corners, sides]).astype(np.float64)
    ranked = scores[order].astype(np.float32)
    below_all = float(ranked[-1]) - 1
    kept = _suppress(rectangles, ranked, groups[order].astype(np.int32), below_all, iou)
    return order[np.sort(np.asarray(kept, np.intp).reshape(-1))]


def crop_squares(
    image: Image, boxes_px: Boxes, size: tuple[int, int], margin: float = 1.0, border: Border = "replicate"
) -> Image:
    """(n, height, width, 3) crops: the square around each box, its side `margin` times the longer side of the box.

    `size` is (height, width). Squares are rounded to whole pixels and never moved: what lies outside the image is
    `border`. Reduction is by 2x2 means, then bilinear, as in `letterbox`.
    """
    out = np.empty((len(boxes_px), *size, 3), np.uint8)
    for box, crop in zip(boxes_px.tolist(), out, strict=True):
        left, top, side = square_around(box, margin)
        square = _window(image, left, top, side, border)
        while side >= 2 * max(size):
            square, side = halved(square, 1), side // 2
        _resize_into(square, crop)
    return out


def centred_squares(boxes_px: Boxes, side_px: float) -> Boxes:
    """(n, 4) squares around the centres of boxes, `side_px` wide, or as wide as the box's longer side where that is
    more: a look of a fixed size never cuts its cell."""
    centres = (boxes_px[:, :2] + boxes_px[:, 2:]) / 2
    longer = (boxes_px[:, 2:] - boxes_px[:, :2]).max(1, initial=0)
    half = np.maximum(longer, side_px)[:, None] / 2
    return np.concatenate([centres - half, centres + half], 1).astype(np.float32)


def square_around(box: Sequence[float], margin: float = 1.0) -> tuple[int, int, int]:
    """(left, top, side) in whole pixels of the square around a box: its side is `margin` times the longer side."""
    x1, y1, x2, y2 = box
    side = max(1, round(margin * max(x2 - x1, y2 - y1)))
    return round((x1 + x2 - side) / 2), round((y1 + y2 - side) / 2), side


def _window(image: Image, left: int, top: int, side: int, border: Border) -> Image:
    """The square window of an image (a view where it lies inside), filled with `border` outside."""
    height, width = image.shape[:2]
    right, bottom = left + side, top + side
    if left >= 0 and top >= 0 and right <= width and bottom <= height:
        return image[top:bottom, left:right]
    if border == "replicate":
        rows = np.clip(np.arange(top, bottom), 0, height - 1)
        columns = np.clip(np.arange(left, right), 0, width - 1)
        return image[rows[:, None], columns]
    window = np.full((side, side, 3), border, np.uint8)
    inside = image[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    y, x = max(-top, 0), max(-left, 0)
    window[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return window


def diameters(boxes_px: Boxes) -> npt.NDArray[np.float32]:
    """(n,) diameter of the disc in each box: the geometric mean of its sides."""
    return np.sqrt(areas(boxes_px))


def suggest_long_side(
    median_rbc_diameter_in_input_px: float, rbc_diameter_px: Sequence[float], current_long_side: int, stride: int = 32
) -> int:
    """The long side at which red cells have a size that the detector was trained for.

    `rbc_diameter_px` is the card's range, in input px. Inside it the current long side stays. Outside, the cells are
    brought into it, half as far again from its end or to its geometric mean, whichever is nearer to what they are:
    large cells keep their detail, small ones make no larger an input than they must. Rounded to `stride`.
    """
    low, high = rbc_diameter_px
    if median_rbc_diameter_in_input_px <= 0:
        raise ValueError(
            f"median diameter of red cells: got {median_rbc_diameter_in_input_px}, expected more than 0 px"
        )
    if low <= median_rbc_diameter_in_input_px <= high:
        return current_long_side
    middle = math.sqrt(low * high)
    aim = max(middle, high / 1.5) if median_rbc_diameter_in_input_px > high else min(middle, low * 1.5)
    wanted = current_long_side * aim / median_rbc_diameter_in_input_px
    return max(stride, round(wanted / stride) * stride)
