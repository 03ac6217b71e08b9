"""Pictures that show more than one cell: where in them lies the cell that `leukostream classify` names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engines.geometry import Boxes, Image
from engines.models.detector import Detector
from engines.models.scale import rbc_diameter_seen

SMALLEST_FIELD_PX = 96
"""Pictures of a smaller side are taken for cells that somebody cut out already."""
ENGINES_KEPT = 16
"""Cut-out cells come in as many sizes as cells: with fewer engines each picture would load one again."""


@dataclass(frozen=True, eq=False)
class FoundCell:
    """The white cell of a picture."""

    box_px: Boxes
    """float32 (1,4)"""
    rbc_px: float | None
    """The usual diameter of the red cells around it, None where too few are seen."""


@dataclass(frozen=True)
class FieldSearch:
    """Looks for the white cell of a picture with a detector, whose input is never larger than the picture."""

    detector: Detector

    def white_cell(self, picture: Image) -> FoundCell | None:
        """The white cell in the middle of a picture uint8 (H,W,3) BGR, else the surest one. None for a picture of a
        single cell, and where no white cell is found."""
        height, width = picture.shape[:2]
        if min(height, width) < SMALLEST_FIELD_PX:
            return None
        long_side_px = min(max(height, width), self.detector.long_side_px)
        (detections,) = self.detector.with_long_side(long_side_px).detect([picture])
        white = detections.white_rows
        if len(white) == 0:
            return None
        boxes_px, middle = detections.boxes_px[white], np.array([width, height], np.float32) / 2
        in_middle = ((boxes_px[:, :2] <= middle) & (middle <= boxes_px[:, 2:])).all(1)
        best = int((detections.scores[white] + in_middle).argmax())
        rbc_px = rbc_diameter_seen(self.detector, [detections], [(width, height)])
        return FoundCell(boxes_px[best : best + 1], rbc_px)
