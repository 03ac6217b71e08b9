"""Scripted models and frames that several tests share: who stands where is known exactly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from engines.backends.scripted import ScriptedEngine, candidates, classifier_specs, detector_specs, segmenter_specs
from engines.base import Array
from engines.models.classifier import Classifier
from engines.models.detector import Detector, Engines
from engines.models.segmenter import CLASSES, Segmenter
from engines.zoo.card import Card, ClassEntry, DetectorInput, Thresholds
from engines.zoo.crops import CropInput
from streamer.records import Frame, Mode, Skip

WIDTH, HEIGHT = 320, 256
FIVE = ("neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil")

Box = tuple[float, float, float, float]


def textured_slide(seed: int = 3, width: int = 1600, height: int = 256) -> np.ndarray:
    """A strip of slide (H, W, 3) with blobs enough to register frames by."""
    rng = np.random.default_rng(seed)
    slide = np.full((height, width, 3), 225, np.float32)
    y, x = np.mgrid[:height, :width]
    for _ in range(width * height // 1500):
        cx, cy, r = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(8, 14)
        left, top = max(0, int(cx - 2 * r)), max(0, int(cy - 2 * r))
        part = np.s_[top : int(cy + 2 * r), left : int(cx + 2 * r)]
        disc = (x[part] - cx) ** 2 + (y[part] - cy) ** 2 < r * r
        slide[part][disc] -= rng.uniform(20, 60, 3)
    return np.clip(slide + rng.normal(0, 2, slide.shape), 0, 255).astype(np.uint8)


def card(task: str, names: Sequence[str], kinds: Sequence[str], operating: float) -> Card:
    return Card(
        name=f"scripted-{task}",
        task=task,
        input=DetectorInput(long_side_px=WIDTH) if task == "detector" else CropInput(32, 32),
        classes=tuple(ClassEntry(name, kind) for name, kind in zip(names, kinds, strict=True)),
        thresholds=Thresholds(operating=operating, nms_iou=0.5),
        file="none.onnx",
    )


def find_by_script(boxes_of: dict[int, Iterable[tuple[Box, float, int]]]) -> Detector:
    """A detector that knows frames by the number that `stamped` wrote into their first pixel."""

    def answer(feeds: dict[str, Array]) -> dict[str, Array]:
        return candidates([list(boxes_of.get(int(image[0, 0, 0]), ())) for image in feeds["images"]], top_k=400)

    def load(height: int, width: int) -> ScriptedEngine:
        return ScriptedEngine(*detector_specs(height, width, top_k=400), answer)

    names = ("WBC", "RBC", "platelet")
    return Detector(card("detector", names, ("white", "red", "platelet"), 0.5), Engines(load))


def always(class_index: int, sure: float = 0.9, classes: Sequence[str] = FIVE) -> Classifier:
    """A classifier that calls every crop the same."""

    def answer(feeds: dict[str, Array]) -> dict[str, Array]:
        rest = (1 - sure) / (len(classes) - 1)
        row = np.full((len(feeds["images"]), len(classes)), rest, np.float32)
        row[:, class_index] = sure
        return {"class_probabilities": row}

    engine = ScriptedEngine(*classifier_specs(32, 32, len(classes)), answer)
    return Classifier(card("classifier", classes, ["white"] * len(classes), 0.5), engine)


def by_darkness(size: int = 32, nucleus_below: int = 160) -> Segmenter:
    """A segmenter to which what is darker than `nucleus_below` is nucleus, darker than 205 cytoplasm."""

    def answer(feeds: dict[str, Array]) -> dict[str, Array]:
        grey = feeds["images"].mean(3)
        return {"labels": ((grey < 205).astype(np.uint8) + (grey < nucleus_below)).astype(np.uint8)}

    engine = ScriptedEngine(*segmenter_specs(size, size), answer)
    own = replace(card("segmenter", CLASSES, ["other"] * 3, 0.25), input=CropInput(size, size, crop_margin=1.5))
    return Segmenter(own, engine)


def stamped(image: np.ndarray, number: int) -> np.ndarray:
    image = image.copy()
    image[0, 0, 0] = number
    return image


@dataclass
class ScriptedSource:
    """A source that gives what it was given: images, skips, or errors to raise."""

    items: Sequence[np.ndarray | str | Exception]
    name: str = "slide"
    default_mode: Mode = "analysis"
    opened: int = 0
    closed: int = 0

    def open(self) -> None:
        self.opened += 1
        self._items = getattr(self, "_items", iter(list(self.items)))
        self._next_id = getattr(self, "_next_id", 0)

    def read(self) -> Frame | Skip | None:
        item = next(self._items, None)
        if item is None:
            return None
        if isinstance(item, Exception):
            raise item
        if isinstance(item, str):
            return Skip(self.name, item, "not an image", f"{item} is no image")
        frame = Frame(self.name, self._next_id, 1_000_000 * self._next_id, item)
        self._next_id += 1
        return frame

    def close(self) -> None:
        self.closed += 1


class Collected:
    """A sink that keeps what was published."""

    def __init__(self) -> None:
        self.messages: list = []
        self.payloads: list[bytes | None] = []
        self.closed = 0

    def publish(self, message, payload=None) -> None:
        self.messages.append(message)
        self.payloads.append(payload)

    def close(self) -> None:
        self.closed += 1

    def of(self, kind: type) -> list:
        return [message for message in self.messages if isinstance(message, kind)]
