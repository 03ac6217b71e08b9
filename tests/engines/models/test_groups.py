"""The group that a detector says, and what it leaves of a classifier's classes."""

from __future__ import annotations

import numpy as np
import pytest

from engines.base import Classifications
from engines.models.groups import Groups
from engines.zoo.card import Card, ClassEntry, DetectorInput, Thresholds, parse_card
from engines.zoo.crops import CropInput

CLASSES = (
    ClassEntry("eosinophil", "white", group="polymorphonuclear"),
    ClassEntry("lymphocyte", "white", group="mononuclear"),
    ClassEntry("monocyte", "white", group="mononuclear"),
    ClassEntry("erythroblast", "nucleated red"),
)


def classifier(classes: tuple[ClassEntry, ...] = CLASSES) -> Card:
    return Card("two-levels", "classifier", CropInput(8, 8), classes, Thresholds(0.5), "none.onnx")


def detector(*labels: str) -> Card:
    classes = tuple(ClassEntry(label, "white") for label in labels)
    return Card("first", "detector", DetectorInput(), classes, Thresholds(), "none.onnx")


def looks(*rows: tuple[float, ...], classes: tuple[ClassEntry, ...] = CLASSES) -> Classifications:
    names = tuple(entry.name for entry in classes)
    probabilities = np.array(rows, np.float32).reshape(-1, len(names))
    return Classifications(probabilities, names, np.zeros((len(rows), 0), np.float32), (), ())


def test_the_label_leaves_its_group_and_what_is_in_no_group() -> None:
    groups = Groups.of(classifier(), detector("mononuclear", "polymorphonuclear", "WBC"))
    assert groups is not None
    same = (0.4, 0.3, 0.1, 0.2)
    found = groups.narrowed(looks(same, same, same), np.array([0, 1, 2])).probabilities
    assert found.dtype == np.float32
    expected = [[0, 0.5, 1 / 6, 1 / 3], [2 / 3, 0, 0, 1 / 3], same]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_leaving_the_others_out_is_asking_the_groups_own_network() -> None:
    within = np.array([0.9, 0.1])
    for gate in (0.999, 0.001):
        row = (1 - gate, *(gate * within), 0.0)
        groups = Groups(classifier(), detector("mononuclear"))
        found = groups.narrowed(looks(row), np.array([0])).probabilities
        np.testing.assert_allclose(found, [[0, 0.9, 0.1, 0]], atol=1e-5)


def test_nothing_said_of_a_group_is_no_class_of_it() -> None:
    grouped = CLASSES[:3]
    nothing = looks((1, 0, 0), classes=grouped)
    found = Groups(classifier(grouped), detector("mononuclear")).narrowed(nothing, np.array([0]))
    assert found.probabilities.tolist() == [[0, 0.5, 0.5]]


def test_no_cell_is_an_empty_answer() -> None:
    groups = Groups(classifier(), detector("mononuclear"))
    assert groups.narrowed(looks(), np.zeros(0, np.intp)).probabilities.shape == (0, 4)


@pytest.mark.parametrize("labels", [("WBC", "RBC"), ("lymphocyte",)])
def test_a_detector_of_other_labels_leaves_everything(labels: tuple[str, ...]) -> None:
    assert Groups.of(classifier(), detector(*labels)) is None


def test_a_classifier_without_groups_leaves_everything() -> None:
    plain = tuple(ClassEntry(entry.name, entry.kind) for entry in CLASSES)
    assert Groups.of(classifier(plain), detector("mononuclear")) is None


def test_the_card_says_the_group_of_a_class() -> None:
    text = """
    task = "classifier"
    [input]
    height_px = 8
    width_px = 8
    [[classes]]
    name = "monocyte"
    kind = "white"
    group = "mononuclear"
    [[classes]]
    name = "artefact"
    kind = "other"
    """
    card = parse_card(text, "card", stem="two-levels")
    assert [entry.group for entry in card.classes] == ["mononuclear", None]
