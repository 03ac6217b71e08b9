"""`--backend auto` and `tensorrt` in the registry: what runs, and what is said about it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest

from engines.base import BackendUnavailableError
from engines.graph import add_uint8_input, add_yolov5_head
from engines.registry import compact, find, load_classifier, load_detector
from engines.tensorrt import choice, libraries
from engines.tensorrt.builder import BuildOptions
from engines.tensorrt.compiler import compile_model
from engines.tensorrt.libraries import Libraries
from engines.tensorrt.manifest import PlanStore, default_folder

from ..networks import ANCHORS, classifier_file
from ..small_detector import pictures, raw_body
from ..tensorrt_double import World

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
    monkeypatch.setattr(choice, "load", lambda: both)
    monkeypatch.setattr(libraries, "load", lambda: both)
    yield world
    world.check_clean()


@pytest.fixture
def no_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)


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
    assert said == ["small: runs on tensorrt fp32"]
    detector.close()


def test_auto_without_a_plan_says_why_and_runs_on_the_cpu(world: World, model: str) -> None:
    said: list[str] = []
    load_detector(model, frame_size=(96, 64), say=said.append)
    assert len(said) == 1
    assert said[0].startswith("small: runs on onnxruntime cpu (model 'small' at 96x64: got no plan for NVIDIA Double")
    assert "leukostream compile small --precision fp16 --size 96x64" in said[0]


@pytest.mark.usefixtures("no_packages")
def test_auto_without_the_packages_says_what_to_install(model: str) -> None:
    said: list[str] = []
    load_detector(model, frame_size=(96, 64), say=said.append)
    assert said[0].startswith("small: runs on onnxruntime cpu (got no usable tensorrt package")
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
    assert said == ["cells: runs on tensorrt fp32"]
    classifier.close()


# What is missing, piece by piece


def test_an_old_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    old = ModuleType("tensorrt")
    old.__version__ = "10.11.0.33"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt", old)
    with pytest.raises(BackendUnavailableError, match=r"got TensorRT 10\.11\.0\.33, expected 10\.12 or newer"):
        libraries.load_tensorrt()


def fake_pycuda(monkeypatch: pytest.MonkeyPatch, world: World, *, fails: bool = False) -> None:
    def init() -> None:
        if fails:
            raise world.cuda.LogicError("cuInit failed: no CUDA-capable device is detected")

    driver = ModuleType("pycuda.driver")
    vars(driver).update(init=init, Device=world.cuda.Device, Error=world.cuda.Error)
    monkeypatch.setitem(sys.modules, "pycuda", ModuleType("pycuda"))
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)


def test_no_pycuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(BackendUnavailableError, match=r"got no usable pycuda .*CUDA's headers must be there"):
        libraries.load_cuda()


def test_no_driver_and_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_pycuda(monkeypatch, World(), fails=True)
    with pytest.raises(BackendUnavailableError, match=r"got no GPU .*no CUDA-capable device.*nvidia-smi"):
        libraries.load_cuda()
    fake_pycuda(monkeypatch, World(gpus=0))
    with pytest.raises(BackendUnavailableError, match="got no GPU, expected one"):
        libraries.load_cuda()


def test_everything_there(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    fake_pycuda(monkeypatch, world)
    module = ModuleType("tensorrt")
    module.__version__ = "10.12.0.36"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    assert libraries.load().version == (10, 12, 0, 36)
