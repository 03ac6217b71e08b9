"""`leukostream cameras`: each with what to write behind `--source`, and one line where none answers."""

from __future__ import annotations

import cv2
import pytest

from streamer.cli import main
from streamer.sources import attached, parse_source
from tests.streamer.sources.scripted import Opener, ScriptedCapture

RATE = {cv2.CAP_PROP_FPS: 25.0}


def elsewhere_than_linux(monkeypatch: pytest.MonkeyPatch, *captures: ScriptedCapture) -> Opener:
    """Devices are tried by their index."""
    monkeypatch.setattr(attached, "_LISTS_DEVICES", False)
    opener = Opener(*captures)
    monkeypatch.setattr(attached, "open_capture", opener)
    return opener


def test_a_camera_that_answers_is_listed_with_its_source(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    captures = ScriptedCapture([]), ScriptedCapture([True], RATE)
    elsewhere_than_linux(monkeypatch, *captures)
    assert main(["cameras"]) == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert "60x40, 25 frames/s" in line
    assert parse_source(line.split()[-1]).target == "1,size=60x40"
    assert captures[1].released


def test_none_that_answers_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere_than_linux(monkeypatch)
    assert main(["cameras"]) == 1
    assert capsys.readouterr().err.startswith("leukostream: cameras: got none, expected one that gives frames; check ")
