"""`--backend auto` and `tensorrt` in the registry: what runs, and what is said about it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import pytest

from engines.backends.shadow import ShadowTally
from engines.backends.tensorrt import choice, libraries
from engines.backends.tensorrt.builder import BuildOptions
from engines.backends.tensorrt.compiler import compile_model
from engines.backends.tensorrt.cuda_bindings import CudaBindings
from engines.backends.tensorrt.errors import FlavourUnavailableError
from engines.backends.tensorrt.flavour import TENSORRT, TENSORRT_RTX, Flavour
from engines.backends.tensorrt.libraries import Libraries
from engines.backends.tensorrt.manifest import PlanStore, default_folder
from engines.base import BackendUnavailableError
from engines.graphs.graph import add_uint8_input, add_yolov5_head
from engines.models.loading import load_classifier, load_detector
from engines.zoo.registry import compact, find
from tests.engines.networks import ANCHORS, classifier_file
from tests.engines.small_detector import pictures, raw_body

from ..tensorrt_double import World
from ..tensorrt_double.bindings_driver import BindingsDriver

CARD = """task = "{task}"
[input]
{input}
{classes}
"""
CLASSES = "".join(f'[[classes]]\nname = "{name}"\nkind = "white"\n' for name in "abc")


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("LEUKOSTREAM_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "small.onnx"
    onnx.save(add_yolov5_head(add_uint8_input(raw_body()), anchors_px=ANCHORS, top_k=50), path)
    path.with_suffix(".toml").write_text(CARD.format(task="detector", input="long_side_px = 96", classes=CLASSES))
    return str(path)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A machine with a GPU and all packages."""
    world = World()
    both = Libraries(world.trt, world.cuda)

    def load(flavour: Flavour = TENSORRT) -> Libraries:
        if flavour is not TENSORRT:
            raise FlavourUnavailableError(flavour, "got no usable tensorrt_rtx package")
        return both

    monkeypatch.setattr(choice, "load", load)
    monkeypatch.setattr(libraries, "load", load)
    yield world
    world.check_clean()


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with NVIDIA's driver."""
    monkeypatch.setattr(libraries, "check_driver", lambda flavour=TENSORRT: None)


@pytest.fixture
def no_packages(driver: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)


def build(world: World, name: str) -> None:
    model = find(name, "detector")
    compile_model(
        model.card,
        compact(model),
        "fp32",
        [],
        libraries=Libraries(world.trt, world.cuda),
        store=PlanStore(default_folder()),
        options=BuildOptions((1, 2, 4)),
        frame_size=(96, 64),
    )


@pytest.mark.parametrize("backend", ["auto", "tensorrt"])
def test_a_plan_is_run_and_gives_the_same_boxes(world: World, model: str, backend: str) -> None:
    build(world, model)
    said: list[str] = []
    detector = load_detector(model, backend=backend, say=said.append)  # type: ignore[arg-type]
    reference = load_detector(model, backend="onnxruntime")
    frames = list(pictures(5))
    for got, expected in zip(detector.detect(frames), reference.detect(frames), strict=True):
        np.testing.assert_array_equal(got.boxes_px, expected.boxes_px)
        np.testing.assert_array_equal(got.labels, expected.labels)
    assert [re.sub(r"\d+\.\d s", "T", line) for line in said] == ["small: runs on tensorrt fp32, loaded in T"]
    assert (detector.batch, detector.backends) == (4, ("tensorrt fp32",))
    detector.close()


def test_auto_without_a_plan_says_why_and_runs_on_the_cpu(world: World, model: str) -> None:
    said: list[str] = []
    load_detector(model, frame_size=(96, 64), say=said.append)
    assert len(said) == 1
    assert re.match(
        r"small: runs on onnxruntime cpu, loaded in \d+\.\d s: "
        r"no TensorRT \(model 'small' at 96x64: got no plan for NVIDIA Double",
        said[0],
    )
    assert "leukostream compile small --precision fp16 --size 96x64" in said[0]


@pytest.mark.usefixtures("no_packages")
def test_auto_without_the_packages_says_what_to_install(model: str) -> None:
    said: list[str] = []
    load_detector(model, frame_size=(96, 64), say=said.append)
    assert "s: no TensorRT (got no usable tensorrt package" in said[0]
    assert "pip install 'leukostream[tensorrt]'" in said[0]


def test_tensorrt_without_a_plan_is_an_error(world: World, model: str) -> None:
    with pytest.raises(BackendUnavailableError, match="got no plan for NVIDIA Double"):
        load_detector(model, backend="tensorrt", frame_size=(96, 64))


@pytest.mark.usefixtures("no_packages")
def test_tensorrt_without_the_packages_is_an_error_at_once(model: str) -> None:
    with pytest.raises(BackendUnavailableError, match="got no usable tensorrt package"):
        load_detector(model, backend="tensorrt")


