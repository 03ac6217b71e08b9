"""What `leukostream doctor` says of a GPU's pieces: each missing one with what brings it."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

from engines.backends.tensorrt import libraries
from engines.backends.tensorrt.errors import NoDriverError
from engines.backends.tensorrt.flavour import TENSORRT
from engines.backends.tensorrt.manifest import PlanStore
from engines.base import BackendUnavailableError, EngineError
from streamer.commands import doctor
from tests.engines.backends.tensorrt.test_manifest import WANTED, changed
from tests.engines.backends.tensorrt_double import World


def module(monkeypatch: pytest.MonkeyPatch, name: str, **attributes: object) -> None:
    made = ModuleType(name)
    made.__spec__ = object()  # type: ignore[assignment]
    vars(made).update(attributes)
    monkeypatch.setitem(sys.modules, name, made)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A machine with a GPU and all packages, but no plan."""
    world = World()
    monkeypatch.setenv("LEUKOSTREAM_CACHE", str(tmp_path))
    monkeypatch.setenv("LEUKOSTREAM_CUDA", "pycuda")
    monkeypatch.setattr(libraries, "CUDA_MODULES", {"pycuda": "pycuda.driver"})
    monkeypatch.setattr(libraries, "check_driver", lambda *_: None)
    monkeypatch.setattr(libraries, "gpu_count", lambda: 1)
    monkeypatch.setattr(libraries, "cuda_of_driver", lambda: (13, 0))
    module(monkeypatch, "tensorrt", __version__="11.4.0.106")
    module(monkeypatch, "pycuda")
    module(monkeypatch, "pycuda.driver", init=lambda: None, Device=world.cuda.Device, Error=world.cuda.Error)
    monkeypatch.setattr(libraries.importlib.metadata, "version", lambda name: f"version of {name}")
    return world


def gpu_lines() -> dict[str, tuple[bool, str, str]]:
    return {one.what: (one.ok, one.detail, one.remedy) for one in doctor._tensorrt()}


def test_all_pieces_and_no_plan_says_how_to_build_one(machine: World) -> None:
    found = gpu_lines()
    assert found["NVIDIA driver"] == (True, "1 GPU(s), CUDA 13.0", "")
    assert found["tensorrt"] == (True, "11.4.0.106", "")
    assert found["CUDA binding"] == (True, "pycuda version of pycuda", "")
    assert not found["tensorrt-rtx"][0]  # one of the two is enough
    ok, detail, remedy = found["plan yolov5n-blood"]
    assert (ok, detail) == (False, "none was built")
    assert remedy.startswith("leukostream compile yolov5n-blood --precision fp16 --batch 1,4,8")


def test_plans_are_named(machine: World, tmp_path: Path) -> None:
    PlanStore(tmp_path / "plans").save(b"plan", changed(model="yolov5n-blood"))
    ok, detail, _ = gpu_lines()["plan yolov5n-blood"]
    assert (ok, detail) == (True, WANTED.stem.replace("yolo-", "yolov5n-blood-"))


def test_no_driver(machine: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object) -> None:
        raise NoDriverError(TENSORRT, "none")

    monkeypatch.setattr(libraries, "check_driver", absent)
    found = gpu_lines()
    assert found["NVIDIA driver"][:2] == (False, "no driver library here")
    assert "nvidia-smi" in found["NVIDIA driver"][2]
    assert "plan yolov5n-blood" not in found


