from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools.bench import inference


@pytest.mark.slow
def test_a_microscope_on_a_server_counts_as_it_does_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "inference.json"
    words = ["--microscopes", "1", "--servers", "1", "--cells", "2", "--json", str(path)]
    assert inference.main(words) == 0
    report = json.loads(path.read_text())
    assert report["equal_journals"]
    (alone,), (spread,) = report["ways"]["one process"], report["ways"]["servers"]
    assert alone["frames"] == spread["frames"] > 5
    assert alone["remote"] == alone["bytes_a_frame"] == 0
    assert spread["remote"] > 0
    assert spread["bytes_a_frame"] > 100_000
    assert all(0 < one["adds_ms"] < one["elsewhere_ms"] for one in report["overhead"])
    assert "journals: equal" in capsys.readouterr().out
