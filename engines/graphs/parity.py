"""Does a model in another precision, or on another backend, say the same as the fp32 one does? Measured on frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engines.base import Array, Attribute, Engine, EngineError, attribute_columns
from engines.geometry import Boxes, iou_matrix, nms
from engines.graphs.graph import ATTRIBUTE_PROBABILITIES, BOXES, CLASS_PROBABILITIES, CLASSES, INPUT, NOVELTY, SCORES

MATCH_IOU = 0.9


class ParityError(EngineError):
    """A converted model differs from the original by more than its precision allows."""


@dataclass(frozen=True, slots=True)
class Limits:
    matched: float
    """Least share of the reference's boxes that are found again at IoU >= 0.9."""
    same_class: float
    """Least share of the matched boxes, or of all crops, with the same class; and of crops on the same side of the
    novelty's threshold."""
    same_attributes: float = 1.0
    """Least share of the attributes of all crops with the same value."""


LIMITS: Mapping[str, Limits] = {
    "fp32": Limits(1.0, 1.0),
    "fp16": Limits(0.99, 0.995, 0.99),
    "int8": Limits(0.97, 0.98, 0.95),
}


@dataclass(frozen=True, slots=True)
class Parity:
    """How far two models agree."""

    pictures: int
    compared: int
    """Boxes of the reference above the operating threshold, or crops."""
    matched: float | None
    """Share of them found again at IoU >= 0.9; None for classifiers."""
    same_class: float
    extra: float | None
    """Boxes of the other model that match none of the reference, per box of the reference; None for classifiers."""
    same_novelty: float | None = None
    """Share of crops that both, or neither, call unlike the training cells; None for models that don't say."""
    same_attributes: float | None = None
    """Share of the attributes of all crops with the same likeliest value; None for models without."""

    def within(self, limits: Limits) -> bool:
        return self.margin(limits) >= 0

    def margin(self, limits: Limits) -> float:
        """How far the worst of what was measured is above its limit; below 0 where it is beneath."""
        measured = (
            (self.matched, limits.matched),
            (self.same_class, limits.same_class),
            (self.same_novelty, limits.same_class),
            (self.same_attributes, limits.same_attributes),
        )
        return min(share - least for share, least in measured if share is not None)

    def __str__(self) -> str:
        same = f"{100 * self.same_class:.2f} % of classes"
        if self.same_novelty is not None:
            same += f", {100 * self.same_novelty:.2f} % of novelties"
        if self.same_attributes is not None:
            same += f", {100 * self.same_attributes:.2f} % of attributes"
        same += " equal"
        if self.matched is None or self.extra is None:
            return f"{same} in {self.compared} crops"
        return (
            f"{100 * self.matched:.2f} % of {self.compared} boxes found again at IoU >= {MATCH_IOU}, {same}, "
            f"{100 * self.extra:.2f} % extra boxes, in {self.pictures} frames"
        )


def detector_parity(
    reference: Engine,
    candidate: Engine,
    batches: Iterable[Array],
    *,
    threshold: float,
    nms_iou: float,
    groups: Sequence[int] | None = None,
) -> Parity:
    """Compare two engines with the compact head on uint8 (N,H,W,3) batches of letterboxed frames.

    Boxes count from `threshold` on in both, so that a score that slips below it is a box lost. `groups` says for each
    class which other classes its boxes suppress (default: each its own). EngineError where the reference finds nothing.
    """
    pictures = compared = matched = same = extra = 0
    for batch in batches:
        expected, got = reference.infer({INPUT: batch}), candidate.infer({INPUT: batch})
        pictures += len(batch)
        for n in range(len(batch)):
            boxes, labels = _kept(expected, n, threshold, nms_iou, groups)
            others, other_labels = _kept(got, n, threshold, nms_iou, groups)
            pairs = _pairs(boxes, others)
            compared += len(boxes)
            matched += len(pairs)
            same += sum(int(labels[i] == other_labels[j]) for i, j in pairs)
            extra += len(others) - len(pairs)
    if not compared:
        raise EngineError(
            f"parity: got no box above {threshold} in {pictures} frames, expected some cells to compare; "
            "give frames with cells at the magnification of the model"
        )
    return Parity(pictures, compared, matched / compared, same / matched if matched else 0.0, extra / compared)


def classifier_parity(
    reference: Engine,
    candidate: Engine,
    batches: Iterable[Array],
    *,
    novel_above: float | None = None,
    attributes: Sequence[Attribute] = (),
) -> Parity:
    """Compare what two classifiers say of uint8 (N,H,W,3) batches of crops: the likeliest class, whether a crop is
    unlike the training cells (`novel_above`: the card's threshold) and the likeliest value of each of `attributes`."""
    columns = attribute_columns(attributes)
    compared = same = novelties = values = 0
    for batch in batches:
        expected, got = reference.infer({INPUT: batch}), candidate.infer({INPUT: batch})
        compared += len(batch)
        same += _equal(expected[CLASS_PROBABILITIES], got[CLASS_PROBABILITIES])
        if novel_above is not None:
            novelties += int(((expected[NOVELTY] > novel_above) == (got[NOVELTY] > novel_above)).sum())
        for own in columns:
            values += _equal(expected[ATTRIBUTE_PROBABILITIES][:, own], got[ATTRIBUTE_PROBABILITIES][:, own])
    if not compared:
        raise EngineError("parity: got no crops, expected pictures of cells; give a folder of them")
    return Parity(
        compared,
        compared,
        None,
        same / compared,
        None,
        None if novel_above is None else novelties / compared,
        values / (compared * len(columns)) if columns else None,
    )


def _equal(expected: Array, got: Array) -> int:
    """Rows with the same largest column."""
    return int((expected.argmax(1) == got.argmax(1)).sum())


def _kept(
    outputs: Mapping[str, Array], n: int, threshold: float, nms_iou: float, groups: Sequence[int] | None
) -> tuple[Boxes, npt.NDArray[np.intp]]:
    count = int((outputs[SCORES][n] >= threshold).sum())
    boxes, scores = outputs[BOXES][n][:count], outputs[SCORES][n][:count]
    labels = outputs[CLASSES][n][:count].astype(np.intp)
    kept = nms(boxes, scores, labels if groups is None else np.asarray(groups)[labels], nms_iou)
    return boxes[kept], labels[kept]


def _pairs(boxes: Boxes, others: Boxes) -> list[tuple[int, int]]:
    """One-to-one matches at MATCH_IOU, best first."""
    if not len(boxes) or not len(others):
        return []
    overlap = iou_matrix(boxes, others)
    pairs: list[tuple[int, int]] = []
    taken_i: set[int] = set()
    taken_j: set[int] = set()
    for flat in np.argsort(-overlap, axis=None, kind="stable"):
        i, j = divmod(int(flat), len(others))
        if overlap[i, j] < MATCH_IOU:
            break
        if i not in taken_i and j not in taken_j:
            taken_i.add(i)
            taken_j.add(j)
            pairs.append((i, j))
    return pairs
