"""Pictures that show more than one cell: where in them lies the cell that `leukostream classify` names."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from engines.detector import Detector
from engines.geometry import Boxes, Image

SMALLEST_FIELD_PX = 96
"""Pictures of a smaller side are taken for cells that somebody cut out already."""


@dataclass
class FieldSearch:
    """Looks for the white cell of a picture with a detector, whose input is never larger than the picture."""

    detector: Detector
    _by_long_side: dict[int, Detector] = field(default_factory=dict)

    def white_cell(self, picture: Image) -> Boxes | None:
        """float32 (1,4) px: the white cell in the middle of a picture uint8 (H,W,3) BGR, else the surest one. None for
        a picture of a single cell, and where no white cell is found."""
        height, width = picture.shape[:2]
        if min(height, width) < SMALLEST_FIELD_PX:
            return None
        (found,) = self._detector_for(max(height, width)).detect([picture])
        white = np.array([kind == "white" for kind in found.kinds])[found.labels]
        if not white.any():
            return None
        boxes_px, middle = found.boxes_px[white], np.array([width, height], np.float32) / 2
        in_middle = ((boxes_px[:, :2] <= middle) & (middle <= boxes_px[:, 2:])).all(1)
        best = int((found.scores[white] + in_middle).argmax())
        chosen: Boxes = boxes_px[best : best + 1]
        return chosen

    def _detector_for(self, long_side_px: int) -> Detector:
        own = min(long_side_px, self.detector.long_side_px)
        if own not in self._by_long_side:
            self._by_long_side[own] = self.detector.with_long_side(own)
        return self._by_long_side[own]
