"""A segmenter with a scripted engine: crops, batches, measures in pixels of the frame, what it refuses."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest

from engines.backends.scripted import ScriptedEngine, segmenter_specs
from engines.base import Array, CardError, ModelFormatError, TensorSpec
from engines.models.segmenter import CLASSES, Segmenter
from engines.models.shape import Shape
from engines.zoo.card import parse_card
from tests.cases import by_darkness, card


def field() -> np.ndarray:
    """A cell of radius 40, its nucleus of 20, at (100, 100); half as large at (240, 60); plasma at (240, 150)."""
    frame = np.full((200, 320, 3), 230, np.uint8)
    for x, y, radius in ((100, 100, 40), (240, 60, 20)):
        cv2.circle(frame, (x, y), radius, (190, 190, 190), -1)
        cv2.circle(frame, (x, y), radius // 2, (90, 90, 90), -1)
    return frame


BOXES = np.array([[60, 60, 141, 141], [220, 40, 261, 81], [220, 130, 261, 171]], np.float32)


def test_cells_are_measured_in_pixels_of_the_frame() -> None:
    large, small, nothing = by_darkness(96).measure(field(), BOXES)
    for shape, radius in ((large, 40), (small, 20)):
        assert shape.nucleus_area_px == pytest.approx(math.pi * (radius / 2) ** 2, rel=0.1)
        assert shape.cytoplasm_area_px == pytest.approx(math.pi * radius**2 * 3 / 4, rel=0.1)
        assert shape.nucleus_to_cytoplasm_ratio == pytest.approx(1 / 3, rel=0.1)
        assert shape.nuclear_lobes == 1
        assert shape.nucleus_circularity == pytest.approx(1, abs=0.15)  # drawn in whole pixels
    assert nothing == Shape(None, None, None, None)


def test_no_cell_costs_no_call() -> None:
    segmenter = by_darkness()
    assert segmenter.measure(field(), np.zeros((0, 4), np.float32)) == []
    assert segmenter.engine.calls == []  # type: ignore[attr-defined]


def test_a_batch_that_is_fixed_is_filled_up() -> None:
    def answer(feeds: dict[str, Array]) -> dict[str, Array]:
        assert feeds["images"].shape == (4, 8, 8, 3)
        return {"labels": (feeds["images"][..., 0] > 9).astype(np.uint8)}

    (spec,), outputs = segmenter_specs(8, 8)
    fixed = TensorSpec(spec.name, (4, 8, 8, 3), spec.dtype)
    engine = ScriptedEngine([fixed], outputs, answer, max_batch=4)
    own = card("segmenter", CLASSES, ["other"] * 3, 0.25)
    segmenter = Segmenter(replace(own, input=replace(own.input, height_px=8, width_px=8)), engine)
    crops = np.zeros((6, 8, 8, 3), np.uint8)
    crops[5] = 10
    assert segmenter.segment(crops).reshape(6, -1).max(1).tolist() == [0, 0, 0, 0, 0, 1]
    assert len(engine.calls) == 2


def test_what_is_refused() -> None:
    segmenter = by_darkness(32)
    with pytest.raises(CardError, match="got a classifier, expected a segmenter"):
        Segmenter(card("classifier", CLASSES, ["white"] * 3, 0.5), segmenter.engine)
    with pytest.raises(CardError, match="classes: got a, b, c, expected background, cytoplasm, nucleus"):
        Segmenter(
            replace(segmenter.card, classes=card("segmenter", "abc", ["other"] * 3, 0.5).classes), segmenter.engine
        )
    with pytest.raises(ModelFormatError, match=r"expected images uint8 \(N,32,32,3\) by its card"):
        Segmenter(segmenter.card, ScriptedEngine(*segmenter_specs(16, 16), []))
    inputs, outputs = segmenter_specs(32, 32)
    floats = [TensorSpec("labels", outputs[0].shape, np.dtype(np.float32))]
    with pytest.raises(ModelFormatError, match="outputs: got labels float32"):
        Segmenter(segmenter.card, ScriptedEngine(inputs, floats, []))
    wrong = ScriptedEngine(inputs, outputs, [{"labels": np.full((1, 32, 32), 3, np.uint8)}])
    with pytest.raises(ModelFormatError, match="got the label 3, expected 0 to 2"):
        Segmenter(segmenter.card, wrong).segment(np.zeros((1, 32, 32, 3), np.uint8))


def test_its_card_reads_back() -> None:
    classes = "".join(f'[[classes]]\nname = "{name}"\nkind = "other"\n' for name in CLASSES)
    text = f'task = "segmenter"\n[input]\nheight_px = 96\nwidth_px = 96\n{classes}'
    read = parse_card(text, "here", stem="mine")
    assert (read.task, read.class_names, read.file) == ("segmenter", CLASSES, "mine.onnx")
