"""The benchmark of batches: every batch does the same items."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.engines.backends.tensorrt.test_choice import model
from tests.engines.small_detector import pictures
from tools.bench import batch as bench_batch

__all__ = ["model"]


def test_every_batch_does_all_items() -> None:
    done: dict[int, int] = {1: 0, 4: 0}

    def run_of(batch: int) -> object:
        def run() -> None:
            done[batch] += 8

        return run

    times = bench_batch.by_batch({batch: run_of(batch) for batch in done}, 8, rounds=3)  # type: ignore[misc]
    assert list(times) == [1, 4]
    assert done == {1: 32, 4: 32}


def test_the_table_of_a_small_detector(tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [np.ascontiguousarray(picture) for picture in pictures(8, height=240, width=320)]
    monkeypatch.setattr(bench_batch, "read_frames", lambda source, count: frames[:count])
    report = tmp_path / "batch.json"
    assert bench_batch.main(["--detector", model, "--rounds", "1", "--json", str(report)]) == 0
    document = json.loads(report.read_text())
    assert list(document["frame_ms"]) == list(document["crop_ms"]) == ["1", "2", "4", "8"]
    assert document["frame_px"] == [320, 240]
