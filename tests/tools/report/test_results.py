"""The one table: what it reads off cards, files and graphs, and that the committed one is what the command makes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.zoo.card import Card, parse_card
from engines.zoo.figures import MeasuredOn
from tools.report import cost, figures, markdown
from tools.report import results as results_table
from tools.report.systems import SYSTEMS

CARD = """
name = "tiny"
task = "classifier"
file = "tiny.onnx"
sha256 = "{sha}"
build = ["make a", "make b"]
[input]
height_px = 8
width_px = 8
[[classes]]
name = "monocyte"
kind = "white"
[[classes]]
name = "neutrophil"
kind = "white"
[training]
data = ["pbc", "chula_wbc"]
[[figures]]
dataset = "pbc"
part = "validation"
command = "measure"
cells = 40
accuracy = 0.95
accuracy_low = 0.83
accuracy_high = 0.99
calibration_error = 0.02
calibration_error_untempered = 0.05
monocyte_recall = 0.9
monocyte_recall_low = 0.7
monocyte_recall_high = 0.97
monocyte_precision = 1.0
[[figures]]
dataset = "chula_wbc"
view = "fused"
part = "holdout"
command = "measure"
cells = 9
accuracy = 0.5
[[figures]]
dataset = "wbc_masks/jtsc"
part = "validation"
command = "measure"
cells = 7
balanced_accuracy = 0.4
[[figures]]
dataset = "pbc"
view = "speed"
part = "validation"
command = "measure"
ms = 3.0
"""
SHA = "ab" * 32


def card(sha: str = SHA) -> Card:
    return parse_card(CARD.format(sha=sha), "tiny.toml", stem="tiny")


def small_graph():
    """8x8: a 3x3 convolution of stride 2 from 3 to 4 channels in two groups of channels' outputs, mean, 4 to 2."""
    weights = np.ones((4, 3, 3, 3), np.float32)
    dense = np.ones((4, 2), np.float16)
    nodes = [
        helper.make_node("Cast", ["images"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["f"], ["x"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["x", "w"], ["y"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("ReduceMean", ["y"], ["m"], axes=[2, 3], keepdims=0),
        helper.make_node("Cast", ["d"], ["d32"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["m", "d32"], ["z"]),
        helper.make_node("Softmax", ["z"], ["class_probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 8, 8, 3])],
        [helper.make_tensor_value_info("class_probabilities", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(dense, "d")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_parameters_and_arithmetic_are_counted_from_the_graph() -> None:
    found = cost.cost_of(card(), small_graph())
    assert found == cost.Cost(4 * 27 + 8, 2 * (4 * 16 * 27 + 8), 8, 8)


def test_time_is_of_one_picture_in_each_batch() -> None:
    times = cost.cpu_times(card(), small_graph(), rounds=3)
    assert set(times) == {"batch_1_ms", "batch_16_ms"}
    assert all(value is not None and value >= 0 for value in times.values())
    assert cost.machine()["threads"] == 1


def test_a_depthwise_convolution_counts_one_channel() -> None:
    model = small_graph()
    model.graph.node[2].attribute.append(helper.make_attribute("group", 3))
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones((3, 1, 3, 3), np.float32), "w"))
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.ones((3, 2), np.float32), "d"))
    assert cost.flops_of(model, 8, 8) == 2 * (3 * 16 * 9 + 6)


def test_figures_know_their_place_and_limits() -> None:
    subject = card()
    home, camera, other = figures.figures_of(subject, subject.figures, 2)
    assert (home.place, camera.place, other.place) == ("home", "camera", "other laboratory")
    assert (home.data_set, camera.data_set, other.data_set) == ("pbc", "chula_wbc fused", "wbc_masks/jtsc")
    assert (home.part, camera.part) == ("validation", "holdout")
    assert home.limits == {"accuracy": (0.83, 0.99)}
    assert home.classes == {"monocyte": {"recall": [0.9, 0.7, 0.97], "precision": [1.0, None, None]}}
    assert (home.calibration_error, home.calibration_error_untempered) == (0.02, 0.05)
    trained = replace(subject, training={"data": ["wbc_masks/jtsc", "bccd"]})

    def place(card: Card, dataset: str, view: str = "") -> str:
        return figures.place_of(MeasuredOn(dataset, view, "validation"), card)

    assert place(trained, "wbc_masks/jtsc", "whole") == "home"
    assert place(trained, "wbc_masks/cellavision") == "other laboratory"
    whole = replace(subject, training={"data": ["wbc_masks"]})
    assert place(whole, "wbc_masks/cellavision") == "home"
    assert place(whole, "wbc_masks", "left out") == "other laboratory"
    assert place(trained, "bccd_crops") == "home"


def test_a_result_file_of_another_file_of_weights_is_left_out() -> None:
    file = figures.ResultFile(
        "tiny", SHA, ("monocyte",), {MeasuredOn("pbc", "", "holdout"): {"command": "c", "cells": 3, "accuracy": 1.0}}
    )
    system = replace(SYSTEMS[0], name="tiny")
    kept = results_table.row(system, card(), [file], {}, 0)
    assert [f["classes_measured"] for f in kept["figures"]] == [2, 2, 2, 1]
    left = results_table.row(system, card("cd" * 32), [file], {}, 0)
    assert len(left["figures"]) == 3


def test_what_needs_the_file_is_kept_while_the_file_is_the_same() -> None:
    system = replace(SYSTEMS[0], name="tiny")
    before = {
        "sha256": SHA,
        "file_bytes": 5,
        "parameters": 7,
        "flops": 9,
        "input_px": [8, 8],
        "cpu": {"batch_1_ms": 1.0},
    }
    same = results_table.row(system, card(), [], before, 0)
    assert (same["parameters"], same["flops"], same["cpu"]) == (7, 9, {"batch_1_ms": 1.0})
    other = results_table.row(system, card("cd" * 32), [], before, 0)
    assert (other["parameters"], other["flops"], other["cpu"]) == (None, None, None)
    assert other["gpu"] is None
    assert other["trained"]["commands"] == ["make a", "make b"]


def test_a_system_without_weights_has_no_figures() -> None:
    entry = results_table.row(SYSTEMS[0], None, [], {}, 0)
    assert entry["status"] == "no weights yet"
    assert not {"figures", "parameters", "cpu"} & set(entry)


def test_the_committed_table_is_what_the_command_makes() -> None:
    path = results_table.DOCS / "results.json"
    committed = json.loads(path.read_text("utf-8"))
    found = results_table.document(committed, results_table.DOCS / "results", {})
    advice = f"the cards have changed: run `{results_table.COMMAND}` and commit docs/results.*"
    assert results_table.text_of(found) == path.read_text("utf-8"), advice
    assert markdown.page(found) == (results_table.DOCS / "results.md").read_text("utf-8"), advice
    assert [s["name"] for s in found["systems"]][: len(SYSTEMS)] == [s.name for s in SYSTEMS]


def test_pictures_of_cells_are_kept_out_of_the_repository(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a folder elsewhere"):
        results_table.outside_of_repository(results_table.DOCS / "pictures")
    assert results_table.outside_of_repository(tmp_path) == tmp_path
    ignored = results_table.DOCS.parent / "runs" / "pictures"
    assert results_table.outside_of_repository(ignored) == ignored


def test_the_worst_mistakes_are_the_surest() -> None:
    pictures = pytest.importorskip("tools.report.pictures")
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
    assert pictures.worst(probabilities, np.array([1, 0, 0, 0])).tolist() == [0, 1, 3]
