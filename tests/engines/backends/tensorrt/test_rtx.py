"""TensorRT for RTX on the double: portable plans, the kernels made of them, and what `auto` chooses.

No card has run this yet: the double stands for NVIDIA's documentation, and test_rtx_builds for its builder.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from engines.backends.tensorrt import choice, libraries
from engines.backends.tensorrt.builder import BuildOptions
from engines.backends.tensorrt.compiler import CompileResult, compile_model, load_plan
from engines.backends.tensorrt.errors import PlanError
from engines.backends.tensorrt.flavour import TENSORRT, TENSORRT_RTX, Flavour
from engines.backends.tensorrt.libraries import Libraries
from engines.backends.tensorrt.manifest import PlanStore, default_folder
from engines.base import BackendUnavailableError, UsageError
from engines.models.loading import load_detector
from tests.engines.networks import run
from tests.engines.small_detector import detector

from ..tensorrt_double import World
from .test_choice import CARD as CARD_FILE
from .test_choice import CLASSES, Cuda
from .test_compiler import CARD, FRAMES, OPTIONS, PROTO


@pytest.fixture
def store(tmp_path: Path) -> PlanStore:
    return PlanStore(tmp_path)


@pytest.fixture(params=["pycuda", "cuda-bindings"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    world = World(rtx=True, binding=request.param, gpu="NVIDIA GeForce Double")
    yield world
    world.check_clean()


def rtx(world: World) -> Libraries:
    return Libraries(world.trt, world.cuda, TENSORRT_RTX)


def compile_small(world: World, store: PlanStore, precision: str = "fp16", **more: Any) -> CompileResult:
    """Without a GPU: the libraries have no CUDA."""
    builder = Libraries(world.trt, None, TENSORRT_RTX)
    more = {"frame_size": (96, 64), "options": OPTIONS, "accept_parity_loss": True, **more}
    return compile_model(CARD, PROTO, precision, FRAMES, libraries=builder, store=store, **more)


def load(world: World, store: PlanStore) -> Any:
    return load_plan(CARD, PROTO, libraries=rtx(world), store=store, height=64, width=96)[0]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_plan_built_without_a_gpu_runs_on_one(world: World, store: PlanStore, precision: str) -> None:
    result = compile_small(world, store, precision)
    assert result.plan_path.name == f"small-{precision}-96x64-b1-2-4-rtx.plan"
    assert result.converted is not None
    assert (result.converted.parity is None) == (precision == "fp32")  # the same gates as TensorRT's
    engine = load(world, store)
    assert engine.backend == f"tensorrt-rtx {precision}"
    assert engine.captured  # by the library itself
    frames = np.stack(FRAMES[:7])
    outputs, exact = engine.infer({"images": frames}), run(detector(), {"images": frames})
    assert np.abs(np.sort(outputs["scores"]) - np.sort(exact[1])).max() < (0.05 if precision == "int8" else 5e-3)
    engine.close()


def test_one_plan_is_for_all_cards_that_it_names(store: PlanStore) -> None:
    compile_small(World(rtx=True), store)
    for capability in ((8, 0), (8, 9), (12, 0)):
        world = World(rtx=True, compute_capability=capability)
        load(world, store).close()
        world.check_clean()
    turing = World(rtx=True, compute_capability=(7, 5))
    with pytest.raises(
        PlanError, match=r"b1-2-4-rtx: for 8.0, 8.6, 8.9, 12.0, 12.1, not 7.5\); .*--backend tensorrt-rtx"
    ):
        load(turing, store)
    compile_small(turing, store, options=BuildOptions((1, 2, 4), compute_capabilities=("7.5",)))
    load(turing, store).close()


def test_a_card_without_a_target_is_told(store: PlanStore) -> None:
    """The H200, for one."""
    world = World(rtx=True, gpu="NVIDIA H200", compute_capability=(9, 0))
    compile_small(world, store)
    with pytest.raises(
        BackendUnavailableError, match=r"got NVIDIA H200 of compute capability 9.0, expected one of 7.5, 8"
    ):
        load(world, store)


def test_another_release_wants_another_plan(world: World, store: PlanStore) -> None:
    compile_small(World(rtx=True, version="1.7.0.9"), store)
    with pytest.raises(PlanError, match=r"TensorRT was 1.7.0.9, is 1.7.1.116"):
        load(world, store)
    assert compile_small(world, store).reason == "TensorRT was 1.7.0.9, is 1.7.1.116"


def test_kernels_are_made_once_for_a_card(store: PlanStore) -> None:
    compile_small(World(rtx=True), store)
    first, again = World(rtx=True, gpu="NVIDIA A10"), World(rtx=True, gpu="NVIDIA A10")
    for world, made in ((first, 3), (again, 0), (World(rtx=True, gpu="NVIDIA L4"), 3)):
        engine = load(world, store)
        engine.infer({"images": np.stack(FRAMES[:2])})
        assert world.kernels_made == made  # one for each size of the profile, all before the first frame
        engine.close()
        world.check_clean()
    assert len(list(store.folder.glob("*.kernels"))) == 2


def test_without_room_for_the_kernels_it_runs_all_the_same(
    world: World, store: PlanStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_small(world, store)

    def full(self: PlanStore, *_: object) -> None:
        raise PlanError("no space")

    monkeypatch.setattr(PlanStore, "save_runtime_cache", full)
    load(world, store).close()
    assert list(store.folder.glob("*.kernels")) == []


def test_each_library_has_its_own_plans(store: PlanStore) -> None:
    compile_small(World(rtx=True), store)
    tensorrt = World(compute_capability=(8, 6))
    with pytest.raises(PlanError, match="no plan was built yet"):
        load_plan(CARD, PROTO, libraries=Libraries(tensorrt.trt, tensorrt.cuda), store=store, height=64, width=96)


def test_targets_are_not_for_tensorrt(store: PlanStore) -> None:
    world = World()
    with pytest.raises(UsageError, match=r"--compute-capability: got 8.6 with TensorRT, expected none"):
        compile_model(
            CARD, PROTO, "fp32", [], libraries=Libraries(world.trt, world.cuda), store=store,
            options=BuildOptions((1, 2, 4), compute_capabilities=("8.6",)), frame_size=(96, 64),
        )  # fmt: skip


# The choice -----------------------------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("LEUKOSTREAM_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "small.onnx"
    onnx.save(PROTO, path)
    path.with_suffix(".toml").write_text(CARD_FILE.format(task="detector", input="long_side_px = 96", classes=CLASSES))
    return str(path)


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> dict[str, World]:
    """A machine with an RTX card and both libraries."""
    worlds = {
        "tensorrt": World(gpu="NVIDIA GeForce Double", compute_capability=(8, 6)),
        "tensorrt-rtx": World(rtx=True, gpu="NVIDIA GeForce Double"),
    }

    def load(flavour: Flavour = TENSORRT) -> Libraries:
        return Libraries(worlds[flavour.name].trt, worlds[flavour.name].cuda, flavour)

    for place in (choice, libraries):
        monkeypatch.setattr(place, "load", load)
    return worlds


def build(name: str, libraries_: Libraries) -> None:
    from engines.zoo.registry import compact, find

    found = find(name, "detector")
    compile_model(
        found.card, compact(found), "fp32", [], libraries=libraries_, store=PlanStore(default_folder()),
        options=BuildOptions((1, 2, 4)), frame_size=(96, 64),
    )  # fmt: skip


def test_auto_takes_tensorrt_then_rtx_then_onnxruntime(
    both: dict[str, World], model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Cuda(monkeypatch)

    def runs_on() -> str:
        said: list[str] = []
        detector = load_detector(model, frame_size=(96, 64), say=said.append)
        detector.close()
        assert len(said) == 1
        return re.sub(r", loaded in \d+\.\d s", "", said[0])

    without = runs_on()
    assert without.startswith("small: runs on onnxruntime cuda: no TensorRT (model 'small' at 96x64: got no plan for ")
    assert "; no TensorRT for RTX (model 'small' at 96x64: got no plan" in without
    assert "leukostream compile small --backend tensorrt-rtx --precision fp16 --size 96x64)" in without
    build(model, Libraries(both["tensorrt-rtx"].trt, None, TENSORRT_RTX))
    assert runs_on().startswith("small: runs on tensorrt-rtx fp32: no TensorRT (model 'small'")
    build(model, Libraries(both["tensorrt"].trt, both["tensorrt"].cuda))
    assert runs_on() == "small: runs on tensorrt fp32"
    for world in both.values():
        world.check_clean()


def test_rtx_by_name(both: dict[str, World], model: str) -> None:
    with pytest.raises(
        BackendUnavailableError, match=r"backend 'tensorrt-rtx': model 'small' at 96x64: got no plan for"
    ):
        load_detector(model, backend="tensorrt-rtx", frame_size=(96, 64))
    build(model, Libraries(both["tensorrt-rtx"].trt, None, TENSORRT_RTX))
    detector = load_detector(model, backend="tensorrt-rtx", frame_size=(96, 64))
    assert (detector.backends, detector.batch) == (("tensorrt-rtx fp32",), 4)
    detector.close()


def test_rtx_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in TENSORRT_RTX.modules:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        BackendUnavailableError, match=r"'tensorrt-rtx': got no usable tensorrt_rtx .*leukostream\[rtx\]'"
    ):
        libraries.load_builder(TENSORRT_RTX)
