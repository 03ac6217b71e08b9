"""TensorRT's Python binding and pycuda, imported once and only when asked for."""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import importlib.util
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engines.base import BackendUnavailableError

MIN_VERSION = (10, 12)
INSTALL = "pip install 'leukostream[tensorrt]'"
_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


class NoDriverError(BackendUnavailableError):
    """This machine has no NVIDIA driver, and so nothing to run on."""


@dataclass(frozen=True, slots=True)
class Libraries:
    """The modules that engines/backends/tensorrt calls; tests put doubles here."""

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


def check_driver() -> None:
    """NoDriverError where this machine has no NVIDIA driver: nothing else need be looked for then."""
    try:
        ctypes.CDLL(_DRIVER)
    except OSError as error:
        raise NoDriverError(
            f"backend 'tensorrt': got no NVIDIA driver ({_DRIVER} is not here), expected an NVIDIA GPU and its driver; "
            f"install the driver for your GPU, then {INSTALL}"
        ) from error


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
    check_driver()
    return Libraries(load_tensorrt(), load_cuda())


@dataclass(frozen=True, slots=True)
class Piece:
    """One thing that TensorRT needs here."""

    name: str
    present: bool
    detail: str
    remedy: str
    """The command or the step that brings it; empty where it is there."""


def pieces() -> list[Piece]:
    """What TensorRT needs, in the order in which to install it. Never raises; GPUs are asked, none is used."""
    return [_driver_piece(), _module_piece("tensorrt", load_tensorrt), _module_piece("pycuda", load_cuda)]


def _driver_piece() -> Piece:
    name = "NVIDIA driver"
    try:
        check_driver()
    except NoDriverError:
        return Piece(name, False, "no driver library here", "NVIDIA's driver for your GPU; then nvidia-smi lists it")
    try:
        count = gpu_count()
    except BackendUnavailableError as error:
        return Piece(name, False, str(error), "see what nvidia-smi and the kernel log (dmesg | grep -i nvidia) say")
    return Piece(name, True, f"{count} GPU(s)", "")


def _module_piece(name: str, load_module: Callable[[], Any]) -> Piece:
    if importlib.util.find_spec(name) is None:
        remedy = f"{INSTALL} (pycuda compiles: CUDA's headers first)" if name == "pycuda" else INSTALL
        return Piece(name, False, "not installed", remedy)
    try:
        module = load_module()
    except BackendUnavailableError as error:
        got, _, remedy = str(error).removeprefix("backend 'tensorrt': ").rpartition("; ")
        return Piece(name, False, got, remedy)
    version = getattr(module, "__version__", None) or importlib.metadata.version(name)
    return Piece(name, True, str(version), "")


def gpu_count() -> int:
    """GPUs that the driver sees; BackendUnavailableError where it does not start or sees none."""
    cuda = ctypes.CDLL(_DRIVER)
    count = ctypes.c_int(0)
    status = cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count))
    if status or not count.value:
        raise BackendUnavailableError(f"the driver is here, but no GPU answers (CUDA status {status})")
    return count.value


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
