"""What the models of a session know, from their cards: what a verdict compares a slide with."""

from __future__ import annotations

import msgspec

from engines.zoo.card import Appearance, Card
from engines.zoo.figures import OF_BASE, MeasuredOn
from streamer.records import WorstLaboratory

LEFT_OUT = "left out"
"""The view, in a card's figures, of a laboratory that trains the classifier now and had not trained it when it was
measured."""
MEASURED = ("holdout", "validation")
"""Parts of a laboratory's cells that a card may have figures of, the better proof first."""


class Known(msgspec.Struct, frozen=True):
    """Of a classifier."""

    appearances: tuple[Appearance, ...]
    """How the pictures looked that trained it; empty where its card does not say."""
    wrong_percent: dict[str, float]
    """By laboratory: of the cells of it that the classifier names and was not trained on, how many it names wrongly."""
    worst_unseen: WorstLaboratory | None
    """None: the card has no figures of a laboratory that did not train it."""


def known_of(card: Card) -> Known:
    """What the card of a classifier says."""
    trained = set(card.training.get("data", ()))
    unseen = [
        WorstLaboratory(on.dataset, wrong)
        for on in card.figures
        if _is_unseen(on, trained) and (wrong := _wrong_percent(card, on)) is not None
    ]
    wrong_percent = {}
    for name in dict.fromkeys(one.laboratory for one in card.appearances):
        found = [_wrong_percent(card, MeasuredOn(name, "", part)) for part in MEASURED]
        measured = [wrong for wrong in found if wrong is not None]
        if measured:
            wrong_percent[name] = measured[0]
    return Known(
        appearances=card.appearances,
        wrong_percent=wrong_percent,
        worst_unseen=max(unseen, key=lambda one: one.wrong_percent, default=None),
    )


def _is_unseen(on: MeasuredOn, trained: set[str]) -> bool:
    same = {on.dataset, on.dataset.removesuffix("_crops"), on.dataset.partition("/")[0]}
    view = on.view.removeprefix(OF_BASE).strip()  # of a site profile: no better is known of such laboratories
    return view == LEFT_OUT or (not view and bool(trained) and not same & trained)


def _wrong_percent(card: Card, on: MeasuredOn) -> float | None:
    right = card.figures.get(on, {}).get("accuracy_classified")
    return round(100.0 * (1.0 - right), 2) if isinstance(right, float) else None
