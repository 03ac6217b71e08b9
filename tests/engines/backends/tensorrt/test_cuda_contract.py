"""The double of `cuda.bindings.driver`, and what CudaBindings calls, against NVIDIA's module, which needs no GPU."""

from __future__ import annotations

import ast
import enum
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engines.backends.tensorrt import cuda_bindings

from ..tensorrt_double import World, bindings_driver
from ..tensorrt_double.bindings_driver import BindingsDriver
from .test_real_cuda import bindings_folder

FOLDER = bindings_folder()
pytestmark = pytest.mark.skipif(FOLDER is None, reason="cuda-bindings is not here: make bindings")

_DUMP = """
import json, sys
from cuda.bindings import driver
entries = {}
for name in json.loads(sys.argv[1]):
    entry = getattr(driver, name, None)
    members = getattr(entry, "__members__", None)
    if entry is not None:
        entries[name] = {key: int(value) for key, value in members.items()} if members else (entry.__doc__ or "")
json.dump({"entries": entries, "version": driver.CUDA_VERSION}, sys.stdout)
"""
ENUMS = {name: value for name, value in vars(bindings_driver).items() if isinstance(value, enum.EnumMeta)}
FUNCTIONS = {name: value for name, value in vars(BindingsDriver).items() if name.startswith("cu")}


@pytest.fixture(scope="module")
def real() -> dict[str, Any]:
    names = json.dumps([*ENUMS, *FUNCTIONS])
    environment = {**os.environ, "PYTHONPATH": str(FOLDER)}
    done = subprocess.run(
        [sys.executable, "-c", _DUMP, names], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["version"] >= 12000
    entries: dict[str, Any] = document["entries"]
    return entries


def test_every_function_of_the_double_is_real_with_its_parameters(real: dict[str, Any]) -> None:
    """The first line of a docstring: cuMemcpyHtoDAsync(dstDevice, srcHost, size_t ByteCount, hStream)."""
    problems = []
    for name, function in FUNCTIONS.items():
        first = str(real.get(name, "")).strip().split("\n")[0]
        found = re.fullmatch(rf"{name}\((.*)\)", first)
        names = [part.split(":")[0].split()[-1] for part in found[1].split(", ") if part] if found else None
        mine = [name for name in inspect.signature(function).parameters if name != "self"]
        if names != mine:
            problems.append(f"{name}{mine}: the real one is {first!r}")
    assert problems == []
    assert len(FUNCTIONS) == 31


def test_every_member_of_the_doubles_enums_is_real(real: dict[str, Any]) -> None:
    assert len(ENUMS) == 3
    for name, cls in ENUMS.items():
        for member in cls:  # type: ignore[var-annotated]
            assert real[name][member.name] == member.value


def test_the_code_calls_only_what_the_double_has() -> None:
    tree = ast.parse(Path(cuda_bindings.__file__).read_text("utf-8"))
    called = {
        str(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and re.fullmatch(r"cu[A-Z]\w+", str(node.value))
    }
    assert called | {"cuGetErrorString"} == set(FUNCTIONS)


def test_errors_say_what_failed_in_cudas_words() -> None:
    world = World(binding="cuda-bindings")
    cuda = world.cuda
    with pytest.raises(cuda.Error, match=r"cuDeviceGet failed: invalid device ordinal \(CUDA_ERROR_ILLEGAL_ADDRESS\)"):
        cuda.Device(9)
    cuda.Device(0).retain_primary_context().push()
    world.total_bytes = 10
    with pytest.raises(cuda.MemoryError, match=r"cuMemAlloc failed: out of memory \(CUDA_ERROR_OUT_OF_MEMORY\)"):
        cuda.mem_alloc(1000)
    cuda.Context.pop()
    assert (cuda.get_version(), cuda.get_driver_version()) == ((13, 0, 0), 13000)
