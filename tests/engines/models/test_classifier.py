"""Crops to classifications: batches, crops as trained, and engines that don't fit their card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from engines.backends.choice import CPU_CROPS
from engines.backends.onnxruntime import OnnxRuntimeEngine, Threads
from engines.backends.scripted import ScriptedEngine, classifier_specs
from engines.base import Array, Attribute, CardError, Classifications, ModelFormatError, TensorMismatchError
from engines.models.classifier import Classifier
from engines.models.loading import load_classifier
from engines.zoo.card import Card, ClassEntry, DetectorInput, SubclassEntry, Thresholds
from engines.zoo.crops import CropInput
from streamer.config import DEFAULT_CLASSIFIER
from tests.engines.networks import classifier_file

CLASSES = (ClassEntry("blue", "white"), ClassEntry("green", "white"), ClassEntry("red", "red"))


def card_of(subclasses: int = 0, **crop: object) -> Card:
    return Card(
        name="test",
        task="classifier",
        input=CropInput(height_px=8, width_px=8, **crop),  # type: ignore[arg-type]
        classes=CLASSES,
        thresholds=Thresholds(0.6),
        file="test.onnx",
        subclasses=tuple(SubclassEntry(f"s{i}", "green") for i in range(subclasses)),
    )


def real(subclasses: int = 0, **crop: object) -> Classifier:
    engine = OnnxRuntimeEngine(classifier_file(3, subclasses), threads=Threads(1))
    return Classifier(card_of(subclasses, **crop), engine)


def frame_with_red_patch() -> np.ndarray:
    frame = np.full((60, 80, 3), (200, 0, 0), np.uint8)
    frame[20:40, 30:50] = (0, 0, 200)
    return frame


def test_the_cell_in_the_box_is_what_is_classified() -> None:
    classifier = real(subclasses=2, crop_margin=1.0)
    boxes = np.array([[30, 20, 50, 40], [0, 0, 20, 20]], np.float32)
    result = classifier.classify(frame_with_red_patch(), boxes)
    assert result.probabilities.argmax(1).tolist() == [2, 0]
    np.testing.assert_allclose(result.probabilities.sum(1), 1, atol=1e-6)
    assert result.class_names == ("blue", "green", "red")
    assert (result.subclass_names, result.subclass_parents) == (("s0", "s1"), ("green", "green"))
    assert result.subclass_probabilities.shape == (2, 2)
    assert classifier.threshold == 0.6


def test_the_crop_has_the_cards_margin_and_border() -> None:
    box = np.array([[30, 20, 50, 40]], np.float32)
    share = [
        real(crop_margin=margin).crop(frame_with_red_patch(), box)[0, 0, :, :, 2].mean() / 200 for margin in (1.0, 2.0)
    ]
    assert share == pytest.approx([1, 0.25], abs=0.02)
    corner = np.array([[-20, -20, 0, 0]], np.float32)
    assert (real(crop_margin=1.0, pad_value=9).crop(frame_with_red_patch(), corner) == 9).all()
    assert (real(crop_margin=1.0).crop(frame_with_red_patch(), corner) == (200, 0, 0)).all()


def test_no_boxes_give_empty_arrays_without_a_call() -> None:
    engine = ScriptedEngine(*classifier_specs(8, 8, 3), [])
    result = Classifier(card_of(), engine).classify(frame_with_red_patch(), np.zeros((0, 4), np.float32))
    assert result.probabilities.shape == (0, 3)
    assert result.subclass_probabilities.shape == (0, 0)
    assert len(result) == 0
    assert engine.calls == []


@pytest.mark.parametrize(("max_batch", "calls"), [(None, [23, 23, 24]), (40, [35, 35]), (100, [70])])
def test_batches_are_as_few_as_the_engine_takes_and_of_one_size(max_batch: int | None, calls: list[int]) -> None:
    def script(feeds: Mapping[str, Array]) -> dict[str, Array]:
        first = feeds["images"][:, 0, 0, 0].astype(np.float32) / 255
        return {"class_probabilities": np.stack([first, 1 - first, 0 * first], 1)}

    engine = ScriptedEngine(*classifier_specs(8, 8, 3), script, max_batch=max_batch)
    crops = np.zeros((70, 8, 8, 3), np.uint8) + np.arange(70, dtype=np.uint8)[:, None, None, None]
    result = Classifier(card_of(), engine).classify_batch(crops)
    assert [len(call["images"]) for call in engine.calls] == calls
    np.testing.assert_allclose(result.probabilities[:, 0], np.arange(70) / 255, atol=1e-6)


def test_the_crops_of_a_run_on_a_cpu_are_bounded() -> None:
    assert load_classifier(DEFAULT_CLASSIFIER, backend="onnxruntime", threads=Threads(1)).engine.max_batch == CPU_CROPS


def test_a_file_of_fixed_batch_is_filled_up() -> None:
    model = classifier_file()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    classifier = Classifier(card_of(), OnnxRuntimeEngine(model, threads=Threads(1)))
    crops = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
    np.testing.assert_allclose(
        classifier.classify_batch(crops).probabilities, real().classify_batch(crops).probabilities, atol=1e-6
    )


def test_cropped_cells_of_any_size_are_squared_by_their_border() -> None:
    wide = np.full((10, 40, 3), (0, 0, 200), np.uint8)
    tiny = np.full((1, 1, 3), (200, 0, 0), np.uint8)
    result = real().classify_crops([wide, tiny, np.full((500, 300, 3), (0, 200, 0), np.uint8)])
    assert result.probabilities.argmax(1).tolist() == [2, 0, 1]
    assert result.probabilities[0, 2] > 0.999
    assert len(real().classify_crops([])) == 0


def test_pictures_that_are_none() -> None:
    with pytest.raises(TensorMismatchError, match=r"picture 0: got uint8 \(5, 5\), expected uint8 \(H,W,3\)"):
        real().classify_crops([np.zeros((5, 5), np.uint8)])


@pytest.mark.parametrize("row", [[0.5, 0.5, 0.5], [np.nan, 0, 1]])
def test_probabilities_that_are_none(row: list[float]) -> None:
    answer = {"class_probabilities": np.array([row], np.float32)}
    classifier = Classifier(card_of(), ScriptedEngine(*classifier_specs(8, 8, 3), [answer]))
    with pytest.raises(ModelFormatError, match=r"class probabilities that sum to .*; end the graph in a softmax"):
        classifier.classify_batch(np.zeros((1, 8, 8, 3), np.uint8))


@pytest.mark.parametrize(
    ("specs", "subclasses", "error", "message"),
    [
        (classifier_specs(9, 8, 3), 0, ModelFormatError, r"inputs: got images .*, expected images uint8 \(N,8,8,3\)"),
        (classifier_specs(8, 8, 4), 0, CardError, "class_probabilities: got 4 values, expected 3 by its card"),
        (classifier_specs(8, 8, 3), 2, ModelFormatError, r"expected subclass_probabilities float32 \(N,2\)"),
        (classifier_specs(8, 8, 3, 3), 2, CardError, "subclass_probabilities: got 3 values, expected 2"),
    ],
)
def test_engines_that_do_not_fit_the_card(specs: tuple, subclasses: int, error: type, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(error, match=message):
        Classifier(card_of(subclasses), ScriptedEngine(*specs, []))


def test_a_detector_is_no_classifier() -> None:
    card = Card("x", "detector", DetectorInput(), CLASSES, Thresholds(), "x.onnx")
    with pytest.raises(CardError, match="got a detector, expected a classifier"):
        Classifier(card, ScriptedEngine(*classifier_specs(8, 8, 3), []))


def test_looks_are_pooled_log_linearly_and_subclasses_averaged() -> None:
    looks = Classifications(
        probabilities=np.float32([[0.9, 0.05, 0.05], [0.3, 0.4, 0.3], [0.2, 0.3, 0.5], [0.2, 0.3, 0.5]]),
        class_names=("a", "b", "c"),
        subclass_probabilities=np.float32([[0.2, 0.8], [0.6, 0.4], [1, 0], [1, 0]]),
        subclass_names=("x", "y"),
        subclass_parents=("a", "a"),
    )
    pooled = looks.pooled(2)
    expected = np.sqrt([0.9 * 0.3, 0.05 * 0.4, 0.05 * 0.3])
    np.testing.assert_allclose(pooled.probabilities[0], expected / expected.sum(), rtol=1e-5)
    np.testing.assert_allclose(pooled.probabilities[1], [0.2, 0.3, 0.5], rtol=1e-5)
    np.testing.assert_allclose(pooled.subclass_probabilities, [[0.4, 0.6], [1, 0]], rtol=1e-5)
    assert len(looks.pooled()) == 1
    assert len(looks[:0].pooled(2)) == 0


def test_the_card_says_how_large_the_middle_of_a_picture_is() -> None:
    picture = np.zeros((80, 80, 3), np.uint8)
    picture[20:60, 20:60] = (0, 0, 200)
    classifier = real(middle_share=0.5)
    assert classifier.shares == (1.0, 0.5)
    assert (classifier.crop_pictures([picture])[0, 1] == (0, 0, 200)).all()
    assert real().shares == (1.0, 0.65)


def test_a_second_look_at_a_cell_is_wider_and_mirrored_and_both_are_pooled() -> None:
    frame = np.zeros((40, 60, 3), np.uint8)
    frame[:, :30] = (0, 0, 200)
    boxes = np.array([[20, 10, 40, 30], [0, 10, 20, 30]], np.float32)
    classifier = real(crop_margin=1.0, mirrored_margin=2.0)
    crops = classifier.crop(frame, boxes)
    assert crops.shape[:2] == (2, 2)
    half = crops.shape[3] // 2
    assert (crops[0, 0, :, : half - 1, 2] == 200).all()
    assert (crops[0, 0, :, half + 1 :, 2] == 0).all()
    assert (crops[0, 1, :, : half - 1, 2] == 0).all()
    assert (crops[0, 1, :, half + 1 :, 2] == 200).all()
    flat = classifier.classify_batch(crops.reshape(4, *crops.shape[2:]))
    np.testing.assert_array_equal(classifier.classify(frame, boxes).probabilities, flat.pooled(2).probabilities)
    assert len(classifier.classify(frame, boxes[:0])) == 0
    assert (classifier.crop_pictures([frame[:, 10:50]])[0, 1, :, : half - 1, 2] == 0).all()


SHAPE = Attribute("shape", ("round", "bent", "split"))
SIZE = Attribute("size", ("small", "big"))


def telling(script: object, *, values: int = 5, novelty: bool = True, max_batch: int | None = None) -> Classifier:
    """A classifier whose card has two attributes and a threshold of novelty."""
    card = replace(
        card_of(), attributes=(SHAPE, SIZE), attributes_of=("blue",), thresholds=Thresholds(0.6, novelty=0.9)
    )
    specs = classifier_specs(8, 8, 3, attribute_values=values, novelty=novelty)
    return Classifier(card, ScriptedEngine(*specs, script, max_batch=max_batch))  # type: ignore[arg-type]


def tell(feeds: Mapping[str, Array]) -> dict[str, Array]:
    first = feeds["images"][:, 0, 0, 0].astype(np.float32) / 255
    none = 0 * first
    return {
        "class_probabilities": np.stack([first, 1 - first, none], 1),
        "attribute_probabilities": np.stack([first, 1 - first, none, none, none + 1], 1),
        "novelty": first,
    }


def test_attributes_and_novelty_come_batch_by_batch_with_the_classes() -> None:
    crops = np.zeros((5, 8, 8, 3), np.uint8) + np.arange(0, 250, 50, dtype=np.uint8)[:, None, None, None]
    found = telling(tell, max_batch=2).classify_batch(crops)
    np.testing.assert_allclose(found.novelty, np.arange(0, 250, 50) / 255, atol=1e-6)
    assert found.attribute_probabilities.shape == (5, 5)
    assert found.attributes == (SHAPE, SIZE)
    chosen = found[np.array([3, 0])]
    np.testing.assert_array_equal(chosen.novelty, found.novelty[[3, 0]])
    np.testing.assert_array_equal(chosen.attribute_probabilities, found.attribute_probabilities[[3, 0]])
    none = telling([]).classify_batch(crops[:0])
    assert (none.attribute_probabilities.shape, none.novelty.shape) == ((0, 5), (0,))
    plain = real().classify_batch(crops)
    assert (plain.attribute_probabilities, plain.attributes, plain.novelty) == (None, (), None)
    assert plain[1:3].novelty is None


def test_a_cell_is_as_novel_as_its_least_novel_view() -> None:
    looks = telling(tell).classify_batch(np.zeros((4, 8, 8, 3), np.uint8) + np.uint8([[[[250]]], [[[51]]]] * 2))
    looks = replace(looks, novelty=np.float32([0.2, 0.8, 0.99, 0.95]))
    pooled = looks.pooled(2)
    np.testing.assert_allclose(pooled.novelty, [0.2, 0.95])
    np.testing.assert_allclose(pooled.attribute_probabilities.sum(1), [2, 2], rtol=1e-5)


def test_outputs_that_the_card_promises_and_the_model_does_not_have() -> None:
    with pytest.raises(ModelFormatError, match=r"expected novelty float32 \(N,\) since its card has a threshold"):
        telling([], novelty=False)
    with pytest.raises(CardError, match="attribute_probabilities: got 4 values, expected 5 by its card"):
        telling([], values=4)
