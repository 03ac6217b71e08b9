"""TensorRT's Python binding and CUDA's, imported once and only when asked for."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from engines.backends.tensorrt.errors import FlavourUnavailableError, NoDriverError
from engines.backends.tensorrt.flavour import TENSORRT, TENSORRT_RTX, Flavour
from engines.base import BackendUnavailableError

_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_SEE_SMI = "see what `nvidia-smi` says"
CUDA_MODULES = {"cuda-bindings": "cuda.bindings.driver", "pycuda": "pycuda.driver"}
"""What can run streams, in the order in which it is tried: NVIDIA's own is a wheel and captures CUDA graphs."""


@dataclass(frozen=True, slots=True)
class Libraries:
    """The modules that engines/backends/tensorrt calls; tests put doubles here."""

    trt: Any
    """`tensorrt` 10.12 or newer, or `tensorrt_rtx`."""
    cuda: Any
    """A device.Cuda: `pycuda.driver` or cuda_bindings.CudaBindings, initialised. None where plans are only built, with
    TensorRT for RTX."""
    flavour: Flavour = TENSORRT

    @property
    def version(self) -> tuple[int, ...]:
        return version_of(self.trt)


def version_of(trt: Any) -> tuple[int, ...]:
    """(11, 4, 0, 106) of a `tensorrt` module."""
    return tuple(int(part) for part in str(trt.__version__).split(".") if part.isdigit())


def check_driver(flavour: Flavour = TENSORRT) -> None:
    """NoDriverError where this machine has no NVIDIA driver: nothing else need be looked for then."""
    try:
        ctypes.CDLL(_DRIVER)
    except OSError as error:
        why = f"got no NVIDIA driver ({_DRIVER} is not here), expected an NVIDIA GPU and its driver"
        raise NoDriverError(flavour, why, f"install the driver for your GPU, then {flavour.install}") from error


def load_tensorrt(flavour: Flavour = TENSORRT) -> Any:
    """The module of `flavour`; BackendUnavailableError says what to install."""
    failures: list[ImportError | OSError] = []
    trt = None
    for name in flavour.modules:
        try:
            trt = importlib.import_module(name)
            break
        except (ImportError, OSError) as error:
            failures.append(error)
    if trt is None:
        # A module that is there and does not load is worth more words than one that is not there.
        why = next((error for error in failures if not isinstance(error, ModuleNotFoundError)), failures[-1])
        raise FlavourUnavailableError(
            flavour,
            f"got no usable {flavour.modules[0]} package ({why}), expected {flavour} {flavour.least} or newer",
            flavour.install,
        ) from why
    if version_of(trt) < flavour.min_version:
        old = f"got {flavour} {trt.__version__}, expected {flavour.least} or newer"
        raise FlavourUnavailableError(flavour, old, f"{flavour.install} --upgrade")
    return trt


def load_cuda(flavour: Flavour = TENSORRT) -> Any:
    """A device.Cuda over what is installed, initialised; BackendUnavailableError where it, the driver or a GPU is
    missing. LEUKOSTREAM_CUDA names one of `CUDA_MODULES` to take no other."""
    cuda = _cuda_module(flavour)
    try:
        cuda.init()
        count = cuda.Device.count()
    except cuda.Error as error:
        why = f"got no GPU ({error}), expected an NVIDIA GPU with a working driver"
        raise FlavourUnavailableError(flavour, why, _SEE_SMI) from error
    if not count:
        raise FlavourUnavailableError(flavour, "got no GPU, expected one", _SEE_SMI)
    return cuda


def _cuda_module(flavour: Flavour) -> Any:
    chosen = os.environ.get("LEUKOSTREAM_CUDA")
    if chosen and chosen not in CUDA_MODULES:
        raise FlavourUnavailableError(
            flavour, f"LEUKOSTREAM_CUDA: got {chosen!r}, expected {' or '.join(CUDA_MODULES)}"
        )
    failures = []
    for name in [chosen] if chosen else CUDA_MODULES:
        try:
            module = importlib.import_module(CUDA_MODULES[name])
        except (ImportError, OSError) as error:
            failures.append(f"{name}: {error}")
            continue
        if name == "pycuda":
            return module
        return _adapted(module)
    why = f"got no usable binding of CUDA ({'; '.join(failures)}), expected NVIDIA's cuda-bindings, or pycuda"
    raise FlavourUnavailableError(flavour, why, cuda_remedy())


