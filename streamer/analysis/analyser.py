"""What can be said of a frame by itself: its cells, what the white ones look like, how good the picture is.

Nothing here remembers a frame, so that several workers analyse frames side by side; what depends on the order of
frames (place on the slide, cells, counts) is in `session.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from engines.geometry import Image, halved
from engines.models.classifier import Classifier
from engines.models.detector import Detector
from engines.models.explainer import CellMaps, Explainer
from engines.models.groups import Groups
from engines.models.own_classes import OwnClasses
from streamer.analysis.colours import field_colours
from streamer.analysis.quality import STAGE_MOVING, assess
from streamer.records import Classifications, Detections, FieldColours, Frame, FrameQuality
from streamer.stage.preparation import PreparedFrame, RegistrationConfig, prepare


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredFrame:
    """A frame, and what is known of it before a model sees it."""

    frame: Frame
    half: Image
    """At half its size."""
    prepared: PreparedFrame
    quality: FrameQuality
    timings_ms: dict[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class Analysed:
    """One frame and what was seen in it."""

    frame: Frame
    detections: Detections
    classifications: Classifications | None
    """One row a white detection, in their order; None where nothing says what the white cells are."""
    prepared: PreparedFrame
    quality: FrameQuality
    timings_ms: dict[str, float]
    colours: FieldColours | None = None
    """None: nobody measured them."""
    maps: CellMaps | None = None
    """Where the evidence for each class lies on the white cells, in their order; None where nobody asked."""


class Analyser:
    """The detector, the classifier and the frame's own measures. May be called from several threads at once."""

    def __init__(
        self,
        detector: Detector,
        classifier: Classifier | OwnClasses | None,
        *,
        detector_for: Callable[[Frame], Detector] | None = None,
        rbc_px_for: Callable[[Frame], float | None] = lambda frame: None,
        explainer: Explainer | None = None,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """`classifier`: what says the class of a white cell, a network that looks at its crop or the detector's own
        classes; None: nothing does. `detector_for` gives the detector at the scale of a frame; None: `detector` is for
        all. `rbc_px_for` gives the usual diameter of a frame's red cells, None where it is not known. `explainer`: the
        one that `classifier` is of, where maps of the evidence are asked for. `now_ns`: the clock by which frames were
        captured."""
        self._now_ns = now_ns
        self._detector_for = detector_for or (lambda frame: detector)
        self._rbc_px_for = rbc_px_for
        self.detector = detector
        self.classifier = classifier
        self._explainer = explainer
        self._registration = RegistrationConfig()
        self._groups = Groups.of(classifier.card, detector.card) if isinstance(classifier, Classifier) else None

    def group(self, frame: Frame) -> Hashable:
        """The same for frames that one run of the detector takes together: those of one input size."""
        return id(self), self._detector_for(frame).input_size(frame.width, frame.height)

    def analyse(self, frames: Sequence[Frame]) -> list[Analysed]:
        """One result a frame, in their order."""
        return self.look([self.measure(frame) for frame in frames])

    def measure(self, frame: Frame) -> MeasuredFrame:
        """What registration and the quality gate need. `timings_ms`: `queue` since the grab, `prepare` for this."""
        begun_ns, started = self._now_ns(), time.perf_counter()
        half = halved(frame.image, 1)
        prepared, quality = self._measured(frame, half)
        prepare_ms = (time.perf_counter() - started) * 1000
        timings = {"queue": (begun_ns - frame.captured_ns) / 1e6, "prepare": prepare_ms}
        return MeasuredFrame(frame, half, prepared, quality, timings)

    def look(self, measured: Sequence[MeasuredFrame]) -> list[Analysed]:
        """One result a frame, in their order.

        `timings_ms`: `detect` and `classify`, each frame's part of its batch; `prepare` has the colours for the verdict
        besides.
        """
        clock = time.perf_counter
        frames, halves = [one.frame for one in measured], [one.half for one in measured]
        started = clock()
        detections = self._detect(frames, halves)
        detected = clock()
        white = [one.white_rows for one in detections]
        looks = self._classify(frames, detections, white)
        classified = clock()
        detect_ms = (detected - started) * 1000 / len(frames)
        classify_ms = (classified - detected) * 1000 / len(frames)
        results = []
        for one, of_frame, (look, maps) in zip(measured, detections, looks, strict=True):
            begin = clock()
            colours = field_colours(one.half, of_frame, self.detector.card.thresholds.operating)
            timings = one.timings_ms | {"detect": detect_ms, "classify": classify_ms}
            timings["prepare"] += (clock() - begin) * 1000
            results.append(Analysed(one.frame, of_frame, look, one.prepared, one.quality, timings, colours, maps))
        return results

    def _detect(self, frames: Sequence[Frame], halves: Sequence[Image]) -> list[Detections]:
        chosen = [self._detector_for(frame) for frame in frames]
        if all(detector is chosen[0] for detector in chosen):
            return chosen[0].detect([frame.image for frame in frames], halves)
        return [
            detector.detect([frame.image], [half])[0]
            for detector, frame, half in zip(chosen, frames, halves, strict=True)
        ]

    def _measured(self, frame: Frame, half: Image) -> tuple[PreparedFrame, FrameQuality]:
        """What the stage and the gate need to know of a frame."""
        quality = assess(frame.image, half=half)
        if frame.moving:
            quality = replace(quality, accepted=False, reasons=(STAGE_MOVING, *quality.reasons))
        return prepare(frame.image, self._registration, half), quality

    def _classify(
        self, frames: Sequence[Frame], detections: Sequence[Detections], white: Sequence[npt.NDArray[np.intp]]
    ) -> list[tuple[Classifications | None, CellMaps | None]]:
        """The white cells of all frames in one batch, given back frame by frame."""
        if self.classifier is None:
            return [(None, None)] * len(frames)
        if isinstance(self.classifier, OwnClasses):
            return [(self.classifier.looks(one, chosen), None) for one, chosen in zip(detections, white, strict=True)]
        widths = [self._rbc_px_for(frame) for frame in frames]
        crops = [
            self.classifier.crop(frame.image, one.boxes_px[chosen], rbc_px)
            for frame, one, chosen, rbc_px in zip(frames, detections, white, widths, strict=True)
        ]
        joined = crops[0] if len(crops) == 1 else np.concatenate(crops)
        looked = self._explainer.look(joined) if self._explainer else (self.classifier.classify_batch(joined), None)
        together, maps = looked
        if self._groups is not None:
            labels = [one.labels[chosen] for one, chosen in zip(detections, white, strict=True)]
            together = self._groups.narrowed(together, np.concatenate(labels))
        ends = np.cumsum([len(chosen) for chosen in white]).tolist()
        parts = [slice(end - len(chosen), end) for end, chosen in zip(ends, white, strict=True)]
        return [
            (together[part], maps.in_frame(part, rbc_px) if maps else None)
            for part, rbc_px in zip(parts, widths, strict=True)
        ]
