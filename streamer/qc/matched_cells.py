"""Cells that two journals of the same frames both named, matched by their places in the frames."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import zip_longest

import numpy as np
from scipy.optimize import linear_sum_assignment

from engines.geometry import iou_matrix
from streamer.counting.agreement import Kappa, kappa_of
from streamer.journal import Recounted, SeenFrame, StoredSession
from streamer.qc.counts import CountedSlide
from streamer.records import Cell

LEAST_OVERLAP = 0.5
"""Intersection over union from which on two boxes show the same cell."""

LEAST_MATCHED = 0.5
"""Of the white cells of the side that has fewer, so many are in both where the pictures are the same: file names alone
may be equal by chance."""

Matched = tuple[Kappa, int, tuple[tuple[str, str, int], ...]]
"""Kappa; how many matched cells one side left unclassified, which are not in it; and the commonest pairs of names that
differ, with how often."""


def matched_kappa(
    first: CountedSlide, second: CountedSlide, into: Mapping[str, str], *, recording: bool = False
) -> Matched | str:
    """How well two journals name the same cells; in words why that can't be measured. `into`: by finer class the one
    that it is counted as. `recording`: the second is known to be of the recording of the first, whose frames go by
    their numbers, though a live run did not analyse all of them."""
    if first.stored is None or second.stored is None:
        return "a table of counts has no cells; compare two journals of the same frames"
    if not recording and (first.stored[0].live or second.stored[0].live):
        return "the frames of a camera are not the same twice"
    votes: Counter[tuple[int, int]] = Counter()
    cells: tuple[dict[int, Cell], dict[int, Cell]] = {}, {}
    with_frames = recording
    pairs_of_frames = _in_both if recording else zip_longest
    for one, other in pairs_of_frames(first.stored[0].frames(), second.stored[0].frames()):
        if one is None or other is None or _identity(one) != _identity(other):
            return "the frames are not the same; analyse the same files twice"
        with_frames = with_frames or one.file is not None
        seen = [list(_whole(*side, frame)) for side, frame in ((first.stored, one), (second.stored, other))]
        for known, found in zip(cells, seen, strict=True):
            known.update({cell.cell_id: cell for cell, _ in found})
        votes.update(_same_place(*seen))
    if not with_frames and first.stored[0].address != second.stored[0].address:
        return "the frames have no names and come from different sources"
    pairs = _one_to_one(votes)
    if len(pairs) < LEAST_MATCHED * min(len(known) for known in cells) or not pairs:
        return f"only {len(pairs)} cells lie at the same places: other pictures, or other detectors"
    kappa, unnamed, differing = kappa_of([(_name(cells[0][a], into), _name(cells[1][b], into)) for a, b in pairs])
    return kappa, unnamed, differing[:3]


def _in_both(first: Iterator[SeenFrame], second: Iterator[SeenFrame]) -> Iterator[tuple[SeenFrame, SeenFrame]]:
    """The frames whose numbers both have; both are in order."""
    one, other = next(first, None), next(second, None)
    while one is not None and other is not None:
        if one.frame_id == other.frame_id:
            yield one, other
            one, other = next(first, None), next(second, None)
        elif one.frame_id < other.frame_id:
            one = next(first, None)
        else:
            other = next(second, None)


def _identity(frame: SeenFrame) -> tuple[int, str | None, int, int]:
    return frame.frame_id, frame.file, frame.width, frame.height


def _whole(stored: StoredSession, result: Recounted, frame: SeenFrame) -> Iterator[tuple[Cell, list[float]]]:
    """The counted white cells of a frame and their boxes."""
    boxes = frame.detections.boxes_px.tolist()
    for box, number in zip(boxes, stored.cells_of(frame.frame_id), strict=True):
        if number >= 0:
            cell = result.count.cell(number)
            if cell.kind == "white" and cell.counted:
                yield cell, box


def _same_place(first: list[tuple[Cell, list[float]]], second: list[tuple[Cell, list[float]]]) -> list[tuple[int, int]]:
    if not first or not second:
        return []
    overlaps = iou_matrix(*(np.array([box for _, box in side], np.float32) for side in (first, second)))
    rows, columns = linear_sum_assignment(-overlaps)
    return [
        (first[row][0].cell_id, second[column][0].cell_id)
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
        if overlaps[row, column] >= LEAST_OVERLAP
    ]


def _one_to_one(votes: Counter[tuple[int, int]]) -> list[tuple[int, int]]:
    """Each cell with the one that it lay on most often."""
    pairs: list[tuple[int, int]] = []
    taken: tuple[set[int], set[int]] = set(), set()
    for (a, b), _ in sorted(votes.items(), key=lambda item: (-item[1], item[0])):
        if a not in taken[0] and b not in taken[1]:
            taken[0].add(a)
            taken[1].add(b)
            pairs.append((a, b))
    return pairs


def _name(cell: Cell, into: Mapping[str, str]) -> str:
    name = cell.subclass or cell.class_name
    return into.get(name, name)
