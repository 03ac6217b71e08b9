"""What can be said of a frame by itself: its cells, what the white ones look like, how good the picture is.

Nothing here remembers a frame, so that several workers analyse frames side by side; what depends on the order of
frames (place on the slide, cells, counts) is in `session.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engines.geometry import Boxes, Image, areas, halved
from engines.models.classifier import Classifier
from engines.models.detector import Detector
from engines.models.explainer import CellMaps, Explainer
from engines.models.groups import Groups
from engines.models.own_classes import OwnClasses
from streamer.analysis.colours import field_colours
from streamer.analysis.measured import MeasuredFrame, measured_image
from streamer.looking.plan import WHOLE, Plan
from streamer.records import CellLooks, Classifications, Detections, FieldColours, Frame, FrameQuality
from streamer.stage.preparation import PreparedFrame


@dataclass(frozen=True, slots=True, eq=False)
class Analysed:
    """One frame and what was seen in it."""

    frame: Frame
    detections: Detections
    classifications: Classifications | None
    """One row a white detection, in their order; None where nothing says what the white cells are."""
    prepared: PreparedFrame | None
    """None: whoever places it has it."""
    quality: FrameQuality
    timings_ms: dict[str, float]
    colours: FieldColours | None = None
    """None: nobody measured them."""
    maps: CellMaps | None = None
    """Where the evidence for each class lies on the white cells, in their order; None where nobody asked."""
    cell_looks: CellLooks | None = None
    """At known cells of a frame that the detector did not see; None: at none."""
    audit: Detections | None = None
    """What the detector saw as a proof, which is not counted; None: nothing."""
    plan: Plan = WHOLE
    """What was to be looked at."""

    @property
    def looked(self) -> bool:
        """Whether the detector saw it; where not, there are no detections, and that says nothing."""
        return self.plan.whole

    @property
    def looked_share(self) -> float:
        """Of the frame's pixels, those that a model saw."""
        if self.looked or self.audit is not None or self.cell_looks is None:
            return float(self.looked or self.audit is not None)
        seen = float(areas(self.cell_looks.boxes_px).sum())
        return min(1.0, seen / (self.frame.width * self.frame.height))


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
        self._groups = Groups.of(classifier.card, detector.card) if isinstance(classifier, Classifier) else None
        self._no_looks: Classifications | None = None
        """At no cell; None: not needed yet."""

    def group(self, frame: Frame, looked: bool = True) -> Hashable:
        """The same for frames that one run of the detector takes together: those of one input size, and those that are
        not looked at."""
        return id(self), self._detector_for(frame).input_size(frame.width, frame.height) if looked else None

    def analyse(self, frames: Sequence[Frame]) -> list[Analysed]:
        """One result a frame, in their order."""
        return self.look([self.measure(frame) for frame in frames])

    def measure(self, frame: Frame) -> MeasuredFrame:
        """What registration and the quality gate need. `timings_ms`: `queue` since the grab, `prepare` for this."""
        begun_ns, started = self._now_ns(), time.perf_counter()
        half = halved(frame.image, 1)
        prepared, quality = measured_image(frame.image, half, moving=bool(frame.moving))
        prepare_ms = (time.perf_counter() - started) * 1000
        timings = {"queue": (begun_ns - frame.captured_ns) / 1e6, "prepare": prepare_ms}
        return MeasuredFrame(frame, half, prepared, quality, timings)

    def look(self, measured: Sequence[MeasuredFrame], plans: Sequence[Plan] | None = None) -> list[Analysed]:
        """One result a frame, in their order. `plans`: what the models see of each; None: all of all.

        `timings_ms`: `detect` and `classify`, each frame's part of its batch; `prepare` has the colours for the verdict
        besides.
        """
        clock = time.perf_counter
        frames = [one.frame for one in measured]
        started = clock()
        plans = [WHOLE] * len(frames) if plans is None else plans
        halves = [one.halved if plan.detects else None for one, plan in zip(measured, plans, strict=True)]
        detections = self._detect_some(frames, halves, plans)
        detected = clock()
        proofs = [one if plan.audit else None for one, plan in zip(detections, plans, strict=True)]
        nothing = self.detector.nothing()
        detections = [one if plan.whole else nothing for one, plan in zip(detections, plans, strict=True)]
        looks = self._classify(frames, detections, plans)
        classified = clock()
        detect_ms = (detected - started) * 1000 / len(frames)
        classify_ms = (classified - detected) * 1000 / len(frames)
        results = []
        for one, half, of_frame, (look, maps), plan, proof in zip(
            measured, halves, detections, looks, plans, proofs, strict=True
        ):
            begin = clock()
            operating = self.detector.card.thresholds.operating
            colours = None if half is None or not plan.whole else field_colours(half, of_frame, operating)
            timings = one.timings_ms | {"detect": detect_ms, "classify": classify_ms}
            timings["prepare"] += (clock() - begin) * 1000
            again = None
            if not plan.whole and look is not None:
                if len(plan.cells):
                    again = CellLooks(plan.cells.cell_ids, plan.cells.boxes_px.astype(np.float32), look)
                look, maps = look[:0], None
            results.append(
                Analysed(
                    *(one.frame, of_frame, look, one.prepared, one.quality, timings, colours, maps, again),
                    audit=proof,
                    plan=plan,
                )
            )
        return results

    def _detect_some(
        self, frames: Sequence[Frame], halves: Sequence[Image | None], plans: Sequence[Plan]
    ) -> list[Detections]:
        """Of frames that are not looked at none."""
        rows = [row for row, plan in enumerate(plans) if plan.detects]
        found = [self.detector.nothing()] * len(frames)
        if rows:
            some = self._detect([frames[row] for row in rows], [half for half in halves if half is not None])
            for row, one in zip(rows, some, strict=True):
                found[row] = one
        return found

    def _detect(self, frames: Sequence[Frame], halves: Sequence[Image]) -> list[Detections]:
        chosen = [self._detector_for(frame) for frame in frames]
        if all(detector is chosen[0] for detector in chosen):
            return chosen[0].detect([frame.image for frame in frames], halves)
        return [
            detector.detect([frame.image], [half])[0]
            for detector, frame, half in zip(chosen, frames, halves, strict=True)
        ]

    def _classify(
        self, frames: Sequence[Frame], detections: Sequence[Detections], plans: Sequence[Plan]
    ) -> list[tuple[Classifications | None, CellMaps | None]]:
        """The white cells of all frames in one batch, given back frame by frame: those detected, or those known of
        frames that are not looked at otherwise."""
        if self.classifier is None:
            return [(None, None)] * len(frames)
        if isinstance(self.classifier, OwnClasses):
            return [(self.classifier.looks(one, one.white_rows), None) for one in detections]
        chosen = [_white_cells(one, plan) for one, plan in zip(detections, plans, strict=True)]
        is_empty = not any(len(labels) for _, labels in chosen)
        if is_empty and self._no_looks is not None:
            return [(self._no_looks, None)] * len(frames)
        widths = [self._rbc_px_for(frame) for frame in frames]
        crops = [
            self.classifier.crop(frame.image, boxes_px, rbc_px)
            for frame, (boxes_px, _), rbc_px in zip(frames, chosen, widths, strict=True)
        ]
        joined = crops[0] if len(crops) == 1 else np.concatenate(crops)
        looked = self._explainer.look(joined) if self._explainer else (self.classifier.classify_batch(joined), None)
        together, maps = looked
        if self._groups is not None:
            together = self._groups.narrowed(together, np.concatenate([labels for _, labels in chosen]))
        if is_empty and self._explainer is None:  # without looks it depends on the models alone
            self._no_looks = together
        ends = np.cumsum([len(labels) for _, labels in chosen]).tolist()
        parts = [slice(end - len(labels), end) for end, (_, labels) in zip(ends, chosen, strict=True)]
        return [
            (together[part], maps.in_frame(part, rbc_px) if maps else None)
            for part, rbc_px in zip(parts, widths, strict=True)
        ]


def _white_cells(detections: Detections, plan: Plan) -> tuple[Boxes, npt.NDArray[np.intp]]:
    """(boxes, labels) of the white cells to be classified in a frame."""
    if not plan.whole:
        return plan.cells.boxes_px.astype(np.float32), plan.cells.labels
    white = detections.white_rows
    return detections.boxes_px[white], detections.labels[white]
