"""Verdicts on whole runs over pictures: those of the very session of `run`, less what few single fields can't show."""

import json

import cv2
import pytest

from streamer.sources.simulated import SlideParameters, VirtualSlide
from tools.evaluate import verdict_runs


@pytest.fixture(scope="module")
def fields(tmp_path_factory):
    """A dozen fields of a simulated slide."""
    folder = tmp_path_factory.mktemp("fields")
    slide = VirtualSlide(SlideParameters.parse("sim:seed=3,cells=25,dwell=1,travel=1"))
    paths = []
    for number in range(0, len(slide), max(1, len(slide) // 12)):
        paths.append(folder / f"{number}.png")
        cv2.imwrite(str(paths[-1]), slide.render(number))
    return paths


@pytest.mark.lengthy
def test_a_slide_that_the_models_know_passes_and_one_in_other_colours_does_not(fields, tmp_path, monkeypatch, capsys):
    for path in fields:
        strange = tmp_path / path.name
        cv2.imwrite(str(strange), cv2.imread(str(path))[:, :, ::-1])
    laboratories = {"home": fields, "strange": [tmp_path / path.name for path in fields]}
    monkeypatch.setattr(verdict_runs, "pictures_of", lambda *_: laboratories)
    verdict_runs.main(["--sets", "bccd", "--json", str(tmp_path / "runs.json")])
    rows = json.loads((tmp_path / "runs.json").read_text())["laboratories"]
    assert rows["home"]["state"] == "ready for review"
    assert rows["strange"]["state"] in ("incomplete", "do not use")
    assert rows["home"]["cells"] > 3
    assert [line.split(" | ")[5] for line in capsys.readouterr().out.splitlines()[2:]] == [
        row["state"] for row in rows.values()
    ]
