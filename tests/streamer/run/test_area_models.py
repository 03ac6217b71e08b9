"""The models that ship, on a short simulated film: the cells are those of a run that looks at every frame."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streamer import cli
from streamer.commands.recount import recount

FILM = "sim:seed=4,cells=14,erythroblasts=7"


def run(folder: Path, *words: str) -> list[dict[str, Any]]:
    lines = folder / "messages.jsonl"
    lines.unlink(missing_ok=True)
    command = ["run", "--source", FILM, "--jsonl", str(lines), "--no-dashboard", *words]
    assert cli.main(command) == 0
    return [json.loads(line) for line in lines.read_text().splitlines()]


def cells(messages: list[dict[str, Any]]) -> dict[int, tuple[float, float, str]]:
    newest = {one["cell_id"]: one for one in messages if one["type"] == "cell"}
    return {
        number: (one["x_px"], one["y_px"], one["class"])
        for number, one in newest.items()
        if one["counted"] and not one["partial"]
    }


@pytest.mark.lengthy
def test_the_cells_are_those_of_every_frame(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    every = run(tmp_path, "--every-frame")
    area = run(tmp_path, "--audit", "50", "--journal", str(tmp_path / "area.db"))
    frames = [one for one in area if one["type"] == "frame"]
    settled = [one for one in frames if any(box.get("carried") for box in one["detections"])]
    looked = [one for one in frames if one["looked_share"] == 1 and one not in settled]
    assert len(looked) < len(frames) / 3
    assert all(one["looked_share"] == 1 for one in every if one["type"] == "frame")
    expected, found = list(cells(every).values()), list(cells(area).values())
    for x, y, name in expected:
        (same,) = [one for one in found if abs(one[0] - x) < 20 and abs(one[1] - y) < 20]
        assert same[2] == name
    assert len(found) == len(expected)
    health = [one for one in area if one["type"] == "health"][-1]["sources"]["sim"]
    assert health["audit"]["frames"] > 0
    assert health["area"]["looked"] < len(frames) / 3
    assert "looked at" in capsys.readouterr().out
    assert recount(str(tmp_path / "area.db")) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--every-frame", "--budget", "50"], "got --every-frame beside it"),
        (["--budget", "50"], "in analysis mode, which loses nothing, expected live mode"),
        (["--budget", "0"], "budget"),
        (["--audit", "101"], "audit"),
        (["--every-frame", "--audit", "5"], "got --every-frame beside it"),
    ],
)
def test_a_budget_is_for_cameras_that_are_looked_at_where_something_is_new(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", "--source", FILM, "--mode", "analysis", "--no-dashboard", *words]) == 2
    assert said in capsys.readouterr().err
