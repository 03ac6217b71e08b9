"""`leukostream compare`: two counts of the same slides, manual and automatic or of two laboratories, and whether
sampling alone explains where they differ.

By slide and class: how many cells the second count may have, given the first, before the two differ. Over several
slides Bland and Altman's mean difference and limits of agreement. Kappa where two journals named the same cells.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engines.base import UsageError
from streamer.commands.compare.page import page
from streamer.commands.options import Parser
from streamer.commands.output import say, say_table, writing
from streamer.dashboard.words import number
from streamer.journal import JournalError
from streamer.qc.classes import compared_classes
from streamer.qc.counts import CountedSlide, folded, paired, read_counts
from streamer.qc.matched_cells import matched_kappa
from streamer.qc.over_slides import ClassOverSlides, over_slides


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    first: str
    second: str
    html: str | None
    """A file for the plots; None: none."""


def add_options(parser: Parser) -> None:
    about = "a journal, or a CSV file class,count (slide,class,count for several slides)"
    parser.add_argument("first", metavar="A", help=about)
    parser.add_argument("second", metavar="B", help="the same; its differences are B minus A")
    parser.add_argument("--html", metavar="FILE", help="write the Bland-Altman plots of two slides or more there")


def main(options: Options) -> int:
    """0: sampling explains every difference. 1: not that of some class. 2: there is nothing to compare."""
    try:
        with contextlib.ExitStack() as journals:
            return _compare_all(options, journals)
    except JournalError as error:
        raise UsageError(str(error)) from error


def _compare_all(options: Options, journals: contextlib.ExitStack) -> int:
    first, second = read_counts(options.first, journals), read_counts(options.second, journals)
    pairs, alone = paired(first, second)
    if not any(one.total and other.total for one, other in pairs):
        raise UsageError("compare: got no white cell on one side, expected counts of both")
    if options.html is not None and len(pairs) < 2:
        raise UsageError("--html: got one slide that both have, expected two or more to plot")
    say(f"A: {options.first}, B: {options.second}")
    differing = sum(_compare(one, other) for one, other in pairs)
    classes = over_slides(pairs)
    if len(pairs) > 1:
        _print_over_slides(len(pairs), classes)
    if options.html is not None:
        with writing(options.html, "--html") as file:
            file.write(page(options.first, options.second, classes).encode())
    if alone:
        say(f"on one side only: {', '.join(alone)}")
    return 1 if differing else 0


def _compare(first: CountedSlide, second: CountedSlide) -> int:
    """Print a slide; how many classes differ."""
    first, second, into = folded(first, second)
    name = first.slide if first.slide == second.slide else f"{first.slide} and {second.slide}"
    say(f"{name}: {number(first.total)} white cells in A, {number(second.total)} in B")
    if not first.total or not second.total:
        say("  not compared: no white cell on one side")
        return 0
    rows: list[tuple[str, ...]] = [("class", "A", "", "B", "", "B may be", "")]
    differing = judged = 0
    for one in compared_classes(first, second):
        range_, words = "–", f"not counted in {'A' if one.first is None else 'B'}"
        if one.expected is not None:
            low, high = one.expected
            range_, words = f"{number(low)}–{number(high)}", "DIFFERS" if one.differs else "within sampling"
            judged += 1
            differing += one.differs
        rows.append((one.name, *_cells(one.first, first.total), *_cells(one.second, second.total), range_, words))
    say_table(rows)
    for what in {**first.beside, **second.beside}:
        counts = [
            f"{side} {number(one.beside.get(what))}{_per_100(one.beside.get(what), one.total)}"
            for side, one in (("A", first), ("B", second))
        ]
        say(f"  {what}, in no percentage: {', '.join(counts)}")
    by_chance = 100.0 * (1.0 - 0.95**judged)
    say(
        f"  {differing} of {judged} classes differ by more than sampling; each is judged by itself at 95 %, so that"
        f" two counts of the same blood differ in some class in up to {number(by_chance)} of 100 comparisons"
    )
    _print_kappa(first, second, into)
    return differing


def _cells(count: int | None, total: int) -> tuple[str, str]:
    return ("–", "") if count is None else (number(count), f"{number(100.0 * count / total, 1)} %")


def _per_100(count: int | None, total: int) -> str:
    return "" if count is None else f" ({number(100.0 * count / total, 1)} per 100 white cells)"


def _print_kappa(first: CountedSlide, second: CountedSlide, into: Mapping[str, str]) -> None:
    matched = matched_kappa(first, second, into)
    if isinstance(matched, str):
        say(f"  kappa: not measurable: {matched}")
        return
    found, unnamed, differing = matched
    limits = "" if found.low is None else f" ({number(found.low, 2)} to {number(found.high, 2)})"
    value = "not defined, all are of one class" if found.kappa is None else f"{number(found.kappa, 2)}{limits}"
    left_out = f"; {number(unnamed)} that one side left unclassified are left out" if unnamed else ""
    say(f"  kappa: {value}: {number(found.agreed)} of {number(found.cells)} cells have the same name{left_out}")
    if differing:
        say(f"  most often A and B say: {'; '.join(f'{a} and {b} ({n})' for a, b, n in differing)}")
    say("  the two counts share cells: limits for two samples are wider than they need be, and kappa says more")


def _print_over_slides(slides: int, classes: Sequence[ClassOverSlides]) -> None:
    """Bland and Altman, by class."""
    say(f"over {number(slides)} slides (Bland and Altman), B minus A in percentage points")
    rows: list[tuple[str, ...]] = [("class", "slides", "mean", "95 % limits", "limits of agreement", "")]
    for one in classes:
        found = one.agreement
        if found is None:
            rows.append((one.name, number(len(one.first)), "–", "–", "–", "too few slides"))
            continue
        of_mean = f"{found.mean_low:+.1f} to {found.mean_high:+.1f}"
        agreement = f"{found.low:+.1f} to {found.high:+.1f}"
        bias = "B differs on the whole" if found.biased else ""
        rows.append((one.name, number(found.slides), f"{found.mean:+.1f}", of_mean, agreement, bias))
    say_table(rows)
