"""From a model to a plan and its engine, on the double: every step that needs no GPU is the real one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.backends.conversion import convert, input_batch
from engines.backends.tensorrt import builder
from engines.backends.tensorrt.builder import BuildOptions, build, layer_report
from engines.backends.tensorrt.compiler import CompileResult, compile_model, digest, load_plan, sized
from engines.backends.tensorrt.errors import BuildError, OutOfMemoryError, PlanError
from engines.backends.tensorrt.libraries import Libraries
from engines.backends.tensorrt.manifest import PlanStore
from engines.backends.tensorrt.plan import damaged
from engines.base import ModelFormatError
from engines.graphs.graph import add_uint8_input, add_yolov5_head
from engines.graphs.parity import ParityError
from engines.graphs.quantization import CalibrationError
from engines.zoo.card import Card, ClassEntry, DetectorInput, Thresholds
from engines.zoo.crops import CropInput
from tests.engines.networks import ANCHORS, classifier_file, model_of, run
from tests.engines.small_detector import detector, pictures, raw_body

from ..tensorrt_double import World, trt_build
from ..tensorrt_double.trt import unpack

CARD = Card(
    "small",
    "detector",
    DetectorInput(long_side_px=96),
    (ClassEntry("WBC", "white"), ClassEntry("RBC", "red"), ClassEntry("platelet", "platelet")),
    Thresholds(0.3, 0.5),
    "small.onnx",
)
CELLS = Card(
    "cells", "classifier", CropInput(8, 8), tuple(ClassEntry(name, "white") for name in "abc"), Thresholds(), "c.onnx"
)
FRAMES = list(pictures(16))
PROTO = add_yolov5_head(add_uint8_input(raw_body()), anchors_px=ANCHORS, top_k=50)
OPTIONS = BuildOptions((1, 2, 4))


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.check_clean()


@pytest.fixture
def store(tmp_path: Path) -> PlanStore:
    return PlanStore(tmp_path)


def libraries(world: World) -> Libraries:
    return Libraries(world.trt, world.cuda)


def compile_small(world: World, store: PlanStore, precision: str = "fp16", **more: Any) -> CompileResult:
    more = {"frame_size": (96, 64), "options": OPTIONS, "accept_parity_loss": True, **more}
    return compile_model(CARD, PROTO, precision, FRAMES, libraries=libraries(world), store=store, **more)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_plan_is_built_kept_and_run(world: World, store: PlanStore, precision: str) -> None:
    result = compile_small(world, store, precision)
    assert (result.reused, result.reason) == (False, "no plan was built yet")
    assert result.plan_path.name == f"small-{precision}-96x64-b1-2-4-sm90.plan"
    assert result.layers is not None
    assert result.layers.by_type["Conv"] == 8
    again = compile_small(world, store, precision)
    assert (again.reused, again.converted, again.layers) == (True, None, None)
    engine, manifest = load_plan(CARD, PROTO, libraries=libraries(world), store=store, height=64, width=96)
    assert engine.backend == f"tensorrt {precision}"
    assert manifest.parity == ("" if precision == "fp32" else str(result.converted and result.converted.parity))
    frames = np.stack(FRAMES[:5])
    outputs = engine.infer({"images": frames})
    exact = run(detector(), {"images": frames})
    assert np.abs(np.sort(outputs["scores"]) - np.sort(exact[1])).max() < (0.05 if precision == "int8" else 5e-3)
    engine.close()


def test_what_the_builder_was_told(world: World, store: PlanStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder.ctypes, "CDLL", lambda name: None)  # the lean runtime is here
    result = compile_small(
        world, store, options=BuildOptions((1, 2, 4), 256, version_compatible=True, hardware_compatible=True)
    )
    header, _ = unpack(result.plan_path.read_bytes())
    assert header["profile"] == {"images": [[batch, 64, 96, 3] for batch in (1, 2, 4)]}
    assert (header["workspace"], header["detailed"]) == (256 << 20, True)
    assert (header["version_compatible"], header["hardware_compatible"]) == (True, True)
    assert header["plugins"] == ["libnvinfer_vc_plugin.so"]  # such a plan carries the plugins that it uses
    assert header["tf32"] is False  # which TensorRT has on by default
    newer = World(version="11.9.0.1", gpu="NVIDIA A10", compute_capability=(8, 6))
    engine, _ = load_plan(CARD, PROTO, libraries=libraries(newer), store=store, height=64, width=96)
    engine.close()


def test_another_release_builds_anew_and_says_why(store: PlanStore) -> None:
    compile_small(World(), store)
    said: list[str] = []
    result = compile_small(World(version="11.5.0.1"), store, say=said.append)
    assert result.reason == "TensorRT was 11.4.0.106, is 11.5.0.1"
    assert said[0] == "building small-fp16-96x64-b1-2-4-sm90: TensorRT was 11.4.0.106, is 11.5.0.1"


def test_force_builds_anew(world: World, store: PlanStore) -> None:
    compile_small(world, store)
    assert compile_small(world, store, force=True).reason == "asked for anew"


def test_timings_go_from_build_to_build(world: World, store: PlanStore) -> None:
    compile_small(world, store)
    compile_small(world, store, "fp32")
    environment = compile_small(world, store).manifest.environment
    assert store.timing_cache(environment).endswith(b"11.4.0.106++")


def test_timings_of_another_machine_are_not_used(world: World) -> None:
    built = build(detector(), OPTIONS, libraries(world), timing_cache=b"timings of another GPU")
    assert built.timing_cache == b"timings of NVIDIA Double 11.4.0.106+"


def test_no_plan_says_what_to_type(world: World, store: PlanStore) -> None:
    with pytest.raises(
        PlanError,
        match=r"model 'small' at 96x64: got no plan for NVIDIA Double \(sm_90\), TensorRT 11.4.0.106 \(no plan was "
        r"built yet\); build one: leukostream compile small --precision fp16 --size 96x64",
    ):
        load_plan(CARD, PROTO, libraries=libraries(world), store=store, height=64, width=96)


def test_a_plan_of_another_gpu_or_size_is_not_run(world: World, store: PlanStore) -> None:
    compile_small(World(gpu="NVIDIA L4"), store)
    with pytest.raises(PlanError, match="the GPU was NVIDIA L4, is NVIDIA Double"):
        load_plan(CARD, PROTO, libraries=libraries(world), store=store, height=64, width=96)
    with pytest.raises(PlanError, match="no plan was built yet"):
        load_plan(CARD, PROTO, libraries=libraries(world), store=store, height=640, width=96)


def test_a_plan_that_does_not_load_is_removed_and_built_again_once(world: World, store: PlanStore) -> None:
    """A manifest that fits, over bytes that TensorRT does not take: a library that was exchanged in place."""
    result = compile_small(world, store)
    store.save(b"no plan at all", result.manifest)
    with pytest.raises(PlanError, match="Magic tag does not match"):
        load_plan(CARD, PROTO, libraries=libraries(world), store=store, height=64, width=96)
    assert compile_small(world, store).reason == "no plan was built yet"
    engine, _ = load_plan(CARD, PROTO, libraries=libraries(world), store=store, height=64, width=96)
    engine.close()


def test_a_good_plan_stays_when_memory_is_short_or_no_runtime_starts(world: World, store: PlanStore) -> None:
    result = compile_small(world, store)
    both = libraries(world)
    world.fail["deserialize_cuda_engine"] = 0
    with pytest.raises(OutOfMemoryError, match="no memory for loading the plan"):
        load_plan(CARD, PROTO, libraries=both, store=store, height=64, width=96)
    world.fail = {"Runtime": 0}
    with pytest.raises(PlanError, match="TensorRT does not start"):
        load_plan(CARD, PROTO, libraries=both, store=store, height=64, width=96)
    world.fail = {"mem_alloc": 0}
    with pytest.raises(OutOfMemoryError, match="MiB are free"):
        load_plan(CARD, PROTO, libraries=both, store=store, height=64, width=96)
    world.fail = {}
    assert result.plan_path.exists()
    engine, _ = load_plan(CARD, PROTO, libraries=both, store=store, height=64, width=96)
    engine.close()


def test_bytes_that_are_at_fault_are_told_from_all_else() -> None:
    """Lines of TensorRT for RTX 1.7.1 on a machine without a driver, but for the last two."""
    no_driver = "(cudaError 35: CUDA driver version is insufficient for CUDA runtime version)"
    magic = (
        "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion header.magicTag == "
        "kEXPECTED_MAGIC_TAG failed.Trying to load an engine created with incompatible serialization version (0 != 1)."
    )
    assert damaged(f"{magic}; {no_driver}")
    assert damaged("Error Code 1: Serialization (Serialization assertion plan.header.size == blobSize failed. In x)")
    assert damaged("Error Code 3: API Usage Error (Cannot deserialize with an empty memory buffer. In x)")
    assert not damaged(f"IRuntime::deserializeCudaEngine: Error Code 1: Cuda Runtime (In ScopedCudaStream {no_driver}")
    assert not damaged("Serialization assertion stdVersionRead == kSERIALIZATION_VERSION failed.Version tag does not")
    assert not damaged("The engine plan file is generated on an incompatible device, please rebuild.")


def test_version_compatible_without_the_lean_runtime_is_refused_before_anything_is_compared(
    world: World, store: PlanStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder.importlib, "import_module", _absent)
    monkeypatch.setattr(builder.ctypes, "CDLL", _absent)
    said: list[str] = []
    with pytest.raises(BuildError, match=r"got no lean runtime \(libnvinfer_lean.so.11: .*tensorrt-lean of version 11"):
        compile_small(world, store, say=said.append, options=BuildOptions((1, 2, 4), version_compatible=True))
    assert said == []


def _absent(name: str) -> None:
    raise OSError(f"{name}: cannot open shared object file")


def test_the_newest_plan_is_taken(world: World, store: PlanStore) -> None:
    compile_small(world, store, "fp32")
    compile_small(world, store, "fp16")
    engine, manifest = load_plan(CARD, PROTO, libraries=libraries(world), store=store, height=64, width=96)
    assert manifest.spec.precision == "fp16"
    engine.close()


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((0, 1, 2), r"batch: got 0,1,2, expected MIN,OPT,MAX with 1 <= MIN"),
        ((2, 1, 4), "batch: got 2,1,4"),
        ((1, 5, 4), "batch: got 1,5,4"),
    ],
)
def test_batches_that_make_no_sense(world: World, store: PlanStore, batch: tuple[int, int, int], message: str) -> None:
    with pytest.raises(ModelFormatError, match=message):
        compile_small(world, store, options=BuildOptions(batch))


def test_a_file_of_fixed_batch_has_only_that(world: World) -> None:
    with pytest.raises(ModelFormatError, match=r"a file of fixed batch, .*say --batch 2,2,2"):
        build(detector(2), OPTIONS, libraries(world))
    built = build(detector(2), BuildOptions((2, 2, 2)), libraries(world))
    assert unpack(built.plan)[0]["profile"] == {"images": [[2, 64, 96, 3]] * 3}


def test_an_operator_that_tensorrt_lacks_is_named(world: World, store: PlanStore) -> None:
    from onnx import helper

    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Cast", ["images"], ["a"], to=1),
        helper.make_node("Transpose", ["a"], ["b"], perm=[0, 3, 1, 2]),
        helper.make_node("Det", ["b"], ["y"], name="stem/Det"),
    ]
    model = model_of(nodes, [value("images", 2, ["N", 8, 8, 3])], [value("y", 1, ["N", 3])])
    with pytest.raises(ModelFormatError, match=r"node 'stem/Det' \(Det\): no such operator in TensorRT's table"):
        compile_model(CELLS, model, "fp32", [], libraries=libraries(world), store=store, options=OPTIONS)
    assert store.of_model("cells") == []


def test_a_build_that_fails_says_what_the_log_says(world: World) -> None:
    world.fail["build"] = 0
    with pytest.raises(BuildError, match=r"could not build the plan: .*implementation for node /stem/Conv.*try fp32"):
        build(detector(), OPTIONS, libraries(world))


def test_an_error_is_told_however_many_warnings_there_are(world: World) -> None:
    """int8 builds of shipped models gave 104 to 162 of them."""
    world.fail["build"], world.warnings = 0, 162
    with pytest.raises(BuildError, match="Could not find any implementation for node /stem/Conv"):
        build(detector(), OPTIONS, libraries(world))


def test_what_the_parser_refuses_is_told_with_its_node(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a graph that our own table takes, and the library does not."""
    monkeypatch.setattr(builder, "check_operators", lambda model, flavour: None)
    monkeypatch.setattr(trt_build, "problems_of", lambda model: ["node 'stem/Conv' (Conv): kernel of no size"])
    with pytest.raises(
        ModelFormatError, match=r"TensorRT can't take this graph: node 'stem/Conv' \(Conv\): kernel of no size; change"
    ):
        build(detector(), OPTIONS, libraries(world))


