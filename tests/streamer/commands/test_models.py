"""`leukostream models`: the line on the display that says how often the classifier is wrong."""

from __future__ import annotations

from dataclasses import replace

from engines.zoo.figures import MeasuredOn
from engines.zoo.registry import zoo_card
from streamer.commands.models import accuracy_note


def test_the_display_says_what_the_classifier_gets_wrong_on_camera_pictures() -> None:
    card = zoo_card("mobilenetv3-small")
    assert accuracy_note(card) == "classifier errors 9 % (chula wbc validation)"
    fused = {
        MeasuredOn("pbc", "", "test"): {"accuracy": 1.0},
        MeasuredOn("chula_wbc", "fused", "test"): {"accuracy": 0.8},
    }
    assert accuracy_note(replace(card, figures=fused)) == "classifier errors 20 % (chula wbc fused test)"
    assert accuracy_note(replace(card, figures={})) is None
