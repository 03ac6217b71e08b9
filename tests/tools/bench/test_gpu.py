"""The GPU check where no GPU is: it runs to its end, says what it could not run, and measures the CPU."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest

from engines.backends.tensorrt.libraries import Libraries
from engines.backends.tensorrt.runtime import StreamTimes, TensorRTEngine
from engines.base import EngineError
from engines.graphs.graph import add_uint8_input, add_yolov5_head
from engines.zoo.registry import find
from tests.engines.backends.tensorrt_double import World
from tests.engines.backends.tensorrt_double.cuda_provider import session_class
from tests.engines.networks import ANCHORS
from tests.engines.small_detector import detector, pictures, raw_body
from tools.bench import gpu as check_gpu
from tools.bench import onnxruntime_slots
from tools.bench.gpu import CHECKS, main, overlapping_share


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "small.onnx"
    onnx.save(add_yolov5_head(add_uint8_input(raw_body()), anchors_px=ANCHORS, top_k=50), path)
    classes = "".join(f'[[classes]]\nname = "{name}"\nkind = "white"\n' for name in "abc")
    path.with_suffix(".toml").write_text(f'task = "detector"\n[input]\nlong_side_px = 96\n{classes}')
    return str(path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_runs_unattended_without_a_gpu(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pycuda.driver", None)
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    report = tmp_path / "gpu.json"
    assert main(["--model", model, "--json", str(report), "--seconds", "0.2", "--sources", "1", "2"]) == 0
    results = {result["check"]: result for result in json.loads(report.read_text())["results"]}
    assert list(results) == list(CHECKS)
    assert {check: result["status"] for check, result in results.items() if result["status"] != "not run"} == {
        "cpu cameras": "ok"
    }
    assert "got no usable pycuda" in results["machine"]["detail"]
    figures = results["cpu cameras"]["figures"]
    assert list(figures) == ["1", "2"]
    offered = round(0.2 * 30)
    assert figures["1"]["offered_per_s"] == 30
    assert figures["1"]["frames_per_s"] > 0
    assert figures["2"]["dropped"] <= 2 * offered
    assert "not run" in capsys.readouterr().out


def at(copy_in: tuple[float, float], compute: tuple[float, float], copy_out: tuple[float, float]) -> StreamTimes:
    return StreamTimes(copy_in, compute, copy_out)


def test_overlap_of_two_streams() -> None:
    alone = [at((0, 1), (1, 3), (3, 4)), at((4, 5), (5, 7), (7, 8))]
    assert overlapping_share(alone) == 0
    beside = [at((0, 1), (1, 3), (3, 4)), at((1, 2), (3, 5), (5, 6))]
    # copies take 4 ms, computing 4 ms; (1,2) lies beside (1,3), and (3,4) beside (3,5)
    assert overlapping_share(beside) == 0.5
    assert overlapping_share([]) == 0


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A machine with a GPU, TensorRT and ONNX Runtime's CUDA provider, all of them doubles."""
    world = World(total_bytes=1 << 32)
    monkeypatch.setattr(check_gpu, "_PLANS", {})
    monkeypatch.setattr(check_gpu, "load_cuda", lambda: world.cuda)
    monkeypatch.setattr(check_gpu, "load_tensorrt", lambda: world.trt)
    world.trt.__name__ = "tensorrt_lean"
    monkeypatch.setitem(sys.modules, "tensorrt_lean", world.trt)
    monkeypatch.setattr(onnxruntime, "InferenceSession", session_class(world))
    names = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    yield world
    world.check_clean()


