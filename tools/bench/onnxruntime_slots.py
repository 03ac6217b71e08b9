"""ONNX Runtime's CUDA provider behind the interface of TensorRT that engines.backends.tensorrt.runtime uses.

So the slots, streams and page-locked buffers of the GPU path can be run and measured where TensorRT's own library is
not there. A "plan" is the ONNX itself with its largest batch before it (`as_plan`); each execution context is a session
on the slot's stream (`user_compute_stream`), its tensors bound to the slot's device memory.
"""

from __future__ import annotations

import enum
import struct
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto

from engines.backends.tensorrt.libraries import Libraries


class Severity(enum.IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2


class ILogger:
    Severity = Severity


class DataType(enum.Enum):
    FLOAT = TensorProto.FLOAT
    HALF = TensorProto.FLOAT16
    INT8 = TensorProto.INT8
    INT32 = TensorProto.INT32
    INT64 = TensorProto.INT64
    BOOL = TensorProto.BOOL
    UINT8 = TensorProto.UINT8


class TensorIOMode(enum.Enum):
    INPUT = 1
    OUTPUT = 2


class TensorLocation(enum.Enum):
    DEVICE = 0


def as_plan(model: onnx.ModelProto, largest_batch: int) -> bytes:
    return struct.pack(">I", largest_batch) + bytes(model.SerializeToString())


class Runtime:
    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def deserialize_cuda_engine(self, plan: bytes) -> _Engine:
        return _Engine(plan[4:], struct.unpack(">I", plan[:4])[0])


class _Engine:
    device_memory_size_v2 = 0  # ONNX Runtime's arena grows as it likes; it does not say

    def __init__(self, model: bytes, largest_batch: int) -> None:
        self.model, self.largest_batch = model, largest_batch
        graph = onnx.load_model_from_string(model).graph
        self.values = {value.name: value for value in (*graph.input, *graph.output)}
        self.inputs = [value.name for value in graph.input]
        self.names: list[str] = list(self.values)
        self.num_io_tensors = len(self.names)

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType(self.values[name].type.tensor_type.elem_type)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        dims = self.values[name].type.tensor_type.shape.dim
        return tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in dims)

    def get_tensor_location(self, name: str) -> TensorLocation:
        return TensorLocation.DEVICE

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        rest = self.get_tensor_shape(name)[1:]
        return [(1, *rest), (self.largest_batch, *rest), (self.largest_batch, *rest)]

    def create_execution_context(self) -> _Context:
        return _Context(self)


class _Context:
    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._session: onnxruntime.InferenceSession | None = None
        self._options = onnxruntime.RunOptions()
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shapes[name] = shape
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        dims = self._engine.get_tensor_shape(name)
        return (next(iter(self._shapes.values()))[0], *dims[1:])

    def get_max_output_size(self, name: str) -> int:
        shape = (self._engine.largest_batch, *self._engine.get_tensor_shape(name)[1:])
        return int(np.prod(shape)) * self._numpy_type(name).itemsize

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        session = self._session or self._open(stream_handle)
        binding = session.io_binding()
        for name in self._engine.names:
            bind = binding.bind_input if name in self._shapes else binding.bind_output
            bind(name, "cuda", 0, self._numpy_type(name), list(self.get_tensor_shape(name)), self._addresses[name])
        session.run_with_iobinding(binding, self._options)
        return True

    def _open(self, stream_handle: int) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        cuda = ("CUDAExecutionProvider", {"device_id": "0", "user_compute_stream": str(stream_handle)})
        session = onnxruntime.InferenceSession(self._engine.model, options, providers=[cuda, "CPUExecutionProvider"])
        if session.get_providers()[0] != "CUDAExecutionProvider":
            raise RuntimeError("ONNX Runtime's CUDA provider did not start")
        self._session = session
        return session

    def _numpy_type(self, name: str) -> np.dtype[Any]:
        return onnx.helper.tensor_dtype_to_np_dtype(self._engine.values[name].type.tensor_type.elem_type)


class _Module:
    """Stands for the module `tensorrt`."""

    __version__ = f"99.0 (ONNX Runtime {onnxruntime.__version__})"
    ILogger, DataType, TensorIOMode, TensorLocation, Runtime = ILogger, DataType, TensorIOMode, TensorLocation, Runtime


def libraries(cuda: Any) -> Libraries:
    """Libraries whose TensorRT is ONNX Runtime's CUDA provider; `cuda` is pycuda.driver."""
    return Libraries(_Module(), cuda)
