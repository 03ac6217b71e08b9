"""The measured figures of a card, found by what they were measured on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from engines.base import CardError
from engines.zoo.table import Table

Figures = Mapping[str, Any]
"""Values by measure, and the `command` that measures them."""


OF_BASE = "base model"
"""What the view begins with of figures that a site profile has taken over from the card of the model it was made of:
they were not measured with its own last layer."""


class MeasuredOn(NamedTuple):
    dataset: str
    """As `tools.data` calls it; one laboratory of a set is "wbc_masks/jtsc"."""
    view: str
    """How the cells were shown or counted, such as "whole" or "fused"; empty: as the stream crops labelled boxes."""
    part: str
    """Of the data set: "validation", "holdout", "test"."""

    def __str__(self) -> str:
        """For people."""
        return " ".join(filter(None, self)).replace("_", " ").replace("/", " ")


def read_figures(top: Table) -> dict[MeasuredOn, Figures]:
    """The [[figures]] of a document; CardError for two tables of the same data."""
    if top.holds_table("figures"):
        raise CardError(
            f"{top.where}: figures: got a table, [figures.NAME], expected [[figures]] tables; write [[figures]], and "
            'what the name said as dataset = "…", view = "…" (if any) and part = "…"'
        )
    found: dict[MeasuredOn, Figures] = {}
    for row in top.entries("figures"):
        key = MeasuredOn(row.text("dataset"), row.text("view", ""), row.text("part"))
        if key in found:
            raise CardError(f"{row.where}: got the figures of {key} twice, expected another dataset, view or part")
        found[key] = {"command": row.text("command"), **row.rest()}
    return found


def figure_tables(figures: Mapping[MeasuredOn, Figures]) -> list[dict[str, Any]]:
    """What `read_figures` reads, as mappings; a view that is empty is left out."""
    return [{**{key: text for key, text in on._asdict().items() if text}, **values} for on, values in figures.items()]
