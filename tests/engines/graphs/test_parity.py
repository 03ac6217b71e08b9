"""What counts as the same answer, with scripted engines and exact counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from engines.backends.scripted import ScriptedEngine, candidates, classifier_specs, detector_specs
from engines.base import Attribute, EngineError
from engines.graphs.parity import LIMITS, Limits, Parity, classifier_parity, detector_parity

Row = tuple[Sequence[float], float, int]

A: Row = ([10, 10, 30, 30], 0.9, 0)
B: Row = ([50, 10, 70, 30], 0.8, 1)
FRAME = np.zeros((1, 64, 96, 3), np.uint8)


def engine(*frames: Sequence[Row]) -> ScriptedEngine:
    inputs, outputs = detector_specs(64, 96)
    return ScriptedEngine(inputs, outputs, [candidates([frame]) for frame in frames])


def compare(reference: Sequence[Row], candidate: Sequence[Row], **options: object) -> Parity:
    return detector_parity(
        engine(reference),
        engine(candidate),
        [FRAME],
        threshold=0.5,
        nms_iou=0.5,
        **options,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("candidate", "expected"),
    [
        ([A, B], (2, 1.0, 1.0, 0.0)),
        ([A], (2, 0.5, 1.0, 0.0)),
        ([A, (B[0], 0.49, 1)], (2, 0.5, 1.0, 0.0)),
        ([A, (B[0], 0.8, 0)], (2, 1.0, 0.5, 0.0)),
        ([A, ([50, 10, 71, 31], 0.8, 1)], (2, 1.0, 1.0, 0.0)),  # IoU 0.907
        ([A, ([50, 10, 72, 32], 0.8, 1)], (2, 0.5, 1.0, 0.5)),  # IoU 0.826
        ([A, B, ([80, 40, 90, 60], 0.7, 2)], (2, 1.0, 1.0, 0.5)),
        ([A, B, ([50.5, 10, 70, 30], 0.6, 1)], (2, 1.0, 1.0, 0.0)),  # suppressed
        ([], (2, 0.0, 0.0, 0.0)),
    ],
    ids=["same", "one lost", "score slips", "other class", "moved a little", "moved", "extra", "double", "nothing"],
)
def test_detector(candidate: Sequence[Row], expected: tuple[int, float, float, float]) -> None:
    got = compare([A, B], candidate)
    assert (got.compared, got.matched, got.same_class, got.extra) == expected


def test_a_box_matches_once() -> None:
    """Two reference boxes on one spot, of classes that don't suppress one another, need two boxes."""
    double: Row = (A[0], 0.7, 1)
    assert compare([A, double], [A]).matched == 0.5
    assert compare([A, double], [A, double]).matched == 1.0


def test_groups_suppress_across_classes() -> None:
    double: Row = (A[0], 0.7, 1)
    assert compare([A, double], [A], groups=[0, 0]).matched == 1.0


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(EngineError, match=r"parity: got no box above 0\.5 in 1 frames"):
        compare([], [A])


def test_classifier() -> None:
    inputs, outputs = classifier_specs(8, 8, 3)
    answers = [np.eye(3, dtype=np.float32)[[0, 1, 2, 0]], np.eye(3, dtype=np.float32)[[0, 1, 1, 0]]]
    engines = [ScriptedEngine(inputs, outputs, [{"class_probabilities": answer}]) for answer in answers]
    got = classifier_parity(*engines, [np.zeros((4, 8, 8, 3), np.uint8)])
    assert got == Parity(4, 4, None, 0.75, None)
    assert str(got) == "75.00 % of classes equal in 4 crops"
    with pytest.raises(EngineError, match="got no crops"):
        classifier_parity(*engines, [])


def test_classifiers_are_compared_in_all_that_they_say() -> None:
    inputs, outputs = classifier_specs(8, 8, 2, attribute_values=5, novelty=True)
    classes = np.float32([[0.9, 0.1], [0.2, 0.8]])
    answers = [
        {
            "class_probabilities": classes,
            "novelty": np.float32([0.5, novelty]),
            "attribute_probabilities": np.float32([[0.6, 0.4, 1, 0, 0], [0.3, 0.7, 0, *tail]]),
        }
        for novelty, tail in ((0.98, (0.6, 0.4)), (0.995, (0.4, 0.6)))
    ]
    engines = [ScriptedEngine(inputs, outputs, [answer]) for answer in answers]
    attributes = (Attribute("nucleus", ("round", "lobed")), Attribute("granules", ("nil", "small", "coarse")))
    crops = [np.zeros((2, 8, 8, 3), np.uint8)]
    got = classifier_parity(*engines, crops, novel_above=0.99, attributes=attributes)
    assert got == Parity(2, 2, None, 1.0, None, same_novelty=0.5, same_attributes=0.75)
    assert str(got) == "100.00 % of classes, 50.00 % of novelties, 75.00 % of attributes equal in 2 crops"
    assert not got.within(LIMITS["int8"])
    assert replace(got, same_novelty=1.0, same_attributes=0.96).within(LIMITS["int8"])
    assert not replace(got, same_novelty=1.0, same_attributes=0.94).within(LIMITS["int8"])
    assert not replace(got, same_novelty=0.97, same_attributes=1.0).within(LIMITS["int8"])
    # Which of two conversions is the better one is a question of all that the gate asks for.
    good, better = replace(got, same_novelty=1.0, same_attributes=0.94), replace(got, same_novelty=1.0)
    better = replace(better, same_attributes=0.96)
    assert good.margin(LIMITS["int8"]) == pytest.approx(-0.01)
    assert good.margin(LIMITS["int8"]) < better.margin(LIMITS["int8"])


def test_limits() -> None:
    assert LIMITS["fp16"] == Limits(0.99, 0.995, 0.99)
    assert LIMITS["int8"] == Limits(0.97, 0.98, 0.95)
    parity = Parity(10, 1000, 0.97, 0.98, 0.01)
    assert parity.within(LIMITS["int8"])
    assert not parity.within(LIMITS["fp16"])
    assert not Parity(10, 1000, 0.98, 0.979, 0).within(LIMITS["int8"])
    assert str(parity) == (
        "97.00 % of 1000 boxes found again at IoU >= 0.9, 98.00 % of classes equal, 1.00 % extra boxes, in 10 frames"
    )