@cache
def _adapted(module: Any) -> Any:
    """One for the process, as a module is: a device's context is retained once for each."""
    from engines.backends.tensorrt.cuda_bindings import CudaBindings

    return CudaBindings(module)


def load(flavour: Flavour = TENSORRT) -> Libraries:
    """Both modules; BackendUnavailableError says which is missing and how to get it."""
    check_driver(flavour)
    return Libraries(load_tensorrt(flavour), load_cuda(flavour), flavour)


def load_builder(flavour: Flavour) -> Libraries:
    """What a build needs: everything, but for TensorRT for RTX its own module alone, on any machine."""
    return Libraries(load_tensorrt(flavour), None, flavour) if flavour.portable else load(flavour)


# What is here ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Piece:
    """One thing that a run on a GPU needs here."""

    name: str
    present: bool
    detail: str
    remedy: str
    """The command or the step that brings it; empty where it is there."""


def pieces() -> list[Piece]:
    """What TensorRT needs, in the order in which to install it. Never raises; GPUs are asked, none is used."""
    return [_driver_piece(), _cuda_piece(), _tensorrt_piece(TENSORRT), _tensorrt_piece(TENSORRT_RTX)]


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
    release = cuda_of_driver()
    return Piece(name, True, f"{count} GPU(s)" + (f", CUDA {release[0]}.{release[1]}" if release else ""), "")


def _tensorrt_piece(flavour: Flavour) -> Piece:
    if all(importlib.util.find_spec(module) is None for module in flavour.modules):
        return Piece(flavour.name, False, "not installed", _tensorrt_remedy(flavour))
    return _loaded(flavour.name, flavour.modules, lambda: load_tensorrt(flavour))


def _cuda_piece() -> Piece:
    name = "CUDA binding"
    found = [name for name, module in CUDA_MODULES.items() if importlib.util.find_spec(module.partition(".")[0])]
    if not found:
        return Piece(name, False, "neither cuda-bindings nor pycuda is installed", cuda_remedy())
    piece = _loaded(name, found, load_cuda)
    return Piece(name, True, f"{found[0]} {piece.detail}", "") if piece.present else piece


def _loaded(name: str, packages: tuple[str, ...] | list[str], load_module: Callable[[], Any]) -> Piece:
    try:
        module = load_module()
    except FlavourUnavailableError as error:
        return Piece(name, False, error.why, error.remedy)
    version = getattr(module, "__version__", None)
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            version = version or importlib.metadata.version(package)
    return Piece(name, True, str(version), "")


def _tensorrt_remedy(flavour: Flavour) -> str:
    """For a driver of CUDA 12 the packages that are built for it: those of CUDA 13 do not start there."""
    release = cuda_of_driver()
    if release is None or release[0] >= 13:
        return flavour.install
    packages = "tensorrt-cu12" if flavour is TENSORRT else "tensorrt-rtx-cu12-bindings tensorrt-rtx-cu12-libs"
    return f"this driver is of CUDA {release[0]}.{release[1]}: pip install {packages}"


def cuda_remedy() -> str:
    """The command that brings a binding of CUDA, for the driver that is here."""
    release = cuda_of_driver()
    return "pip install cuda-bindings" if release is None or release[0] >= 13 else "pip install 'cuda-bindings<13'"


def cuda_of_driver() -> tuple[int, int] | None:
    """The CUDA release that the driver is of, (13, 0); None where there is no driver or it does not say."""
    version = ctypes.c_int(0)
    try:
        failed = ctypes.CDLL(_DRIVER).cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return None
    return None if failed or not version.value else (version.value // 1000, version.value % 1000 // 10)


def gpu_count() -> int:
    """GPUs that the driver sees; BackendUnavailableError where it does not start or sees none."""
    cuda = ctypes.CDLL(_DRIVER)
    count = ctypes.c_int(0)
    status = cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count))
    if status or not count.value:
        raise BackendUnavailableError(f"the driver is here, but no GPU answers (CUDA status {status})")
    return count.value
