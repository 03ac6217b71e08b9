"""Models by name and by path: shipped ones, files with cards, files of Ultralytics, and everything that is none."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from engines.backends.onnxruntime import Threads
from engines.base import BackendUnavailableError, CardError, ModelFormatError, ModelNotFoundError, UsageError
from engines.graphs.graph import add_uint8_input, add_yolov5_head
from engines.models.loading import load_classifier, load_detector
from engines.zoo import registry
from engines.zoo.registry import models, zoo_names
from tests.engines.networks import ANCHORS, classifier_file, model_of, raw_network, ultralytics_file

DETECTOR_CARD = """
name = "{name}"
task = "detector"
sha256 = "{digest}"
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
[[figures]]
dataset = "home"
part = "validation"
command = "true"
map50 = 0.5
"""
CLASSIFIER_CARD = """
task = "classifier"
[input]
height_px = 8
width_px = 8
[[classes]]
name = "neutrophil"
kind = "white"
[[classes]]
name = "lymphocyte"
kind = "white"
[[classes]]
name = "monocyte"
kind = "white"
"""
FRAME = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)


def save(model: ModelProto, path: Path) -> Path:
    onnx.save(model, path)
    return path


def save_detector(folder: Path, name: str) -> Path:
    path = save(add_yolov5_head(add_uint8_input(raw_network(seed=2)), anchors_px=ANCHORS), folder / f"{name}.onnx")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_suffix(".toml").write_text(DETECTOR_CARD.format(name=name, digest=digest))
    return path


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "zoo"
    folder.mkdir()
    save_detector(folder, "yolov5n-blood")
    save(classifier_file(), folder / "mobilenetv3-small.onnx")
    (folder / "mobilenetv3-small.toml").write_text(CLASSIFIER_CARD)
    monkeypatch.setattr(registry, "_zoo", lambda: folder)
    return folder


def test_shipped_models_by_name(zoo: Path) -> None:
    assert zoo_names() == ["mobilenetv3-small", "yolov5n-blood"]
    assert [(card.name, card.task) for card in models()] == [
        ("mobilenetv3-small", "classifier"),
        ("yolov5n-blood", "detector"),
    ]
    assert models()[1].figures["home", "", "validation"]["map50"] == 0.5
    detector = load_detector("yolov5n-blood", frame_size=(96, 96), threads=Threads(1), min_score=0.2)
    assert detector.threshold == 0.2
    assert detector.prepare(96, 96).backend.startswith("onnxruntime")
    (found,) = detector.detect([FRAME])
    assert len(found) > 0
    crops = load_classifier("mobilenetv3-small").classify(FRAME, found.boxes_px)
    assert crops.class_names == ("neutrophil", "lymphocyte", "monocyte")
    assert len(crops) == len(found)


def test_no_zoo_is_no_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_zoo", lambda: tmp_path / "absent")
    assert models() == []
    with pytest.raises(ModelNotFoundError, match="available: none is shipped"):
        load_detector("yolov5n-blood")


def test_a_file_with_its_card_by_either_path(tmp_path: Path) -> None:
    path = save_detector(tmp_path, "mine")
    for given in (path, path.with_suffix(".toml")):
        (found,) = load_detector(str(given)).detect([FRAME])
        assert found.label_names == ("WBC", "RBC", "platelet")


def test_a_shipped_model_whose_file_changed(zoo: Path) -> None:
    with (zoo / "yolov5n-blood.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(CardError, match=r"yolov5n-blood: got sha256 .* fetch the file again"):
        load_detector("yolov5n-blood")
    (zoo / "yolov5n-blood.onnx").unlink()
    with pytest.raises(ModelNotFoundError, match=r"got its card but not yolov5n-blood.onnx; fetch it with:"):
        load_detector("yolov5n-blood")


@pytest.mark.parametrize("number", [TensorProto.FLOAT, TensorProto.FLOAT16])
@pytest.mark.parametrize("size", [None, (64, 96)])
def test_a_file_of_ultralytics(tmp_path: Path, number: int, size: tuple[int, int] | None) -> None:
    path = save(ultralytics_file(number=number, size=size), tmp_path / "best.onnx")
    detector = load_detector(str(path), frame_size=(120, 80), min_score=0.01)
    assert detector.input_size(120, 80) == ((96, 64) if size else (640, 448))
    assert detector.card.kinds == ("white", "red", "platelet")
    assert detector.card.notes[0].endswith("WBC = white, RBC = red, Platelets = platelet")
    (found,) = detector.detect([FRAME])
    assert found.label_names == ("WBC", "RBC", "Platelets")
    assert len(found) > 0


def test_a_file_of_ultralytics_with_a_card_beside_it(tmp_path: Path) -> None:
    path = save(ultralytics_file(names=None), tmp_path / "best.onnx")
    with pytest.raises(CardError, match=r"best.onnx: got neither a card beside it .*; write best.toml"):
        load_detector(str(path))
    card = DETECTOR_CARD.format(name="best", digest=hashlib.sha256(path.read_bytes()).hexdigest())
    path.with_suffix(".toml").write_text(card)
    detector = load_detector(str(path))
    assert detector.long_side_px == 96
    assert detector.card.notes == ()
    assert detector.detect([FRAME])[0].kinds == ("white", "red", "platelet")


def test_names_that_do_not_fit_the_network(tmp_path: Path) -> None:
    path = save(ultralytics_file(classes=4), tmp_path / "best.onnx")
    message = (
        r"best.onnx: output 'output0': got float \(.*,9\), expected \(N, candidates, 8\) for the 3 classes WBC, RBC"
    )
    with pytest.raises(ModelFormatError, match=message):
        load_detector(str(path))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("yolov5n-blod", r"no such model; did you mean 'yolov5n-blood'\? available: yolov5n-blood; or give the path"),
        ("YOLOv5n-Blood", r"did you mean 'yolov5n-blood'"),
        ("zzz", r"no such model; available: yolov5n-blood"),
        ("mobilenetv3-small", r"got a classifier, expected a detector: yolov5n-blood"),
        ("{folder}/yolov5n-blod.onnx", r"no such file; did you mean 'yolov5n-blood.onnx'\? expected an ONNX file"),
        ("{folder}", r"got a folder, expected an ONNX file or a name"),
        ("", r"got a folder"),
        ("nowhere/x.onnx", r"'nowhere/x.onnx': got no such file; expected an ONNX file; check the path"),
    ],
)
def test_models_that_are_not_there(zoo: Path, name: str, message: str) -> None:
    with pytest.raises(ModelNotFoundError, match=message) as caught:
        load_detector(name.format(folder=zoo))
    assert isinstance(caught.value, UsageError)
    assert "\n" not in str(caught.value)


def identity(kind: int, shape: list[int | str], outputs: int = 1) -> ModelProto:
    names = [f"y{i}" for i in range(outputs)]
    model = model_of(
        [helper.make_node("Identity", ["x"], [name]) for name in names],
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(name, kind, shape) for name in names],
    )
    helper.set_model_props(model, {"names": "{0: 'WBC', 1: 'RBC', 2: 'platelet'}"})
    return model


F = TensorProto.FLOAT


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "got an ONNX file without any operator"),
        (b"this is no model at all", "bad.onnx: got no readable ONNX"),
        (ultralytics_file().SerializeToString()[:-900], "bad.onnx: got no readable ONNX"),
        (identity(F, [1, 32, 32, 3]).SerializeToString(), r"got float \(1,32,32,3\), expected"),
        (identity(F, [1, 3, 32, 32], 2).SerializeToString(), r"outputs: got 2 \(y0, y1\), expected one"),
        (identity(F, [1, 3, 32, 32]).SerializeToString(), r"expected \(N, candidates, 8\)"),
        (identity(F, [1, 3, 32, 8]).SerializeToString(), r"output 'y0': got shape \[1, 3, 32, 8\], expected \(N, cand"),
        (identity(TensorProto.STRING, [1, 3, 32, 32]).SerializeToString(), r"got string"),
    ],
    ids=["empty", "text", "cut off", "float NHWC", "two outputs", "image out", "rank 4", "text in"],
)
def test_files_that_are_no_detector(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelFormatError, match=message) as caught:
        load_detector(str(path), frame_size=(32, 32))
    assert "bad.onnx" in str(caught.value)


def test_an_operator_that_no_backend_has(tmp_path: Path) -> None:
    model = ultralytics_file()
    model.graph.node[-1].op_type = "NoSuchOperator"
    with pytest.raises(ModelFormatError, match=r"bad.onnx: .*NoSuchOperator"):
        load_detector(str(save(model, tmp_path / "bad.onnx")), frame_size=(96, 96))


def test_weights_in_another_file(tmp_path: Path) -> None:
    model = ultralytics_file()
    path = tmp_path / "best.onnx"
    onnx.save(model, path, save_as_external_data=True, location="best.data", size_threshold=0)
    assert len(load_detector(str(path), min_score=0.01).detect([FRAME])[0]) > 0
    (tmp_path / "best.data").unlink()
    with pytest.raises(ModelFormatError, match="its weights lie in another file that can't be read"):
        load_detector(str(path))


def test_classifiers_that_are_none(tmp_path: Path) -> None:
    path = save(classifier_file(), tmp_path / "net.onnx")
    with pytest.raises(
        CardError, match=r"got no model card, expected net.toml beside it; write one with task = \"classif"
    ):
        load_classifier(str(path))
    path.with_suffix(".toml").write_text(CLASSIFIER_CARD)
    assert load_classifier(str(path)).class_names == ("neutrophil", "lymphocyte", "monocyte")
    save(identity(F, [1, 3, 8, 8]), path)
    with pytest.raises(ModelFormatError, match=r"net.onnx: input 'x': got float \(1,3,8,8\), expected images uint8"):
        load_classifier(str(path))
    save(classifier_file(2), path)
    with pytest.raises(CardError, match="got 2 values, expected 3 by its card"):
        load_classifier(str(path))


def test_a_card_that_is_no_text(tmp_path: Path) -> None:
    path = save(classifier_file(), tmp_path / "net.onnx")
    path.with_suffix(".toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CardError, match="no text in UTF-8"):
        load_classifier(str(path))


def test_backends(zoo: Path) -> None:
    with pytest.raises(BackendUnavailableError, match=r"pip install 'leukostream\[tensorrt\]'"):
        load_detector("yolov5n-blood", backend="tensorrt")
    with pytest.raises(BackendUnavailableError, match=r"got 'onnx', expected auto, .*did you mean 'onnxruntime'"):
        load_detector("yolov5n-blood", backend="onnx")  # type: ignore[arg-type]
