"""Half the file, the same answers."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, numpy_helper

from engines.graphs.storage import halved, widened
from tests.engines.networks import run
from tests.engines.small_detector import detector, pictures


def weights(model) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_a_halved_file_is_half_as_large_and_answers_alike() -> None:
    model = detector(batch=1)
    stored = halved(model)
    large = {name for name, value in weights(model).items() if value.dtype == np.float32 and value.size >= 256}
    assert large == {"down3_w", "down4_w", "down5_w"}
    halves = {tensor.name for tensor in stored.graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    assert halves == {f"{name}/half" for name in large}
    images = pictures(1)
    for got, expected in zip(run(stored, {"images": images})[:2], run(model, {"images": images})[:2], strict=True):
        np.testing.assert_allclose(got, expected, atol=0.5)


def test_widening_gives_back_every_constant_rounded_to_half() -> None:
    model = detector(batch=1)
    back = widened(halved(model))
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
    assert weights(halved(model))[name].dtype == np.float32


def test_other_files_are_left_as_they_are() -> None:
    model = detector(batch=1)
    before = model.SerializeToString()
    assert widened(model).SerializeToString() == before
