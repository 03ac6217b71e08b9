"""What a serialized plan holds: TensorRT's engine of it, and its inputs and outputs."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from engines.backends.tensorrt.device import Device
from engines.backends.tensorrt.errors import DamagedPlanError, PlanError
from engines.backends.tensorrt.libraries import Libraries
from engines.backends.tensorrt.log import LogLines, says_no_memory
from engines.base import ModelFormatError, TensorSpec

_ASSERTION = re.compile(r"Serialization assertion (.+?) failed|(empty memory buffer)")


def damaged(why: str) -> bool:
    """Whether TensorRT's log says that the bytes are at fault, and not their release, the GPU, memory or the driver.

    Of TensorRT for RTX 1.7: "Serialization assertion header.magicTag == kEXPECTED_MAGIC_TAG failed",
    "... plan.header.size == blobSize failed", "... == rt::kEND_OF_PLAN_MARKER failed", "Cannot deserialize with an
    empty memory buffer". Of a plan of another release TensorRT says "Serialization assertion stdVersionRead == ...".
    """
    found = _ASSERTION.search(why)
    return found is not None and "version" not in (found[1] or "").lower()


def init_plugins(trt: Any, logger: Any) -> None:
    """Register TensorRT's own plugins, without which its parser knows no RoiAlign, and no plan that holds one loads.

    TensorRT for RTX brings none; the lean runtime has not even the function.
    """
    init = getattr(trt, "init_libnvinfer_plugins", None)
    if init is not None:
        init(logger, "")


def start_runtime(trt: Any, logger: Any, log: LogLines) -> Any:
    """TensorRT's runtime, with its plugins. PlanError: it does not start."""
    init_plugins(trt, logger)
    try:
        return trt.Runtime(logger)
    except (TypeError, RuntimeError) as error:  # pybind11 where the library gives a null pointer
        raise PlanError(
            f"TensorRT does not start ({error}; {log.errors()}), expected a working GPU and driver; "
            "see what `nvidia-smi` and `leukostream doctor` say"
        ) from error


def deserialize(
    plan: bytes, libraries: Libraries, device: Device, logger: Any, log: LogLines, *, host_code_allowed: bool
) -> tuple[Any, Any]:
    """The runtime, which must outlive the engine, and the engine of a plan. `log` has the lines of `logger`.

    DamagedPlanError: not a plan. OutOfMemoryError: no memory for it now. PlanError: no runtime starts, or the plan is
    one of another release or GPU.
    """
    trt = libraries.trt
    log.clear()
    runtime = start_runtime(trt, logger, log)
    if host_code_allowed:
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is not None:
        return runtime, engine
    why = log.errors()
    if says_no_memory(why):
        raise device.out_of_memory("loading the plan", why)
    kind, remedy = (DamagedPlanError, "expected a whole plan") if damaged(why) else (PlanError, _EXPECTED)
    raise kind(
        f"plan of {len(plan)} bytes: {libraries.flavour} {trt.__version__} can't load it ({why}), {remedy}; "
        "build it again with `leukostream compile`"
    )


_EXPECTED = "expected one that was built by this version for this GPU"


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
