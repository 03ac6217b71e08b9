"""The runtime on the real bindings of CUDA, pycuda and NVIDIA's cuda-bindings, over a driver that needs no GPU.

pycuda is taken where it is installed, or from the folder that LEUKOSTREAM_PYCUDA names; it compiles with CUDA's headers
alone: pip install pycuda with CUDA_ROOT set, and a libcuda.so to link with. cuda-bindings is taken where it is
installed, or from build/cuda-bindings (`make bindings`).
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engines.backends import tensorrt_double

DOUBLE = Path(tensorrt_double.__file__).parent
ROOT = DOUBLE.parents[3]


def pycuda_folder() -> Path | None:
    """The folder that holds the package, without importing it."""
    chosen = os.environ.get("LEUKOSTREAM_PYCUDA")
    if chosen:
        return Path(chosen)
    spec = importlib.util.find_spec("pycuda")
    return Path(spec.origin).parents[1] if spec is not None and spec.origin else None


def driver_of(folder: Path) -> Path | None:
    return next(iter((folder / "pycuda").glob("_driver*.so")), None)


def bindings_folder() -> Path | None:
    """The folder that holds `cuda/bindings`."""
    folders = [ROOT / "build" / "cuda-bindings", *map(Path, sys.path)]
    return next((folder for folder in folders if (folder / "cuda" / "bindings").is_dir()), None)


def needs_tools(*tools: str) -> str | None:
    if not sys.platform.startswith("linux"):
        return "the driver's interface is stubbed on Linux only"
    missing = [tool for tool in tools if shutil.which(tool) is None]
    return f"no {' and no '.join(missing)} for the stub of the driver" if missing else None


def why_no_pycuda() -> str | None:
    folder = pycuda_folder()
    if folder is None or driver_of(folder) is None:
        return "pycuda is not installed (it compiles against CUDA's headers)"
    return needs_tools("cc", "nm")


def why_no_bindings() -> str | None:
    if bindings_folder() is None:
        return "cuda-bindings is not here: make bindings"
    return needs_tools("cc")


@pytest.mark.skipif(why_no_pycuda() is not None, reason=why_no_pycuda() or "")
def test_the_runtime_works_on_the_real_pycuda(tmp_path: Path) -> None:
    folder = pycuda_folder()
    assert folder is not None
    symbols = subprocess.run(
        ["nm", "-D", "--undefined-only", str(driver_of(folder))], capture_output=True, text=True, check=True
    ).stdout
    wanted = set(re.findall(r"\b(cu[A-Z]\w+)", symbols))
    here = set(re.findall(r"^int (cu\w+)\(", (DOUBLE / "host_driver.c").read_text("utf-8"), re.MULTILINE))
    rest = "".join(f"int {name}(void) {{ return 801; }}\n" for name in sorted(wanted - here))
    run_with("pycuda", folder, tmp_path, rest)


@pytest.mark.skipif(why_no_bindings() is not None, reason=why_no_bindings() or "")
def test_the_runtime_works_on_the_real_cuda_bindings(tmp_path: Path) -> None:
    folder = bindings_folder()
    assert folder is not None
    run_with("cuda-bindings", folder, tmp_path, "")


def run_with(binding: str, folder: Path, work: Path, more: str) -> None:
    """Run real_cuda with a driver made of host_driver.c and `more`."""
    (work / "driver.c").write_text((DOUBLE / "host_driver.c").read_text("utf-8") + more)
    library = work / "libcuda.so.1"
    command = ["cc", "-shared", "-fPIC", "-w", "-Wl,-soname,libcuda.so.1", "-o", str(library), str(work / "driver.c")]
    subprocess.run([*command, "-ldl"], check=True)
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(work),
        "LEUKOSTREAM_CUDA": binding,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]),
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.engines.backends.tensorrt_double.real_cuda"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=ROOT,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "all right"), done.stderr
