"""The last layer of a classifier: read as it computes, and another one in its place."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from engines.base import ModelFormatError
from engines.graphs.gradcam import add_gradcam
from engines.graphs.graph import add_uint8_input
from engines.graphs.last_layer import FEATURES, LastLayer, last_layer, with_features, with_last_layer
from engines.zoo.registry import find
from tests.engines import networks
from tests.engines.networks import model_of
from tests.engines.small_classifier import classifier

CROPS = np.random.default_rng(2).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)


def run(model: ModelProto, crops: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip([out.name for out in model.graph.output], networks.run(model, {"images": crops}), strict=True))


def ending_in(*nodes: tuple[str, list[str], dict[str, object]], **constants: np.ndarray) -> ModelProto:
    """The mean colour (N,3), then these nodes (operator, inputs, attributes): "x" is what the one before gave."""
    made = [
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["0"]),
    ]
    for i, (kind, inputs, attributes) in enumerate(nodes):
        out = "class_probabilities" if i == len(nodes) - 1 else str(i + 1)
        made.append(helper.make_node(kind, [str(i) if n == "x" else n for n in inputs], [out], **attributes))
    values = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, 16, 16])
    output = helper.make_tensor_value_info("class_probabilities", TensorProto.FLOAT, ["N", 4])
    return add_uint8_input(model_of(made, [images], [output], values))


RNG = np.random.default_rng(1)
W = RNG.normal(0, 3, (4, 3)).astype(np.float32)
B, OFFSETS, T = RNG.normal(0, 1, 4).astype(np.float32), RNG.normal(0, 1, 4).astype(np.float32), np.float32([0.7])
SOFTMAX = ("Softmax", ["x"], {"axis": 1})
ENDINGS = {
    "gemm, offsets, temperature": ending_in(
        ("Gemm", ["x", "w", "b"], {"transB": 1}), ("Add", ["x", "o"], {}), ("Div", ["x", "t"], {}), SOFTMAX,
        w=W, b=B, o=OFFSETS, t=T,
    ),
    "scaled gemm": ending_in(
        ("Gemm", ["x", "w", "b"], {"alpha": 0.5, "beta": 2.0}),
        ("Mul", ["x", "t"], {}), ("Sub", ["x", "o"], {}), SOFTMAX,
        w=np.ascontiguousarray(W.T), b=B, o=OFFSETS, t=T,
    ),
    "matmul": ending_in(("MatMul", ["x", "w"], {}), ("Identity", ["x"], {}), SOFTMAX, w=np.ascontiguousarray(W.T)),
    "two convolutions": classifier(4),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDINGS)
def test_the_layer_makes_the_probabilities_of_the_features(name):
    model = ENDINGS[name]
    layer, found = last_layer(model), run(with_features(model), CROPS)
    odds = np.exp(found[FEATURES] @ layer.weights.T + layer.bias)
    assert found["class_probabilities"] == pytest.approx(odds / odds.sum(1, keepdims=True), abs=1e-5)
    assert found["class_probabilities"] == pytest.approx(run(model, CROPS)["class_probabilities"])


@pytest.mark.parametrize("name", ENDINGS)
def test_another_layer_takes_its_place_and_no_node_goes(name):
    model = ENDINGS[name]
    own, rng = last_layer(model), np.random.default_rng(3)
    other = LastLayer(rng.normal(0, 1, own.weights.shape), rng.normal(0, 1, own.bias.shape))
    changed = with_last_layer(model, other)
    again = last_layer(changed)
    assert again.weights == pytest.approx(other.weights, abs=1e-5)
    assert again.bias == pytest.approx(other.bias, abs=1e-5)
    found = run(with_features(changed), CROPS)
    odds = np.exp(found[FEATURES] @ other.weights.T + other.bias)
    assert found["class_probabilities"] == pytest.approx(odds / odds.sum(1, keepdims=True), abs=1e-5)
    assert [node.output for node in changed.graph.node] == [node.output for node in model.graph.node]
    assert last_layer(model).weights == pytest.approx(own.weights)


def test_the_default_classifier_keeps_its_other_outputs_and_can_be_explained():
    model = find("mobilenetv3-small", "classifier").proto
    own = last_layer(model)
    changed = with_last_layer(model, LastLayer(own.weights * 0.5, own.bias + 1))
    crops = np.random.default_rng(2).integers(0, 256, (2, 128, 128, 3), dtype=np.uint8)
    before, after = run(model, crops), run(changed, crops)
    assert set(after) == set(before)
    for name in set(before) - {"class_probabilities"}:
        assert after[name] == pytest.approx(before[name], abs=1e-5)
    assert not np.allclose(after["class_probabilities"], before["class_probabilities"], atol=1e-3)
    assert run(add_gradcam(changed), crops)["cam"].shape[0] == 2


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (ending_in(("Gemm", ["x", "w"], {"transB": 1}), ("Sigmoid", ["x"], {}), w=W), "got Sigmoid"),
        (ending_in(("Gemm", ["x", "w"], {"transB": 1}), ("Relu", ["x"], {}), SOFTMAX, w=W), "got Relu"),
        (
            ending_in(("Gemm", ["x", "w"], {"transB": 1}), ("Div", ["x", "o"], {}), SOFTMAX, w=W, o=OFFSETS + 9),
            "got Div",
        ),
    ],
)
def test_what_ends_otherwise_is_refused(model, words):
    with pytest.raises(ModelFormatError, match=words):
        last_layer(model)
