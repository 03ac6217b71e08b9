"""`leukostream models`: the line on the display that says how often the classifier is wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engines.zoo.figures import MeasuredOn
from engines.zoo.registry import zoo_card, zoo_names
from streamer.cli import main
from streamer.commands.models import accuracy_note, headline
from streamer.counting.known import known_of


def test_the_display_says_what_the_classifier_gets_wrong_in_the_worst_laboratory_that_it_never_saw() -> None:
    card = zoo_card("mobilenetv3-small")
    figures = {
        MeasuredOn(card.training["data"][0], "", "holdout"): {"accuracy_classified": 0.1},  # it trained the model
        MeasuredOn("krd", "", "holdout"): {"accuracy_classified": 0.8},
        MeasuredOn("deepapl", "", "holdout"): {"accuracy_classified": 0.7},
    }
    assert accuracy_note(replace(card, figures=figures)) == (
        "classifier errors 30 % of the named cells in deepapl, the worst laboratory that it never saw"
    )
    assert accuracy_note(replace(card, figures={})) is None


def lines_of(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["models", *words]) == 0
    return capsys.readouterr().out.splitlines()


def test_the_list_has_a_line_a_model_with_the_figure_that_matters(capsys: pytest.CaptureFixture[str]) -> None:
    lines = lines_of(capsys)
    assert len(lines) < 24
    row = next(line for line in lines if line.startswith("efficientnet-lite0 "))
    assert row.split()[1:3] == ["classifier", "yes"]
    worst = known_of(zoo_card("efficientnet-lite0")).worst_unseen
    assert worst is not None
    assert f"{worst.wrong_percent:.0f} % wrong, worst unseen laboratory" in row
    assert [sum(line.startswith(f"{name} ") for line in lines) for name in zoo_names()] == [1] * len(zoo_names())


def test_one_model_is_shown_with_all_that_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    lines = lines_of(capsys, "show", "yolov5n-blood")
    assert lines[0].startswith("yolov5n-blood  detector, shipped: ")
    assert any("names WBC, RBC, platelet" in line for line in lines)
    measured = [on for on, figures in zoo_card("yolov5n-blood").figures.items() if "map50" in figures]
    assert all(any(line.startswith(str(on)) and "mAP@0.5" in line for line in lines) for on in measured)


def test_a_model_without_figures_says_so() -> None:
    assert headline(replace(zoo_card("yolov5n-blood"), figures={})) == "none measured"


def test_figures_that_chose_nothing_come_first() -> None:
    figures = {
        MeasuredOn("a", "", "validation"): {"map50": 0.9},
        MeasuredOn("b", "", "holdout"): {"map50": 0.7},
    }
    assert headline(replace(zoo_card("yolov5n-blood"), figures=figures)) == "mAP@0.5 0.700 (b holdout)"
