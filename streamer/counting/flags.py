"""What a laboratory must be told of a differential: ranges that are left, cells that are flagged for being seen, and
how much was not named. Pure functions of shares; how these are made is in differential.py.

No flag rests on what was not named: a class is low only if it would be though every unclassified cell were of it, and
high from the cells that were named.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from engines.zoo.slide_flags import MeasuredSlides, SlideFlag
from streamer.records import UNCLASSIFIED, ClassShare, Flag, FlagDirection, RangeState

LEFT_SHIFT = ("promyelocyte", "myelocyte", "metamyelocyte")

IMMATURE_GRANULOCYTE = "immature granulocyte"

SEEN = {
    "blast": "blast",
    "promyelocyte": "promyelocyte",
    "myelocyte": "myelocyte",
    IMMATURE_GRANULOCYTE: "immature granulocyte without a subclass",
    "erythroblast": "nucleated red cell",
}
"""What is flagged for being seen, wherever it lies, in the words of the flag. A promonocyte is a blast by its class."""

METAMYELOCYTE = "metamyelocyte"
METAMYELOCYTE_USUAL = (0.0, 2.0)
"""Percent, which the count itself must exceed, not its lower limit: from 3 of 100 on."""

UNCLASSIFIED_USUAL = (0.0, 5.0)

LEAST_CELLS = 100
"""What a laboratory counts. A range may be left by fewer; that it is not left can't be said of them."""


@dataclass(frozen=True, slots=True)
class SeenCells:
    """The cells of a class that is flagged for being seen."""

    share: ClassShare
    """Of those seen whole; of nucleated red cells, which are no share of white cells, the count alone."""
    at_edge: int = 0
    """Only ever seen cut by an edge; in no percentage."""
    cell_ids: tuple[int, ...] = ()
    """Of all of them."""
    rule: SlideFlag | None = None
    """Of a class of which single cells flag no slide; None: one is enough."""
    confirmed: int = 0
    """Of the cells of such a class, those that a person gave it."""


def range_state(named: ClassShare, at_most: ClassShare, total: int, usual: tuple[float, float]) -> RangeState:
    """Where a share lies: `named` is that of the cells named so, `at_most` that of these and all unnamed ones.

    Left is a range when the whole interval is outside. It can't be judged where the unnamed cells decide whether it is
    left, and of fewer than `LEAST_CELLS` cells, unless it is left.
    """
    low, high = usual
    if named.low is None or named.high is None or at_most.low is None or at_most.high is None:
        return "can't be judged"
    if at_most.high < low:
        return "outside low"
    if named.low > high:
        return "outside high"
    if total < LEAST_CELLS or named.high < low or at_most.low > high:
        return "can't be judged"
    return "not outside"


def find_flags(
    shares: Mapping[str, ClassShare],
    total: int,
    seen: Mapping[str, SeenCells],
    states: Mapping[str, RangeState],
    usual: Mapping[str, tuple[float, float]],
    error_rates: Mapping[str, float],
) -> Iterator[Flag]:
    """The flags of a differential, those for being seen first.

    `shares` by class and subclass, `unclassified` among them; `seen` by the names of `SEEN` and `METAMYELOCYTE`;
    `states` by name, of the ranges `usual`. `error_rates`: by name, the share of other cells that the classifier calls
    so; a name that is missing was not measured.
    """

    def flag(
        code: str,
        name: str,
        direction: FlagDirection,
        share: ClassShare,
        range_: tuple[float, float] | None,
        cells: SeenCells | None = None,
    ) -> Flag:
        error = error_rates.get(name)
        return Flag(
            code=code,
            text=_text(name, direction, share, total, range_, cells, error),
            note=None if cells is None or cells.rule is None else _note(cells.rule),
            class_=name,
            direction=direction,
            count=share.count,
            of=total,
            percent=share.percent,
            low=share.low,
            high=share.high,
            range=range_,
            expected_by_error=None if error is None else error * total,
            cell_ids=() if cells is None else cells.cell_ids,
        )

    for name in dict.fromkeys((*SEEN, *(name for name, cells in seen.items() if cells.rule is not None))):
        cells = seen.get(name)
        if cells is not None and cells.share.count + cells.at_edge:
            yield flag("seen", name, "seen", cells.share, None, cells)
    metamyelocytes = shares.get(METAMYELOCYTE)
    if metamyelocytes is not None and (metamyelocytes.percent or 0.0) > METAMYELOCYTE_USUAL[1]:
        yield flag("left shift", METAMYELOCYTE, "high", metamyelocytes, METAMYELOCYTE_USUAL, seen.get(METAMYELOCYTE))
    for name, state in states.items():
        if state == "outside low":
            yield flag("range", name, "low", shares[name], usual[name])
        elif state == "outside high":
            yield flag("range", name, "high", shares[name], usual[name])
    unclassified = shares[UNCLASSIFIED]
    if (unclassified.percent or 0.0) > UNCLASSIFIED_USUAL[1]:
        yield flag("unclassified", UNCLASSIFIED, "high", unclassified, UNCLASSIFIED_USUAL)


