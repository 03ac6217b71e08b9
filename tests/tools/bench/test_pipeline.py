"""The pipeline's benchmark in small: every row is measured on the same frames, and adds up."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest

from streamer.sources import open_source, parse_source
from tools.bench.pipeline import main

FRAMES = 8


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = open_source(parse_source("sim:seed=3,cells=10"))
    source.open()
    for number in range(FRAMES):
        cv2.imwrite(str(tmp_path / f"{number:03d}.jpg"), source.read().image)
    source.close()
    return tmp_path


def test_every_row_is_measured_on_all_frames(folder: Path, tmp_path: Path) -> None:
    result = tmp_path / "bench.json"
    main(["--source", str(folder), "--rounds", "1", "--plans", "2x1", "--json", str(result)])
    report = json.loads(result.read_text())
    assert report["frames"] == FRAMES
    assert report["allowed_fps"] == pytest.approx(report["machine"]["cores"] * 1000 / sum(report["step_ms"].values()))
    all_ms = [*report["step_ms"].values(), *report["rest_ms"].values()]
    assert min(all_ms) > 0
    assert report["allowed_with_rest_fps"] == pytest.approx(report["machine"]["cores"] * 1000 / sum(all_ms))
    assert [(row["workers"], row["threads"], row["only_the_loops_work"]) for row in report["pipeline"]] == [
        (2, 1, False),
        (2, 1, True),
    ]
    for row in report["pipeline"]:
        assert row["of_allowed"] == pytest.approx(row["fps"][0] / report["allowed_fps"])
        assert len(row["fps"]) == 1
    whole, loops_work = report["pipeline"]
    assert whole["of_allowed_with_rest"] == pytest.approx(whole["fps"][0] / report["allowed_with_rest_fps"])
    assert loops_work["of_allowed_with_rest"] is None
