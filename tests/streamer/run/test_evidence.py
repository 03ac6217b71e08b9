"""`run --explain`: each `cell` message says where on the cell the evidence for its class lies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engines.backends.onnxruntime import Threads
from engines.backends.scripted import ScriptedEngine, classifier_specs
from engines.base import TensorSpec, UsageError
from engines.models.explainer import Explainer
from engines.models.own_classes import OwnClasses
from streamer.analysis.analyser import Analyser
from streamer.analysis.models import load_models
from streamer.config import Config
from streamer.counting.decision import ClassDecision
from streamer.protocol.factory import MessageFactory
from streamer.protocol.messages import CellMessage, FrameMessage
from streamer.run.pipeline import Limits, Pipeline, RunOutputs
from streamer.run.session import SlideSession
from tests.cases import FIVE, WIDTH, Collected, ScriptedSource, card, stamped, textured_slide
from tests.streamer.run.test_own_classes import CARD, CELLS, detector

EOSINOPHIL = FIVE.index("eosinophil")


def explainer(mirrored_margin: float | None = None, surer_look: int = 0) -> Explainer:
    """Calls every crop an eosinophil; the evidence lies in the upper left corner of the crop, of other classes nowhere.
    `surer_look`: of the two looks at each cell where there is a `mirrored_margin`."""

    def answer(feeds):
        n = len(feeds["images"])
        sure = np.full(n, 0.6, np.float32)
        sure[surer_look :: 1 if mirrored_margin is None else 2] = 0.9
        probabilities = np.repeat((1 - sure[:, None]) / (len(FIVE) - 1), len(FIVE), 1)
        probabilities[:, EOSINOPHIL] = sure
        maps = np.zeros((n, len(FIVE), 2, 3), np.float32)
        maps[:, EOSINOPHIL] = [[4.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
        return {"class_probabilities": probabilities, "cam": maps}

    inputs, outputs = classifier_specs(32, 32, len(FIVE))
    outputs.append(TensorSpec("cam", (None, len(FIVE), None, None), np.dtype(np.float32)))
    plain = card("classifier", FIVE, ["white"] * len(FIVE), 0.5)
    looked = replace(plain.input, crop_margin=1.5, mirrored_margin=mirrored_margin)
    return Explainer(replace(plain, input=looked), ScriptedEngine(inputs, outputs, answer))


def run(explained: Explainer, *, ask: bool = True, frames: int = 2) -> Collected:
    published = Collected()
    slide = textured_slide()

    def new_session(name: str) -> SlideSession:
        factory = MessageFactory(name, session="session", run_id="run")
        return SlideSession(factory, ClassDecision.of(explained.classifier), operating_score=0.5)

    source = ScriptedSource([stamped(slide[:, :WIDTH], i) for i in range(frames)])
    analyser = Analyser(detector(), explained.classifier, explainer=explained if ask else None)
    pipeline = Pipeline([(source, "analysis")], analyser, new_session, RunOutputs([published]), Limits(workers=1))
    pipeline.start()
    pipeline.finish()
    return published


def cells(explained: Explainer, *, ask: bool = True) -> list[CellMessage]:
    return run(explained, ask=ask).of(CellMessage)


def test_a_cell_says_where_the_evidence_for_its_class_lies() -> None:
    told = [message for message in cells(explainer()) if message.first_frame_id == message.last_frame_id == 0]
    first = next(m.evidence for m in told if m.evidence is not None and m.evidence.square_px[:2] == (30, 30))
    assert (first.class_, first.frame_id) == ("eosinophil", 0)
    assert first.square_px == (30, 30, 60)  # 1.5 times the box 40..80
    assert first.map == [[255, 64, 0], [0, 0, 0]]


@pytest.mark.parametrize(("surer", "square", "top"), [(0, (30, 30, 60), [255, 64, 0]), (1, (40, 40, 40), [0, 64, 255])])
def test_the_surer_of_two_looks_is_shown_the_mirrored_one_turned_back(surer, square, top) -> None:
    (message, *_) = cells(explainer(mirrored_margin=1.0, surer_look=surer))
    assert message.evidence is not None
    assert message.evidence.square_px == square
    assert message.evidence.map[0] == top


def test_a_red_cells_box_around_a_white_cell_does_not_hide_its_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    around = ((41.0, 41.0, 80.0, 80.0), 0.6, 3, (0.0, 0.0, 0.0, 0.6, 0.0))
    monkeypatch.setattr("tests.streamer.run.test_own_classes.CELLS", [*CELLS, around])
    published = run(explainer())
    (first, *_) = published.of(FrameMessage)
    assert [d.kind for d in first.detections if d.cell_id == first.detections[0].cell_id] == ["white", "red"]
    told = [message for message in published.of(CellMessage) if message.class_ == "eosinophil"]
    assert len(told) == 3
    assert all(message.evidence is not None for message in told)


def test_nothing_is_said_where_nobody_asked() -> None:
    told = cells(explainer(), ask=False)
    assert told
    assert all(message.evidence is None for message in told)


def test_a_frame_without_white_cells_needs_no_run() -> None:
    subject = explainer()
    looks, maps = subject.look(np.zeros((0, 1, 32, 32, 3), np.uint8))
    assert (len(looks), maps.values.shape[:3]) == (0, (0, 1, len(FIVE)))
    assert subject.classifier.engine.calls == []


def test_a_detectors_own_classes_have_no_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamer.analysis.models.load_detector", lambda *_, **__: detector())
    assert OwnClasses.of(CARD) is not None
    with pytest.raises(UsageError, match="--explain: got no classifier that looks at the cells of source 'slide'"):
        load_models(Config(detector="kinds", explain=True), ["slide"], Threads(1), lambda line: None)
