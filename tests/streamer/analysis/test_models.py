"""Which models look at which source, and what is told of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from engines.backends.onnxruntime import Threads
from engines.backends.shadow import ShadowTally
from engines.base import UsageError
from engines.graphs.graph import add_uint8_input, add_yolov5_head
from engines.graphs.parity import Parity
from streamer.analysis.analyser import Analyser
from streamer.analysis.magnification import Magnification
from streamer.analysis.models import Analysers, SourceModels, choose, load_models
from streamer.config import Config
from streamer.records import Frame, ModelHealth, ShadowStatus
from tests.cases import always, find_by_script, stamped
from tests.engines.networks import ANCHORS, classifier_file
from tests.engines.small_detector import raw_body

CLASSES = "".join(f'[[classes]]\nname = "{name}"\nkind = "white"\n' for name in "abc")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Two detectors and a classifier."""
    paths = {}
    for name, seed in (("one", 0), ("two", 1)):
        path = tmp_path / f"{name}.onnx"
        onnx.save(add_yolov5_head(add_uint8_input(raw_body(seed=seed)), anchors_px=ANCHORS, top_k=50), path)
        path.with_suffix(".toml").write_text(f'task = "detector"\n[input]\nlong_side_px = 96\n{CLASSES}')
        paths[name] = str(path)
    path = tmp_path / "cells.onnx"
    onnx.save(classifier_file(), path)
    path.with_suffix(".toml").write_text(f'task = "classifier"\n[input]\nheight_px = 8\nwidth_px = 8\n{CLASSES}')
    return {**paths, "cells": str(path)}


def load(config: Config, sources: list[str]) -> tuple[dict[str, SourceModels], list[str]]:
    said: list[str] = []
    return load_models(config, sources, Threads(1), said.append), said


def test_one_model_serves_all_sources(files: dict[str, str]) -> None:
    models, said = load(Config(detector=files["one"], classifier=files["cells"], backend="onnxruntime"), ["a", "b"])
    assert models["a"] is models["b"]
    assert len([line for line in said if line.startswith("cells: runs on onnxruntime cpu")]) == 1
    frames = [Frame(name, 0, 0, np.zeros(size, np.uint8)) for name, size in (("a", (64, 96, 3)), ("b", (128, 192, 3)))]
    analysers = Analysers({name: one.analyser for name, one in models.items()})
    assert analysers.group(frames[0]) == analysers.group(frames[1])
    assert [one.frame for one in analysers.look([analysers.measure(one) for one in frames])] == frames


def test_a_source_with_models_of_its_own(files: dict[str, str]) -> None:
    config = Config(
        detector=(files["one"], f"b={files['two']}"),
        classifier=("none", f"c={files['cells']}"),
        backend="onnxruntime",
    )
    models, _ = load(config, ["a", "b", "c"])
    assert [models[name].detector.card.name for name in "abc"] == ["one", "two", "one"]
    assert models["a"].detector is models["c"].detector
    assert [models[name].classifier is None for name in "abc"] == [True, True, False]
    analysers = Analysers({name: one.analyser for name, one in models.items()})
    image = np.zeros((64, 96, 3), np.uint8)
    groups = [analysers.group(Frame(name, 0, 0, image)) for name in "abc"]
    assert len(set(groups)) == 3
    assert analysers.group(Frame("a", 1, 0, np.zeros((96, 64, 3), np.uint8))) != groups[0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("m", "lef=n"), r"got the source 'lef', which this run has not; did you mean 'left'\?"),
        (("m", "n"), "got 'm' and 'n' for all sources, expected one of them"),
        (("left=m", "left=n", "right=m"), "got 'm' and 'n' for source 'left'"),
        (("left=m",), "got none for right, expected one; add a model without a name"),
        (("1=m",), "got the name '1', expected letters"),
    ],
)
def test_choices_that_make_no_sense(given: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        choose("--detector", given, ["left", "right"])


def test_a_path_with_an_equals_sign_is_no_name() -> None:
    assert choose("--detector", "./a=b.onnx", ["left"]) == {"left": "./a=b.onnx"}


def test_health_names_the_backend_and_the_comparison() -> None:
    detector, classifier = find_by_script({}), always(0)
    tallies = {"detector": ShadowTally(), "classifier": ShadowTally()}
    models = SourceModels(detector, classifier, Analyser(detector, classifier), Magnification(detector), tallies)
    assert models.health() == ModelHealth("scripted", "scripted-detector", "scripted-classifier", None)
    tallies["detector"].add(Parity(1, 10, 0.9, 1.0, 0.2))
    assert models.health().shadow == {"detector": ShadowStatus(checked=1, compared=10, agreed=9, extra=2, failed=0)}
    alone = SourceModels(detector, None, Analyser(detector, None), Magnification(detector), {})
    assert alone.health().backend == ""
    alone.analyser.analyse([Frame("a", 0, 0, stamped(np.zeros((256, 320, 3), np.uint8), 0))])
    assert alone.health().backend == "scripted"


def test_two_backends_are_told_apart() -> None:
    detector, classifier = find_by_script({}), always(0)
    detector.prepare(320, 256)
    classifier.engine.backend = "tensorrt fp16"
    health = SourceModels(detector, classifier, Analyser(detector, classifier), Magnification(detector), {}).health()
    assert health.backend == "scripted (detector), tensorrt fp16 (classifier)"
