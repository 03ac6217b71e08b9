"""Surgery on small networks, against the same arithmetic written plainly in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper

from engines.base import ModelFormatError
from engines.graphs.graph import adapt_ultralytics, add_uint8_input, add_yolov5_head, fix_input_shape, is_compact
from tests.engines.networks import (
    ANCHORS,
    decode,
    model_of,
    named_dims,
    operators,
    raw_network,
    run,
    ultralytics_file,
    valid,
)

UNSUITED_TO_TENSORRT = {"NonZero", "NonMaxSuppression", "If", "Loop"}


def picture(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def assert_same_candidates(got: list[np.ndarray], maps: list[np.ndarray], top_k: int) -> None:
    boxes, scores, classes = decode(maps)
    k = min(top_k, scores.shape[1])
    assert got[0].shape == (len(scores), k, 4)
    for n in range(len(scores)):
        order = np.argsort(-scores[n], kind="stable")[:k]
        np.testing.assert_allclose(got[1][n], scores[n][order], atol=2e-6)
        # Scores that differ by less than float32 resolves may change places: every row must still be one of its peers.
        for row in range(k):
            peers = np.flatnonzero(np.abs(scores[n] - got[1][n][row]) < 4e-6)
            error = np.abs(boxes[n][peers] - got[0][n][row]).max(-1)
            best = peers[error.argmin()]
            assert error.min() < 1e-2
            assert classes[n][best] == got[2][n][row]


@pytest.mark.parametrize("fixed", [False, True])
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    classes=st.integers(1, 6),
    batch=st.integers(1, 3),
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
    top_k=st.integers(1, 300),
)
def test_head_selects_what_a_plain_decode_selects(
    fixed: bool, seed: int, classes: int, batch: int, rows: int, columns: int, top_k: int
) -> None:
    network = raw_network(classes, seed=seed)
    images = picture(seed, batch, 32 * rows, 32 * columns, 3)
    maps = run(network, {"images": (images.transpose(0, 3, 1, 2) / np.float32(255)).astype(np.float32)})
    model = add_yolov5_head(add_uint8_input(network), anchors_px=ANCHORS, top_k=top_k)
    if fixed:
        model = fix_input_shape(model, batch, 32 * rows, 32 * columns)
    assert_same_candidates(run(model, {"images": images}), maps, top_k)


def test_whole_file_is_valid_and_static_once_fixed() -> None:
    model = add_yolov5_head(add_uint8_input(raw_network()), anchors_px=ANCHORS)
    valid(model)
    assert named_dims(model)["images"] == ["N", "H", "W", 3]
    fixed = fix_input_shape(model, 2, 640, 416)
    valid(fixed)
    dims = named_dims(fixed)
    assert dims == {"images": [2, 640, 416, 3], "boxes": [2, 3840, 4], "scores": [2, 3840], "classes": [2, 3840]}
    assert not operators(fixed) & (UNSUITED_TO_TENSORRT | {"Shape", "Min"})
    small = named_dims(fix_input_shape(model, 1, 32, 64))
    assert small["scores"] == [1, 3 * (4 * 8 + 2 * 4 + 1 * 2)]


def test_scale_mean_and_std_act_in_the_networks_own_channel_order() -> None:
    network = raw_network(strides=(8,), classes=1, seed=3)
    images = picture(5, 2, 16, 24, 3)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    rgb = (images[..., ::-1] / 255 - mean) / std
    expected = run(network, {"images": np.ascontiguousarray(rgb.transpose(0, 3, 1, 2), np.float32)})
    got = run(add_uint8_input(network, mean=mean, std=std, channels="rgb"), {"images": images})
    np.testing.assert_allclose(got[0], expected[0], atol=1e-3)


def test_float16_network_gets_float16_pixels_and_gives_float32_boxes() -> None:
    network = raw_network(number=TensorProto.FLOAT16)
    model = fix_input_shape(add_yolov5_head(add_uint8_input(network), anchors_px=ANCHORS), 1, 64, 96)
    valid(model)
    boxes, scores, _ = run(model, {"images": picture(1, 1, 64, 96, 3)})
    assert boxes.dtype == scores.dtype == np.float32
    full = fix_input_shape(add_yolov5_head(add_uint8_input(raw_network()), anchors_px=ANCHORS), 1, 64, 96)
    np.testing.assert_allclose(scores, run(full, {"images": picture(1, 1, 64, 96, 3)})[1], atol=0.01)


@pytest.mark.parametrize("opset", [12, 17, 18, 20])
def test_old_and_new_opsets(opset: int) -> None:
    model = add_yolov5_head(add_uint8_input(raw_network(opset=opset)), anchors_px=ANCHORS)
    valid(model)
    images = picture(2, 1, 64, 64, 3)
    reference = add_yolov5_head(add_uint8_input(raw_network()), anchors_px=ANCHORS)
    for got, expected in zip(run(model, {"images": images}), run(reference, {"images": images}), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_the_model_given_stays_as_it_was() -> None:
    network = raw_network()
    before = network.SerializeToString()
    fix_input_shape(add_yolov5_head(add_uint8_input(network), anchors_px=ANCHORS), 1, 64, 64)
    assert network.SerializeToString() == before


@pytest.mark.parametrize("number", [TensorProto.FLOAT, TensorProto.FLOAT16])
@pytest.mark.parametrize("size", [None, (64, 96)])
@pytest.mark.parametrize("opset", [12, 17])
def test_ultralytics_file_gives_the_rows_that_it_would_give_for_the_same_picture_in_rgb(
    number: int, size: tuple[int, int] | None, opset: int
) -> None:
    file = ultralytics_file(number=number, size=size, opset=opset)
    images = picture(4, 1, 64, 96, 3)
    dtype = helper.tensor_dtype_to_np_dtype(number)
    rgb = (images[..., ::-1] / np.float32(255)).transpose(0, 3, 1, 2).astype(dtype)
    rows = run(file, {"images": np.ascontiguousarray(rgb)})[0][0].astype(np.float32)
    model = fix_input_shape(adapt_ultralytics(file), 1, 64, 96)
    valid(model)
    boxes, scores, classes = (output[0] for output in run(model, {"images": images}))
    expected = rows[:, 4] * rows[:, 5:].max(1)
    order = np.argsort(-expected, kind="stable")
    exact = number == TensorProto.FLOAT
    np.testing.assert_allclose(scores, expected[order], atol=1e-5 if exact else 5e-3)
    if exact:
        half = rows[order, 2:4] / 2
        np.testing.assert_allclose(boxes, np.hstack([rows[order, :2] - half, rows[order, :2] + half]), atol=1e-3)
        assert (classes == rows[order, 5:].argmax(1)).all()


def plain(
    inputs: list[tuple[str, int, list[int | str]]], outputs: list[tuple[str, int, list[int | str]]]
) -> ModelProto:
    """A file that only claims these inputs and outputs: each output is the first input passed on."""
    nodes = [helper.make_node("Identity", [inputs[0][0]], [name]) for name, _, _ in outputs] if inputs else []
    if not inputs:
        nodes = [helper.make_node("Constant", [], [name], value_floats=[1.0]) for name, _, _ in outputs]
    tensors = [[helper.make_tensor_value_info(*spec) for spec in specs] for specs in (inputs, outputs)]
    return model_of(nodes, *tensors)


F = TensorProto.FLOAT


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (plain([], [("y", F, [1])]), r"inputs: got 0 \(none\), expected one image"),
        (plain([("a", F, [1, 3, 8, 8]), ("b", F, [1])], [("y", F, [1, 3, 8, 8])]), r"inputs: got 2 \(a, b\)"),
        (plain([("a", F, [1, 8, 8, 3])], [("y", F, [1, 8, 8, 3])]), r"'a': got float \(1,8,8,3\), expected float32"),
        (plain([("a", F, [1, 4, 8, 8])], [("y", F, [1, 4, 8, 8])]), r"got float \(1,4,8,8\)"),
        (plain([("a", TensorProto.INT64, [1, 3, 8, 8])], [("y", TensorProto.INT64, [1, 3, 8, 8])]), "got int64"),
        (plain([("a", F, [1, 3, 8])], [("y", F, [1, 3, 8])]), r"got float \(1,3,8\)"),
        (plain([("a", F, [1, 3, 8, 8])], [("y", F, [1, 3, 8, 8]), ("z", F, [1, 3, 8, 8])]), r"outputs: got 2 \(y, z\)"),
        (plain([("a", F, [1, 3, 8, 8])], [("y", F, [1, 3, 8, 8])]), r"output 'y': got shape \[1, 3, 8, 8\]"),
    ],
    ids=["no input", "two inputs", "float NHWC", "four channels", "int64", "rank 3", "two outputs", "rank 4 output"],
)
def test_files_that_are_no_yolov5_export(model: ModelProto, message: str) -> None:
    with pytest.raises(ModelFormatError, match=message):
        adapt_ultralytics(model)


@pytest.mark.parametrize(
    ("anchors", "strides", "message"),
    [
        (ANCHORS[:2], (8, 16, 32), r"anchors_px: got shape \(2, 3, 2\)"),
        (ANCHORS[:2], (8, 16), r"outputs: got 3 \(p3, p4, p5\), expected 2"),
        (ANCHORS[:, :1].repeat(7, 1), (8, 16, 32), r"expected maps \(N, 7\*\(5\+C\), h, w\)"),
    ],
)
def test_heads_that_do_not_fit_the_maps(anchors: np.ndarray, strides: tuple[int, ...], message: str) -> None:
    with pytest.raises(ModelFormatError, match=message):
        add_yolov5_head(raw_network(), anchors_px=anchors, strides=strides)


def test_class_scores_on_demand() -> None:
    network = raw_network(4, seed=5)
    images = picture(5, 2, 64, 32, 3)
    plain = run(add_yolov5_head(add_uint8_input(network), anchors_px=ANCHORS, top_k=9), {"images": images})
    model = add_yolov5_head(add_uint8_input(network), anchors_px=ANCHORS, top_k=9, class_scores=True)
    assert is_compact(model)
    assert [value.name for value in model.graph.output] == ["boxes", "scores", "classes", "class_scores"]
    got = run(model, {"images": images})
    for a, b in zip(got[:3], plain, strict=True):
        np.testing.assert_array_equal(a, b)
    assert got[3].shape == (2, 9, 4)
    np.testing.assert_array_equal(got[3].argmax(2), got[2])
    maps = run(network, {"images": (images.transpose(0, 3, 1, 2) / np.float32(255)).astype(np.float32)})
    every = np.concatenate([m.reshape(2, 3, 9, -1).transpose(0, 1, 3, 2).reshape(2, -1, 9) for m in maps], 1)
    scores = 1 / (1 + np.exp(-every))
    best = np.argsort(-(scores[..., 4] * scores[..., 5:].max(-1)), axis=1, kind="stable")[:, :9]
    expected = np.take_along_axis(scores[..., 5:], best[..., None], 1)
    np.testing.assert_allclose(got[3], expected, atol=1e-5)


@pytest.mark.parametrize("top_k", [0, 3841])
def test_top_k_out_of_what_tensorrt_takes(top_k: int) -> None:
    with pytest.raises(ModelFormatError, match=f"top_k: got {top_k}, expected 1 to 3840"):
        add_yolov5_head(raw_network(), anchors_px=ANCHORS, top_k=top_k)


def test_a_file_of_fixed_sizes_keeps_them() -> None:
    with pytest.raises(ModelFormatError, match=r"got a file fixed to uint8 \(1,64,96,3\), expected size 128 at axis 1"):
        fix_input_shape(adapt_ultralytics(ultralytics_file(size=(64, 96))), 1, 128, 96)


def test_an_old_file_that_lists_its_weights_as_inputs() -> None:
    network = raw_network()
    for tensor in network.graph.initializer:
        network.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    model = add_yolov5_head(add_uint8_input(network), anchors_px=ANCHORS)
    assert [value.name for value in model.graph.input] == ["images"]
    assert is_compact(model)
    assert not is_compact(network)