def test_a_classifier_runs_on_tensorrt_too(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEUKOSTREAM_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "cells.onnx"
    onnx.save(classifier_file(), path)
    sizes = "height_px = 8\nwidth_px = 8"
    path.with_suffix(".toml").write_text(CARD.format(task="classifier", input=sizes, classes=CLASSES))
    found = find(str(path), "classifier")
    store = PlanStore(default_folder())
    both = Libraries(world.trt, world.cuda)
    options = BuildOptions((1, 8, 16))
    compile_model(found.card, found.proto, "fp32", [], libraries=both, store=store, options=options)
    said: list[str] = []
    classifier = load_classifier(str(path), say=said.append)
    crops = pictures(20, height=8, width=8)
    expected = load_classifier(str(path), backend="onnxruntime").classify_batch(crops)
    np.testing.assert_array_equal(classifier.classify_batch(crops).probabilities, expected.probabilities)
    assert len(said) == 1
    assert said[0].startswith("cells: runs on tensorrt fp32, loaded in ")
    classifier.close()


# What is missing, piece by piece


def test_a_machine_without_a_driver_is_told_in_few_words(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(libraries.ctypes, "CDLL", absent)
    said: list[str] = []
    detector = load_detector(model, frame_size=(96, 64), say=said.append)
    assert re.fullmatch(r"small: runs on onnxruntime cpu, loaded in \d+\.\d s: no NVIDIA driver here", said[0])
    assert detector.batch == 1
    with pytest.raises(BackendUnavailableError, match=r"got no NVIDIA driver .* install the driver for your GPU"):
        load_detector(model, backend="tensorrt")


class Cuda:
    """ONNX Runtime with its CUDA provider, in front of the session on the CPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, starts: bool = True) -> None:
        real = onnxruntime.InferenceSession

        class Session(real):  # type: ignore[misc, valid-type]
            def __init__(self, model: bytes, options: object, providers: list[str]) -> None:
                super().__init__(model, options, providers=["CPUExecutionProvider"])
                self._given = providers

            def get_providers(self) -> list[str]:
                return self._given if starts else ["CPUExecutionProvider"]

        monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
        names = ["CUDAExecutionProvider", "CPUExecutionProvider"]
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)


@pytest.mark.usefixtures("no_packages")
def test_auto_takes_onnxruntime_on_cuda_before_the_cpu(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Cuda(monkeypatch)
    said: list[str] = []
    detector = load_detector(model, frame_size=(96, 64), say=said.append)
    assert "small: runs on onnxruntime cuda, loaded in" in said[0]
    assert "no TensorRT (got no usable tensorrt package" in said[0]
    engine = detector.prepare(96, 64)
    assert (detector.batch, engine.max_batch, engine.inputs[0].shape) == (8, 8, (None, 64, 96, 3))
    assert len(detector.detect(list(pictures(9)))) == 9


@pytest.mark.usefixtures("no_packages")
def test_a_cuda_provider_that_does_not_start_is_said(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Cuda(monkeypatch, starts=False)
    said: list[str] = []
    detector = load_detector(model, frame_size=(96, 64), say=said.append)
    assert "runs on onnxruntime cpu" in said[0]
    assert "no CUDA (device 'cuda': got a CUDA provider that does not start" in said[0]
    assert detector.backends == ("onnxruntime cpu",)


def test_onnxruntime_by_name_never_looks_for_tensorrt(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "load", None)
    said: list[str] = []
    load_detector(model, backend="onnxruntime", frame_size=(96, 64), say=said.append)
    assert re.fullmatch(r"small: runs on onnxruntime cpu, loaded in .* s: this ONNX Runtime has no CUDA", said[0])


def test_a_batch_that_is_asked_for_is_one_run_of_the_cpu(model: str) -> None:
    detector = load_detector(model, backend="onnxruntime", batch=4, frame_size=(96, 64))
    engine = detector.prepare(96, 64)
    assert (detector.batch, engine.max_batch, engine.inputs[0].shape) == (4, 4, (None, 64, 96, 3))
    together = detector.detect(list(pictures(6)))
    alone = load_detector(model, backend="onnxruntime")
    for frame, found in zip(pictures(6), together, strict=True):
        np.testing.assert_allclose(found.boxes_px, alone.detect([frame])[0].boxes_px, atol=1e-3)


def test_a_gpu_is_compared_with_the_cpu(world: World, model: str) -> None:
    build(world, model)
    tally = ShadowTally(images_per_check=4)
    detector = load_detector(model, shadow=tally)
    for start in range(0, 9, 3):
        detector.detect(list(pictures(9)[start : start + 3]))
    counts = tally.counts
    assert (counts.checked, counts.failed, counts.extra) == (3, 0, 0)
    assert counts.agreed == counts.compared > 0
    detector.close()


def test_the_cpu_is_not_compared_with_itself(model: str) -> None:
    tally = ShadowTally(images_per_check=1)
    load_detector(model, backend="onnxruntime", shadow=tally).detect(list(pictures(3)))
    assert tally.counts.checked == 0


def test_an_old_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    old = ModuleType("tensorrt")
    old.__version__ = "10.11.0.33"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt", old)
    with pytest.raises(BackendUnavailableError, match=r"got TensorRT 10\.11\.0\.33, expected 10\.12 or newer"):
        libraries.load_tensorrt()


def fake_pycuda(monkeypatch: pytest.MonkeyPatch, world: World, *, fails: bool = False) -> None:
    monkeypatch.setenv("LEUKOSTREAM_CUDA", "pycuda")

    def init() -> None:
        if fails:
            raise world.cuda.LogicError("cuInit failed: no CUDA-capable device is detected")

    driver = ModuleType("pycuda.driver")
    vars(driver).update(init=init, Device=world.cuda.Device, Error=world.cuda.Error)
    monkeypatch.setitem(sys.modules, "pycuda", ModuleType("pycuda"))
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)


def fake_bindings(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    driver = BindingsDriver(world)
    for name in ("cuda", "cuda.bindings"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", driver)  # type: ignore[arg-type]


def no_binding(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in libraries.CUDA_MODULES.values():
        monkeypatch.setitem(sys.modules, name, None)


def test_no_binding_of_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    no_binding(monkeypatch)
    with pytest.raises(
        BackendUnavailableError,
        match=r"got no usable binding of CUDA \(cuda-bindings: .*; pycuda: .*pip install cuda-b",
    ):
        libraries.load_cuda()


def test_cuda_is_what_is_installed_or_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    no_binding(monkeypatch)
    fake_pycuda(monkeypatch, World())
    monkeypatch.delenv("LEUKOSTREAM_CUDA")
    assert libraries.load_cuda() is sys.modules["pycuda.driver"]
    fake_bindings(monkeypatch, World())
    both = libraries.load_cuda()
    assert isinstance(both, CudaBindings)
    assert libraries.load_cuda() is both  # a device's context is retained once for the process
    monkeypatch.setenv("LEUKOSTREAM_CUDA", "pycuda")
    assert libraries.load_cuda() is sys.modules["pycuda.driver"]
    monkeypatch.setenv("LEUKOSTREAM_CUDA", "cupy")
    with pytest.raises(BackendUnavailableError, match="LEUKOSTREAM_CUDA: got 'cupy', expected cuda-bindings or pycuda"):
        libraries.load_cuda()


@pytest.mark.parametrize(
    ("release", "remedy"),
    [(13010, "pip install cuda-bindings"), (12080, "pip install 'cuda-bindings<13'"), (0, "pip install cuda-bindings")],
)
def test_a_driver_of_cuda_12_is_offered_its_packages(
    monkeypatch: pytest.MonkeyPatch, release: int, remedy: str
) -> None:
    class Driver:
        def cuDriverGetVersion(self, version: object) -> int:
            version._obj.value = release  # type: ignore[attr-defined]
            return 0

        def cuInit(self, flags: int) -> int:
            return 100  # no device

    monkeypatch.setattr(libraries.ctypes, "CDLL", lambda name: Driver())
    monkeypatch.setattr(libraries.importlib.util, "find_spec", lambda name: None)
    assert libraries.cuda_remedy() == remedy
    found = {piece.name: piece.remedy for piece in libraries.pieces()[1:]}
    packages = "this driver is of CUDA 12.8: pip install "
    of_12 = release // 1000 == 12
    assert found == {
        "CUDA binding": remedy,
        "tensorrt": f"{packages}tensorrt-cu12" if of_12 else TENSORRT.install,
        "tensorrt-rtx": f"{packages}tensorrt-rtx-cu12-bindings tensorrt-rtx-cu12-libs"
        if of_12
        else TENSORRT_RTX.install,
    }


def test_no_driver_and_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_pycuda(monkeypatch, World(), fails=True)
    with pytest.raises(BackendUnavailableError, match=r"got no GPU .*no CUDA-capable device.*nvidia-smi"):
        libraries.load_cuda()
    fake_pycuda(monkeypatch, World(gpus=0))
    with pytest.raises(BackendUnavailableError, match="got no GPU, expected one"):
        libraries.load_cuda()


@pytest.mark.usefixtures("driver")
def test_everything_there(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    fake_pycuda(monkeypatch, world)
    module = ModuleType("tensorrt")
    module.__version__ = "10.12.0.36"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    assert libraries.load().version == (10, 12, 0, 36)
