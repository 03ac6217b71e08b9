"""Pictures counted as `leukostream run` counts a folder, in their order, without its threads and sockets."""

from __future__ import annotations

from collections.abc import Iterable

from engines.geometry import Image
from engines.models.classifier import Classifier
from engines.models.detector import Detector
from streamer.analysis.analyser import Analyser
from streamer.analysis.magnification import Magnification
from streamer.config import VerdictConfig
from streamer.counting.decision import ClassDecision
from streamer.counting.known import known_of
from streamer.protocol.factory import MessageFactory
from streamer.records import Frame, SourceProgress
from streamer.run.session import SlideSession

SOURCE = "pictures"


def run_over(
    pictures: Iterable[Image], detector: Detector, classifier: Classifier, verdict: VerdictConfig | None = None
) -> SlideSession:
    """The session of one slide after all pictures, at the magnification that their red cells ask for; its count has
    the cells, the differential and the verdict."""
    scale = Magnification(detector)
    analyser = Analyser(detector, classifier, detector_for=scale.detector_for, rbc_px_for=scale.rbc_px_for)
    session = SlideSession(
        MessageFactory(SOURCE, session=SOURCE, run_id=SOURCE),
        ClassDecision.of(classifier),
        operating_score=detector.card.thresholds.operating,
        known=known_of(classifier.card),
        verdict=verdict,
    )
    for number, picture in enumerate(pictures):
        frame = Frame(SOURCE, number, 0, picture)
        scale.look(frame)
        [analysed] = analyser.analyse([frame])
        session.update(analysed, SourceProgress(None))
    session.finish("finished", "end of the pictures", SourceProgress(None))
    return session
