"""Whether two boxes on the slide show the same cell. Pure functions on arrays.

A box that a frame's edge cut shows part of a cell. So before two boxes are compared, each is clipped to what the other
one could have shown: where one was cut, the other is cut off too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streamer.stage.placement import Placement

SlideBoxes = npt.NDArray[np.float64]
Cuts = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class MatchConfig:
    min_iou: float = 0.4
    """SlideBoxes of the same family (white and nucleated red; red; platelet) that overlap so much are one cell."""
    min_iou_other_family: float = 0.65
    """The same for boxes of different families: a white cell that was once taken for a red one."""
    min_iou_cut: float = 0.25
    min_containment_cut: float = 0.6
    """Where an edge cut one of them, either of these is enough: slivers have few pixels to agree on."""
    min_iou_together: float = 0.6
    """Cells that were seen at the same time, at places that turned out to be one, are the same from this on."""
    min_iou_same_frame: float = 0.55
    min_containment_same_frame: float = 0.8
    """Two boxes of one frame and one family are one cell from either of these on; cells side by side stay below. The
    overlap alone is enough where one of them is white: the detector has two opinions on one cell then, of which the
    better one holds. Of 1534 labelled white cells (txl_pbc, bccd, bcd) none shares more than 0.22 with a red one, but
    for ten that are labelled twice (0.93 and more)."""
    max_covered: float = 0.65
    """A box of a white cell of which better boxes of the same frame cover more than this is none: detectors see cells,
    with low scores, in what lies across two neighbours. Measured on two simulated slides of 2000 white cells: such
    boxes 0.70 and more, cells 0.56 at most. Red cells lie over one another: not for them."""


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """The frame that is being taken in, and where it lies on the slide."""

    island: int
    anchor: int
    frame_id: int
    corner: npt.NDArray[np.float64]
    size: npt.NDArray[np.float64]

    @classmethod
    def of(cls, placement: Placement, size_px: tuple[int, int], frame_id: int) -> Field:
        """Of a frame (width, height) that has a position."""
        position = placement.position
        if position is None:
            raise ValueError(f"frame {frame_id}: got no position, expected one")
        return cls(
            island=position.island,
            anchor=0 if placement.anchor is None else placement.anchor,
            frame_id=frame_id,
            corner=np.array([position.x_px, position.y_px]),
            size=np.array(size_px, np.float64),
        )

    def seen(self, boxes: SlideBoxes) -> SlideBoxes:
        """What of these boxes lies in the field."""
        far = self.corner + self.size
        return boxes.clip(np.concatenate([self.corner, self.corner]), np.concatenate([far, far]))

    def beyond(self, boxes: SlideBoxes, by_px: float) -> Cuts:
        """(n, 4): which sides of these boxes lie more than `by_px` outside the field."""
        low, high = self.corner - by_px, self.corner + self.size + by_px
        return np.concatenate([boxes[:, :2] < low, boxes[:, 2:] > high], axis=1)


MAYBE_CUT_SHARE = 0.015
"""A box that comes nearer to the frame's edge than this share of its longer side may show no whole cell: detectors end
the boxes of cut cells some pixels early."""


def from_edges_px(boxes_px: npt.NDArray[np.float32], width: int, height: int) -> npt.NDArray[np.float32]:
    """(n, 4): how far left, top, right and bottom of each box lie from that edge of the frame."""
    distances = boxes_px.copy()
    np.subtract(np.array([width, height], np.float32), boxes_px[:, 2:], out=distances[:, 2:])
    return distances


def cut_sides(boxes_px: npt.NDArray[np.float32], width: int, height: int, edge_px: float) -> Cuts:
    """(n, 4): whether left, top, right, bottom of each box lie within `edge_px` of the frame's edge."""
    return from_edges_px(boxes_px, width, height) <= edge_px


_BAND = 256
"""SlideBoxes that are compared at once: the sweep over x alone would meet all that share a column with them."""


