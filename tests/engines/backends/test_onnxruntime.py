"""The ONNX Runtime backend: what goes in and out, side by side runs, and what it says of broken models."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from engines.backends.onnxruntime import OnnxRuntimeEngine, Threads
from engines.base import BackendUnavailableError, Engine, EngineError, ModelFormatError, TensorMismatchError
from tests.engines.networks import model_of


def doubler(batch: int | str = "N") -> object:
    return model_of(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 2])],
    )


def test_runs_and_names_what_it_is() -> None:
    engine = OnnxRuntimeEngine(doubler(), threads=Threads(1, 3), device="cpu", max_batch=4)
    assert isinstance(engine, Engine)
    assert engine.backend == "onnxruntime cpu"
    assert (engine.concurrency, engine.max_batch) == (3, 4)
    assert [(spec.name, spec.shape, spec.dtype) for spec in engine.inputs] == [("x", (None, 2), np.float32)]
    assert [spec.name for spec in engine.outputs] == ["y"]
    assert engine.infer({"x": np.ones((3, 2), np.float32)})["y"].tolist() == [[2, 2]] * 3


def test_a_fixed_batch_is_the_largest() -> None:
    assert OnnxRuntimeEngine(doubler(5), max_batch=9).max_batch == 5


def test_two_threads_share_a_session() -> None:
    engine = OnnxRuntimeEngine(doubler(), threads=Threads(1, 2))
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda i: engine.infer({"x": np.full((1, 2), i, np.float32)})["y"][0, 0], range(50)))
    assert answers == [2 * i for i in range(50)]


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({"x": np.ones((3, 3), np.float32)}, r"input 'x': got float32 \(3, 3\), expected float32 \(N,2\)"),
        ({"x": np.ones((3, 2))}, r"input 'x': got float64 \(3, 2\), expected float32"),
        ({"z": np.ones((3, 2), np.float32)}, r"inputs: got \['z'\], expected \['x'\]"),
        ({}, r"inputs: got \[\], expected \['x'\]"),
    ],
)
def test_wrong_feeds(feeds: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(TensorMismatchError, match=message):
        OnnxRuntimeEngine(doubler()).infer(feeds)


def test_a_run_that_fails_inside_is_our_error() -> None:
    reshape = model_of(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N"]),
            helper.make_tensor_value_info("shape", TensorProto.INT64, [2]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None])],
    )
    feeds = {"x": np.ones(5, np.float32), "shape": np.array([2, 2])}
    with pytest.raises(EngineError, match=r"ONNX Runtime failed on input .*\(5,\)"):
        OnnxRuntimeEngine(reshape).infer(feeds)


def test_after_close_a_call_is_refused() -> None:
    engine = OnnxRuntimeEngine(doubler())
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="got a call after close"):
        engine.infer({"x": np.ones((3, 2), np.float32)})


@pytest.mark.parametrize(("operator", "domain"), [("NoSuchOperator", ""), ("Add", "com.example")])
def test_an_operator_that_it_lacks(operator: str, domain: str) -> None:
    model = model_of(
        [helper.make_node(operator, ["x", "x"], ["y"], domain=domain)],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    with pytest.raises(ModelFormatError, match=f"ONNX Runtime refuses the model: .*{operator}"):
        OnnxRuntimeEngine(model)


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="CUDA is there")
def test_cuda_asked_for_and_absent() -> None:
    with pytest.raises(BackendUnavailableError, match="pip install onnxruntime-gpu"):
        OnnxRuntimeEngine(doubler(), device="cuda")


def test_no_threads() -> None:
    with pytest.raises(ValueError, match="expected at least 1"):
        Threads(0, 1)
