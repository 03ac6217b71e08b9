"""`leukostream compile` as a person types it, on the double."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from rich.console import Console

from engines.backends.tensorrt.libraries import Libraries
from engines.backends.tensorrt.manifest import PlanStore
from engines.base import BackendUnavailableError, UsageError
from engines.graphs.graph import add_uint8_input, add_yolov5_head
from engines.graphs.parity import ParityError
from engines.graphs.quantization import CalibrationError
from streamer.commands.compile import Options, PhaseBars, compile_command, read_frames
from streamer.sources.base import SourceError
from tests.engines.backends.tensorrt_double import World
from tests.engines.networks import ANCHORS, classifier_file
from tests.engines.small_detector import pictures, raw_body

CARD = """task = "detector"
[input]
long_side_px = 96
[[classes]]
name = "WBC"
kind = "white"
[[classes]]
name = "RBC"
kind = "red"
[[classes]]
name = "platelet"
kind = "platelet"
[thresholds]
operating = 0.3
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    onnx.save(add_yolov5_head(add_uint8_input(raw_body()), anchors_px=ANCHORS, top_k=50), path)
    path.with_suffix(".toml").write_text(CARD)
    return path


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    folder = tmp_path / "frames"
    folder.mkdir()
    for i, picture in enumerate(pictures(16)):
        cv2.imwrite(str(folder / f"{i:02}.png"), picture)
    (folder / "notes.txt").write_text("not an image")
    return folder


def run(tmp_path: Path, arguments: Options) -> str:
    out = io.StringIO()
    world = World()
    status = compile_command(
        arguments,
        Console(file=out, width=200),
        libraries=Libraries(world.trt, world.cuda),
        store=PlanStore(tmp_path / "plans"),
    )
    assert status == 0
    world.check_clean()
    return out.getvalue()


def test_compiles_says_what_it_did_and_does_it_once(tmp_path: Path, model: Path, frames: Path) -> None:
    layers = tmp_path / "layers.json"
    arguments = Options(str(model), "fp16", "1,2,4", str(frames), "96x64", layers=str(layers), accept_parity_loss=True)
    text = run(tmp_path, arguments)
    assert "building small-fp16-96x64-b1-2-4-sm90: no plan was built yet" in text
    assert "boxes found again at IoU >= 0.9" in text
    assert "graph: 19 operators in fp16" in text
    assert "TensorRT made" in text
    assert "8 Conv" in text
    assert '"Layers"' in layers.read_text()
    plan = tmp_path / "plans" / "small-fp16-96x64-b1-2-4-sm90.plan"
    assert plan.is_file()
    assert run(tmp_path, arguments).replace("\n", "") == f"up to date: {plan}"


def test_the_converted_graph_needs_no_gpu(tmp_path: Path, model: Path, frames: Path) -> None:
    out, file = io.StringIO(), tmp_path / "half.onnx"
    arguments = Options(str(model), "fp16", "1,2,4", str(frames), "96x64", onnx=str(file), accept_parity_loss=True)
    assert compile_command(arguments, Console(file=out, width=200)) == 0
    assert "TensorRT's parser takes all of its operators" in out.getvalue()
    assert {tensor.data_type for tensor in onnx.load(file).graph.initializer} >= {onnx.TensorProto.FLOAT16}


def test_int8_is_stopped_where_it_changes_too_much(tmp_path: Path, model: Path, frames: Path) -> None:
    with pytest.raises(ParityError, match="--accept-parity-loss"):
        run(tmp_path, Options(str(model), "int8", "1,2,4", str(frames), "96x64"))
    accepted = Options(str(model), "int8", "1,2,4", str(frames), "96x64", accept_parity_loss=True)
    assert "in int8, the others in fp16" in run(tmp_path, accepted)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"batch": "8"}, UsageError, "--batch: got '8', expected MIN,OPT,MAX"),
        ({"batch": "0,1,2"}, UsageError, "--batch: got '0,1,2'"),
        ({"batch": "4,2,8"}, UsageError, "expected MIN <= OPT <= MAX"),
        ({"size": "640"}, UsageError, "--size: got '640', expected WIDTHxHEIGHT"),
        ({"size": "0x480"}, UsageError, "--size: got '0x480'"),
        ({"precision": "int8"}, UsageError, "--calibration: got nothing, expected frames of your microscope for int8"),
        ({"precision": "int8", "calibration": "sim:"}, UsageError, "got the simulated slide, expected real frames"),
        ({"model": "yolov5n-bloot"}, UsageError, "no such model"),
        ({"calibration": "/nowhere/at/all"}, SourceError, "/nowhere/at/all"),
    ],
)
def test_bad_usage(tmp_path: Path, model: Path, changes: dict[str, str], error: type[Exception], message: str) -> None:
    given = {"model": str(model), "precision": "fp16", "batch": "1,2,4", "size": "96x64", **changes}
    with pytest.raises(error, match=message):
        run(tmp_path, Options(**given))  # type: ignore[arg-type]


def test_a_classifier_wants_pictures_of_cells(tmp_path: Path, frames: Path) -> None:
    path = tmp_path / "cells.onnx"
    onnx.save(classifier_file(), path)
    classes = "".join(f'[[classes]]\nname = "{name}"\nkind = "white"\n' for name in "abc")
    path.with_suffix(".toml").write_text(f'task = "classifier"\n[input]\nheight_px = 8\nwidth_px = 8\n{classes}')
    with pytest.raises(UsageError, match="expected pictures of single cells for fp16"):
        run(tmp_path, Options(str(path), "fp16", "1,8,32"))
    text = run(tmp_path, Options(str(path), "fp16", "1,8,32", str(frames)))
    assert "% of classes equal in 16 crops" in text


def test_noise_does_not_calibrate(tmp_path: Path, model: Path) -> None:
    folder = tmp_path / "noise"
    folder.mkdir()
    for i, picture in enumerate(np.random.default_rng(0).integers(0, 256, (9, 64, 96, 3), np.uint8)):
        cv2.imwrite(str(folder / f"{i}.png"), picture)
    with pytest.raises(CalibrationError, match="pictures of noise"):
        run(tmp_path, Options(str(model), "int8", "1,2,4", str(folder), "96x64"))


def test_an_empty_folder_does_not_calibrate(tmp_path: Path, model: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="empty"):
        run(tmp_path, Options(str(model), "int8", "1,2,4", str(tmp_path / "empty"), "96x64"))


def test_without_tensorrt_it_says_what_to_install(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    with pytest.raises(BackendUnavailableError, match=r"pip install 'leukostream\[tensorrt\]'"):
        compile_command(Options(str(model), "fp32", "1,2,4"), Console(file=io.StringIO()))


def test_frames_are_spread_over_the_source(frames: Path) -> None:
    expected = pictures(16)
    assert len(read_frames(str(frames), 64)) == 16
    few = read_frames(str(frames), 3)
    places = [next(i for i, picture in enumerate(expected) if np.array_equal(picture, image)) for image in few]
    assert len(places) == 3
    assert places == sorted(places)
    assert places[-1] >= 8


def test_bars_follow_the_phases() -> None:
    out = io.StringIO()
    with PhaseBars(Console(file=out, force_terminal=True, width=80)) as bars:
        bars.started("Building", None, 2)
        bars.started("Timing", "Building", 3)
        bars.stepped("Timing", 2)
        bars.stepped("never started", 1)
        assert [task.description for task in bars._bars.tasks] == ["Building", "  Timing"]
        assert bars._bars.tasks[1].completed == 2
        bars.finished("Timing")
        bars.finished("never started")
        assert [task.description for task in bars._bars.tasks] == ["Building"]
