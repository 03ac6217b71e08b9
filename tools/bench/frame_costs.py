"""What the work of a frame costs by itself, for tools/bench/pipeline.py: a plain loop, its steps, and what a run does
besides, each measured on one thread with nothing beside it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from engines.models.classifier import Classifier
from engines.models.detector import Detector
from streamer.analysis.analyser import Analysed, Analyser
from streamer.counting.decision import ClassDecision
from streamer.network.publisher import Publisher
from streamer.protocol.factory import MessageFactory, new_id
from streamer.records import Frame
from streamer.run.session import SlideSession
from tools.data.crops import read_image

T = TypeVar("T")


def plain_loop(paths: Sequence[Path], models: tuple[Detector, Classifier]) -> float:
    """Frames a second of imread, letterbox, detector, NMS, classifier, one after the other."""
    detector, classifier = models
    white = np.array([kind == "white" for kind in detector.card.kinds])
    started = time.perf_counter()
    for path in paths:
        image = read_image(path)
        found = detector.detect([image])[0]
        classifier.classify(image, found.boxes_px[white[found.labels]])
    return len(paths) / (time.perf_counter() - started)


def steps_alone(paths: Sequence[Path], models: tuple[Detector, Classifier]) -> dict[str, float]:
    """Median milliseconds of each step a frame, on one thread, with nothing beside it."""
    detector, classifier = models
    white = np.array([kind == "white" for kind in detector.card.kinds])
    times: dict[str, list[float]] = {"decode": [], "resize": [], "detector": [], "nms": [], "classifier": []}
    for path in paths:
        decode_ms, image = timed(partial(read_image, path))
        found, timings = detector.detect_timed([image])
        boxes = found[0].boxes_px[white[found[0].labels]]
        classify_ms, _ = timed(partial(classifier.classify, image, boxes))
        for name, ms in (
            ("decode", decode_ms),
            ("resize", timings.letterbox_ms),
            ("detector", timings.infer_ms),
            ("nms", timings.nms_ms),
            ("classifier", classify_ms),
        ):
            times[name].append(ms)
    return {name: trimmed_mean(values) for name, values in times.items()}


def rest_alone(paths: Sequence[Path], models: tuple[Detector, Classifier]) -> dict[str, float]:
    """The same for what the plain loop does not do: the measures of each frame by itself; then its place on the slide,
    its cells and its messages, published to nobody."""
    detector, classifier = models
    analyser = Analyser(detector, classifier)
    factory = MessageFactory("rest", session=new_id(), run_id=new_id())
    session = SlideSession(factory, ClassDecision.of(classifier), operating_score=detector.card.thresholds.operating)
    measures: list[float] = []
    ordered: list[float] = []
    with Publisher("tcp://127.0.0.1:*") as publisher:
        for number, path in enumerate(paths):
            analysed = analyser.analyse([Frame("rest", number, time.monotonic_ns(), read_image(path))])[0]
            measures.append(analysed.timings_ms["prepare"])
            ordered.append(timed(partial(_published, publisher, session, analysed))[0])
    return {"frame's measures": trimmed_mean(measures), "place, cells, messages": trimmed_mean(ordered)}


def _published(publisher: Publisher, session: SlideSession, analysed: Analysed) -> None:
    for message in session.update(analysed):
        publisher.publish(*message)


def trimmed_mean(values: Sequence[float]) -> float:
    """The mean with the slowest twentieth cut down: means of the middle would hide that frames differ, and the mean is
    what throughput is made of."""
    return float(np.mean(np.clip(values, 0, np.percentile(values, 95))))


def timed(work: Callable[[], T]) -> tuple[float, T]:
    started = time.perf_counter()
    result = work()
    return (time.perf_counter() - started) * 1000, result
