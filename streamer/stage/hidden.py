"""The parts of a source's frames that show no slide, as whoever counts cells needs them."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.uint8]
"""(h, w) of a fine picture (streamer/stage/preparation.py), 1 where frames show no slide."""

FramePx = npt.NDArray[np.floating]
"""(n, 4) x1, y1, x2, y2 in pixels of the frame."""


@dataclass(frozen=True, slots=True, eq=False)
class HiddenParts:
    """What is covered in every frame; immutable, and the same object as long as nothing changes."""

    mask: Mask
    factor: int
    """Frame pixels per pixel of the mask."""
    _sums: npt.NDArray[np.int32] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_sums", cv2.integral(self.mask))

    def same_as(self, other: HiddenParts | None) -> bool:
        return other is not None and self.factor == other.factor and np.array_equal(self.mask, other.mask)

    @property
    def share(self) -> float:
        """Of the frame."""
        return float(self.mask.mean())

    def boxes_px(self) -> list[tuple[int, int, int, int]]:
        """x1, y1, x2, y2 around each part, largest first."""
        stats = cv2.connectedComponentsWithStats(self.mask)[2][1:]
        order = np.argsort(-stats[:, cv2.CC_STAT_AREA], kind="stable")
        corners = np.concatenate([stats[:, :2], stats[:, :2] + stats[:, 2:4]], axis=1)[order] * self.factor
        return [(x1, y1, x2, y2) for x1, y1, x2, y2 in corners.tolist()]

    def covered(self, boxes_px: FramePx) -> npt.NDArray[np.float64]:
        """(n,) share of each box that is hidden."""
        height, width = self.mask.shape
        boxes = boxes_px / self.factor
        left, top = np.floor(boxes[:, 0]).clip(0, width), np.floor(boxes[:, 1]).clip(0, height)
        right, bottom = np.ceil(boxes[:, 2]).clip(0, width), np.ceil(boxes[:, 3]).clip(0, height)
        x1, y1, x2, y2 = (side.astype(np.intp) for side in (left, top, right, bottom))
        sums = self._sums
        hidden = sums[y2, x2] - sums[y1, x2] - sums[y2, x1] + sums[y1, x1]
        return np.asarray(hidden / np.maximum((x2 - x1) * (y2 - y1), 1), np.float64)

    def beside(self, boxes_px: FramePx, within_px: float) -> npt.NDArray[np.float64]:
        """(n, 4) which share of what lies `within_px` left of, above, right of and below each box is hidden."""
        x1, y1, x2, y2 = boxes_px.T
        strips = (
            (x1 - within_px, y1, x1, y2),
            (x1, y1 - within_px, x2, y1),
            (x2, y1, x2 + within_px, y2),
            (x1, y2, x2, y2 + within_px),
        )
        return np.stack([self.covered(np.stack(strip, axis=1)) for strip in strips], axis=1)
