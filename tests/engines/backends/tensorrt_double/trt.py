"""The double of the module `tensorrt`: a builder that checks what the real one checks, a runtime over ONNX Runtime.

A plan is the ONNX itself with a header: version, GPU, profile, checksum. Refusals of the real library come as it
gives them, as False, None or -1 with a line in the logger; rules that it leaves to its users raise `Refused`.
"""

from __future__ import annotations

import enum
import hashlib
import json
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto

from .refusals import Refused

if TYPE_CHECKING:
    from .world import Block, World

_MAGIC = b"DOUBLE-PLAN\n"


class Severity(enum.IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class ILogger:
    Severity = Severity

    def __init__(self) -> None:
        self.min_severity = Severity.VERBOSE

    def log(self, severity: Severity, msg: str) -> None:
        raise NotImplementedError


class IProgressMonitor:
    def __init__(self) -> None:
        self.initialised = True


class DataType(enum.Enum):
    FLOAT = TensorProto.FLOAT
    HALF = TensorProto.FLOAT16
    INT8 = TensorProto.INT8
    INT32 = TensorProto.INT32
    INT64 = TensorProto.INT64
    BOOL = TensorProto.BOOL
    UINT8 = TensorProto.UINT8


class TensorIOMode(enum.Enum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class TensorLocation(enum.Enum):
    DEVICE = 0
    HOST = 1


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


class BuilderFlag(enum.IntEnum):
    """Those that both TensorRT 10.12 and 11 have."""

    TF32 = 7
    VERSION_COMPATIBLE = 13
    EXCLUDE_LEAN_RUNTIME = 14


class MemoryPoolType(enum.Enum):
    WORKSPACE = 0


class HardwareCompatibilityLevel(enum.Enum):
    NONE = 0
    AMPERE_PLUS = 1


class ProfilingVerbosity(enum.Enum):
    LAYER_NAMES_ONLY = 0
    NONE = 1
    DETAILED = 2


class LayerInformationFormat(enum.Enum):
    ONELINE = 0
    JSON = 1


def pack(header: Mapping[str, Any], model: bytes) -> bytes:
    text = json.dumps({**header, "sha256": hashlib.sha256(model).hexdigest()}).encode()
    return _MAGIC + len(text).to_bytes(4, "big") + text + model


def unpack(plan: bytes) -> tuple[dict[str, Any], bytes]:
    """ValueError for what is no plan, or a damaged one."""
    if not plan.startswith(_MAGIC):
        raise ValueError("Serialization assertion magicTagRead == kPLAN_MAGIC_TAG failed. Magic tag does not match")
    start = len(_MAGIC) + 4
    stop = start + int.from_bytes(plan[len(_MAGIC) : start], "big")
    header, model = json.loads(plan[start:stop]), plan[stop:]
    if hashlib.sha256(model).hexdigest() != header["sha256"]:
        raise ValueError("Serialization assertion stream size failed: the plan is truncated")
    return header, model


def _dims(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in value.type.tensor_type.shape.dim)


class _Buffer:
    """IHostMemory: `bytes()` of it copies it out."""

    def __init__(self, data: bytes) -> None:
        self._data, self.nbytes = data, len(data)

    def __bytes__(self) -> bytes:
        return self._data


class TensorRT:
    """Stands for the module `tensorrt`: classes of one world."""

    ILogger = ILogger
    IProgressMonitor = IProgressMonitor
    DataType = DataType
    TensorIOMode = TensorIOMode
    TensorLocation = TensorLocation
    NetworkDefinitionCreationFlag = NetworkDefinitionCreationFlag
    BuilderFlag = BuilderFlag
    MemoryPoolType = MemoryPoolType
    HardwareCompatibilityLevel = HardwareCompatibilityLevel
    ProfilingVerbosity = ProfilingVerbosity
    LayerInformationFormat = LayerInformationFormat
    _builds_anywhere = False

    def __init__(self, world: World) -> None:
        from .trt_build import Config, make_builder

        self.Config: type = Config
        self.__version__ = world.version
        self.world = world
        self.Builder, self.OnnxParser = make_builder(world, self)

        class Runtime:
            __slots__ = ("__weakref__", "engine_host_code_allowed", "logger")

            def __init__(self, logger: ILogger) -> None:
                world.require_context("Runtime")
                if not world.plugins_registered:
                    raise Refused("plugins", "a runtime was made before the plugins were registered")
                if world.counted_failure("Runtime"):
                    raise TypeError("pybind11::init(): factory function returned nullptr")
                self.logger = logger
                self.engine_host_code_allowed = False

            def deserialize_cuda_engine(self, serialized_engine: bytes) -> Engine | None:
                world.require_context("deserialize_cuda_engine")
                try:
                    header, model = unpack(bytes(serialized_engine))
                except (ValueError, KeyError) as error:
                    self.logger.log(Severity.ERROR, f"IRuntime::deserializeCudaEngine: Error Code 1: {error}")
                    return None
                if world.counted_failure("deserialize_cuda_engine"):
                    self.logger.log(Severity.ERROR, "Requested amount of GPU memory (1 bytes) could not be allocated.")
                    return None
                refusal = _refusal(world, header, self.engine_host_code_allowed)
                if refusal is not None:
                    self.logger.log(Severity.ERROR, f"IRuntime::deserializeCudaEngine: Error Code 6: {refusal}")
                    return None
                return Engine(self, header, model)

        class Engine:
            """ICudaEngine."""

            def __init__(self, runtime: Runtime, header: dict[str, Any], model: bytes) -> None:
                self.runtime = runtime  # what pybind11's keep_alive does
                self._header = header
                self._graph = onnx.load_model_from_string(model).graph
                options = onnxruntime.SessionOptions()
                options.intra_op_num_threads = 1
                options.log_severity_level = 4
                self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
                self.values = {value.name: value for value in (*self._graph.input, *self._graph.output)}
                self.names = list(self.values)
                self.input_names = [value.name for value in self._graph.input]
                self.num_io_tensors = len(self.names)
                self.num_optimization_profiles = 1
                self.device_memory_size_v2 = 1 << 20
                self.num_layers = len(self._graph.node)

            def get_tensor_name(self, index: int) -> str:
                return self.names[index]

            def get_tensor_mode(self, name: str) -> TensorIOMode:
                return TensorIOMode.INPUT if name in self.input_names else TensorIOMode.OUTPUT

            def get_tensor_dtype(self, name: str) -> DataType:
                return DataType(self.values[name].type.tensor_type.elem_type)

            def _numpy_type(self, name: str) -> np.dtype[Any]:
                return onnx.helper.tensor_dtype_to_np_dtype(self.values[name].type.tensor_type.elem_type)

            def get_tensor_shape(self, name: str) -> tuple[int, ...]:
                return _dims(self.values[name])

            def get_tensor_location(self, name: str) -> TensorLocation:
                return TensorLocation.HOST if name in world.host_tensors else TensorLocation.DEVICE

            def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
                return [tuple(shape) for shape in self._header["profile"][name]]

            def create_execution_context(self, runtime_config: Any = None) -> Context | None:
                world.require_context("create_execution_context")
                if world.counted_failure("create_execution_context"):
                    self.runtime.logger.log(Severity.ERROR, "Error Code 2: OutOfMemory (Requested size was 1 bytes.)")
                    return None
                return Context(self, runtime_config)

            def create_engine_inspector(self) -> Inspector:
                return Inspector(self)

        class Inspector:
            """EngineInspector."""

            def __init__(self, engine: Engine) -> None:
                self._engine = engine

            def get_engine_information(self, format: LayerInformationFormat) -> str:
                layers = [
                    {"Name": node.name or node.output[0], "LayerType": node.op_type}
                    for node in self._engine._graph.node
                ]
                return json.dumps({"Layers": layers if self._engine._header["detailed"] else []})

        class Context:
            """IExecutionContext."""

            def __init__(self, engine: Engine, runtime_config: Any) -> None:
                self.engine, self._runtime_config = engine, runtime_config
                self._shapes: dict[str, tuple[int, ...]] = {
                    name: engine.get_tensor_shape(name)
                    for name in engine.input_names
                    if -1 not in engine.get_tensor_shape(name)
                }
                self._addresses: dict[str, int] = {}
                self._stream: int | None = None
                self._thread: int | None = None

            def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
                self._one_thread()
                low, _, high = self.engine.get_tensor_profile_shape(name, 0)
                inside = len(shape) == len(low) and all(
                    a <= size <= b for a, size, b in zip(low, shape, high, strict=True)
                )
                if not inside:
                    self.engine.runtime.logger.log(
                        Severity.ERROR,
                        f"IExecutionContext::setInputShape: Error Code 3: API Usage Error (Set dimensions "
                        f"{list(shape)} for tensor {name} are outside of profile dimensions "
                        f"[min, max] = [{low}, {high}].)",
                    )
                    return False
                self._shapes[name] = tuple(shape)
                return True

            def get_tensor_shape(self, name: str) -> tuple[int, ...]:
                if name in self._shapes:
                    return self._shapes[name]
                dims = self.engine.get_tensor_shape(name)
                if dims[0] == -1 and len(self._shapes) == len(self.engine.input_names):
                    return (next(iter(self._shapes.values()))[0], *dims[1:])
                return dims

            def get_max_output_size(self, name: str) -> int:
                if len(self._shapes) < len(self.engine.input_names):
                    return -1
                batch = self.engine.get_tensor_profile_shape(self.engine.input_names[0], 0)[2][0]
                dims = self.engine.get_tensor_shape(name)
                count = int(np.prod((batch, *dims[1:]) if dims[0] == -1 else dims))
                item = onnx.helper.tensor_dtype_to_np_dtype(
                    self.engine.values[name].type.tensor_type.elem_type
                ).itemsize
                return (count * item + 511) // 512 * 512  # an upper bound is all that is promised

            def set_tensor_address(self, name: str, memory: int) -> bool:
                self._one_thread()
                if name not in self.engine.names:
                    return False
                if memory % 256:
                    raise Refused("alignment", f"address {memory:#x} of {name!r} is not aligned")
                self._addresses[name] = memory
                return True

            def execute_async_v3(self, stream_handle: int) -> bool:
                from .world import Work

                self._one_thread()
                world.require_context("execute_async_v3")
                queue = world.queue_of(stream_handle)
                if self._stream not in (None, stream_handle):
                    raise Refused("two streams", "a context was enqueued on a stream while it runs on another")
                missing = [name for name in self.engine.input_names if name not in self._shapes]
                if missing or world.counted_failure("execute_async_v3"):
                    self.engine.runtime.logger.log(
                        Severity.ERROR, f"IExecutionContext::enqueueV3: Error Code 3: input {missing} is not specified"
                    )
                    return False
                blocks: dict[str, Block] = {}
                for name in self.engine.names:
                    if name not in self._addresses:
                        raise Refused("address", f"tensor {name!r} has no address")
                    blocks[name] = world.block_of(self._addresses[name])
                    needed = self._nbytes(name)
                    if blocks[name].data.nbytes < needed:
                        raise Refused("size", f"{name!r} needs {needed} bytes, got {blocks[name].data.nbytes}")
                shapes = dict(self._shapes)
                if queue.captured is None:
                    self._stream = stream_handle
                    world.launches += 1
                if self._runtime_config is not None:
                    self._runtime_config.make_kernels(shapes)

                def run() -> None:
                    self._stream = None
                    feeds = {}
                    for name, shape in shapes.items():
                        dtype = self.engine._numpy_type(name)
                        count = int(np.prod(shape)) * dtype.itemsize
                        feeds[name] = blocks[name].data[:count].view(dtype).reshape(shape)
                    outputs = [name for name in self.engine.names if name not in shapes]
                    for name, result in zip(outputs, self.engine._session.run(outputs, feeds), strict=True):
                        flat = np.ascontiguousarray(result).reshape(-1).view(np.uint8)
                        blocks[name].data[: flat.nbytes] = flat

                world.enqueue(queue, Work(run, list(blocks.values()), "execute"))
                return True

            def _nbytes(self, name: str) -> int:
                item = onnx.helper.tensor_dtype_to_np_dtype(
                    self.engine.values[name].type.tensor_type.elem_type
                ).itemsize
                return int(np.prod(self.get_tensor_shape(name))) * item

            def _one_thread(self) -> None:
                """Calls from another thread are fine only while nothing of this context is queued."""
                me = threading.get_ident()
                if self._stream is not None and self._thread not in (None, me):
                    raise Refused("two streams", "a context that is running was called from another thread")
                self._thread = me

        self.Runtime, self.Engine = Runtime, Engine

    def init_libnvinfer_plugins(self, logger: ILogger, namespace: str) -> bool:
        self.world.plugins_registered = True
        return True


def _refusal(world: World, header: Mapping[str, Any], host_code_allowed: bool) -> str | None:
    if header.get("targets"):
        if header["version"] != world.version:
            return f"Serialization assertion stdVersionRead failed. Version tag does not match: {header['version']}"
        here = "SM" + "".join(str(part) for part in world.compute_capability)
        return None if here in header["targets"] else f"The engine is not compiled for the compute capability {here}"
    if header["version_compatible"]:
        if not host_code_allowed:
            raise Refused("host code", "a version-compatible plan was loaded without engine_host_code_allowed")
        if _release(header["version"]) > _release(world.version):
            return f"The engine plan file is of version {header['version']}, newer than {world.version}"
    elif header["version"] != world.version:
        return (
            f"The engine plan file is not compatible with this version of TensorRT, expecting library version "
            f"{header['version']}, got {world.version}, please rebuild."
        )
    if not header["hardware_compatible"] and header["gpu"] != [world.gpu, list(world.compute_capability)]:
        return "The engine plan file is generated on an incompatible device, please rebuild."
    return None


def _release(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]
