"""TensorRT's Python binding and pycuda, imported once and only when asked for."""

from __future__ import annotations

import importlib
import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

from engines.base import BackendUnavailableError

MIN_VERSION = (10, 12)
INSTALL = "pip install 'leukostream[tensorrt]'"


@dataclass(frozen=True, slots=True)
class Libraries:
    """The modules that engines/tensorrt calls; tests put doubles here."""

    trt: Any
    """`tensorrt`, 10.12 or newer."""
    cuda: Any
    """`pycuda.driver`, initialised."""

    @property
    def version(self) -> tuple[int, ...]:
        return version_of(self.trt)


def version_of(trt: Any) -> tuple[int, ...]:
    """(11, 4, 0, 106) of a `tensorrt` module."""
    return tuple(int(part) for part in str(trt.__version__).split(".") if part.isdigit())


def load_tensorrt() -> Any:
    """The module `tensorrt`; BackendUnavailableError says what to install."""
    try:
        trt = importlib.import_module("tensorrt")
    except (ImportError, OSError) as error:
        raise BackendUnavailableError(
            f"backend 'tensorrt': got no usable tensorrt package ({error}), expected TensorRT 10.12 or newer; {INSTALL}"
        ) from error
    if version_of(trt) < MIN_VERSION:
        raise BackendUnavailableError(
            f"backend 'tensorrt': got TensorRT {trt.__version__}, expected 10.12 or newer; {INSTALL} --upgrade"
        )
    return trt


def load_cuda() -> Any:
    """The module `pycuda.driver`, initialised; BackendUnavailableError where it, the driver or a GPU is missing."""
    try:
        cuda = importlib.import_module("pycuda.driver")
    except (ImportError, OSError) as error:
        raise BackendUnavailableError(
            f"backend 'tensorrt': got no usable pycuda ({error}), expected it and NVIDIA's driver; "
            f"{INSTALL} (it compiles: CUDA's headers must be there)"
        ) from error
    try:
        cuda.init()
        count = cuda.Device.count()
    except cuda.Error as error:
        raise BackendUnavailableError(
            f"backend 'tensorrt': got no GPU ({error}), expected an NVIDIA GPU with a working driver; "
            "see what `nvidia-smi` says"
        ) from error
    if not count:
        raise BackendUnavailableError("backend 'tensorrt': got no GPU, expected one; see what `nvidia-smi` says")
    return cuda


def load() -> Libraries:
    """Both modules; BackendUnavailableError says which is missing and how to get it."""
    return Libraries(load_tensorrt(), load_cuda())


class LogLines:
    """The last warnings and errors of TensorRT, which reports failures by a null result and a line in the log."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: deque[tuple[bool, str]] = deque(maxlen=64)

    def add(self, is_error: bool, line: str) -> None:
        """Called by TensorRT, from any of its threads."""
        with self._lock:
            self._lines.append((is_error, line.strip()))

    def clear(self) -> None:
        with self._lock:
            self._lines.clear()

    def errors(self) -> str:
        """The errors since `clear`, as one line; "no message" where there is none."""
        with self._lock:
            lines = [line for is_error, line in self._lines if is_error]
        return "; ".join(dict.fromkeys(lines)) or "no message"


def make_logger(trt: Any, lines: LogLines) -> Any:
    """A `tensorrt.ILogger` that fills `lines`. It must live as long as every object made with it."""
    severity = trt.ILogger.Severity
    errors = (severity.INTERNAL_ERROR, severity.ERROR)

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity_of_line: Any, line: str) -> None:
            if severity_of_line in errors:
                lines.add(True, line)
            elif severity_of_line == severity.WARNING:
                lines.add(False, line)

    return Logger()
