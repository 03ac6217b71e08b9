"""The runtime on the real pycuda, compiled against CUDA's headers, over a driver that needs no GPU.

pycuda is taken where it is installed, or from the folder that LEUKOSTREAM_PYCUDA names; it compiles with CUDA's headers
alone: pip install pycuda with CUDA_ROOT set, and a libcuda.so to link with.
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


def why_not() -> str | None:
    if not sys.platform.startswith("linux"):
        return "pycuda's driver interface is stubbed on Linux only"
    folder = pycuda_folder()
    if folder is None or driver_of(folder) is None:
        return "pycuda is not installed (it compiles against CUDA's headers)"
    missing = [tool for tool in ("cc", "nm") if shutil.which(tool) is None]
    return f"no {' and no '.join(missing)} for the stub of the driver" if missing else None


pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")


def test_the_runtime_works_on_the_real_pycuda(tmp_path: Path) -> None:
    folder = pycuda_folder()
    assert folder is not None
    source = (DOUBLE / "host_driver.c").read_text("utf-8")
    symbols = subprocess.run(
        ["nm", "-D", "--undefined-only", str(driver_of(folder))], capture_output=True, text=True, check=True
    ).stdout
    wanted = set(re.findall(r"\b(cu[A-Z]\w+)", symbols))
    here = set(re.findall(r"^int (cu\w+)\(", source, re.MULTILINE))
    rest = "".join(f"int {name}(void) {{ return 801; }}\n" for name in sorted(wanted - here))
    (tmp_path / "driver.c").write_text(source + rest)
    library = tmp_path / "libcuda.so.1"
    command = ["cc", "-shared", "-fPIC", "-w", "-Wl,-soname,libcuda.so.1", "-o", str(library)]
    subprocess.run([*command, str(tmp_path / "driver.c")], check=True)
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]),
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.engines.backends.tensorrt_double.real_pycuda"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=ROOT,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "all right"), done.stderr
