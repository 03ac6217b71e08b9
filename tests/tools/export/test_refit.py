"""Offsets and temperature of a graph that ships, changed without its network."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

torch = pytest.importorskip("torch", reason="needs the extra `train`")

from engines.base import ModelFormatError  # noqa: E402
from engines.graphs.graph import CLASS_PROBABILITIES, INPUT  # noqa: E402
from tools.data import ABNORMAL_CLASSES  # noqa: E402
from tools.export.classifier import CLASS_OFFSETS, Fitted, build_graph  # noqa: E402
from tools.export.crops import offsets  # noqa: E402
from tools.export.refit import with_constants  # noqa: E402
from tools.train.classifier import Recipe, build_network  # noqa: E402

PX = 32


@pytest.fixture(scope="module")
def graph() -> onnx.ModelProto:
    recipe = Recipe(input_px=PX)
    torch.manual_seed(1)
    return build_graph(build_network(recipe, pretrained=False).eval(), recipe, Fitted(temperature=1.3))


def logits(model: onnx.ModelProto) -> np.ndarray:
    crops = np.random.default_rng(2).integers(0, 256, (4, PX, PX, 3), np.uint8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.log(session.run([CLASS_PROBABILITIES], {INPUT: crops})[0].astype(np.float64))


def test_the_network_is_seen_through_other_offsets_and_another_temperature(graph: onnx.ModelProto) -> None:
    own = offsets(ABNORMAL_CLASSES, CLASS_OFFSETS).numpy()
    wanted = np.linspace(-2, 2, len(ABNORMAL_CLASSES), dtype=np.float32)
    before, after = logits(graph), logits(with_constants(graph, wanted, 0.8))
    expected = (1.3 * before - own + wanted) / 0.8
    np.testing.assert_allclose(
        after - after.mean(1, keepdims=True), expected - expected.mean(1, keepdims=True), atol=1e-4
    )
    np.testing.assert_array_equal(logits(graph), before)  # what was given stays as it was


def test_what_was_fitted_comes_back_with_the_same_constants(graph: onnx.ModelProto) -> None:
    own = offsets(ABNORMAL_CLASSES, CLASS_OFFSETS).numpy()
    np.testing.assert_array_equal(logits(with_constants(graph, own, 1.3)), logits(graph))


def test_other_graphs_and_other_classes_are_refused(graph: onnx.ModelProto) -> None:
    with pytest.raises(ModelFormatError, match=r"got shapes \[\(11,\)\], expected one of shape \(10,\)"):
        with_constants(graph, np.zeros(10, np.float32), 1.0)
    other = onnx.ModelProto()
    other.CopyFrom(graph)
    for node in other.graph.node:
        if CLASS_PROBABILITIES in node.output:
            node.op_type = "LogSoftmax"
    with pytest.raises(ModelFormatError, match="got LogSoftmax where Softmax was expected"):
        with_constants(other, np.zeros(len(ABNORMAL_CLASSES), np.float32), 1.0)
