"""What a serialized plan holds: TensorRT's engine of it, and its inputs and outputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from engines.backends.tensorrt.errors import PlanError
from engines.backends.tensorrt.libraries import LogLines
from engines.base import ModelFormatError, TensorSpec


def deserialize(plan: bytes, trt: Any, logger: Any, log: LogLines, *, host_code_allowed: bool) -> tuple[Any, Any]:
    """The runtime, which must outlive the engine, and the engine of a plan. `log` has the lines of `logger`.
    PlanError: no GPU, or not a plan that this TensorRT loads here."""
    try:
        runtime = trt.Runtime(logger)
    except (TypeError, RuntimeError) as error:  # pybind11 where the library gives a null pointer
        raise PlanError(
            f"TensorRT does not start ({error}; {log.errors()}), expected a working GPU and driver; "
            "see what `nvidia-smi` and `leukostream doctor` say"
        ) from error
    if host_code_allowed:
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise PlanError(
            f"plan of {len(plan)} bytes: TensorRT {trt.__version__} can't load it "
            f"({log.errors()}), expected one that was built by this version for this GPU; "
            "build it again with `leukostream compile`"
        )
    return runtime, engine


def read_tensors(trt: Any, engine: Any) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of an engine; their first dimension, the batch, is None where the profile leaves it open.
    ModelFormatError: other sizes are open, or a tensor is no batch of numbers on the GPU."""
    dtypes = numpy_types(trt)
    inputs: list[TensorSpec] = []
    outputs: list[TensorSpec] = []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        kind, dims = engine.get_tensor_dtype(name), tuple(int(size) for size in engine.get_tensor_shape(name))
        if kind not in dtypes or not dims or engine.get_tensor_location(name) != trt.TensorLocation.DEVICE:
            raise ModelFormatError(
                f"tensor {name!r}: got {kind} {dims}, expected a batch of numbers on the GPU; export again"
            )
        if any(size < 0 for size in dims[1:]):
            raise ModelFormatError(
                f"tensor {name!r}: got shape {dims}, expected every size but the batch as a number; "
                "compile with a fixed image size"
            )
        spec = TensorSpec(name, (dims[0] if dims[0] >= 0 else None, *dims[1:]), np.dtype(dtypes[kind]))
        is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        (inputs if is_input else outputs).append(spec)
    if not inputs or not outputs:
        raise ModelFormatError(f"plan: got {len(inputs)} inputs and {len(outputs)} outputs, expected some of each")
    return tuple(inputs), tuple(outputs)


def numpy_types(trt: Any) -> dict[Any, type[np.generic]]:
    """TensorRT's types that a network may take or give, and numpy's."""
    kinds = trt.DataType
    return {
        kinds.FLOAT: np.float32,
        kinds.HALF: np.float16,
        kinds.INT8: np.int8,
        kinds.INT32: np.int32,
        kinds.INT64: np.int64,
        kinds.BOOL: np.bool_,
        kinds.UINT8: np.uint8,
    }
