"""The table of precisions on small fields."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

pytest.importorskip("torch", reason="tools.detection reads checkpoints by PyTorch")

from engines.graph import add_uint8_input, add_yolov5_head
from tests.engines.networks import ANCHORS
from tests.engines.small_detector import raw_body
from tests.tools.detection_cases import disc_field
from tools import bench_precision
from tools.detection import sets


def test_all_precisions_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "small.onnx"
    onnx.save(add_yolov5_head(add_uint8_input(raw_body()), anchors_px=ANCHORS, top_k=50), path)
    classes = "".join(f'[[classes]]\nname = "{name}"\nkind = "white"\n' for name in "abc")
    card = f'task = "detector"\n[input]\nlong_side_px = 96\n[thresholds]\noperating = 0.3\n{classes}'
    path.with_suffix(".toml").write_text(card)
    fields = {"train": [disc_field(seed) for seed in range(10)], "validation": [disc_field(seed) for seed in (20, 21)]}
    monkeypatch.setattr(sets, "fields_of", lambda name, part: fields[part])
    report = tmp_path / "precision.json"
    assert bench_precision.main([str(path), "--json", str(report)]) == 0
    results = json.loads(report.read_text())["results"]
    assert [row["precision"] for row in results] == ["fp32", "fp16", "int8"]
    assert all(0 <= row["map50"] <= 1 for row in results)
    assert "lost" not in results[0]
    assert "lost" in results[2]
