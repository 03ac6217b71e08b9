"""Half the file, the same answers."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.graphs.storage import Weights, narrowed, stored_names, widened
from tests.engines.networks import raw_network, run
from tests.engines.small_detector import detector, pictures


def weights(model) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_a_halved_file_is_half_as_large_and_answers_alike() -> None:
    model = detector(batch=1)
    stored = narrowed(model)
    large = {name for name, value in weights(model).items() if value.dtype == np.float32 and value.size >= 256}
    assert large == {"down3_w", "down4_w", "down5_w"}
    halves = {tensor.name for tensor in stored.graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    assert halves == {f"{name}/half" for name in large}
    images = pictures(1)
    for got, expected in zip(run(stored, {"images": images})[:2], run(model, {"images": images})[:2], strict=True):
        np.testing.assert_allclose(got, expected, atol=0.5)


def test_widening_gives_back_every_constant_rounded_to_half() -> None:
    model = detector(batch=1)
    back = widened(narrowed(model))
    assert [node.op_type for node in back.graph.node] == [node.op_type for node in model.graph.node]
    original = weights(model)
    for name, value in weights(back).items():
        assert value.dtype == original[name].dtype
        if value.dtype == np.float32 and value.size >= 256:
            assert (value == original[name].astype(np.float16)).all()
        else:
            assert (value == original[name]).all()


def test_what_half_precision_cannot_hold_stays() -> None:
    model = detector(batch=1)
    tensor = next(t for t in model.graph.initializer if np.prod(t.dims) >= 256 and t.data_type == TensorProto.FLOAT)
    name, value = tensor.name, numpy_helper.to_array(tensor).copy()
    value.flat[0] = 1e6
    tensor.CopyFrom(numpy_helper.from_array(value, name))
    assert weights(narrowed(model))[name].dtype == np.float32


def test_other_files_are_left_as_they_are() -> None:
    model = detector(batch=1)
    before = model.SerializeToString()
    assert widened(model).SerializeToString() == before


LAYERS = {"down3_w", "down4_w", "down5_w"}


def test_a_file_of_int8_is_a_quarter_as_large_and_answers_alike() -> None:
    model = detector(batch=1)
    stored = narrowed(model, "int8")
    assert stored_names(stored) == LAYERS
    held = weights(stored)
    assert {f"{name}/int8" for name in LAYERS} == {n for n, value in held.items() if value.dtype == np.int8}
    assert all(held[f"{name}/scale"].shape == weights(model)[name].shape[:1] for name in LAYERS)
    images = pictures(1)
    boxes, scores = (run(model, {"images": images})[i] for i in (0, 1))
    for given in (stored, widened(narrowed(model, "int8"))):  # by the runtime's operators, and as leukostream loads it
        got_boxes, got_scores = run(given, {"images": images})[:2]
        np.testing.assert_allclose(got_scores, scores, atol=0.02)
        np.testing.assert_allclose(got_boxes, boxes, atol=2)


@pytest.mark.parametrize(
    ("operator", "shape", "attributes", "axis"),
    [
        ("Conv", (6, 80, 1, 1), {}, 0),
        ("ConvTranspose", (80, 6, 2, 2), {}, 1),
        ("Gemm", (80, 6), {}, 1),
        ("Gemm", (6, 80), {"transB": 1}, 0),
        ("MatMul", (80, 6), {}, 1),
    ],
)
def test_each_output_channel_has_its_own_step(
    operator: str, shape: tuple[int, ...], attributes: dict[str, int], axis: int
) -> None:
    rng = np.random.default_rng(1)
    sizes = (10.0 ** np.arange(-3, 3)).astype(np.float32)
    value = rng.standard_normal(shape).astype(np.float32)
    value *= sizes.reshape([6 if i == axis else 1 for i in range(len(shape))])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 80, 3, 3] if len(shape) == 4 else [2, 80])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    node = helper.make_node(operator, ["x", "w"], ["y"], **attributes)
    graph = helper.make_graph([node], "layer", [x], [y], [numpy_helper.from_array(value, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    back = weights(widened(narrowed(model, "int8")))["w"]
    others = tuple(i for i in range(len(shape)) if i != axis)
    steps = np.abs(value).max(axis=others, keepdims=True) / 127
    assert (np.abs(back - value) <= steps * 0.501).all()


def test_what_is_no_weight_of_a_layer_is_in_half_precision_beside_int8() -> None:
    model = detector(batch=1)
    table = numpy_helper.from_array(np.linspace(0, 1, 512, dtype=np.float32), "table")
    model.graph.initializer.append(table)
    model.graph.node.append(helper.make_node("Neg", ["table"], ["unused"]))
    held = weights(narrowed(model, "int8"))
    assert held["table/half"].dtype == np.float16
    assert {name for name in held if name.endswith("/int8")} == {f"{name}/int8" for name in LAYERS}


@pytest.mark.parametrize("first", ["float16", "int8"])
@pytest.mark.parametrize("second", ["float32", "float16", "int8"])
def test_a_stored_file_can_be_stored_otherwise(first: Weights, second: Weights) -> None:
    model = detector(batch=1)
    once = narrowed(model, first)
    twice = narrowed(once, second)
    if second == "float32":
        assert not stored_names(twice)
    else:
        assert stored_names(twice) == LAYERS
    (again,) = (value for name, value in weights(widened(twice)).items() if name == "down4_w")
    original = weights(model)["down4_w"]
    assert np.abs(again - original).max() <= np.abs(original).max() / 100


@pytest.mark.parametrize(("int8_from", "suffix"), [(8 * 8 * 9, "/int8"), (8 * 8 * 9 + 1, "/half")])
def test_layers_below_a_size_are_in_half_precision_beside_int8(int8_from: int, suffix: str) -> None:
    held = weights(narrowed(detector(batch=1), "int8", int8_from=int8_from))
    assert {name for name in held if name.endswith(("/int8", "/half"))} == {f"{name}{suffix}" for name in LAYERS}


def test_only_what_is_named_is_stored() -> None:
    assert stored_names(narrowed(detector(batch=1), "int8", only=["down4_w"])) == {"down4_w"}


@pytest.mark.parametrize(("kind", "most"), [("float16", 0.001), ("int8", 0.02)])
def test_a_random_network_says_nearly_the_same(kind: Weights, most: float) -> None:
    """Weights at random use the range of int8 worst: those of trained networks cost less."""
    model = raw_network(seed=5)
    images = np.random.default_rng(2).random((2, 3, 64, 96), np.float32)
    expected = run(model, {"images": images})
    for given in (narrowed(model, kind), widened(narrowed(model, kind))):
        for got, true in zip(run(given, {"images": images}), expected, strict=True):
            assert 0 < np.abs(got - true).max() < most * np.abs(true).max()
