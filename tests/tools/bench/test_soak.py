"""A camera whose driver is killed and stopped again and again; here for some seconds."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from streamer.sources import camera_process
from streamer.sources.camera_process import DrivenSource
from tests.streamer.sources import drivers
from tools.bench import soak

pytestmark = pytest.mark.lengthy


def soaked(monkeypatch: pytest.MonkeyPatch, target: str, minutes: float = 0.1) -> soak.Soak:
    monkeypatch.setattr(soak, "EVERY_S", (0.1, 0.2))
    monkeypatch.setattr(camera_process, "HANGS_S", 0.5)
    monkeypatch.setattr(
        soak,
        "open_source",
        lambda address: DrivenSource("a", "camera", drivers.connect, target, time.monotonic_ns, silence_s=0.1),
    )
    return soak.soaked("pylon:1", minutes, seed=1)


def test_frames_come_again_after_each_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    found = soaked(monkeypatch, "endless")
    assert found.frames > 10
    assert {fault.kind for fault in found.faults} == {"killed", "stopped"}
    assert found.hung == 0
    assert found.reopened == len(found.faults)
    assert found.failure is None
    assert found.memory_here.last_mb is not None
    assert found.longest_without_frame_s >= max(fault.frame_after_s or 0.0 for fault in found.faults) - 0.5


def test_a_camera_that_never_comes_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "soak.json"
    file.write_text(json.dumps({"soaks": [{"source": "mm:other.cfg"}, {"source": "genicam:1"}]}))
    monkeypatch.setattr(
        soak, "open_source", lambda address: DrivenSource("a", "c", drivers.connect, "never", time.time_ns)
    )
    assert soak.main(["genicam:1", "--minutes", "0.1", "--json", str(file)]) == 1
    assert "the reader ended: c: says the driver" in capsys.readouterr().out
    kept = json.loads(file.read_text())
    assert [one["source"] for one in kept["soaks"]] == ["mm:other.cfg", "genicam:1"]
    assert kept["soaks"][1]["frames"] == 0
