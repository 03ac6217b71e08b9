"""The wheel and the sdist, in an environment with nothing but their own dependencies."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from streamer import __version__

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def dist(tmp_path_factory) -> Path:
    """A folder with both; the wheel is built from the sdist, so what that lacks is missed in it."""
    pytest.importorskip("build", reason="no package build")
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)], check=True, capture_output=True)
    return folder


def test_they_hold_the_package_and_nothing_else(dist):
    names = set(zipfile.ZipFile(next(dist.glob("*.whl"))).namelist())
    tops = {name.split("/")[0] for name in names}
    assert tops == {"engines", "streamer", f"leukostream-{__version__}.dist-info"}
    needed = {path.relative_to(ROOT).as_posix() for top in ("engines", "streamer") for path in (ROOT / top).rglob("*")}
    left_out = {name for name in needed - names if (ROOT / name).is_file() and "__pycache__" not in name}
    in_clone_alone = {name for name in left_out if name.startswith("engines/zoo/published/") and name.endswith(".onnx")}
    assert left_out == in_clone_alone, "a file that the code may need is not in the wheel"
    with tarfile.open(next(dist.glob("*.tar.gz"))) as sdist:
        packed = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE"} <= packed


def test_a_new_environment_counts_a_slide(dist, tmp_path):
    """What a user does first: install, ask what works, count, in a folder that is not the clone."""
    venv.create(tmp_path / "new", with_pip=True)
    programs = tmp_path / "new" / ("Scripts" if os.name == "nt" else "bin")
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    clean |= {"LEUKOSTREAM_CACHE": str(tmp_path / "cache")}

    def run(*words: str) -> str:
        done = subprocess.run(
            [str(programs / words[0]), *words[1:]], cwd=tmp_path, env=clean, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(next(dist.glob("*.whl"))))
    assert run("leukostream", "--version").split()[:2] == ["leukostream", __version__]
    assert "yolov5n-blood" in run("leukostream", "doctor")
    assert "white cells in" in run("leukostream", "run", "--source", "sim:seed=7,cells=2", "--journal", "slide.db")
    assert "report in slide.html" in run("leukostream", "report", "slide.db", "-o", "slide.html")
    code = "import streamer; print(streamer.count('sim:seed=7,cells=2').verdict.state, streamer.__file__)"
    state, _, path = run("python", "-c", code).strip().rpartition(" ")
    assert state == "incomplete"
    assert path.startswith(str(tmp_path))
