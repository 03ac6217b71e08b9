"""A white cell that a line burnt into the picture cuts in two: detectors box each piece, and the two are one cell."""

from __future__ import annotations

import numpy as np

from streamer.stage.hidden import FramePx, HiddenParts

MIN_ALONG = 0.6
"""Share of the shorter piece's side along the line which lies beside the other piece's."""

MAX_ELONGATION = 1.4
"""Of both pieces together, longer over shorter side: of white cells 99 in 100 are rounder, two cells side by side are
not."""

MIN_HIDDEN = 0.6
"""Share of the line between two pieces that is known to be hidden: dark cells on a thin dark line leave gaps in it."""

REACH = 0.45
"""So far from its side a piece may have the line, as a share of the piece: boxes of pieces reach beyond it."""


def find_pieces(boxes_px: FramePx, hidden: HiddenParts) -> list[tuple[int, int]]:
    """(larger, smaller) of the boxes (n, 4) of a frame that are two pieces of one cell, by index; no box is in two
    pairs."""
    areas = (boxes_px[:, 2] - boxes_px[:, 0]) * (boxes_px[:, 3] - boxes_px[:, 1])
    order = np.argsort(-areas, kind="stable").tolist()
    pairs: list[tuple[int, int]] = []
    taken: set[int] = set()
    for place, larger in enumerate(order):
        for smaller in order[place + 1 :]:
            if not taken & {larger, smaller} and _are_pieces(boxes_px[larger], boxes_px[smaller], hidden):
                pairs.append((larger, smaller))
                taken |= {larger, smaller}
    return pairs


def around(one: FramePx, other: FramePx) -> FramePx:
    """The box (4,) around two."""
    return np.concatenate([np.minimum(one[:2], other[:2]), np.maximum(one[2:], other[2:])])


def _are_pieces(one: FramePx, other: FramePx, hidden: HiddenParts) -> bool:
    union = around(one, other)
    sides = union[2:] - union[:2]
    if sides.max() > MAX_ELONGATION * sides.min():
        return False
    for across in (0, 1):  # a line that goes down, one that goes along
        along = 1 - across
        first, second = (one, other) if one[across] <= other[across] else (other, one)
        beside = min(one[along + 2], other[along + 2]) - max(one[along], other[along])
        if beside < MIN_ALONG * min(one[along + 2] - one[along], other[along + 2] - other[along]):
            continue
        ends = first[across + 2], second[across]
        reaches = [REACH * float(box[across + 2] - box[across]) for box in (first, second)]
        start, stop = min(ends) - max(reaches), max(ends) + max(reaches)
        at = np.arange(start // hidden.factor * hidden.factor, stop, hidden.factor)  # rows or columns of the mask
        at = at[(at >= ends[0] - reaches[0]) & (at <= ends[1] + reaches[1])]
        if len(at) == 0:
            continue
        lines = np.empty((len(at), 4))
        lines[:, across], lines[:, across + 2] = at, at + hidden.factor
        lines[:, along], lines[:, along + 2] = union[along], union[along + 2]
        if float(hidden.covered(lines).max()) >= MIN_HIDDEN:
            return True
    return False