# Precision


def test_parity_stops_a_build(world: World, store: PlanStore) -> None:
    with pytest.raises(
        ParityError, match=r"precision int8: got .* expected 97 % of boxes and 98 % of classes; .*--accept"
    ):
        compile_small(world, store, "int8", accept_parity_loss=False)
    assert store.of_model("small") == []


def test_int8_leaves_operators_out_until_parity_holds() -> None:
    said: list[str] = []
    with pytest.raises(ParityError):
        convert(CARD, sized(CARD, PROTO, (96, 64)), "int8", FRAMES, say=said.append)
    assert [line.split(":")[0] for line in said if "convolutions" in line] == [
        f"int8, {n} of 8 convolutions and matrix products in int8, the others in fp16" for n in (5, 5, 4, 3, 3)
    ]


def test_precision_needs_frames(world: World, store: PlanStore) -> None:
    model = sized(CARD, PROTO, (96, 64))
    with pytest.raises(ParityError, match="got no frames to compare on"):
        convert(CARD, model, "fp16", [])
    with pytest.raises(CalibrationError, match="got 3 pictures"):
        convert(CARD, model, "int8", FRAMES[:3])
    assert convert(CARD, model, "fp32", []).parity is None


def test_a_classifier_is_compared_by_its_classes() -> None:
    model = sized(CELLS, classifier_file(), (640, 480))
    converted = convert(CELLS, model, "fp16", FRAMES, accept_parity_loss=True)
    assert converted.parity is not None
    assert (converted.parity.compared, converted.parity.matched) == (16, None)