def touching_pairs(a: SlideBoxes, b: SlideBoxes) -> tuple[Ints, Ints]:
    """Indices (i, j) of all boxes a[i] and b[j] that share some area, in memory proportional to how many do."""
    if len(a) == 0 or len(b) == 0:
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    if len(a) <= _BAND:
        return _swept(a, b)
    pairs = []
    order = np.argsort(a[:, 1], kind="stable")
    for start in range(0, len(a), _BAND):
        rows = order[start : start + _BAND]
        near = np.nonzero((b[:, 3] > a[rows[0], 1]) & (b[:, 1] < a[rows, 3].max()))[0]
        if len(near):
            i, j = _swept(a[rows], b[near])
            pairs.append((rows[i], near[j]))
    return (
        np.concatenate([np.zeros(0, np.intp), *(i for i, _ in pairs)]),
        np.concatenate([np.zeros(0, np.intp), *(j for _, j in pairs)]),
    )


def _swept(a: SlideBoxes, b: SlideBoxes) -> tuple[Ints, Ints]:
    """The same by a sweep over x, for boxes of which few share a column."""
    order = np.argsort(b[:, 0], kind="stable")
    lefts = b[order, 0]
    widest = float((b[:, 2] - b[:, 0]).max())
    first = np.searchsorted(lefts, a[:, 0] - widest)
    counts = np.maximum(np.searchsorted(lefts, a[:, 2]) - first, 0)
    i = np.repeat(np.arange(len(a)), counts)
    j = order[np.arange(len(i)) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)]
    touching = (a[i, 1] < b[j, 3]) & (a[i, 3] > b[j, 1]) & (a[i, 0] < b[j, 2]) & (a[i, 2] > b[j, 0])
    return i[touching], j[touching]


