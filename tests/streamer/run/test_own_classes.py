"""A detector whose classes are kinds of leukocyte in the stream: what then is the class of a white cell."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from msgspec import UNSET

from engines.backends.onnxruntime import Threads
from engines.backends.scripted import ScriptedEngine, candidates, detector_specs
from engines.graphs.graph import add_uint8_input, add_yolov5_head
from engines.models.classifier import Classifier
from engines.models.detector import Detector, Engines
from engines.models.own_classes import OwnClasses
from engines.zoo.card import Card, ClassEntry, DetectorInput, Thresholds
from streamer.analysis.analyser import Analyser
from streamer.analysis.models import load_models
from streamer.config import DEFAULT_CLASSIFIER, Config
from streamer.counting.decision import ClassDecision
from streamer.journal import rules_of
from streamer.protocol.factory import MessageFactory
from streamer.protocol.messages import CellMessage, DifferentialMessage, FrameMessage
from streamer.run.pipeline import Limits, Pipeline, RunOutputs
from streamer.run.session import SlideSession
from tests.cases import WIDTH, Collected, ScriptedSource, always, stamped, textured_slide
from tests.engines.networks import ANCHORS
from tests.engines.small_detector import raw_body

CLASSES = (
    ClassEntry("band neutrophil", "white", "neutrophil"),
    ClassEntry("erythroblast", "nucleated red"),
    ClassEntry("lymphocyte", "white"),
    ClassEntry("red blood cell", "red"),
    ClassEntry("segmented neutrophil", "white", "neutrophil"),
)
CARD = Card(
    "kinds",
    "detector",
    DetectorInput(long_side_px=WIDTH),
    CLASSES,
    Thresholds(0.5, 0.5, "kind", naming=0.5),
    "none.onnx",
)
CELLS = [
    ((40.0, 40.0, 80.0, 80.0), 0.9, 4, (0.30, 0.0, 0.05, 0.9, 0.60)),
    ((140.0, 40.0, 180.0, 80.0), 0.85, 0, (0.45, 0.0, 0.44, 0.0, 0.40)),
    ((140.0, 140.0, 180.0, 180.0), 0.8, 2, (0.10, 0.2, 0.70, 0.0, 0.10)),
    ((220.0, 140.0, 250.0, 170.0), 0.7, 1, (0.0, 0.9, 0.0, 0.0, 0.0)),
]


def detector() -> Detector:
    def answer(feeds):
        rows = [(box, score, label) for box, score, label, _ in CELLS]
        every = np.zeros((len(feeds["images"]), 100, len(CLASSES)), np.float32)
        every[:, : len(CELLS)] = [scores for *_, scores in CELLS]
        return {**candidates([rows for _ in feeds["images"]]), "class_scores": every}

    return Detector(CARD, Engines(lambda height, width: ScriptedEngine(*detector_specs(height, width), answer)))


def run(classifier) -> Collected:
    published = Collected()
    slide = textured_slide()

    def new_session(name: str) -> SlideSession:
        factory = MessageFactory(name, session="session", run_id="run")
        return SlideSession(factory, ClassDecision.of(classifier) if classifier else None, operating_score=0.5)

    source = ScriptedSource([stamped(slide[:, :WIDTH], i) for i in range(2)])
    analyser = Analyser(detector(), classifier)
    pipeline = Pipeline([(source, "analysis")], analyser, new_session, RunOutputs([published]), Limits(workers=1))
    pipeline.start()
    pipeline.finish()
    return published


def test_the_detectors_own_class_is_the_class_of_the_cell():
    published = run(OwnClasses.of(CARD))
    first = published.of(FrameMessage)[0].detections
    assert [(d.label, d.kind, d.look_class) for d in first] == [
        ("segmented neutrophil", "white", "neutrophil"),
        ("band neutrophil", "white", "neutrophil"),
        ("lymphocyte", "white", "lymphocyte"),
        ("erythroblast", "nucleated red", UNSET),
    ]
    assert first[0].look_probabilities == pytest.approx({"erythroblast": 0, "lymphocyte": 0.0526, "neutrophil": 0.9474})
    cells = {(m.class_, m.subclass) for m in published.of(CellMessage)}
    assert {("neutrophil", "segmented neutrophil"), ("neutrophil", "band neutrophil"), ("lymphocyte", None)} <= cells
    final = published.of(DifferentialMessage)[-1]
    counts = {name: share.count for name, share in final.classes.items()}
    assert counts == {"lymphocyte": 1, "neutrophil": 2}
    assert (final.total, final.nrbc, final.unclassified) == (3, 1, 0)
    assert "erythroblast" not in final.not_assessed


def test_a_classifier_has_the_word_where_one_is_given():
    published = run(always(2))
    assert published.of(FrameMessage)[0].detections[0].label == "segmented neutrophil"
    final = published.of(DifferentialMessage)[-1]
    assert (final.total, final.nrbc, final.classes["monocyte"].count) == (3, 1, 3)


def test_the_journal_knows_who_named_the_cells():
    rules = rules_of(detector(), OwnClasses.of(CARD))
    assert rules.classifier is not None
    assert rules.classifier.name == "kinds"
    assert rules.class_names == ("erythroblast", "lymphocyte", "neutrophil")
    assert rules.class_threshold == 0.5


CARD_TEXT = """
task = "detector"
[thresholds]
operating = 0.3
{naming}
[[classes]]
name = "band neutrophil"
kind = "white"
parent = "neutrophil"
[[classes]]
name = "lymphocyte"
kind = "white"
[[classes]]
name = "red blood cell"
kind = "red"
"""


@pytest.mark.parametrize(
    ("naming", "classifier", "expected"),
    [
        ("naming = 0.5", "auto", OwnClasses),
        ("naming = 0.5", "none", OwnClasses),
        ("naming = 0.5", DEFAULT_CLASSIFIER, Classifier),
        ("", "auto", Classifier),
        ("", "none", type(None)),
    ],
)
def test_who_names_the_cells(tmp_path, naming, classifier, expected):
    model = add_yolov5_head(add_uint8_input(raw_body()), anchors_px=ANCHORS, class_scores=True)
    onnx.save(model, tmp_path / "kinds.onnx")
    (tmp_path / "kinds.toml").write_text(CARD_TEXT.format(naming=naming))
    config = Config(detector=str(tmp_path / "kinds.onnx"), classifier=classifier, backend="onnxruntime")
    loaded = load_models(config, ["slide"], Threads(1), lambda line: None)["slide"]
    assert loaded.detector.card.class_names == ("band neutrophil", "lymphocyte", "red blood cell")
    assert type(loaded.classifier) is expected
    assert set(loaded.shadows) == ({"detector", "classifier"} if expected is Classifier else {"detector"})
    assert loaded.health().classifier == {OwnClasses: "kinds", Classifier: DEFAULT_CLASSIFIER}.get(expected)
