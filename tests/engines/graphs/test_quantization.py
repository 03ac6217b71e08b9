"""int8: where Q/DQ nodes stand, what their scales are, which frames may calibrate."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from engines.base import ModelFormatError
from engines.graphs.precision import emulated
from engines.graphs.quantization import (
    Calibration,
    CalibrationError,
    calibrate,
    check_frames,
    quantizable,
    rank_by_harm,
    to_int8,
)
from tests.engines.networks import model_of, run, valid
from tests.engines.small_detector import detector, pictures

BODY = ["stem", "down3", "inner", "down4", "down5"]


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    frames = pictures(8)
    return calibrate(detector(), [frames[:4], frames[4:]])


def test_inputs_of_the_body_are_quantised_and_the_heads_are_not(calibration: Calibration) -> None:
    model = detector()
    assert calibration.frames == 8
    assert quantizable(model) == BODY
    quantized, report = to_int8(model, calibration)
    valid(quantized)
    assert report.quantized == tuple(BODY)
    assert report.left == tuple(f"p{level}: its results become confidences" for level in (3, 4, 5))
    producers = {node.output[0]: node for node in quantized.graph.node}
    constants = {tensor.name: tensor for tensor in quantized.graph.initializer}
    for node in quantized.graph.node:
        if node.op_type != "Conv":
            continue
        parents = [producers[name].op_type if name in producers else "constant" for name in node.input[:2]]
        wanted = ["DequantizeLinear", "DequantizeLinear"] if node.name in BODY else ["Mul", "constant"]
        assert (node.name, parents) == (node.name, wanted) or (node.name == "p3" and parents == ["Add", "constant"])
        if node.name in BODY:
            weight = producers[node.input[1]]
            stored, scale, zero = (numpy_helper.to_array(constants[name]) for name in weight.input)
            assert stored.dtype == np.int8
            assert np.abs(stored).max(axis=(1, 2, 3)).tolist() == [127] * len(stored)  # every channel uses its range
            assert (scale.shape, scale.dtype) == ((len(stored),), np.float16)
            assert not zero.any()
    assert {node.op_type for node in quantized.graph.node if node.op_type.startswith("Quantize")} == {"QuantizeLinear"}
    assert sum(node.op_type == "QuantizeLinear" for node in quantized.graph.node) == len(BODY)


def test_a_tensor_read_twice_is_quantised_once() -> None:
    weights = [numpy_helper.from_array(np.eye(2, dtype=np.float32) * i, f"w{i}") for i in (1, 2, 3)]
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"]),
        helper.make_node("MatMul", ["x", "w2"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("MatMul", ["c", "w3"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    model = model_of(nodes, [value("x", 1, [1, 2])], [value("y", 1, [1, 2])], weights)
    quantized, report = to_int8(model, calibrate(model, [np.array([[1.0, -2.0]], np.float32)]))
    assert report.quantized == ("a", "b")
    assert sum(node.op_type == "QuantizeLinear" for node in quantized.graph.node) == 1
    got = run(emulated(quantized), {"x": np.array([[1.0, -2.0]], np.float32)})[0]
    np.testing.assert_allclose(got, [[9, -18]], rtol=0.02)


def test_results_stay_near_those_of_fp32(calibration: Calibration) -> None:
    model, frames = detector(), pictures(3, seed=9)
    quantized, _ = to_int8(model, calibration)
    exact, rough = (run(m, {"images": frames})[1] for m in (model, emulated(quantized)))
    error = np.abs(np.sort(exact) - np.sort(rough)).max()
    assert 0 < error < 0.03


def test_what_is_left_stays_out(calibration: Calibration) -> None:
    _, report = to_int8(detector(), calibration, leave={"stem", "inner"})
    assert report.quantized == ("down3", "down4", "down5")
    assert "stem: harms the results most" in report.left
    with pytest.raises(ModelFormatError, match="no operator that can be quantised"):
        to_int8(detector(), calibration, leave=set(BODY))


def test_the_worst_operator_is_found() -> None:
    """One channel that "down5" reads is made so large that one scale for all channels leaves nothing of the others."""
    model = detector()
    for tensor in model.graph.initializer:
        if tensor.name == "down4_b":
            weight = numpy_helper.to_array(tensor).copy()
            weight[0] = 500
        elif tensor.name in ("down5_w", "p4_w"):
            weight = numpy_helper.to_array(tensor).copy()
            weight[:, 0] = 0
        else:
            continue
        tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    frames = pictures(8)
    order = rank_by_harm(model, calibrate(model, [frames]), [frames[:2]])
    assert sorted(order) == sorted(BODY)
    assert order[0] == "down5"


def two_branches(novelty: str) -> ModelProto:
    """`u` leads to the novelty, a small difference of large numbers under a sigmoid; `v` to the class."""
    value = helper.make_tensor_value_info
    arrays = {
        "U": np.array([[1.0, 1.003], [0.7, 0.701]]), "D": np.array([[100.0, 0.0], [0.0, 100.0]]),
        "V": np.array([[1.0, 1.05], [0.7, 0.72]]), "C": np.array([[10.0, 0.0], [-10.0, 1.0]]),
    }  # fmt: skip
    nodes = [
        helper.make_node("MatMul", ["x", "U"], ["u"]),
        helper.make_node("MatMul", ["u", "D"], ["distances"]),
        helper.make_node("Mul", ["distances", "row"], ["scaled"]),
        helper.make_node("ReduceSum", ["scaled", "last"], ["logit"], keepdims=0),
        helper.make_node("Sigmoid", ["logit"], [novelty]),
        helper.make_node("MatMul", ["x", "V"], ["v"]),
        helper.make_node("MatMul", ["v", "C"], ["classes"]),
        helper.make_node("Softmax", ["classes"], ["class_probabilities"]),
    ]
    constants = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    constants.append(numpy_helper.from_array(np.array([[50.0, -50.0]], np.float32), "row"))
    constants.append(numpy_helper.from_array(np.array([1], np.int64), "last"))
    ends = [value(novelty, 1, ["N"]), value("class_probabilities", 1, ["N", 2])]
    return model_of(nodes, [value("x", 1, ["N", 2])], ends, constants)


def test_harm_to_the_novelty_counts() -> None:
    """The gate asks for it; before its last steps there is little to be seen of it."""
    batch = np.random.default_rng(1).normal(size=(64, 2)).astype(np.float32)
    orders = {}
    for name in ("novelty", "something_else"):
        model = two_branches(name)
        assert quantizable(model) == ["u", "v"]
        orders[name] = rank_by_harm(model, calibrate(model, [batch]), [batch])
    assert orders == {"novelty": ["u", "v"], "something_else": ["v", "u"]}


def test_scales_cover_the_largest_value() -> None:
    calibration = Calibration({"a": 254.0, "b": 0.0}, 1)
    assert (calibration.scale("a"), calibration.scale("b")) == (2.0, 1.0)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], r"got 0 pictures, expected at least 8 frames"),
        (list(pictures(3)), "got 3 pictures"),
        (list(np.random.default_rng(0).integers(0, 256, (8, 64, 96, 3), np.uint8)), "got pictures of noise"),
        ([np.full((64, 96, 3), 7 * i, np.uint8) for i in range(8)], "got pictures of noise"),
        ([pictures(1)[0]] * 8, "the same picture several times"),
    ],
    ids=["none", "few", "noise", "one colour", "same"],
)
def test_frames_that_can_not_calibrate(frames: list[np.ndarray], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        check_frames(frames)


def test_real_looking_frames_may_calibrate() -> None:
    check_frames(list(pictures(8)))


def test_no_batches_are_refused() -> None:
    with pytest.raises(CalibrationError, match="got no frames"):
        calibrate(detector(), [])


def test_a_calibration_of_another_graph_is_refused() -> None:
    with pytest.raises(ModelFormatError, match="got no range, expected a calibration of this very graph"):
        to_int8(detector(), Calibration({"elsewhere": 1.0}, 8))


def test_a_graph_that_gives_no_numbers_is_refused() -> None:
    weights = [numpy_helper.from_array(np.full((2, 2), value, np.float32), f"w{value}") for value in (1.0, 2.0)]
    nodes = [
        helper.make_node("Log", ["x"], ["a"]),
        helper.make_node("MatMul", ["a", "w1.0"], ["b"]),
        helper.make_node("MatMul", ["b", "w2.0"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    model = model_of(nodes, [value("x", TensorProto.FLOAT, [1, 2])], [value("y", TensorProto.FLOAT, [1, 2])], weights)
    with pytest.raises(ModelFormatError, match="tensor 'a': got values that are not finite"):
        calibrate(model, [np.zeros((1, 2), np.float32)])


@pytest.mark.parametrize(
    ("operator", "options"), [("MatMul", {}), ("Gemm", {}), ("Gemm", {"transB": 1})], ids=["MatMul", "Gemm", "transB"]
)
def test_a_matrix_has_a_scale_for_each_output_channel(operator: str, options: dict[str, int]) -> None:
    """Columns of very different size: with a scale for each row the small ones would become zero."""
    columns = np.float32([1, 100, 0.01])
    matrix = np.float32([[1, -0.5, 0.25], [0.5, 1, -1]]) * columns
    stored = matrix.T.copy() if options else matrix
    weights = [numpy_helper.from_array(stored, "w"), numpy_helper.from_array(np.eye(3, dtype=np.float32), "last")]
    nodes = [
        helper.make_node(operator, ["x", "w"], ["a"], **options),
        helper.make_node("MatMul", ["a", "last"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    model = model_of(nodes, [value("x", 1, [1, 2])], [value("y", 1, [1, 3])], weights)
    x = np.array([[64.0, 127.0]], np.float32)
    quantized, report = to_int8(model, calibrate(model, [x]))
    valid(quantized)
    assert report.quantized == ("a",)
    (dequantize,) = (node for node in quantized.graph.node if "weight_dequantized" in node.output[0])
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
    integers, scale, _ = (constants[name] for name in dequantize.input)
    wanted = np.float32([[127, -64, 32], [64, 127, -127]])  # halves go to the even number
    np.testing.assert_allclose(integers.T if options else integers, wanted, atol=1)
    np.testing.assert_allclose(scale, columns / 127, rtol=2e-3)
    np.testing.assert_allclose(run(emulated(quantized), {"x": x})[0], x @ matrix, rtol=0.02)