def test_frames_become_what_the_model_takes() -> None:
    model = sized(CARD, PROTO, (96, 64))
    big = np.full((480, 640, 3), 200, np.uint8)
    batch = input_batch(CARD, model, [big, FRAMES[0]])
    assert batch.shape == (2, 64, 96, 3)
    np.testing.assert_array_equal(batch[1], FRAMES[0])
    assert set(np.unique(batch[0])) == {114, 200}  # letterboxed
    with pytest.raises(ModelFormatError, match="expected height and width as numbers"):
        input_batch(CARD, PROTO, [big])


def test_the_digest_is_of_the_model_and_not_of_its_size() -> None:
    assert digest(PROTO) == digest(PROTO)
    assert digest(PROTO) != digest(sized(CARD, PROTO, (96, 64)))


# Progress and Ctrl-C


class Recorder:
    def __init__(self) -> None:
        self.lines: list[tuple[str, object]] = []

    def started(self, phase: str, parent: str | None, steps: int) -> None:
        self.lines.append((phase, (parent, steps)))

    def stepped(self, phase: str, done: int) -> None:
        self.lines.append((phase, done))

    def finished(self, phase: str) -> None:
        self.lines.append((phase, "finished"))


def test_progress_is_told(world: World) -> None:
    recorder = Recorder()
    build(detector(), OPTIONS, libraries(world), progress=recorder)
    assert recorder.lines[:2] == [("Building the engine", (None, 2)), ("Timing 0", ("Building the engine", 3))]
    assert recorder.lines[-1] == ("Building the engine", "finished")
    assert ("Timing 1", 3) in recorder.lines


def test_ctrl_c_stops_the_build(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal is handled in the main thread while TensorRT's waits in a callback; the monitor then says stop."""
    entered, go_on = threading.Event(), threading.Event()

    class Told(threading.Event):
        def set(self) -> None:
            super().set()
            go_on.set()

    monkeypatch.setattr(builder, "Event", Told)

    class Slow(Recorder):
        def stepped(self, phase: str, done: int) -> None:
            super().stepped(phase, done)
            entered.set()
            go_on.wait(60)

    def interrupt() -> None:
        entered.wait(60)
        signal.raise_signal(signal.SIGINT)

    recorder = Slow()
    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        build(detector(), OPTIONS, libraries(world), progress=recorder)
    interrupter.join()
    assert recorder.lines[-1] == ("Building the engine", "finished")


def test_a_plan_that_was_just_built_and_does_not_load(world: World) -> None:
    with pytest.raises(BuildError, match="the plan just built does not load"):
        layer_report(b"garbage", libraries(world))
