"""What of the cells in a frame can be seen: boxes that an edge, or something burnt into the picture, cuts or hides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streamer.counting.matching import MAYBE_CUT_SHARE, Cuts, from_edges_px
from streamer.counting.pieces import around, find_pieces
from streamer.records import Detections
from streamer.stage.hidden import FramePx, HiddenParts

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class SightConfig:
    cut_share: float = 0.004
    """A box that comes nearer to the frame's edge than this share of its longer side shows no whole cell: on BCCD
    (640 x 480, so 2.6 px) 74 of 84 cells that touch the edge by their labels, and none of the 196 others."""
    maybe_cut_share: float = MAYBE_CUT_SHARE
    """A box that comes so near is counted, and replaced by the first box that is clear of the edges."""
    max_hidden: float = 0.5
    """A box of which more lies in parts of the frame that show no slide is no cell."""
    max_veiled: float = 0.15
    """One of which more lies there shows no whole cell; a crosshair's line covers some 8 % of a red cell."""
    max_hidden_beside: float = 0.25
    """A side beside which more is hidden may not be the cell's, but the end of what can be seen of it."""


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """Of the n detections of a frame, in their order."""

    boxes_px: FramePx
    """(n, 4), that of the larger of two pieces of one cell around both."""
    shown: Flags
    """(n,) whether it is a cell: no smaller piece, and not hidden."""
    cut: Cuts
    """(n, 4) sides that may not be the cell's own."""
    whole: Flags
    """(n,) whether it shows a whole cell."""


def sight_of(
    detections: Detections,
    frame_size_px: tuple[int, int],
    hidden: HiddenParts | None,
    min_score: float,
    config: SightConfig,
) -> Sight:
    """What a frame of (width, height) shows; boxes below `min_score` are not shown."""
    shown = detections.scores >= min_score
    longer = max(frame_size_px)
    distances_px = from_edges_px(detections.boxes_px, *frame_size_px)
    cut = distances_px <= config.maybe_cut_share * longer
    whole: Flags = distances_px.min(axis=1) > config.cut_share * longer
    if hidden is None:
        return Sight(detections.boxes_px, shown, cut, whole)
    boxes_px = detections.boxes_px.copy()
    white = detections.white_rows
    white = white[shown[white]]
    for pair in find_pieces(boxes_px[white], hidden):
        larger, smaller = white[list(pair)].tolist()
        boxes_px[larger] = around(boxes_px[larger], boxes_px[smaller])
        shown[smaller] = False
    veiled, unseen = veiled_by(hidden, boxes_px, longer, config)
    beside = hidden.beside(boxes_px, config.maybe_cut_share * longer) > config.max_hidden_beside
    return Sight(boxes_px, shown & ~unseen, cut | beside, whole & ~veiled)


def veiled_by(hidden: HiddenParts, boxes_px: FramePx, longer_px: int, config: SightConfig) -> tuple[Flags, Flags]:
    """Which boxes (n, 4) of a frame, whose longer side is `longer_px`, show no whole cell because the slide is hidden
    there, and which none at all."""
    covered = hidden.covered(boxes_px)
    beside = hidden.beside(boxes_px, config.cut_share * longer_px) > config.max_hidden_beside
    return beside.any(1) | (covered > config.max_veiled), covered > config.max_hidden