def test_every_check_runs_to_its_end_on_the_double(
    tmp_path: Path, model: str, gpu: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that no line of it is run for the first time where GPU time is dear. The double's streams don't overlap."""
    monkeypatch.setattr(check_gpu, "LEAST_OVERLAP", 0.0)
    report = tmp_path / "gpu.json"
    arguments = ["--model", model, "--json", str(report), "--seconds", "0.1", "--sources", "1", "3", "--batch", "2"]
    status = main(arguments)
    document = json.loads(report.read_text())
    results = {result["check"]: result for result in document["results"]}
    assert {check: (one["status"], one["detail"]) for check, one in results.items() if one["status"] != "ok"} == {}
    assert (status, list(results)) == (0, list(CHECKS))
    assert results["machine"]["figures"] == {
        "tensorrt": "11.4.0.106",
        "gpu": "NVIDIA Double",
        "compute_capability": "90",
        "cuda": "13.0",
        "driver": "13.0",
    }
    assert list(results["broken plans"]["figures"]) == ["garbage", "empty", "zeros"]
    assert "build it again" in results["truncated plan"]["figures"]["message"]
    for backend in ("tensorrt", "onnxruntime cuda"):
        figures = results[f"{backend} slots"]["figures"]
        assert list(figures["frames_per_s"]) == ["1", "3"]
        assert all(rate > 0 for rate in figures["frames_per_s"].values())
        cameras = results[f"{backend} cameras"]["figures"]
        assert list(cameras) == ["1", "3"]
        assert cameras["3"]["offered_per_s"] == 90
        assert results[f"{backend} numbers"]["figures"]["boxes"] > 0


def test_streams_that_do_not_overlap_fail_the_check(model: str, gpu: World) -> None:
    machine = check_gpu.Machine(find(model, "detector"), [], 0.05, [1], 2, 1)
    result = check_gpu._run("tensorrt slots", CHECKS["tensorrt slots"], machine)
    assert result.status == "failed"
    assert "of the shorter overlaps, expected 80 %" in result.detail


def test_other_numbers_than_the_cpus_fail_the_check(model: str, gpu: World, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = list(pictures(8))
    machine = check_gpu.Machine(find(model, "detector"), frames, 0.05, [1], 2, 2)
    plain = TensorRTEngine.infer

    def blind(engine: TensorRTEngine, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        outputs = plain(engine, feeds)
        return {**outputs, "scores": np.zeros_like(outputs["scores"])}

    monkeypatch.setattr(TensorRTEngine, "infer", blind)
    result = check_gpu._run("tensorrt numbers", CHECKS["tensorrt numbers"], machine)
    assert result.status == "failed"
    assert "0 boxes, the CPU finds" in result.detail


def test_a_failed_check_is_the_exit_status(model: str, gpu: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(machine: object) -> tuple[str, dict[str, object]]:
        raise EngineError("out of order")

    monkeypatch.setattr(check_gpu, "CHECKS", {"one": broken})
    monkeypatch.setattr(check_gpu, "read_frames", lambda source, count: list(pictures(count)))
    assert main(["--model", model]) == 1


def test_onnxruntime_stands_in_for_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The adapter on the double's memory: sessions bind the addresses of the slot, on the slot's stream."""
    world = World()
    bound: list[tuple[str, str, int]] = []

    class Session:
        def __init__(self, model: bytes, options: object, providers: list[object]) -> None:
            self.provider = providers[0]

        def get_providers(self) -> list[str]:
            return ["CUDAExecutionProvider"]

        def io_binding(self) -> SimpleNamespace:
            def bind(name: str, device: str, number: int, dtype: object, shape: list[int], address: int) -> None:
                bound.append((name, device, shape[0]))
                world.block_of(address)

            return SimpleNamespace(bind_input=bind, bind_output=bind)

        def run_with_iobinding(self, binding: object, options: object) -> None:
            handle = self.provider[1]["user_compute_stream"]  # type: ignore[index]
            assert int(handle) in world.queues

    monkeypatch.setattr(onnxruntime_slots.onnxruntime, "InferenceSession", Session)
    plan = onnxruntime_slots.as_plan(detector(), 4)
    libraries = onnxruntime_slots.libraries(world.cuda)
    assert isinstance(libraries, Libraries)
    engine = TensorRTEngine(plan, libraries=libraries, slots=2)
    assert (engine.max_batch, engine.concurrency) == (4, 2)
    outputs = engine.infer({"images": pictures(3)})
    assert outputs["boxes"].shape == (3, 50, 4)
    assert outputs["classes"].dtype == np.int64
    assert bound == [(name, "cuda", 3) for name in ("images", "boxes", "scores", "classes")]
    engine.close()
    world.check_clean()
