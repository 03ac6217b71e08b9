"""What the double refuses, each with the sentence of the documentation that says so."""

from __future__ import annotations

REFUSALS: dict[str, tuple[str, str]] = {
    "address": (
        "Before calling enqueueV3(), each input must have a non-null address and each output must have a non-null "
        "address or an IOutputAllocator to set it later.",
        "NvInferRuntime.h, IExecutionContext::setTensorAddress",
    ),
    "alignment": (
        "The pointer must have at least 256-byte alignment.",
        "NvInferRuntime.h, IExecutionContext::setTensorAddress",
    ),
    "size": (
        "The pointer must point to a device buffer of sufficient size and alignment.",
        "NvInferRuntime.h, IExecutionContext::setTensorAddress",
    ),
    "running": (
        "Modifying or releasing memory that has been registered for the tensors before stream synchronization or the "
        "event passed to set_input_consumed_event has been triggered results in undefined behavior.",
        "TensorRT Python API, IExecutionContext.execute_async_v3",
    ),
    "two streams": (
        "Do not call the APIs of the same IExecutionContext from multiple threads at any given time. Each concurrent "
        "execution must have its own instance of an IExecutionContext.",
        "TensorRT C++ API, IExecutionContext",
    ),
    "default stream": (
        "Using default stream may lead to performance issues due to additional cudaDeviceSynchronize() calls by "
        "TensorRT to ensure correct synchronizations. Please use non-default stream instead.",
        "TensorRT Python API, IExecutionContext.execute_async_v3",
    ),
    "no context": (
        "The specified context becomes the CPU thread's current context, so all CUDA functions that operate on the "
        "current context are affected.",
        "CUDA driver API, cuCtxPushCurrent: without one, functions return CUDA_ERROR_INVALID_CONTEXT",
    ),
    "context left": (
        "A context was still active when the context stack was being cleaned up. [...] The program will be aborted "
        "now. Use Context.pop() to avoid this problem.",
        "pycuda, message of context_stack's destructor",
    ),
    "pageable": (
        "For transfers from pageable host memory to device memory, a stream sync is performed before the copy is "
        "initiated.",
        "CUDA driver API, API synchronization behavior: pageable memory makes the copy synchronous",
    ),
    "freed": (
        "Release the held memory now instead of when this object becomes unreachable. Any further use of the object "
        "is an error and will lead to undefined behavior.",
        "pycuda, DeviceAllocation.free and PagelockedHostAllocation.free",
    ),
    "event not reached": (
        'Note that this method will fail with an "invalid value" error if either of the events has not been reached '
        "yet.",
        "pycuda, Event.time_since",
    ),
    "leaked": (
        "PyCUDA WARNING: a clean-up operation failed (out-of-thread context? dead context maybe?)",
        "pycuda, destructors of Stream, Event and allocations without their context in the calling thread",
    ),
    "profile order": (
        "0 <= min[i] <= opt[i] <= max[i] for all i [...] if real_shape[i] != -1, then min[i] == opt[i] == max[i] == "
        "real_shape[i]",
        "TensorRT Python API, IOptimizationProfile.set_shape",
    ),
    "profile missing": (
        "This function must be called for any network input tensor that has dynamic dimensions.",
        "TensorRT Python API, IOptimizationProfile.set_shape",
    ),
    "builder threads": (
        "The TensorRT builder may only be used by one thread at a time.",
        "TensorRT best practices, Thread Safety",
    ),
    "plugins": (
        "This function should be called once before accessing the Plugin Registry.",
        "TensorRT C++ API, initLibNvInferPlugins",
    ),
    "timing": (
        "Deprecated in TensorRT-RTX 1.2. Timing cache operations are no-ops in TensorRT-RTX.",
        "TensorRT for RTX, warning of IBuilderConfig.set_timing_cache",
    ),
    "host code": (
        "Whether this runtime is allowed to deserialize engines that contain host executable code (Default: False).",
        "TensorRT Python API, Runtime.engine_host_code_allowed",
    ),
}


ANSWERS: dict[str, tuple[object, str, str]] = {
    "set_input_shape": (
        False,
        "True on success, false if the provided name does not map to an input tensor, or if some other error occurred. "
        "[...] Each dimension must agree with the network dimension unless the latter was -1.",
        "NvInferRuntime.h, IExecutionContext::setInputShape",
    ),
    "execute_async_v3": (
        False,
        "True if the kernels were enqueued successfully, false otherwise.",
        "NvInferRuntime.h, IExecutionContext::enqueueV3",
    ),
    "create_execution_context": (
        None,
        "A null pointer becomes None.",
        "pybind11: how TensorRT's binding gives a context that could not be made",
    ),
    "get_max_output_size": (
        -1,
        "If the profile or input shapes are not yet set, or the provided name does not map to an output, returns -1.",
        "TensorRT Python API, IExecutionContext.get_max_output_size",
    ),
    "deserialize_cuda_engine": (
        None,
        "The ICudaEngine, or None if it could not be deserialized.",
        "TensorRT Python API, Runtime.deserialize_cuda_engine",
    ),
    "build_serialized_network": (
        None,
        "The application can return False for TensorRT to exit the build early.",
        "TensorRT Python API, IProgressMonitor.step_complete",
    ),
    "parse": (
        False,
        "true if the model was parsed successfully",
        "TensorRT Python API, OnnxParser.parse",
    ),
    "set_timing_cache": (
        False,
        "A failure will be reported if the CUDA device property in the provided cache is different from current "
        "environment.",
        "TensorRT Python API, IBuilderConfig.set_timing_cache",
    ),
}
"""What the double answers where the library itself says no: call -> (answer, sentence, source)."""


class Refused(AssertionError):
    """The code under test broke a rule of the documentation."""

    def __init__(self, rule: str, detail: str) -> None:
        sentence, source = REFUSALS[rule]
        super().__init__(f"{detail}. {source}: «{sentence}»")
        self.rule = rule
