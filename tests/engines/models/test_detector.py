"""Frames to detections: against a plain decode of a real graph, and on scripted candidates."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from engines.backends.onnxruntime import OnnxRuntimeEngine, Threads
from engines.backends.scripted import ScriptedEngine, candidates, classifier_specs, detector_specs
from engines.base import Array, CardError, Engine, ModelFormatError, TensorMismatchError
from engines.geometry import halved
from engines.graphs.graph import add_uint8_input, add_yolov5_head, fix_input_shape
from engines.models.detector import Detector, Engines
from engines.zoo.card import Card, ClassEntry, DetectorInput, Thresholds
from engines.zoo.crops import CropInput
from tests.engines.networks import ANCHORS, decode, raw_network, run
from tests.engines.test_geometry import plain_nms

CLASSES = (ClassEntry("WBC", "white"), ClassEntry("RBC", "red"), ClassEntry("platelet", "platelet"))


def card_of(
    classes: tuple[ClassEntry, ...] = CLASSES, *, thresholds: Thresholds | None = None, long_side_px: int = 64
) -> Card:
    return Card(
        name="test",
        task="detector",
        input=DetectorInput(long_side_px=long_side_px),
        classes=classes,
        thresholds=thresholds or Thresholds(0.35, 0.5),
        file="test.onnx",
    )


def real_detector(model: ModelProto, card: Card, batch: int | None = 1, **options: float) -> Detector:
    def load(height: int, width: int) -> Engine:
        return OnnxRuntimeEngine(fix_input_shape(model, batch, height, width), threads=Threads(1))

    return Detector(card, Engines(load), **options)  # type: ignore[arg-type]


class Scripted:
    """Loads engines that find what `script` says, and remembers the sizes asked for."""

    def __init__(self, script: object, *, top_k: int = 100, batch: int | None = None) -> None:
        self.script, self.top_k, self.batch = script, top_k, batch
        self.sizes: list[tuple[int, int]] = []
        self.engines: list[ScriptedEngine] = []

    def __call__(self, height: int, width: int) -> Engine:
        self.sizes.append((height, width))
        inputs, outputs = detector_specs(height, width, self.top_k)
        engine = ScriptedEngine(inputs, outputs, self.script, max_batch=self.batch)  # type: ignore[arg-type]
        self.engines.append(engine)
        return engine


def one_box(box: tuple[float, ...], score: float = 0.9, label: int = 0) -> object:
    return lambda feeds: candidates([[(box, score, label)] for _ in feeds["images"]])


# Two in three networks have near ties that float32 and float64 may order differently, and are left out.
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(
    seed=st.integers(0, 2**31),
    rows=st.integers(1, 2),
    columns=st.integers(1, 3),
    threshold=st.sampled_from([0.2, 0.35, 0.6]),
    iou=st.sampled_from([0.2, 0.45, 0.7]),
)
@pytest.mark.lengthy
def test_detections_are_those_of_a_plain_decode_and_suppression(
    seed: int, rows: int, columns: int, threshold: float, iou: float
) -> None:
    network = raw_network(3, seed=seed)
    frame = np.random.default_rng(seed).integers(0, 256, (32 * rows, 32 * columns, 3), np.uint8)
    maps = run(network, {"images": np.ascontiguousarray((frame[None] / np.float32(255)).transpose(0, 3, 1, 2))})
    boxes, scores, classes = (part[0] for part in decode(maps))
    assume(np.abs(scores - threshold).min() > 1e-6)
    high = np.flatnonzero(scores > threshold)
    assume(len(high) < len(scores))  # where all count, there might be more
    assume(len(high) < 2 or np.diff(np.sort(scores[high])).min() > 2e-7)
    kept = high[plain_nms(boxes[high], scores[high], classes[high], iou)]
    clipped = boxes[kept].clip(0, [32 * columns, 32 * rows] * 2)
    inside = (clipped[:, 2:] - clipped[:, :2] > 1e-3).all(1)
    assume(inside.sum() == (clipped[:, 2:] > clipped[:, :2]).all(1).sum())

    card = card_of(thresholds=Thresholds(threshold, iou), long_side_px=32 * max(rows, columns))
    (found,) = real_detector(add_yolov5_head(add_uint8_input(network), anchors_px=ANCHORS), card).detect([frame])
    assert len(found) == inside.sum()
    np.testing.assert_allclose(found.boxes_px, clipped[inside], atol=1e-2)
    np.testing.assert_allclose(found.scores, scores[kept][inside], atol=1e-5)
    assert found.labels.tolist() == classes[kept][inside].tolist()
    assert not found.truncated


def test_boxes_come_back_in_full_frame_pixels() -> None:
    detector = Detector(card_of(), Engines(Scripted(one_box((8, 16, 24, 32)))))
    (found,) = detector.detect([np.zeros((300, 400, 3), np.uint8)])  # 400x300 -> 64x48 in 64x64
    np.testing.assert_allclose(found.boxes_px, [[50, 50, 150, 150]], atol=1e-4)
    assert found.scores.tolist() == pytest.approx([0.9])
    assert (found.label_names, found.kinds) == (("WBC", "RBC", "platelet"), ("white", "red", "platelet"))
    assert found.boxes_px.dtype == found.scores.dtype == np.float32


def test_boxes_are_clipped_and_those_in_the_padding_dropped() -> None:
    rows = [((-5, 0, 20, 20), 0.9, 0), ((30, 0, 40, 7), 0.8, 1)]
    detector = Detector(card_of(), Engines(Scripted([candidates([rows])])))
    (found,) = detector.detect([np.zeros((300, 400, 3), np.uint8)])
    np.testing.assert_allclose(found.boxes_px, [[0, 0, 125, 75]], atol=1e-4)


def test_what_lies_in_the_padding_takes_its_scores_and_labels_along() -> None:
    """Of a high frame the padding is left and right; one box in it is the best of all."""
    rows = [((0, 30, 7, 40), 0.95, 2), ((10, 10, 20, 20), 0.9, 1), ((57, 0, 64, 9), 0.8, 2), ((30, 30, 40, 45), 0.7, 0)]
    every = np.eye(4, 3, dtype=np.float32)[None]
    load = Scripted([{**candidates([rows], top_k=4), "class_scores": every}], top_k=4)
    (found,) = Detector(card_of(), Engines(load)).detect([np.zeros((400, 300, 3), np.uint8)])  # 48x64 in 64x64
    np.testing.assert_allclose(found.boxes_px, [[12.5, 62.5, 75, 125], [137.5, 187.5, 200, 281.25]], atol=1e-4)
    assert found.labels.tolist() == [1, 0]
    assert found.scores.tolist() == pytest.approx([0.9, 0.7])
    assert found.class_scores is not None
    np.testing.assert_array_equal(found.class_scores, every[0, [1, 3]])


def test_nothing_found_is_empty_arrays() -> None:
    detector = Detector(card_of(), Engines(Scripted([candidates([[]])])))
    (found,) = detector.detect([np.zeros((64, 64, 3), np.uint8)])
    assert len(found) == 0
    assert found.boxes_px.shape == (0, 4)
    assert not found.truncated


@pytest.mark.parametrize(
    ("min_score", "kept"), [(None, [0.9, 0.35]), (0.1, [0.9, 0.35, 0.2]), (0.8, [0.9, 0.35])], ids=str
)
def test_what_can_be_counted_is_returned_whatever_the_least_score(min_score: float | None, kept: list[float]) -> None:
    rows = [((8 * i, 0, 8 * i + 6, 6), score, 0) for i, score in enumerate((0.9, 0.35, 0.2, 0.05))]
    detector = Detector(card_of(), Engines(Scripted([candidates([rows])])), min_score=min_score)
    (found,) = detector.detect([np.zeros((64, 64, 3), np.uint8)])
    assert found.scores.tolist() == pytest.approx(kept)


@pytest.mark.parametrize(("last", "truncated"), [(0.4, True), (0.3, False)])
def test_truncated_when_the_last_candidate_is_above_the_threshold(last: float, truncated: bool) -> None:
    rows = [((0, 0, 6, 6), 0.9, 0), ((20, 0, 26, 6), last, 0)]
    detector = Detector(card_of(), Engines(Scripted([candidates([rows], top_k=2)], top_k=2)))
    (found,) = detector.detect([np.zeros((64, 64, 3), np.uint8)])
    assert found.truncated is truncated


def test_class_scores_stay_with_their_boxes() -> None:
    rows = [((0, 0, 20, 20), 0.9, 0), ((1, 0, 21, 20), 0.8, 0), ((40, 40, 60, 60), 0.7, 1)]
    every = np.arange(12, dtype=np.float32).reshape(1, 4, 3) / 12
    load = Scripted([{**candidates([rows], top_k=4), "class_scores": every}], top_k=4)
    (found,) = Detector(card_of(), Engines(load)).detect([np.zeros((64, 64, 3), np.uint8)])
    assert found.labels.tolist() == [0, 1]
    assert found.class_scores is not None
    np.testing.assert_array_equal(found.class_scores, every[0, [0, 2]])
    sliced = found[1:].class_scores
    assert sliced is not None
    np.testing.assert_array_equal(sliced, every[0, [2]])


def test_suppression_across_a_kind_where_the_card_says_so() -> None:
    classes = (ClassEntry("myelocyte", "white"), ClassEntry("metamyelocyte", "white"), ClassEntry("RBC", "red"))
    rows = [((0, 0, 20, 20), 0.9, 0), ((1, 0, 21, 20), 0.8, 1), ((0, 1, 20, 21), 0.7, 2)]
    frame = np.zeros((64, 64, 3), np.uint8)
    for across, labels in (("class", [0, 1, 2]), ("kind", [0, 2])):
        card = card_of(classes, thresholds=Thresholds(0.35, 0.5, across))  # type: ignore[arg-type]
        (found,) = Detector(card, Engines(Scripted([candidates([rows])]))).detect([frame])
        assert found.labels.tolist() == labels


def test_every_class_of_a_box_is_published_where_it_is_asked_for_and_counted_once() -> None:
    classes = (ClassEntry("myelocyte", "white"), ClassEntry("metamyelocyte", "white"), ClassEntry("RBC", "red"))
    card = card_of(classes, thresholds=Thresholds(0.35, 0.5, "kind"))
    every = np.zeros((1, 100, 3), np.float32)
    every[0, 0] = (0.9, 0.3, 0.01)  # objectness .8 / .9
    every[0, 1] = (0.45, 0.6, 0.02)  # objectness 1: its second class would be counted, and is left out
    rows = [((0, 0, 20, 20), 0.8, 0), ((40, 0, 60, 20), 0.6, 1)]
    answer = {**candidates([rows]), "class_scores": every}
    frame = np.zeros((64, 64, 3), np.uint8)
    (found,) = Detector(card, Engines(Scripted([answer]))).detect([frame])
    assert found.labels.tolist() == [0, 1]
    (found,) = Detector(card, Engines(Scripted([answer])), min_score=0.015).detect([frame])
    assert found.labels.tolist() == [0, 1, 1, 2]
    assert found.scores.tolist() == pytest.approx([0.8, 0.6, 0.3 * 0.8 / 0.9, 0.02])
    assert found.boxes_px[:, 0].tolist() == [0, 40, 0, 40]
    assert found.class_scores is not None
    np.testing.assert_array_equal(found.class_scores, every[0, [0, 1, 0, 1]])


def test_no_second_class_of_a_box_is_counted_where_classes_do_not_suppress_each_other() -> None:
    every = np.zeros((1, 100, 3), np.float32)
    every[0, 0] = (0.45, 0.6, 0.2)  # objectness 1; of .45 and .2 the first would be counted
    answer = {**candidates([[((40, 0, 60, 20), 0.6, 1)]]), "class_scores": every}
    detector = Detector(card_of(), Engines(Scripted([answer])), min_score=0.1)
    (found,) = detector.detect([np.zeros((64, 64, 3), np.uint8)])
    assert found.labels.tolist() == [1, 2]
    assert found.scores.tolist() == pytest.approx([0.6, 0.2])


def test_what_is_not_counted_may_name_a_second_class() -> None:
    classes = (ClassEntry("myelocyte", "white"), ClassEntry("metamyelocyte", "white"), ClassEntry("RBC", "red"))
    rows = [
        *(((0, 0, 20, 20), 0.9, 0), ((1, 0, 21, 20), 0.5, 1), ((0, 1, 20, 21), 0.2, 1)),
        *(((40, 0, 60, 20), 0.45, 1), ((40, 1, 60, 21), 0.3, 0), ((41, 0, 61, 20), 0.1, 1)),
    ]
    card = card_of(classes, thresholds=Thresholds(0.35, 0.5, "kind"))
    frame = np.zeros((64, 64, 3), np.uint8)
    for min_score, expected in ((0.35, [0.9, 0.45]), (0.05, [0.9, 0.45, 0.3])):
        (found,) = Detector(card, Engines(Scripted([candidates([rows])])), min_score=min_score).detect([frame])
        assert found.scores.tolist() == pytest.approx(expected)


def test_frames_of_several_sizes_in_one_call_keep_their_order() -> None:
    def script(feeds: Mapping[str, Array]) -> dict[str, Array]:
        return candidates([[((0, 0, 30, 30), float(image.max()) / 255, 0)] for image in feeds["images"]])

    load = Scripted(script, batch=2)
    detector = Detector(card_of(thresholds=Thresholds(0.01, 0.5)), Engines(load))
    frames = [np.full((*size, 3), fill, np.uint8) for size, fill in
              (((64, 64), 10), ((32, 64), 20), ((64, 64), 200), ((64, 64), 40), ((100, 200), 150))]  # fmt: skip
    found = detector.detect(frames)
    fills = [round(float(one.scores[0]) * 255) for one in found]
    assert [fill if fill != 114 else 0 for fill in fills] == [10, 20, 200, 40, 150]
    assert load.sizes == [(64, 64), (32, 64)]
    assert [len(call["images"]) for call in load.engines[0].calls] == [2, 1]
    assert detector.detect([]) == []


def test_frames_of_several_sizes_and_one_input_size_go_into_one_run() -> None:
    load = Scripted(one_box((16, 16, 48, 48)), batch=8)
    detector = Detector(card_of(), Engines(load))
    found = detector.detect([np.zeros((side, side, 3), np.uint8) for side in (64, 128, 320)])
    assert [len(call["images"]) for call in load.engines[0].calls] == [3]
    for side, one in zip((64, 128, 320), found, strict=True):
        np.testing.assert_allclose(one.boxes_px, [[side / 4, side / 4, side * 3 / 4, side * 3 / 4]])


def test_smaller_and_larger_batches_one_after_the_other_hold_their_own_frames_only() -> None:
    load = Scripted(one_box((0, 0, 9, 9)), batch=8)
    detector = Detector(card_of(), Engines(load))
    for count in (2, 3, 2, 1):
        assert len(detector.detect([np.zeros((50, 64, 3), np.uint8)] * count)) == count
    assert [call["images"].shape for call in load.engines[0].calls] == [(n, 64, 64, 3) for n in (2, 3, 2, 1)]


def test_a_frame_of_the_inputs_size_is_passed_on_untouched() -> None:
    load = Scripted(one_box((0, 0, 9, 9)))
    frame = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Detector(card_of(), Engines(load)).detect([frame])
    assert (load.engines[0].calls[0]["images"][0] == frame).all()


def test_engines_are_loaded_once_a_size_and_few_are_kept() -> None:
    load = Scripted(one_box((0, 0, 9, 9)))
    detector = Detector(card_of(long_side_px=320), Engines(load))
    heights = [32, 64, 96, 128, 160, 32, 160]
    for height in heights:
        detector.detect([np.zeros((height, 320, 3), np.uint8)])
    assert load.sizes == [(32, 320), (64, 320), (96, 320), (128, 320), (160, 320), (32, 320)]


def test_the_engine_unused_for_longest_goes() -> None:
    load = Scripted(one_box((0, 0, 9, 9)))
    detector = Detector(card_of(long_side_px=320), Engines(load, kept=2))
    for height in (32, 64, 32, 96, 32, 64):
        detector.prepare(320, height)
    assert load.sizes == [(32, 320), (64, 320), (96, 320), (64, 320)]
    assert detector.backends == ("scripted",)


def test_closing_frees_every_engine_and_the_next_frame_loads_anew() -> None:
    load = Scripted(one_box((0, 0, 9, 9)))
    detector = Detector(card_of(), Engines(load))
    for height in (32, 64):
        detector.prepare(64, height)
    detector.close()
    assert [engine.closed for engine in load.engines] == [True, True]
    assert len(detector.detect([np.zeros((64, 64, 3), np.uint8)])[0]) == 1


def test_another_scale_keeps_all_that_was_asked_for() -> None:
    load = Scripted(one_box((0, 0, 9, 9), score=0.2))
    asked = Detector(card_of(), Engines(load), min_score=0.1, batch=4, clock_ns=iter(range(99)).__next__)
    other = asked.with_long_side(128)
    assert (other.min_score, other.threshold, other.batch) == (0.1, 0.1, 4)
    found, timings = other.detect_timed([np.zeros((64, 64, 3), np.uint8)])
    assert (len(found[0]), timings.infer_ms) == (1, 1e-6)
    fixed = Detector(card_of(), Engines(load), fixed_size=(96, 128))
    assert (fixed.long_side_px, fixed.input_size(50, 40)) == (128, (128, 96))
    assert fixed.with_long_side(640).input_size(50, 40) == (128, 96)


def test_stride_and_padding_are_those_of_the_card() -> None:
    load = Scripted(one_box((0, 0, 9, 9)))
    card = replace(card_of(), input=DetectorInput(long_side_px=128, stride_px=64, pad_value=7))
    Detector(card, Engines(load)).detect([np.full((70, 128, 3), 200, np.uint8)])
    assert load.sizes == [(128, 128)]
    (image,) = load.engines[0].calls[0]["images"]
    assert (image[:29] == 7).all()
    assert (image[29:99] == 200).all()
    assert (image[99:] == 7).all()


def test_halves_go_with_their_frames() -> None:
    rng = np.random.default_rng(3)
    frames = [rng.integers(0, 256, (*size, 3), np.uint8) for size in ((64, 128), (128, 128), (64, 128), (130, 128))]
    alone, helped = Scripted(one_box((0, 0, 9, 9)), batch=1), Scripted(one_box((0, 0, 9, 9)), batch=1)
    Detector(card_of(), Engines(alone)).detect(frames)
    Detector(card_of(), Engines(helped)).detect(frames, [halved(frame, 1) for frame in frames])
    for one, other in zip(alone.engines, helped.engines, strict=True):
        for a, b in zip(one.calls, other.calls, strict=True):
            np.testing.assert_array_equal(a["images"], b["images"])


def test_an_engine_is_given_no_view_with_gaps() -> None:
    def script(feeds: Mapping[str, Array]) -> dict[str, Array]:
        assert feeds["images"].flags.c_contiguous
        return candidates([[((0, 0, 9, 9), 0.9, 0)]])

    whole = np.zeros((128, 128, 3), np.uint8)
    assert len(Detector(card_of(), Engines(Scripted(script))).detect([whole[::2, ::2]])[0]) == 1


def test_another_scale_shares_the_engines() -> None:
    load = Scripted(one_box((0, 0, 9, 9)))
    detector = Detector(card_of(), Engines(load))
    detector.prepare(100, 100)
    larger = detector.with_long_side(128)
    larger.detect([np.zeros((100, 100, 3), np.uint8)])
    larger.with_long_side(64).detect([np.zeros((100, 100, 3), np.uint8)])
    assert load.sizes == [(64, 64), (128, 128)]
    assert (detector.long_side_px, larger.long_side_px) == (64, 128)


def test_a_file_of_fixed_size_gets_every_frame_at_that_size() -> None:
    load = Scripted(one_box((0, 0, 9, 9)))
    detector = Detector(card_of(), Engines(load), fixed_size=(96, 128))
    detector.detect([np.zeros((50, 40, 3), np.uint8), np.zeros((10, 400, 3), np.uint8)])
    assert load.sizes == [(96, 128)]


def test_a_file_of_fixed_batch_is_filled_up() -> None:
    model = add_yolov5_head(add_uint8_input(raw_network(seed=5)), anchors_px=ANCHORS)
    frames = list(np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3), np.uint8))
    alone, filled = (real_detector(model, card_of(), batch).detect(frames) for batch in (1, 2))
    for a, b in zip(alone, filled, strict=True):
        np.testing.assert_allclose(a.boxes_px, b.boxes_px, atol=1e-3)
        assert len(a) > 0


def test_two_threads_do_not_disturb_each_other() -> None:
    model = add_yolov5_head(add_uint8_input(raw_network(seed=5)), anchors_px=ANCHORS)
    detector = real_detector(model, card_of())
    frames = list(np.random.default_rng(1).integers(0, 256, (20, 80, 70, 3), np.uint8))
    expected = detector.detect(frames)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda frame: detector.detect([frame])[0], frames))
    for a, b in zip(found, expected, strict=True):
        assert (a.boxes_px == b.boxes_px).all()


def test_timings_come_from_the_clock_given() -> None:
    ticks = iter(range(0, 10**9, 1_000_000))
    detector = Detector(card_of(), Engines(Scripted(one_box((0, 0, 9, 9)), batch=1)), clock_ns=lambda: next(ticks))
    _, timings = detector.detect_timed([np.zeros((64, 64, 3), np.uint8)] * 2)
    assert (timings.letterbox_ms, timings.infer_ms, timings.nms_ms) == (2, 2, 2)


@pytest.mark.parametrize(
    "frame",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)],
)
def test_frames_that_are_none(frame: np.ndarray) -> None:
    with pytest.raises(TensorMismatchError, match=r"frame 0: got .*, expected uint8 \(H,W,3\) BGR"):
        Detector(card_of(), Engines(Scripted([]))).detect([frame])


def test_a_class_that_the_card_does_not_name() -> None:
    detector = Detector(card_of(), Engines(Scripted(one_box((0, 0, 9, 9), label=3))))
    with pytest.raises(CardError, match="got class 3, expected below 3 by its card"):
        detector.detect([np.zeros((64, 64, 3), np.uint8)])


@pytest.mark.parametrize("label", [-1, 3])
def test_classes_outside_of_the_card_are_refused(label: int) -> None:
    detector = Detector(card_of(), Engines(Scripted(one_box((0, 0, 9, 9), label=label))))
    with pytest.raises(CardError, match=f"got class {label}"):
        detector.detect([np.zeros((64, 64, 3), np.uint8)])


def test_an_engine_without_the_compact_head() -> None:
    def load(height: int, width: int) -> Engine:
        return ScriptedEngine(*classifier_specs(height, width, 3), [])

    with pytest.raises(ModelFormatError, match=r"outputs: got class_probabilities .*, expected boxes \(N,K,4\)"):
        Detector(card_of(), Engines(load)).prepare(64, 64)


def test_a_classifier_is_no_detector() -> None:
    card = Card("x", "classifier", CropInput(8, 8), CLASSES, Thresholds(), "x.onnx")
    with pytest.raises(CardError, match="got a classifier, expected a detector"):
        Detector(card, Engines(Scripted([])))
