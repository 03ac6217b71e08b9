"""TensorRT and TensorRT for RTX: one interface, two libraries, and what differs between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Name = Literal["tensorrt", "tensorrt-rtx"]


@dataclass(frozen=True, slots=True)
class Flavour:
    """One of NVIDIA's two libraries with the interface of TensorRT."""

    name: Name
    """As in `--backend`, and in the manifests of plans."""
    title: str
    """As in messages."""
    modules: tuple[str, ...]
    """Python modules that hold the binding; the first that is installed is taken."""
    min_version: tuple[int, int]
    install: str
    portable: bool
    """True: a plan is built ahead of time, on any machine, for a set of compute capabilities; the GPU's own kernels are
    made when it is loaded. False: a plan is machine code for the GPU that it was built on."""

    def __str__(self) -> str:
        return self.title

    @property
    def least(self) -> str:
        return ".".join(str(part) for part in self.min_version)


TENSORRT = Flavour(
    "tensorrt", "TensorRT", ("tensorrt",), (10, 12), "pip install 'leukostream[tensorrt]'", portable=False
)
TENSORRT_RTX = Flavour(
    "tensorrt-rtx",
    "TensorRT for RTX",
    ("tensorrt_rtx", "tensorrt_rtx_bindings"),
    (1, 7),
    "pip install 'leukostream[rtx]'",
    portable=True,
)
FLAVOURS = {flavour.name: flavour for flavour in (TENSORRT, TENSORRT_RTX)}

PORTABLE = ("8.0", "8.6", "8.9", "12.0", "12.1")
"""Compute capabilities of a portable plan: every target of TensorRT for RTX 1.7 but Turing (7.5), which takes no fp32
matrix products and, named beside others, makes the whole plan as large as one for Turing alone."""


def target(capability: str) -> str:
    """The member of TensorRT's `ComputeCapability` for "8.6": SM86."""
    return f"SM{capability.replace('.', '')}"


def targets_of(trt: Any) -> tuple[str, ...]:
    """The compute capabilities that a module of TensorRT for RTX builds for: ("7.5", "8.0", ...)."""
    names = (name for name in dir(trt.ComputeCapability) if name.startswith("SM"))
    return tuple(sorted((f"{name[2:-1]}.{name[-1]}" for name in names), key=float))
