"""ONNX Runtime as a backend: the CPU everywhere, CUDA where its provider is installed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnxruntime
from onnx import ModelProto
from onnxruntime.capi import onnxruntime_pybind11_state as runtime_errors

from engines.base import (
    Array,
    BackendUnavailableError,
    EngineClosedError,
    EngineError,
    ModelFormatError,
    TensorSpec,
    check_feeds,
    usable_cores,
)

Device = Literal["auto", "cpu", "cuda"]

_DTYPES = {
    "tensor(uint8)": np.uint8,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}
_LOAD_ERRORS = (
    runtime_errors.Fail,
    runtime_errors.InvalidArgument,
    runtime_errors.InvalidGraph,
    runtime_errors.InvalidProtobuf,
    runtime_errors.NotImplemented,
    runtime_errors.RuntimeException,
)
_RUN_ERRORS = (*_LOAD_ERRORS, runtime_errors.EPFail, RuntimeError, MemoryError)
_FATAL_ONLY = 4  # the runtime's own log repeats on standard error what we raise


@dataclass(frozen=True, slots=True)
class Threads:
    """How the cores are shared out: threads inside one run, and runs side by side (the caller's own threads)."""

    intra_op: int
    concurrent: int = 1

    def __post_init__(self) -> None:
        if self.intra_op < 1 or self.concurrent < 1:
            raise ValueError(f"threads: got {self}, expected at least 1 of each")

    @classmethod
    def default(cls) -> Threads:
        """One run at a time on up to four cores: what a caller with one thread wants."""
        return cls(intra_op=min(4, usable_cores()))


class OnnxRuntimeEngine:
    """A model in an ONNX Runtime session, which any number of threads share.

    `threads.intra_op=1` runs on the calling thread alone; then `threads.concurrent` callers use as many cores.
    Waiting threads sleep: spinning ones took 1.8 times the processor time for a frame (two threads, YOLOv5n).
    """

    def __init__(
        self,
        model: ModelProto,
        *,
        threads: Threads | None = None,
        device: Device = "auto",
        max_batch: int | None = None,
    ) -> None:
        """Load `model`.

        BackendUnavailableError: `device="cuda"` without that provider. ModelFormatError: the runtime refuses the
        model.
        """
        threads = threads or Threads.default()
        has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
        if device == "cuda" and not has_cuda:
            raise BackendUnavailableError(
                "device 'cuda': got an ONNX Runtime without CUDA, expected its CUDA provider; "
                "pip install onnxruntime-gpu in place of onnxruntime"
            )
        cuda = has_cuda and device != "cpu"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads.intra_op
        options.inter_op_num_threads = 1
        options.log_severity_level = _FATAL_ONLY
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # A pattern is one block for all tensors of a run, kept for each batch size and for each run side by side: 15 MB
        # of a detector's memory and 24 MB of a classifier's, two threads each; no processor time is saved by it.
        options.enable_mem_pattern = cuda
        providers = ["CUDAExecutionProvider", "CPUExecutionProvider"] if cuda else ["CPUExecutionProvider"]
        try:
            session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers)
        except _LOAD_ERRORS as error:
            raise ModelFormatError(f"ONNX Runtime refuses the model: {_first_line(error)}") from error
        self._session: onnxruntime.InferenceSession | None = session
        # A CUDA provider that can't start (no driver) leaves the session on the CPU: say what really runs.
        runs_on_cuda = session.get_providers()[0] == "CUDAExecutionProvider"
        if device == "cuda" and not runs_on_cuda:
            raise BackendUnavailableError(
                "device 'cuda': got a CUDA provider that does not start, expected a working NVIDIA driver and CUDA; "
                "see what `nvidia-smi` says"
            )
        self.backend = "onnxruntime cuda" if runs_on_cuda else "onnxruntime cpu"
        self.inputs = tuple(_spec(value) for value in session.get_inputs())
        self.outputs = tuple(_spec(value) for value in session.get_outputs())
        self._output_names = [spec.name for spec in self.outputs]
        self.concurrency = threads.concurrent
        rows = self.inputs[0].shape[0] if self.inputs and self.inputs[0].shape else None
        self.max_batch = max_batch if rows is None else rows

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run the model; safe from several threads at once. Outputs are new arrays."""
        session = self._session
        if session is None:
            raise EngineClosedError
        check_feeds(self.inputs, feeds)
        try:
            values = session.run(self._output_names, feeds)
        except _RUN_ERRORS as error:
            shapes = {name: array.shape for name, array in feeds.items()}
            raise EngineError(f"ONNX Runtime failed on input {shapes}: {_first_line(error)}") from error
        return dict(zip(self._output_names, values, strict=True))

    def close(self) -> None:
        self._session = None


def _spec(value: Any) -> TensorSpec:
    if value.type not in _DTYPES:
        raise ModelFormatError(f"tensor {value.name!r}: got {value.type}, expected a tensor of numbers")
    shape = tuple(size if isinstance(size, int) else None for size in value.shape)
    return TensorSpec(value.name, shape, np.dtype(_DTYPES[value.type]))


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
