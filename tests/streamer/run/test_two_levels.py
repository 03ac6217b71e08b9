"""The group that the detector says chooses the class in the stream; elsewhere the classifier's own gate does."""

from __future__ import annotations

import numpy as np

from engines.backends.scripted import ScriptedEngine, candidates, classifier_specs, detector_specs
from engines.models.classifier import Classifier
from engines.models.detector import Detector, Engines
from engines.zoo.card import Card, ClassEntry, DetectorInput, Thresholds
from engines.zoo.crops import CropInput
from streamer.analysis.analyser import Analyser
from streamer.counting.decision import ClassDecision
from streamer.protocol.factory import MessageFactory
from streamer.protocol.messages import CellMessage, FrameMessage
from streamer.run.pipeline import Limits, Pipeline, RunOutputs
from streamer.run.session import SlideSession
from tests.cases import WIDTH, Collected, ScriptedSource, stamped, textured_slide

GROUPS = ("mononuclear", "polymorphonuclear")
CLASSES = (
    ClassEntry("eosinophil", "white", group="polymorphonuclear"),
    ClassEntry("lymphocyte", "white", group="mononuclear"),
    ClassEntry("monocyte", "white", group="mononuclear"),
    ClassEntry("neutrophil", "white", group="polymorphonuclear"),
)
CELLS = [((40.0, 40.0, 80.0, 80.0), 0.9, 0), ((140.0, 40.0, 180.0, 80.0), 0.8, 1)]
SAID = (0.0002, 0.9, 0.099, 0.0008)
"""Of every crop: the gate says mononuclear, and of the other group neutrophil is likelier."""


def detector(labels: tuple[str, ...]) -> Detector:
    classes = tuple(ClassEntry(label, "white") for label in labels)
    card = Card("first", "detector", DetectorInput(long_side_px=WIDTH), classes, Thresholds(0.5, 0.5), "none.onnx")

    def answer(feeds):
        return candidates([CELLS for _ in feeds["images"]])

    return Detector(card, Engines(lambda height, width: ScriptedEngine(*detector_specs(height, width), answer)))


def second_level() -> Classifier:
    card = Card("second", "classifier", CropInput(16, 16), CLASSES, Thresholds(0.5), "none.onnx")

    def answer(feeds):
        return {"class_probabilities": np.tile(np.array(SAID, np.float32), (len(feeds["images"]), 1))}

    return Classifier(card, ScriptedEngine(*classifier_specs(16, 16, len(CLASSES)), answer))


def run(labels: tuple[str, ...]) -> Collected:
    published = Collected()
    slide = textured_slide()
    classifier = second_level()

    def new_session(name: str) -> SlideSession:
        factory = MessageFactory(name, session="session", run_id="run")
        return SlideSession(factory, ClassDecision.of(classifier), operating_score=0.5)

    source = ScriptedSource([stamped(slide[:, :WIDTH], i) for i in range(2)])
    pipeline = Pipeline(
        [(source, "analysis")],
        Analyser(detector(labels), classifier),
        new_session,
        RunOutputs([published]),
        Limits(workers=1),
    )
    pipeline.start()
    pipeline.finish()
    return published


def test_the_detectors_group_goes_over_the_gates() -> None:
    published = run(GROUPS)
    first = published.of(FrameMessage)[0].detections
    assert [(d.label, d.look_class) for d in first] == [
        ("mononuclear", "lymphocyte"),
        ("polymorphonuclear", "neutrophil"),
    ]
    np.testing.assert_allclose(first[1].look_probabilities["neutrophil"], 0.8, atol=1e-4)
    assert first[1].look_probabilities["lymphocyte"] == 0
    assert {m.class_ for m in published.of(CellMessage)} == {"lymphocyte", "neutrophil"}


def test_behind_another_detector_the_gate_says_the_group() -> None:
    published = run(("WBC", "other white"))
    first = published.of(FrameMessage)[0].detections
    assert [(d.label, d.look_class) for d in first] == [("WBC", "lymphocyte"), ("other white", "lymphocyte")]
    np.testing.assert_allclose(first[1].look_probabilities["neutrophil"], SAID[3], atol=1e-6)
