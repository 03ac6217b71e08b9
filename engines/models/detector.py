"""Frames -> Detections, with any engine that ends in the compact head."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from engines.base import Array, CardError, Detections, Engine, ModelFormatError, TensorMismatchError
from engines.geometry import (
    Image,
    Letterbox,
    clip_boxes,
    fit_letterbox,
    input_size,
    letterbox,
    nms,
)
from engines.graphs.graph import BOXES, CLASS_SCORES, CLASSES, INPUT, SCORES
from engines.zoo.card import Card, DetectorInput

LoadEngine = Callable[[int, int], Engine]
"""(height, width) of the input -> an engine for that size: uint8 `images`, the compact head."""

ENGINES_KEPT = 4
"""Input sizes whose engines stay loaded; a camera needs one, a folder of mixed pictures a few."""


@dataclass(frozen=True, slots=True)
class DetectTimings:
    """Where the time of one call went, over all of its frames."""

    letterbox_ms: float
    infer_ms: float
    nms_ms: float


class Engines:
    """Engines by input size, loaded when first needed; the one unused for longest goes when there are too many."""

    def __init__(self, load: LoadEngine, kept: int = ENGINES_KEPT) -> None:
        self._load = load
        self._kept = kept
        self._lock = threading.Lock()
        self._loaded: OrderedDict[tuple[int, int], Engine] = OrderedDict()
        self.backends: tuple[str, ...] = ()
        """What runs those that are loaded, each once; read without waiting for one that is being loaded."""

    def get(self, height: int, width: int) -> Engine:
        with self._lock:  # a second caller for the same size waits rather than loads the model twice
            engine = self._loaded.get((height, width))
            if engine is None:
                engine = self._load(height, width)
                _check_head(engine)
                self._loaded[height, width] = engine
                self.backends = tuple(dict.fromkeys((*self.backends, engine.backend)))
                if len(self._loaded) > self._kept:
                    self._loaded.popitem(last=False)  # not closed: another thread may be inside it
            self._loaded.move_to_end((height, width))
            return engine

    def close(self) -> None:
        with self._lock:
            for engine in self._loaded.values():
                engine.close()
            self._loaded.clear()


class Detector:
    """A detector with its card. Safe from several threads at once: buffers are each thread's own.

    Frames may differ in size: each input size has its own engine, loaded when the first such frame comes, or
    beforehand by `prepare`.
    """

    def __init__(
        self,
        card: Card,
        engines: Engines,
        *,
        min_score: float | None = None,
        long_side_px: int | None = None,
        fixed_size: tuple[int, int] | None = None,
        batch: int = 1,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        """`long_side_px` overrides the card's; `fixed_size` (height, width) is that of a file that takes no other."""
        if not isinstance(card.input, DetectorInput):
            raise CardError(f"model {card.name!r}: got a {card.task}, expected a detector")
        self.card = card
        self.min_score = card.thresholds.operating if min_score is None else min_score
        """Lowest score of interest to the caller."""
        self.threshold = min(self.min_score, card.thresholds.operating)
        """Lowest score that `detect` returns: what is counted is always among it."""
        self.long_side_px = max(fixed_size) if fixed_size else long_side_px or card.input.long_side_px
        self._input = card.input
        self.fixed_size = fixed_size
        """(height, width) of the only input that the file takes; None for a file of free size."""
        self.batch = batch
        """Frames that one run takes to advantage; `detect` takes any number."""
        self._engines = engines
        self._clock_ns = clock_ns
        self._local = threading.local()
        names = list(dict.fromkeys(card.kinds))
        self._kind_of = np.array([names.index(kind) for kind in card.kinds])
        self._across_kinds = card.thresholds.nms_across == "kind" and len(names) < len(card.kinds)
        self._names, self._kinds = card.class_names, card.kinds

    @property
    def backends(self) -> tuple[str, ...]:
        """What runs the engines that are loaded; empty before the first frame, as for Engine.backend."""
        return self._engines.backends

    def input_size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of the network's input for frames of a size."""
        if self.fixed_size:
            return self.fixed_size[1], self.fixed_size[0]
        return input_size(width, height, self.long_side_px, self._input.stride_px)

    def prepare(self, width: int, height: int) -> Engine:
        """Load the engine for frames of a size now rather than at the first of them; returns it."""
        input_width, input_height = self.input_size(width, height)
        return self._engines.get(input_height, input_width)

    def with_long_side(self, long_side_px: int) -> Detector:
        """The same detector at another scale, on the same loaded engines; a file of fixed size stays at its own."""
        return Detector(
            self.card,
            self._engines,
            min_score=self.min_score,
            long_side_px=long_side_px,
            fixed_size=self.fixed_size,
            batch=self.batch,
            clock_ns=self._clock_ns,
        )

    def close(self) -> None:
        """Free the engines, shared ones included."""
        self._engines.close()

    def nothing(self) -> Detections:
        """What is there of a frame that was not looked at."""
        return Detections(
            boxes_px=np.zeros((0, 4), np.float32),
            scores=np.zeros(0, np.float32),
            labels=np.zeros(0, np.intp),
            label_names=self._names,
            kinds=self._kinds,
            truncated=False,
            class_scores=np.zeros((0, len(self._names)), np.float32),
        )

    def detect(self, frames: Sequence[Image], halves: Sequence[Image] | None = None) -> list[Detections]:
        """Find the cells of frames uint8 (H,W,3) BGR; one Detections per frame, in order.

        `halves`: the frames halved (`geometry.halved`), where the caller has them; nothing but time depends on it.
        """
        return self.detect_timed(frames, halves)[0]

    def detect_timed(
        self, frames: Sequence[Image], halves: Sequence[Image] | None = None
    ) -> tuple[list[Detections], DetectTimings]:
        """`detect`, with where the time went."""
        spent = [0, 0, 0]
        found: list[Detections | None] = [None] * len(frames)
        for (input_width, input_height), members in self._by_input_size(frames).items():
            engine = self._engines.get(input_height, input_width)
            step = engine.max_batch or len(members)
            for start in range(0, len(members), step):
                batch = members[start : start + step]
                t0 = self._clock_ns()
                sizes = [frames[i].shape for i in batch]
                fits = [fit_letterbox(size[1], size[0], input_width, input_height) for size in sizes]
                known = None if halves is None else [halves[i] for i in batch]
                images = self._letterboxed([frames[i] for i in batch], known, fits, engine)
                t1 = self._clock_ns()
                outputs = engine.infer({INPUT: images})
                t2 = self._clock_ns()
                for n, i in enumerate(batch):
                    size = (sizes[n][0], sizes[n][1])
                    class_scores = outputs[CLASS_SCORES][n] if CLASS_SCORES in outputs else None
                    found[i] = self._read(
                        outputs[BOXES][n], outputs[SCORES][n], outputs[CLASSES][n], class_scores, fits[n], size
                    )
                t3 = self._clock_ns()
                for stage, taken in enumerate((t1 - t0, t2 - t1, t3 - t2)):
                    spent[stage] += taken
        return [one for one in found if one is not None], DetectTimings(*(ns / 1e6 for ns in spent))

    def _by_input_size(self, frames: Sequence[Image]) -> dict[tuple[int, int], list[int]]:
        """Positions of the frames by (width, height) of the network's input, which one run takes together."""
        sizes: dict[tuple[int, int], list[int]] = {}
        for i, frame in enumerate(frames):
            if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or not frame.size:
                raise TensorMismatchError(
                    f"frame {i}: got {frame.dtype} {frame.shape}, expected uint8 (H,W,3) BGR with at least one pixel"
                )
            sizes.setdefault(self.input_size(frame.shape[1], frame.shape[0]), []).append(i)
        return sizes

    def _letterboxed(
        self, frames: Sequence[Image], halves: Sequence[Image] | None, fits: Sequence[Letterbox], engine: Engine
    ) -> Image:
        """The batch as the engine takes it; valid until this thread's next call, or as long as the frame itself."""
        fixed_batch = engine.inputs[0].shape[0]
        n = fixed_batch or len(frames)
        shape = (n, fits[0].input_height, fits[0].input_width, 3)
        if n == 1 and frames[0].shape == shape[1:] and frames[0].flags.c_contiguous:
            return frames[0][None]
        buffer: Image | None = getattr(self._local, "buffer", None)
        if buffer is None or buffer.shape[1:] != shape[1:] or len(buffer) < n:
            buffer = self._local.buffer = np.zeros(shape, np.uint8)
        for i, (frame, fit) in enumerate(zip(frames, fits, strict=True)):  # a fixed batch is filled up with old frames
            letterbox(frame, fit, buffer[i], self._input.pad_value, None if halves is None else halves[i])
        return buffer[:n]

    def _read(
        self,
        boxes: Array,
        scores: Array,
        classes: Array,
        class_scores: Array | None,
        fit: Letterbox,
        size: tuple[int, int],
    ) -> Detections:
        """Candidates of one frame, best first -> detections; `class_scores`: of all classes, for each candidate."""
        count = int(np.count_nonzero(scores >= np.float32(self.threshold)))
        truncated = count == len(scores)
        labels = classes[:count].astype(np.intp)
        if count and not 0 <= labels.min() <= labels.max() < len(self._names):
            raise CardError(
                f"model {self.card.name!r}: got class {labels.max()}, expected below {len(self._names)} by its card; "
                "list every class of the network in the card"
            )
        boxes, scores = boxes[:count], scores[:count]
        if class_scores is not None:
            class_scores = class_scores[:count]
            if self.threshold < self.card.thresholds.operating:
                boxes, scores, labels, class_scores = self._with_second_classes(boxes, scores, labels, class_scores)
        kept = self._suppress(boxes, scores, labels)
        height, width = size
        boxes_px = clip_boxes(fit.to_frame(boxes[kept]), width, height)
        visible = (boxes_px[:, 2] > boxes_px[:, 0]) & (boxes_px[:, 3] > boxes_px[:, 1])
        if not visible.all():  # in the padding
            kept, boxes_px = kept[visible], boxes_px[visible]
        return Detections(
            boxes_px=boxes_px,
            scores=scores[kept],
            labels=labels[kept],
            label_names=self._names,
            kinds=self._kinds,
            truncated=truncated,
            class_scores=None if class_scores is None else class_scores[kept],
        )

    def _with_second_classes(
        self, boxes: Array, scores: Array, labels: Array, class_scores: Array
    ) -> tuple[Array, Array, Array, Array]:
        """Candidates under every class whose score is of interest and not counted, best first; the best class of each
        stays as it is. The score of a class is the box's objectness times the class's own score."""
        rows = np.arange(len(labels))
        best = class_scores[rows, labels]
        objectness = np.divide(scores, best, out=np.zeros_like(scores), where=best > 0)
        of_class = objectness[:, None] * class_scores
        others = (of_class >= np.float32(self.threshold)) & (of_class < np.float32(self.card.thresholds.operating))
        others[rows, labels] = False
        which, label = np.nonzero(others)
        order = np.argsort(-np.concatenate([scores, of_class[which, label]]), kind="stable")
        source = np.concatenate([rows, which])[order]
        all_scores = np.concatenate([scores, of_class[which, label]])[order]
        return boxes[source], all_scores, np.concatenate([labels, label])[order], class_scores[source]

    def _suppress(self, boxes: Array, scores: Array, labels: Array) -> Array:
        """Indices of the boxes kept, best first: suppressed within their class and, where the card says so, those that
        are counted across their kind too. What is not counted may name a second class for a counted box."""
        iou = self.card.thresholds.nms_iou
        kept = nms(boxes, scores, labels, iou)
        if not self._across_kinds:
            return kept
        counted = int(np.count_nonzero(scores[kept] >= np.float32(self.card.thresholds.operating)))
        best = kept[:counted]
        survivors = best[nms(boxes[best], scores[best], self._kind_of[labels[best]], iou)]
        return np.concatenate([survivors, kept[counted:]])


def _check_head(engine: Engine) -> None:
    outputs = {spec.name: spec for spec in engine.outputs}
    ranks = {BOXES: 3, SCORES: 2, CLASSES: 2}
    if any(name not in outputs or len(outputs[name].shape) != rank for name, rank in ranks.items()):
        got = ", ".join(f"{spec.name} {spec.dtype} {spec.shape}" for spec in engine.outputs)
        raise ModelFormatError(
            f"outputs: got {got}, expected boxes (N,K,4), scores (N,K), classes (N,K); "
            "add the compact head to the model"
        )
    if [spec.name for spec in engine.inputs] != [INPUT] or engine.inputs[0].dtype != np.uint8:
        got = ", ".join(f"{spec.name} {spec.dtype} {spec.shape}" for spec in engine.inputs)
        raise ModelFormatError(f"inputs: got {got}, expected images uint8 (N,H,W,3)")
