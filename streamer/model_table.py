"""`leukostream models`: the shipped models and their measured figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from engines.card import Card
from engines.registry import models


def print_models(console: Console) -> int:
    """One block a model: what it is, what it names, how well, and the command that measured it."""
    for card in models():
        console.print(f"[bold]{card.name}[/]  {card.task}, {card.architecture}  {card.summary}", highlight=False)
        console.print(f"  classes: {', '.join(card.class_names)}", highlight=False)
        table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 2))
        for data_set, figures in card.figures.items():
            table.add_row(data_set, ", ".join(_measured(figures)))
        console.print(table)
    return 0


def accuracy_note(card: Card) -> str | None:
    """What the classifier gets wrong, in a few words for the display; None where the card has no such figure."""
    for data_set, figures in card.figures.items():
        accuracy = figures.get("accuracy")
        if isinstance(accuracy, float):
            return f"{100 * (1 - accuracy):.0f} % of {data_set.replace('_', ' ')}"
    return None


def _measured(figures: Mapping[str, Any]) -> Iterator[str]:
    for name, value in figures.items():
        if isinstance(value, float):
            yield f"{name} {value:.3f}"
        elif isinstance(value, (int, str)):
            yield f"{name} {value}"
