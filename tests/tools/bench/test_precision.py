"""The table of precisions on small fields and small cells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import onnx
import pytest

pytest.importorskip("torch", reason="tools.metrics reads checkpoints by PyTorch")

from engines.graphs.graph import add_uint8_input, add_yolov5_head
from tests.engines.networks import ANCHORS
from tests.engines.small_classifier import classifier
from tests.engines.small_detector import pictures, raw_body
from tests.tools.detection_cases import disc_field
from tools.bench import precision as bench_precision
from tools.data import CELL_CLASSES, CellPicture, sets

CLASSES = "".join(f'[[classes]]\nname = "{name}"\nkind = "white"\n' for name in "abc")


def results_of(report: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(report.read_text())["results"]
    return found


@pytest.fixture
def detector(tmp_path: Path) -> str:
    path = tmp_path / "small.onnx"
    onnx.save(add_yolov5_head(add_uint8_input(raw_body()), anchors_px=ANCHORS, top_k=50), path)
    card = f'task = "detector"\n[input]\nlong_side_px = 96\n[thresholds]\noperating = 0.3\n{CLASSES}'
    path.with_suffix(".toml").write_text(card)
    return str(path)


def test_all_precisions_of_a_detector_are_measured(
    tmp_path: Path, detector: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {"train": [disc_field(seed) for seed in range(10)], "validation": [disc_field(seed) for seed in (20, 21)]}
    partly = [disc_field(22, complete=(False, False, False))]
    monkeypatch.setattr(sets, "fields_of", lambda name, part: partly if name == "partly" else fields[part])
    report = tmp_path / "precision.json"
    bench_precision.main([detector, "--sets", "small,partly", "--json", str(report)])
    results = results_of(report)
    assert [(row["set"], row["pictures"], row["precision"], row["limit"]) for row in results] == [
        ("small at 96 px", 2, "fp32", 0.0),
        ("small at 96 px", 2, "fp16", 0.002),
        ("small at 96 px", 2, "int8", 0.01),
        *(("partly at 96 px", 1, precision, None) for precision in ("fp32", "fp16", "int8")),
    ]
    assert [row["measure"] for row in results] == ["mAP@.5"] * 3 + ["recall of white cells"] * 3
    assert all(
        row["lost"] == pytest.approx(results[i // 3 * 3]["value"] - row["value"]) for i, row in enumerate(results)
    )


def test_all_precisions_of_a_classifier_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "cells.onnx"
    onnx.save(classifier(), model)
    model.with_suffix(".toml").write_text(
        f'task = "classifier"\n[input]\nheight_px = 16\nwidth_px = 16\ncrop_margin = 1.0\n{CLASSES}'
    )
    cells, parts = [], {}
    for number, picture in enumerate(pictures(30, height=40, width=40)):
        path = tmp_path / f"{number}.png"
        cv2.imwrite(str(path), picture)
        kind = "one" if number % 2 else "two"
        cells.append(CellPicture(kind, str(number), path, 40, 40, (4, 4, 36, 36), CELL_CLASSES[number % 3]))
        parts[str(number)] = "train" if number < 20 else "validation"
    monkeypatch.setattr(bench_precision, "data_root", lambda: tmp_path)
    monkeypatch.setattr(bench_precision, "read_cells", lambda root: cells)
    monkeypatch.setattr(bench_precision, "load_splits", lambda root: parts)
    report = tmp_path / "precision.json"
    assert bench_precision.main([str(model), "--json", str(report)]) == 0
    results = results_of(report)
    assert [(row["set"], row["pictures"]) for row in results[::3]] == [("all sets", 10), ("two", 5), ("one", 5)]
    assert [row["precision"] for row in results] == ["fp32", "fp16", "int8"] * 3
    whole, two, one = (row["value"] for row in results[::3])
    assert whole == pytest.approx((two + one) / 2)


def test_a_loss_beyond_the_limit_is_a_failure(detector: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(lost: float) -> list[bench_precision.Row]:
        return [bench_precision.Row("m", "s", 1000, "fp16", "accuracy", 0.9, lost, 0.002)]

    for lost, status in ((0.002, 0), (0.0021, 1)):
        monkeypatch.setattr(bench_precision, "detector_rows", lambda *_, lost=lost: rows(lost))
        assert bench_precision.main([detector]) == status
