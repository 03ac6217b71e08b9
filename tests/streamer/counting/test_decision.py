from dataclasses import replace

import numpy as np
import pytest

from engines.backends.scripted import ScriptedEngine, classifier_specs
from engines.base import Attribute, Classifications
from engines.models.classifier import Classifier
from engines.zoo.figures import MeasuredOn
from streamer.analysis.named_cell import named_cell
from streamer.counting.decision import ClassDecision
from streamer.counting.fusion import Fusion, FusionConfig
from tests.cases import card

ATTRIBUTES = (Attribute("nucleus_shape", ("round", "bent", "split")), Attribute("cell_size", ("small", "big")))
NAMING = ClassDecision(
    ("neutrophil", "platelet"), 0.6, novel_above=0.99, attributes=ATTRIBUTES, attributes_of=("neutrophil",)
)


@pytest.mark.parametrize(
    ("probabilities", "novelty", "name", "reason"),
    [
        ((0.9, 0.1), 0.5, "neutrophil", None),
        ((0.9, 0.1), None, "neutrophil", None),
        ((0.9, 0.1), np.float32(0.99), "neutrophil", None),
        ((0.9, 0.1), 0.995, "unclassified", "unlike the training cells"),
        ((0.55, 0.45), 0.5, "unclassified", "low confidence"),
        ((0.55, 0.45), 0.995, "unclassified", "unlike the training cells"),
    ],
)
def test_a_class_is_given_to_what_is_likely_and_like_the_training_cells(probabilities, novelty, name, reason):
    assert NAMING.class_name(probabilities, novelty) == name
    assert NAMING.reason(probabilities, novelty) == reason
    assert NAMING.top_class(probabilities) == "neutrophil"
    blind = ClassDecision(NAMING.class_names, 0.6)
    assert blind.class_name((0.9, 0.1), 1.0) == "neutrophil"


def found(novelty=(0.1, 0.1, 0.999)):
    return Classifications(
        np.float32([[0.9, 0.1], [0.1, 0.9], [0.9, 0.1]]),
        NAMING.class_names,
        np.zeros((3, 0), np.float32),
        (),
        (),
        attribute_probabilities=np.float32([[0.2, 0.7, 0.1, 0.6, 0.4]] * 3),
        attributes=ATTRIBUTES,
        novelty=np.float32(novelty),
    )


def test_a_line_of_classify_says_how_a_cell_looks_where_its_class_was_described():
    looks = found()
    neutrophil, platelet, novel = (named_cell(looks[i : i + 1], None, NAMING) for i in range(3))
    assert {name: one.value for name, one in neutrophil.attributes.items()} == {
        "nucleus_shape": "bent",
        "cell_size": "small",
    }
    assert neutrophil.attributes["nucleus_shape"].confidence == 0.7
    assert (platelet.class_, platelet.attributes) == ("platelet", None)
    assert (novel.class_, novel.top_class, novel.attributes) == ("unclassified", "neutrophil", None)
    reasons = [line.unclassified_reason for line in (neutrophil, platelet, novel)]
    assert reasons == [None, None, "unlike the training cells"]
    assert NAMING.class_names_of(found()) == ["neutrophil", "platelet", "unclassified"]


@pytest.mark.parametrize("threshold", [0.4, 0.54, 0.59, 0.65])
@pytest.mark.parametrize("band", [0.55, 0.6, 0.9])
def test_a_look_and_a_cell_of_that_one_look_have_the_same_class_and_subclass(threshold, band):
    """`classify` and `explain` decide on a look, `run` on a cell: a subclass of p = .6 was named by those only."""
    names, subclasses = ("neutrophil", "lymphocyte"), ("band neutrophil", "segmented neutrophil")
    parents = ("neutrophil", "neutrophil")
    naming = ClassDecision(names, threshold, subclasses, parents)
    look = Classifications(
        np.float32([[0.95, 0.05]]), names, np.float32([[band, 1 - band]]), subclasses, parents, novelty=np.float32([0])
    )
    fusion = Fusion(FusionConfig(unclassified_below=threshold))
    rows = fusion.new_rows(1)
    fusion.add(rows, look, np.ones(1, np.float32))
    classes = fusion.classes(rows)
    fused = int(fusion.subclasses(rows, classes)[0])
    of_look = named_cell(look, None, naming)
    assert of_look.class_ == naming.class_names_of(look)[0] == names[classes[0]] == "neutrophil"
    assert of_look.subclass == naming.subclass("neutrophil", look.subclass_probabilities[0])
    assert of_look.subclass == (None if fused < 0 else subclasses[fused])
    assert of_look.subclass == ("band neutrophil" if band >= threshold else None)
    assert naming.subclass("lymphocyte", look.subclass_probabilities[0]) is None
    assert naming.subclass("unclassified", look.subclass_probabilities[0]) is None


def test_the_rate_of_errors_is_the_worst_that_the_card_measured():
    plain = card("classifier", ("blast", "immature granulocyte", "neutrophil"), ["white"] * 3, 0.5)
    figures = {
        MeasuredOn("home", "", "validation"): {"command": "x", "blast_false_rate": 0.001, "cells": 9},
        MeasuredOn("away", "", "validation"): {"command": "x", "blast_false_rate": 0.02},
        MeasuredOn("away", "", "holdout"): {"command": "x", "immature_granulocyte_false_rate": 0.0},
    }
    specs = classifier_specs(32, 32, 3)
    decision = ClassDecision.of(Classifier(replace(plain, figures=figures), ScriptedEngine(*specs, lambda feeds: {})))
    assert decision.error_rates == {"blast": 0.02, "immature granulocyte": 0.0}
    assert ClassDecision.of(Classifier(plain, ScriptedEngine(*specs, lambda feeds: {}))).error_rates == {}
