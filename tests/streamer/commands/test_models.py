"""`leukostream models`: the line on the display that says how often the classifier is wrong."""

from __future__ import annotations

from dataclasses import replace

from engines.zoo.figures import MeasuredOn
from engines.zoo.registry import zoo_card
from streamer.commands.models import accuracy_note


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
