"""The engine of tests: returns, or raises, what its script says, and remembers how it was called."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from engines.base import Array, EngineClosedError, EngineError, TensorSpec, check_feeds

Answer = Mapping[str, Array] | Exception
Script = Callable[[Mapping[str, Array]], Answer] | Sequence[Answer]


class ScriptedEngine:
    """An Engine that runs no model.

    `script` is a function of the feeds, or one answer per call; a call past the last answer raises. An answer that
    is an exception is raised. `calls` holds the feeds of every call, copied, in the order in which they came in.
    """

    def __init__(
        self,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        script: Script,
        *,
        concurrency: int = 1,
        max_batch: int | None = None,
    ) -> None:
        self.backend = "scripted"
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self._script = script
        self.concurrency, self.max_batch = concurrency, max_batch
        self._lock = threading.Lock()
        self.calls: list[dict[str, Array]] = []
        self.closed = False

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        if self.closed:
            raise EngineClosedError
        check_feeds(self.inputs, feeds)
        with self._lock:
            index = len(self.calls)
            self.calls.append({name: array.copy() for name, array in feeds.items()})
        if callable(self._script):
            answer = self._script(feeds)
        elif index < len(self._script):
            answer = self._script[index]
        else:
            raise EngineError(
                f"scripted engine: got call {index + 1}, expected {len(self._script)}; lengthen the script"
            )
        if isinstance(answer, Exception):
            raise answer
        return {name: np.array(array) for name, array in answer.items()}

    def close(self) -> None:
        self.closed = True


def detector_specs(height: int, width: int, top_k: int = 100) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Inputs and outputs of a detector with the compact head, for ScriptedEngine."""
    f32 = np.dtype(np.float32)
    inputs = [TensorSpec("images", (None, height, width, 3), np.dtype(np.uint8))]
    outputs = [
        TensorSpec("boxes", (None, top_k, 4), f32),
        TensorSpec("scores", (None, top_k), f32),
        TensorSpec("classes", (None, top_k), np.dtype(np.int64)),
    ]
    return inputs, outputs


def segmenter_specs(height: int, width: int) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Inputs and outputs of a segmenter, for ScriptedEngine."""
    u8 = np.dtype(np.uint8)
    return [TensorSpec("images", (None, height, width, 3), u8)], [TensorSpec("labels", (None, height, width), u8)]


def candidates(frames: Sequence[Sequence[tuple[Sequence[float], float, int]]], top_k: int = 100) -> dict[str, Array]:
    """Outputs of the compact head for frames of (box xyxy in input px, score, class), filled up with score 0."""
    boxes = np.zeros((len(frames), top_k, 4), np.float32)
    scores = np.zeros((len(frames), top_k), np.float32)
    classes = np.zeros((len(frames), top_k), np.int64)
    for n, rows in enumerate(frames):
        for k, (box, score, label) in enumerate(sorted(rows, key=lambda row: -row[1])):
            boxes[n, k], scores[n, k], classes[n, k] = box, score, label
    return {"boxes": boxes, "scores": scores, "classes": classes}


def classifier_specs(
    height: int, width: int, classes: int, subclasses: int = 0, attribute_values: int = 0, novelty: bool = False
) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Inputs and outputs of a classifier, for ScriptedEngine."""
    f32 = np.dtype(np.float32)
    inputs = [TensorSpec("images", (None, height, width, 3), np.dtype(np.uint8))]
    outputs = [TensorSpec("class_probabilities", (None, classes), f32)]
    if subclasses:
        outputs.append(TensorSpec("subclass_probabilities", (None, subclasses), f32))
    if attribute_values:
        outputs.append(TensorSpec("attribute_probabilities", (None, attribute_values), f32))
    if novelty:
        outputs.append(TensorSpec("novelty", (None,), f32))
    return inputs, outputs
