"""NVIDIA's Python bindings: those of TensorRT over stubs of its libraries, so that their interface can be read, and
that of TensorRT for RTX with its own libraries, which need no GPU.

TensorRT's wheels hold only the binding. It wants three libraries by name and nine C functions of them; stubs of these,
compiled here, make it importable on any machine with a C compiler, and no function is ever called.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

_FUNCTIONS = (
    "createInferBuilder_INTERNAL createInferRefitter_INTERNAL createInferRuntime_INTERNAL "
    "createNvOnnxParserRefitter_INTERNAL createNvOnnxParser_INTERNAL getBuilderPluginRegistry getNvOnnxParserVersion "
    "getPluginRegistry initLibNvInferPlugins"
)
_LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")

_DUMP = """
import importlib, inspect, json, sys
trt = importlib.import_module(sys.argv[1])
classes = {}
def take(owner, prefix):
    for name in dir(owner):
        entry = getattr(owner, name, None)
        if inspect.isclass(entry) and name not in ("__class__", "type"):
            members = {}
            for member in dir(entry):
                if member.startswith("_") and member != "__init__":
                    continue
                try:
                    value = inspect.getattr_static(entry, member)
                except AttributeError:
                    continue
                if isinstance(value, property):
                    doc, settable = value.__doc__ or "", value.fset is not None
                    members[member] = {"kind": "property", "settable": settable, "doc": doc}
                elif callable(getattr(entry, member, None)):
                    members[member] = {"kind": "method", "doc": getattr(entry, member).__doc__ or ""}
                else:
                    members[member] = {"kind": "member"}
            members["__doc__"] = {"kind": "doc", "doc": entry.__doc__ or ""}
            classes[prefix + name] = members
            if not prefix and name == "ILogger":
                take(entry, name + ".")
take(trt, "")
json.dump({"version": trt.__version__, "classes": classes}, sys.stdout)
"""


def folders() -> list[Path]:
    """Folders that each hold an unpacked binding, in LEUKOSTREAM_TRT_BINDINGS, else build/trt-bindings."""
    chosen = os.environ.get("LEUKOSTREAM_TRT_BINDINGS")
    root = Path(chosen) if chosen else Path(__file__).resolve().parents[4] / "build" / "trt-bindings"
    return sorted(path.parent for path in root.glob("*/tensorrt_bindings"))


def rtx_folder() -> Path | None:
    """Where TensorRT for RTX lies: in LEUKOSTREAM_RTX, else build/rtx; None where it is not."""
    chosen = os.environ.get("LEUKOSTREAM_RTX")
    folder = Path(chosen) if chosen else Path(__file__).resolve().parents[4] / "build" / "rtx"
    return folder if (folder / "tensorrt_rtx_bindings").is_dir() else None


def why_no_rtx() -> str | None:
    """Why NVIDIA's builder can't be used here; None where it can."""
    return None if rtx_folder() is not None else "TensorRT for RTX is not here: make bindings"


@cache
def rtx_module() -> Any:
    """The module of TensorRT for RTX, loaded once for the process (pybind11 allows no second time), and left out of
    `sys.modules`: other tests look for what is installed."""
    folder = rtx_folder()
    assert folder is not None
    sys.path.insert(0, str(folder))
    try:
        module = importlib.import_module("tensorrt_rtx_bindings")
    finally:
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.partition(".")[0].startswith("tensorrt_rtx")]:
            del sys.modules[name]
        importlib.invalidate_caches()
    return module


def why_not() -> str | None:
    """Why the bindings can't be read here; None where they can."""
    if not sys.platform.startswith("linux"):
        return "the bindings are read on Linux only"
    if shutil.which("cc") is None:
        return "no C compiler (cc) for the stub libraries"
    if not folders():
        return "NVIDIA's bindings are not here: make bindings"
    return None


def read(folder: Path, work: Path) -> dict[str, Any]:
    """{"version": ..., "classes": {class: {member: {"kind", "doc", "settable"}}}} of a binding."""
    if (folder / "tensorrt_rtx_bindings").is_dir():
        return _dump("tensorrt_rtx_bindings", folder, work)
    text = (folder / "tensorrt_bindings" / "__init__.py").read_text("utf-8")
    version = re.search(r'__version__ = "(\d+)', text)
    assert version is not None
    source = work / "stub.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in _FUNCTIONS.split()))
    for library in _LIBRARIES:
        file = f"lib{library}.so.{version[1]}"
        command = ["cc", "-shared", "-fPIC", "-o", str(work / file), str(source), f"-Wl,-soname,{file}"]
        subprocess.run(command, check=True, capture_output=True)
    return _dump("tensorrt_bindings", folder, work)


def _dump(module: str, folder: Path, work: Path) -> dict[str, Any]:
    numpy = str(Path(np.__file__).resolve().parents[1])
    environment = {**os.environ, "LD_LIBRARY_PATH": str(work), "PYTHONPATH": os.pathsep.join([str(folder), numpy])}
    result = subprocess.run(
        [sys.executable, "-c", _DUMP, module], env=environment, capture_output=True, text=True, check=False, cwd=work
    )
    assert result.returncode == 0, result.stderr
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def signatures(doc: str, name: str) -> list[list[tuple[str, bool]]]:
    """Of a pybind11 docstring, for each overload its parameters without self: (name, has a default)."""
    found = []
    for line in doc.splitlines():
        match = re.match(rf"\s*(?:\d+\. )?{re.escape(name)}\((.*)\)(?: -> .*)?$", line)
        if match and match[1] != "*args, **kwargs":
            found.append(
                [
                    (part.split(":")[0].split("=")[0].strip(), "=" in _without_brackets(part))
                    for part in _split(match[1])
                    if part.split(":")[0].strip() != "self"
                ]
            )
    return found


def _split(text: str) -> list[str]:
    parts, depth, current = [], 0, ""
    for letter in text:
        depth += (letter in "[(<") - (letter in "])>")
        if letter == "," and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += letter
    return [part.strip() for part in (*parts, current) if part.strip()]


def _without_brackets(text: str) -> str:
    return re.sub(r"<[^<>]*>", "x", re.sub(r"\[[^\[\]]*\]", "", text))