def test_a_driver_that_sees_no_gpu(machine: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> int:
        raise BackendUnavailableError("the driver is here, but no GPU answers (CUDA status 100)")

    monkeypatch.setattr(libraries, "gpu_count", none)
    ok, detail, remedy = gpu_lines()["NVIDIA driver"]
    assert not ok
    assert "CUDA status 100" in detail
    assert "nvidia-smi" in remedy


def test_packages_that_are_not_installed(machine: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries.importlib.util, "find_spec", lambda name: None)
    found = gpu_lines()
    assert found["tensorrt"] == (False, "not installed", "pip install 'leukostream[tensorrt]'")
    assert found["tensorrt-rtx"] == (False, "not installed", "pip install 'leukostream[rtx]'")
    assert found["CUDA binding"] == (
        False, "neither cuda-bindings nor pycuda is installed", "pip install cuda-bindings"
    )  # fmt: skip


def test_packages_for_a_driver_of_cuda_12(machine: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "cuda_of_driver", lambda: (12, 8))
    monkeypatch.setattr(libraries.importlib.util, "find_spec", lambda name: None)
    found = gpu_lines()
    assert found["tensorrt"][2] == "this driver is of CUDA 12.8: pip install tensorrt-cu12"
    assert found["CUDA binding"][2] == "pip install 'cuda-bindings<13'"


def test_an_old_tensorrt_is_to_be_renewed(machine: World, monkeypatch: pytest.MonkeyPatch) -> None:
    module(monkeypatch, "tensorrt", __version__="10.3.0")
    ok, detail, remedy = gpu_lines()["tensorrt"]
    assert (ok, detail) == (False, "got TensorRT 10.3.0, expected 10.12 or newer")
    assert remedy == "pip install 'leukostream[tensorrt]' --upgrade"


def test_a_missing_piece_does_not_fail_the_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_cameras", lambda: ())
    out = io.StringIO()
    assert doctor.doctor(Console(file=out, width=200)) == 0
    assert "leukostream can run here" in out.getvalue()


def test_only_the_models_of_a_plain_run_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `pip install` brings has no weights of the clone, and can run."""

    def find_nothing(name: str, task: str) -> None:
        raise EngineError(f"{name}: got its card but not its file")

    monkeypatch.setattr(doctor, "find", find_nothing)
    needed = {one.what: one.remedy for one in doctor._models() if one.needed}
    assert set(needed) == {"model yolov5n-blood", "model efficientnet-lite0"}
    assert set(needed.values()) == {"install leukostream again"}


def finding(what: str, ok: bool, **given: object) -> doctor.Finding:
    return doctor.Finding(what, ok, **{"detail": "as it is", **given})  # type: ignore[arg-type]


def screen_of(monkeypatch: pytest.MonkeyPatch, *findings: doctor.Finding) -> tuple[int, list[str]]:
    monkeypatch.setattr(doctor, "examine", lambda: findings)
    out = io.StringIO()
    status = doctor.doctor(Console(file=out, width=80))
    return status, out.getvalue().splitlines()


def test_the_worst_comes_first_each_with_what_to_do_and_the_rest_in_one_paragraph(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    status, lines = screen_of(
        monkeypatch,
        finding("python", True, needed=True),
        finding("av", False, remedy="pip install av"),
        finding("numpy", False, needed=True, remedy="pip install numpy"),
        finding("onnx", True, needed=True),
    )
    assert status == 1
    assert [line.split()[:2] for line in lines[:2]] == [["missing", "numpy"], ["absent", "av"]]
    assert ["pip install numpy" in lines[0], "pip install av" in lines[1]] == [True, True]
    assert lines[2].rstrip().split(maxsplit=1) == ["fine", "python as it is, onnx as it is"]
    assert "can't run here yet" in lines[3]


def test_absent_models_are_one_line_and_a_missing_one_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    models = [finding(f"model m{number}", number > 2) for number in range(5)]
    status, lines = screen_of(monkeypatch, *models, finding("model usual", False, needed=True, remedy="install again"))
    assert status == 1
    assert ["usual" in lines[0], "install again" in lines[0]] == [True, True]
    assert ["3 models" in lines[1], "m0, m1, m2" in lines[1], "(m3, m4)" in lines[-2]] == [True, True, True]


def test_without_a_gpu_nothing_is_said_of_what_only_one_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    of_a_gpu = [finding(what, False) for what in doctor.OF_A_GPU]
    _, lines = screen_of(monkeypatch, finding(doctor.DRIVER, False), *of_a_gpu)
    assert [line.split()[0] for line in lines[:-1]] == ["absent", "fine"]
    _, lines = screen_of(monkeypatch, finding(doctor.DRIVER, True), *of_a_gpu)
    assert sum(line.startswith("absent") for line in lines) == len(of_a_gpu)


def test_it_is_one_screen_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_cameras", lambda: ())
    out = io.StringIO()
    doctor.doctor(Console(file=out, width=80))
    assert len(out.getvalue().splitlines()) < 40
