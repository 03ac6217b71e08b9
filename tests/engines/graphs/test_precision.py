"""fp16 surgery: what changes type, what does not, and that its cost can be seen on a CPU."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper, shape_inference

from engines.base import ModelFormatError
from engines.graphs.precision import emulated, float_types, to_fp16
from tests.engines.networks import Array, classifier_file, model_of, run, valid
from tests.engines.small_detector import detector, pictures


def types(model: ModelProto) -> dict[str, int]:
    graph = shape_inference.infer_shapes(model).graph
    return {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}


def test_the_body_is_half_and_both_ends_are_single() -> None:
    model = detector()
    half, report = to_fp16(model)
    valid(half)
    assert [value.type for value in half.graph.input] == [value.type for value in model.graph.input]
    assert [value.type.tensor_type.elem_type for value in half.graph.output] == [1, 1, 7]
    kinds = types(half)
    convolutions = [node for node in half.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 8
    assert all(kinds[node.output[0]] == TensorProto.FLOAT16 for node in convolutions)
    singles = {node.op_type for node in half.graph.node if kinds.get(node.output[0]) == TensorProto.FLOAT}
    assert {"Mul", "Sigmoid", "Slice", "Sub"} <= singles  # prefix and head: px and confidences
    # one sigmoid and one product for each of five activations, the residual, eight convolutions
    assert report.half == 5 * 2 + 1 + 8
    assert report.kept == ()
    assert float_types(half)["float16"] >= report.half


def test_results_stay_close_and_the_cost_of_rounding_shows() -> None:
    model, frames = detector(), pictures(2)
    half, _ = to_fp16(model)
    exact = run(model, {"images": frames})
    scores = run(emulated(half), {"images": frames})[1]
    assert 0 < np.abs(scores - exact[1]).max() < 5e-3


def test_emulation_rounds_after_every_node() -> None:
    """ONNX Runtime's CPU drops the roundings of an fp16 graph; the emulation must not."""
    first, second = np.float16(1.0009765625), np.float16(1.7001953125)
    constants = [numpy_helper.from_array(np.array(value), name) for value, name in ((first, "c"), (second, "d"))]
    nodes = [
        helper.make_node("Cast", ["x"], ["a"], to=TensorProto.FLOAT16),
        helper.make_node("Mul", ["a", "c"], ["b"]),
        helper.make_node("Mul", ["b", "d"], ["e"]),
        helper.make_node("Cast", ["e"], ["y"], to=TensorProto.FLOAT),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [500]) for name in ("x", "y")]
    x = np.linspace(1, 2, 500, dtype=np.float32)
    got = run(emulated(model_of(nodes, ends[:1], ends[1:], constants)), {"x": x})[0]
    expected: Array = ((x.astype(np.float16) * first) * second).astype(np.float32)
    assert got.tolist() == expected.tolist()


def test_delicate_operators_stay_single_between_casts() -> None:
    """A squeeze-and-excite block has a mean over the picture in the middle of the network."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.normal(size=(4, given, 1, 1)).astype(np.float32), name)
        for name, given in (("w0", 3), ("w1", 4))
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"]),
        helper.make_node("GlobalAveragePool", ["a"], ["mean"]),
        helper.make_node("HardSigmoid", ["mean"], ["gate"]),
        helper.make_node("Mul", ["a", "gate"], ["b"]),
        helper.make_node("Conv", ["b", "w1"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    model = model_of(nodes, [value("x", 1, [1, 3, 8, 8])], [value("y", 1, [1, 4, 8, 8])], weights)
    half, report = to_fp16(model)
    valid(half)
    assert types(half)["mean"] == TensorProto.FLOAT
    assert report.kept == ("mean (GlobalAveragePool): numerically delicate",)
    assert (report.half, report.single) == (4, 1)


def test_numbers_beyond_half_keep_their_operator_single() -> None:
    weights = [
        numpy_helper.from_array(np.full((2, 2), value, np.float32), name) for name, value in (("w0", 1e6), ("w1", 0.5))
    ]
    nodes = [helper.make_node("MatMul", ["x", "w0"], ["a"]), helper.make_node("MatMul", ["a", "w1"], ["y"])]
    value = helper.make_tensor_value_info
    model = model_of(nodes, [value("x", 1, [1, 2])], [value("y", 1, [1, 2])], weights)
    _, by_constant = to_fp16(model)
    assert by_constant.kept == ("a (MatMul): constant up to 1e+06, fp16 ends at 65504",)
    with pytest.raises(ModelFormatError, match="fp16: got a graph without a convolution"):
        to_fp16(model, ranges={"a": 40_000.0})


def test_a_classifier_keeps_its_softmax_single() -> None:
    model = classifier_file()
    half, _ = to_fp16(model)
    kinds = types(half)
    assert {kinds[node.output[0]] for node in half.graph.node if node.op_type == "Softmax"} == {TensorProto.FLOAT}


def test_a_graph_of_no_network_is_refused() -> None:
    value = helper.make_tensor_value_info
    model = model_of([helper.make_node("Add", ["x", "x"], ["y"])], [value("x", 1, [2])], [value("y", 1, [2])])
    with pytest.raises(ModelFormatError, match="without a convolution or matrix product"):
        to_fp16(model)


def test_emulation_refuses_half_at_the_ends() -> None:
    value = helper.make_tensor_value_info
    model = model_of([helper.make_node("Add", ["x", "x"], ["y"])], [value("x", 10, [2])], [value("y", 10, [2])])
    with pytest.raises(ModelFormatError, match="expected fp16 inside the graph only"):
        emulated(model)
