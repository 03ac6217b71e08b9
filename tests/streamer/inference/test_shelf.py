"""The models of a server: by hash, on the backend of this machine, loaded once."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from engines.backends.scripted import ScriptedEngine
from engines.base import EngineError, EngineId, ModelNotFoundError
from engines.models.loading import load_classifier, load_explainer
from streamer.inference.shelf import ENGINES_KEPT, ModelShelf, UnknownModelError, find_any, run_rows
from tests.engines import small_classifier
from tests.streamer.inference.served import INPUTS, OUTPUTS, images, totals

CARD = """
name = "small"
task = "classifier"
file = "{file}"
[input]
height_px = 16
width_px = 16
[thresholds]
operating = 0.5
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


def write_classifier(folder: Path, name: str = "small", seed: int = 0) -> Path:
    path = folder / f"{name}.onnx"
    path.write_bytes(small_classifier.classifier(seed=seed).SerializeToString())
    path.with_suffix(".toml").write_text(CARD.format(file=path.name))
    return path


def id_of(path: Path, **other: object) -> EngineId:
    return EngineId(hashlib.sha256(path.read_bytes()).hexdigest(), **other)  # type: ignore[arg-type]


def test_models_are_known_by_the_hash_of_their_file(tmp_path: Path) -> None:
    old, new = write_classifier(tmp_path, "old", 1), write_classifier(tmp_path, "new", 2)
    shelf = ModelShelf([str(old), str(new), str(old)], backend="onnxruntime")
    assert [(one.sha256, one.name, one.task) for one in shelf.models] == [
        (id_of(path).sha256, "small", "classifier") for path in (old, new)
    ]
    crops = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    for path in (old, new):
        served = shelf.engine(id_of(path)).infer({"images": crops})
        here = load_classifier(str(path), backend="onnxruntime").engine.infer({"images": crops})
        assert np.array_equal(served["class_probabilities"], here["class_probabilities"])
    assert shelf.engine(id_of(old)) is shelf.engine(id_of(old))
    with pytest.raises(UnknownModelError, match=r"model ffffffffffff…: not served here, which has small"):
        shelf.engine(EngineId("f" * 64))


def test_a_classifier_is_served_with_its_maps_too(tmp_path: Path) -> None:
    path = write_classifier(tmp_path)
    shelf = ModelShelf([str(path)], backend="onnxruntime")
    crops = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    served = shelf.engine(id_of(path, maps=True)).infer({"images": crops})
    here = load_explainer(str(path)).classifier.engine.infer({"images": crops})
    assert np.array_equal(served["cam"], here["cam"])


def test_on_a_cpu_a_request_runs_alone_unless_asked_otherwise(tmp_path: Path) -> None:
    path = write_classifier(tmp_path)
    for max_batch, rows in ((None, 1), (1, 1), (4, 4), (32, 8)):
        shelf = ModelShelf([str(path)], backend="onnxruntime", max_batch=max_batch)
        assert shelf.joined_rows(id_of(path)) == 1, "before it is loaded"
        shelf.engine(id_of(path))
        assert shelf.joined_rows(id_of(path)) == rows


def test_what_can_not_be_loaded_says_why(tmp_path: Path) -> None:
    path = write_classifier(tmp_path)
    with pytest.raises(ModelNotFoundError, match="no such model"):
        ModelShelf(["yolov5n-blod"])
    shelf = ModelShelf([str(path)], backend="onnxruntime", precision="fp16")
    with pytest.raises(EngineError, match=r"got an engine in fp32, expected fp16 as --precision says"):
        shelf.engine(id_of(path))
    detector = find_any("yolov5n-blood").card.sha256
    assert detector is not None
    shelf = ModelShelf(["yolov5n-blood"], backend="onnxruntime")
    for id_, said in (
        (EngineId(detector), "got no input size, expected one"),
        (EngineId(detector, 32, 4128), "got 4128 x 32 px, expected at most 4096"),
        (EngineId(detector, 64, 64, maps=True), "got a detector asked for maps, expected a classifier"),
    ):
        with pytest.raises(EngineError, match=said):
            shelf.engine(id_)


def test_few_engines_of_a_model_stay_loaded() -> None:
    sha256 = find_any("yolov5n-blood").card.sha256
    assert sha256 is not None
    shelf = ModelShelf(["yolov5n-blood"], backend="onnxruntime")
    for number in range(ENGINES_KEPT + 2):
        shelf.engine(EngineId(sha256, 32, 32 * (number + 1)))
    assert [id_.width for id_ in shelf._loaded] == [32 * (number + 1) for number in range(2, ENGINES_KEPT + 2)]


@pytest.mark.parametrize(("fixed", "max_batch", "calls"), [(None, None, [5]), (None, 2, [2, 2, 1]), (2, None, [2] * 3)])
def test_a_run_is_cut_as_the_engine_wants_it(fixed: int | None, max_batch: int | None, calls: list[int]) -> None:
    inputs = [type(INPUTS[0])("images", (fixed, 2, 2, 3), INPUTS[0].dtype)]
    engine = ScriptedEngine(inputs, OUTPUTS, totals, max_batch=max_batch)
    outputs = run_rows(engine, images(1, 2, 3, 4, 5))
    assert outputs["totals"].tolist() == [12.0, 24.0, 36.0, 48.0, 60.0]
    assert [len(call["images"]) for call in engine.calls] == calls