def _text(
    name: str,
    direction: FlagDirection,
    share: ClassShare,
    total: int,
    usual: tuple[float, float] | None,
    cells: SeenCells | None,
    error: float | None,
) -> str:
    """As "basophil 40 % (2 of 5; limits 3–90; usual 0–1)", and of a class of which one cell is not enough as
    "blast? 3 of 112 (pictures); 0.1 expected by error"."""
    if cells is not None and cells.rule is not None:
        return _suspects_text(name, share, total, cells, error)
    words = f"{SEEN[name]} seen" if direction == "seen" else name
    at_edge = 0 if cells is None or direction != "seen" else cells.at_edge
    if at_edge and not share.count:
        return f"{words} ({at_edge} cut by an edge, in no percentage)"
    parts = [f"{share.count} of {total}" if share.percent is not None else f"{share.count} beside {total} white cells"]
    if share.low is not None and share.high is not None:
        parts.append(f"limits {math.floor(share.low)}–{math.ceil(share.high)}")
    if usual is not None:
        parts.append(f"usual {usual[0]:g}–{usual[1]:g}")
    if at_edge:
        parts.append(f"{at_edge} more cut by an edge")
    percent = "" if share.percent is None else f" {round(share.percent, 1):g} %"
    return f"{words}{percent} ({'; '.join(parts)})"


def _suspects_text(name: str, share: ClassShare, total: int, cells: SeenCells, error: float | None) -> str:
    words = SEEN.get(name, name)
    doubt = f"{words} seen:" if cells.confirmed else f"{words}?"
    parts = ["pictures"]
    if cells.confirmed:
        parts.append(f"{cells.confirmed} so named by a person")
    if cells.at_edge:
        parts.append(f"{cells.at_edge} more cut by an edge")
    expected = "" if error is None else f"; {_few(error * total)} expected by error"
    return f"{doubt} {share.count} of {total} ({'; '.join(parts)}){expected}"


def _note(rule: SlideFlag) -> str | None:
    """How surely slides were flagged that were mixed of single cells, and what was never tested."""
    parts = []
    if rule.sensitivity is not None:
        slides = f"slides of {rule.cells} cells with {rule.percent:g} % {SEEN.get(rule.name, rule.name)}s flagged"
        parts.append(f"{slides}: {_measured(rule.sensitivity, 'patients')}")
    if rule.specificity is not None:
        parts.append(f"normal ones not flagged: {_measured(rule.specificity, 'laboratories')}")
    if rule.untested:
        parts.append(f"never tested: {', '.join(rule.untested)}")
    return "; ".join(parts) or None


def _measured(slides: MeasuredSlides, units: str) -> str:
    share, low, high = (round(100 * one) for one in (slides.share, slides.low, slides.high))
    return f"{share} % (limits {low}–{high}, {slides.units} {units})"


def _few(number: float) -> str:
    """One digit below ten, as few as it takes above."""
    return f"{number:.0f}" if number >= 10 else f"{number:.1g}"
