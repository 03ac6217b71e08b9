"""`leukostream cameras`: each with what to write behind `--source`, and one line where none can be used."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from streamer.cli import main
from streamer.sources import attached
from streamer.sources.driver import AttachedCamera
from tests.streamer.sources import drivers

pytestmark = pytest.mark.lengthy


def looking(monkeypatch: pytest.MonkeyPatch, **back_ends: Callable[[], list[AttachedCamera]]) -> None:
    monkeypatch.setattr(attached, "BACK_ENDS", back_ends)


def test_what_is_attached_and_who_could_not_look(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looking(monkeypatch, odd=drivers.finds_two, crashing=drivers.crashes, missing=drivers.misses_a_package)
    assert main(["cameras"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[:3]] == [
        ["camera", "gives", "--source"],
        ["[bold]Odd", "640x480", "odd:1"],
        ["in", "use", "by", "another", "program", "odd:2"],
    ]
    assert lines[3:] == [
        "not looked at: crashing: its process was ended by SIGABRT",
        "not looked at: missing: got no package 'missing', expected it here: pip install 'leukostream[missing]'",
    ]


def test_none_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    looking(monkeypatch, empty=drivers.finds_none)
    assert main(["cameras"]) == 1
    assert capsys.readouterr().err.startswith("leukostream: cameras: got none, expected one that can be used; check ")
