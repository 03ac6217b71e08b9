"""A camera whose driver is killed and stopped again and again; here for some seconds."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path

import pytest

from streamer.sources import camera_process
from streamer.sources.camera_process import DrivenSource
from tests.streamer.sources import drivers
from tests.streamer.sources.scripted import ScriptedSource
from tools.bench import soak
from tools.bench.sender_process import SenderProcess

pytestmark = pytest.mark.lengthy


def soaked(monkeypatch: pytest.MonkeyPatch, target: str, minutes: float = 0.1) -> soak.Soak:
    monkeypatch.setattr(soak, "EVERY_S", (0.1, 0.2))
    monkeypatch.setattr(camera_process, "HANGS_S", 0.5)
    monkeypatch.setattr(
        soak,
        "open_source",
        lambda address: DrivenSource("a", "camera", drivers.connect, target, time.monotonic_ns, silence_s=0.1),
    )
    return soak.soaked("pylon:1", minutes, seed=1, chance=random.Random(1))


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


class Sender(SenderProcess):
    """One that is away, as it was told, and that nobody needs."""

    def __init__(self) -> None:
        self.command = "a camera"
        self.told: list[signal.Signals] = []
        self._until_s = 0.0

    def disturb(self, signal_number: signal.Signals, away_s: float) -> None:
        self.told.append(signal_number)
        self._until_s = time.monotonic() + away_s

    def is_away(self, now_s: float) -> bool:
        return now_s < self._until_s


def nap() -> None:
    time.sleep(0.01)


def test_a_sender_is_disturbed_in_place_of_the_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(soak, "EVERY_S", (0.1, 0.2))
    monkeypatch.setattr(soak, "AWAY_S", (0.3, 0.4))
    monkeypatch.setattr(soak, "open_source", lambda address: ScriptedSource(["open", *["frame", nap] * 100_000]))
    sender = Sender()
    found = soak.soaked("pylon:1", 0.1, seed=1, chance=random.Random(1), sender=sender)
    assert {signal.SIGKILL: "killed", signal.SIGSTOP: "stopped"}[sender.told[0]] == found.faults[0].kind
    assert len(sender.told) == len(found.faults) > 2
    assert (found.reopened, found.hung, found.sender) == (0, 0, "a camera")
    assert all((fault.away_s or 0.0) >= 0.25 for fault in found.faults)
    soak._keep(tmp_path / "soak.json", found)
    (kept,) = json.loads((tmp_path / "soak.json").read_text())["soaks"]
    assert kept["command"] == 'python -m tools.bench soak SOURCE --minutes 0.1 --sender "a camera"'
