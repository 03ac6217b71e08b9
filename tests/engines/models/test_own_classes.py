"""A detector whose classes are kinds of leukocyte: its labels as the classes of the differential."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engines.base import CardError, Detections
from engines.models.own_classes import OwnClasses
from engines.zoo.card import Card, ClassEntry, DetectorInput, Thresholds, parse_card

CLASSES = (
    ClassEntry("monocyte", "white"),
    ClassEntry("band neutrophil", "white", "neutrophil"),
    ClassEntry("red blood cell", "red"),
    ClassEntry("segmented neutrophil", "white", "neutrophil"),
    ClassEntry("erythroblast", "nucleated red"),
)
CARD = Card("kinds", "detector", DetectorInput(), CLASSES, Thresholds(0.3, naming=0.6), "kinds.onnx")


def found(class_scores: np.ndarray | None) -> Detections:
    n = 3
    return Detections(
        boxes_px=np.zeros((n, 4), np.float32),
        scores=np.ones(n, np.float32),
        labels=np.array([1, 2, 0]),
        label_names=CARD.class_names,
        kinds=CARD.kinds,
        truncated=False,
        class_scores=class_scores,
    )


def test_shares_of_subclasses_add_up_to_their_class() -> None:
    own = OwnClasses.of(CARD)
    assert own is not None
    assert own.card.class_names == ("erythroblast", "monocyte", "neutrophil")
    assert own.card.kinds == ("nucleated red", "white", "white")
    assert own.card.thresholds.operating == 0.6
    scores = np.array([[0.1, 0.6, 0.9, 0.3, 0], [0, 0, 1, 0, 0], [0.8, 0, 0.5, 0.2, 0.6]], np.float32)
    looks = own.looks(found(scores), np.array([0, 2]))
    assert looks.class_names == ("erythroblast", "monocyte", "neutrophil")
    assert looks.subclass_names == ("band neutrophil", "segmented neutrophil")
    assert looks.subclass_parents == ("neutrophil", "neutrophil")
    np.testing.assert_allclose(looks.probabilities, [[0, 0.1, 0.9], [0.375, 0.5, 0.125]], atol=1e-5)
    np.testing.assert_allclose(looks.subclass_probabilities, [[2 / 3, 1 / 3], [0, 1]], atol=1e-5)


def test_scores_of_zero_say_nothing_but_are_a_distribution() -> None:
    own = OwnClasses(CARD, 0.5)
    looks = own.looks(found(np.zeros((3, 5), np.float32)), np.arange(3))
    np.testing.assert_allclose(looks.probabilities.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(looks.subclass_probabilities.sum(1), 1, atol=1e-6)


def test_no_white_cell_is_an_empty_answer() -> None:
    looks = OwnClasses(CARD, 0.5).looks(found(np.zeros((3, 5), np.float32)), np.zeros(0, np.intp))
    assert looks.probabilities.shape == (0, 3)


def test_a_card_without_naming_has_no_own_classes() -> None:
    assert OwnClasses.of(replace(CARD, thresholds=Thresholds(0.3))) is None


def test_what_is_missing_is_said() -> None:
    with pytest.raises(CardError, match="got no output 'class_scores'"):
        OwnClasses(CARD, 0.5).looks(found(None), np.array([0]))
    with pytest.raises(CardError, match="got no detector with white classes"):
        OwnClasses(replace(CARD, classes=CLASSES[2:3]), 0.5)


def test_the_card_says_parents_and_naming() -> None:
    text = """
        task = "detector"
        [thresholds]
        naming = 0.4
        [[classes]]
        name = "band neutrophil"
        kind = "white"
        parent = "neutrophil"
    """
    card = parse_card(text, "x.toml", stem="x")
    assert card.thresholds.naming == 0.4
    assert card.classes[0].parent == "neutrophil"