def overlaps(
    a: SlideBoxes, a_cut: Cuts, b: SlideBoxes, b_cut: Cuts
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(n,) intersection over union, and over the smaller one, of the rows of a and b, each clipped as the other was."""
    a_seen, b_seen = _clipped(a, b, b_cut), _clipped(b, a, a_cut)
    across = np.minimum(a_seen[:, 2], b_seen[:, 2]) - np.maximum(a_seen[:, 0], b_seen[:, 0])
    down = np.minimum(a_seen[:, 3], b_seen[:, 3]) - np.maximum(a_seen[:, 1], b_seen[:, 1])
    common = np.maximum(across, 0) * np.maximum(down, 0)
    first, second = _areas(a_seen), _areas(b_seen)
    return common / np.maximum(first + second - common, 1e-9), common / np.maximum(np.minimum(first, second), 1e-9)


def _areas(boxes: SlideBoxes) -> npt.NDArray[np.float64]:
    return np.maximum(boxes[:, 2] - boxes[:, 0], 0) * np.maximum(boxes[:, 3] - boxes[:, 1], 0)


def _clipped(boxes: SlideBoxes, other: SlideBoxes, other_cut: Cuts) -> SlideBoxes:
    rows = np.nonzero(other_cut.any(1))[0]
    if len(rows) == 0:
        return boxes
    own, limit, cut = boxes[rows], other[rows], other_cut[rows]
    clipped = boxes.copy()
    clipped[rows, :2] = np.where(cut[:, :2], np.maximum(own[:, :2], limit[:, :2]), own[:, :2])
    clipped[rows, 2:] = np.where(cut[:, 2:], np.minimum(own[:, 2:], limit[:, 2:]), own[:, 2:])
    return clipped


def one_to_one(i: Ints, j: Ints, likeness: npt.NDArray[np.float64]) -> tuple[Ints, Ints]:
    """Of candidate pairs the best ones, so that no i and no j comes twice: the likest pair first."""
    if len(i) == 0:
        return i, j
    alone = (np.bincount(i)[i] == 1) & (np.bincount(j)[j] == 1)
    taken_i: set[int] = set()
    taken_j: set[int] = set()
    chosen = []
    rivals = np.nonzero(~alone)[0]
    rivals = rivals[np.argsort(-likeness[rivals], kind="stable")]
    for pair, one, two in zip(rivals.tolist(), i[rivals].tolist(), j[rivals].tolist(), strict=True):
        if one not in taken_i and two not in taken_j:
            taken_i.add(one)
            taken_j.add(two)
            chosen.append(pair)
    rows = np.concatenate([np.nonzero(alone)[0], np.array(chosen, np.intp)])
    return i[rows], j[rows]


def new_and_double(
    known: npt.NDArray[np.bool_],
    boxes: SlideBoxes,
    cut: Cuts,
    families: Ints,
    scores: npt.NDArray[np.float32],
    config: MatchConfig,
) -> tuple[Ints, Ints, Ints]:
    """Of one frame's boxes those that are not `known`: (new ones, doubles of another box, that other box).

    Whole boxes come before cut ones and better ones before worse: they are the new ones, and the rest are doubles, or
    boxes of family 0, white cells, that show but parts of better ones; these are in none of the three.
    """
    open_boxes = np.nonzero(~known)[0]
    if len(open_boxes) == 0:  # the stage rests
        return open_boxes, open_boxes, open_boxes
    i, j = touching_pairs(boxes[open_boxes], boxes)
    i = open_boxes[i]
    uncut = np.zeros((len(i), 4), bool)
    iou, containment = overlaps(boxes[i], uncut, boxes[j], uncut)
    same, white = families[i] == families[j], np.minimum(families[i], families[j]) == 0
    one = iou >= np.where(same | white, config.min_iou_same_frame, config.min_iou_other_family)
    one |= same & (containment >= config.min_containment_same_frame)
    one &= i != j
    ranked = open_boxes[np.lexsort((-scores[open_boxes], cut[open_boxes].any(1)))]
    rivals: dict[int, list[int]] = {}
    for a, b in zip(i[one].tolist(), j[one].tolist(), strict=True):
        rivals.setdefault(a, []).append(b)
    settled = np.ones(len(known), bool)
    settled[list(rivals)] = False  # the others are on no other box, so that their turn decides nothing
    doubles, originals = [], []
    for box in [box for box in ranked.tolist() if box in rivals]:
        original = next((rival for rival in rivals[box] if settled[rival]), None)
        if original is None:
            settled[box] = True
        else:
            doubles.append(box)
            originals.append(original)
    new = ranked[settled[ranked]]
    white = new[families[new] == 0]
    if len(white):
        alone = np.setdiff1d(np.arange(len(boxes)), doubles)
        new = new[~np.isin(new, white[covered(boxes, scores, white, alone) > config.max_covered])]
    return new, np.array(doubles, np.intp), np.array(originals, np.intp)


_POINTS = (np.arange(16) + 0.5) / 16


def covered(boxes: SlideBoxes, scores: npt.NDArray[np.float32], rows: Ints, by: Ints) -> npt.NDArray[np.float64]:
    """(n,) share of the boxes `rows` that lies in those of `by` with a better score, on a grid of 16 x 16 points."""
    i, j = touching_pairs(boxes[rows], boxes[by])
    j = by[j]
    better = scores[j] > scores[rows[i]]
    i, j = i[better], j[better]
    shares = np.zeros(len(rows))
    for row in np.unique(i).tolist():
        own, others = boxes[rows[row]], boxes[j[i == row]]
        x = own[0] + _POINTS * (own[2] - own[0])
        y = own[1] + _POINTS * (own[3] - own[1])
        across = (others[:, :1] < x) & (x < others[:, 2:3])
        down = (others[:, 1:2] < y) & (y < others[:, 3:])
        shares[row] = (down[:, :, None] & across[:, None, :]).any(0).mean()
    return shares


def best_of_each(groups: Ints, scores: npt.NDArray[np.float32]) -> Ints:
    """Index of the best score of each group, in the order of the groups' numbers."""
    order = np.lexsort((-scores, groups))
    ranked = groups[order]
    is_best = np.ones(len(order), bool)
    is_best[1:] = ranked[1:] != ranked[:-1]
    return np.asarray(order[is_best], np.intp)
