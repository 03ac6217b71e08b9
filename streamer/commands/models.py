"""`leukostream models`: the models that have a name, where their files are, and their measured figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from engines.zoo.card import Card
from engines.zoo.registry import models, place, zoo_card
from engines.zoo.store import how_to_get, pull
from streamer.commands.options import Parser, positive, size_of
from streamer.commands.output import output_folder, say
from streamer.config import DEFAULT_CLASSIFIER, DEFAULT_DETECTOR
from streamer.counting.known import known_of
from streamer.dashboard.words import worst_unseen

_FROM = "a clone of leukostream, the file or its folder, or the http(s) address of one of them"

HEADLINES = {
    "map50": "mAP@0.5",
    "map50_95": "mAP@[.5:.95]",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "calibration_error": "calibration error",
    "mean_macro_f1": "mean macro-F1",
    "mean_unlike_training": "called unlike the training cells",
    "mean_iou": "mean IoU",
    "cell_iou": "IoU of the whole cell",
}
"""Figures that sum a model up, as they are called; the card has all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Without `request`: list all."""

    request: str | None = None
    """"show", "pull", or "triton": write a model repository."""
    name: str = ""
    source: str = ""
    """Where the file comes from, of pull."""
    repository: str = ""
    """The folder of triton."""
    model: list[str] | None = None
    """What is written there; None: DEFAULT_DETECTOR and DEFAULT_CLASSIFIER."""
    size: list[str] | None = None
    max_batch: int | None = None


def add_options(parser: Parser) -> None:
    commands = parser.add_subparsers(metavar="COMMAND", dest="request", parser_class=Parser, title="commands")
    text = "what one model is, and all figures that were measured of it"
    show = commands.add_parser("show", help=text, description=f"{text.capitalize()}.")
    show.add_argument("name", metavar="NAME", help="as leukostream models lists it")
    text = "fetch the file of a model that does not ship"
    fetch = commands.add_parser("pull", help=text, description=f"{text.capitalize()}.")
    fetch.add_argument("name", metavar="NAME", help="as leukostream models lists it")
    fetch.add_argument(
        "--from",
        dest="source",
        metavar="CLONE|URL",
        required=True,
        help="a clone of leukostream, a folder, a file, or an http(s) address of one",
    )
    text = "write models as Triton serves them, for run --inference kserve://HOST:PORT"
    triton = commands.add_parser("triton", help=text, description=f"{text[0].upper()}{text[1:]}.")
    triton.add_argument("repository", metavar="DIR", help="Triton's --model-repository")
    triton.add_argument(
        "--model",
        action="extend",
        nargs="+",
        metavar="NAME|FILE",
        help=f"(default: {DEFAULT_DETECTOR} {DEFAULT_CLASSIFIER})",
    )
    triton.add_argument(
        "--size", action="extend", nargs="+", metavar="WxH", help="of the cameras' frames (default: 640x480)"
    )
    triton.add_argument("--max-batch", type=positive, metavar="N", help="images a run (default: 8)")


def main(options: Options) -> int:
    if options.request == "pull":
        path = pull(zoo_card(options.name), options.source)
        say(f"{options.name}: {path}, as its card says")
    elif options.request == "show":
        show_model(zoo_card(options.name), Console())
    elif options.request == "triton":
        return write_triton(options.repository, options)
    else:
        list_models(Console())
    return 0


def write_triton(folder: str, options: Options) -> int:
    """A folder a model and input size, named by the hash of the model."""
    from streamer.inference.shelf import USUAL_GPU_ROWS
    from streamer.inference.triton_repository import write_repository

    written = write_repository(
        output_folder(folder, "models triton"),
        options.model or (DEFAULT_DETECTOR, DEFAULT_CLASSIFIER),
        [size_of(text) for text in options.size or ("640x480",)],
        max_batch=options.max_batch or USUAL_GPU_ROWS,
    )
    for one in written:
        say(f"{one.model}: {folder}/{one.name}")
    return 0


def list_models(console: Console) -> None:
    """A line a model: what it does, whether its file is here, the figure that matters."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    rows = [(card.name, card.task, "no" if place(card) == "not here" else "yes", headline(card)) for card in models()]
    for column, heading in enumerate(("model", "task", "here")):
        table.add_column(heading, no_wrap=True, min_width=max(len(row[column]) for row in rows))
    table.add_column("the figure that matters", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table, highlight=False)
    console.print(
        "all of a model: leukostream models show NAME\n"
        "to have its file: leukostream models pull NAME --from a clone of leukostream, or its address",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def headline(card: Card) -> str:
    """For a classifier what it gets wrong in the worst laboratory that it never saw; for others, and where that is not
    known, the first figure of cells that chose nothing, else of any."""
    worst = known_of(card).worst_unseen
    if worst is not None:
        return f"{worst.wrong_percent:.0f} % wrong, worst unseen laboratory"
    proofs = sorted(card.figures.items(), key=lambda item: item[0].part not in ("holdout", "test"))
    for on, figures in proofs:
        first = next(_headlines(figures), None)
        if first is not None:
            return f"{first} ({on})"
    return "none measured"


def show_model(card: Card, console: Console) -> None:
    """What it is, what it names, how well on which data."""
    where = place(card)
    console.print(f"[bold]{card.name}[/]  {card.task}, {where}: {card.summary}", highlight=False)
    if where == "not here":
        console.print(f"  {how_to_get(card)}", highlight=False, markup=False)
    console.print(f"  names {', '.join(card.class_names)}", highlight=False, markup=False)
    console.print(f"  first of all: {headline(card)}", highlight=False, markup=False)
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 2))
    for measured_on, figures in card.figures.items():
        text = ", ".join(_headlines(figures)) or _recalls(figures)
        if text:  # what can't be said in a line is in the card alone
            table.add_row(str(measured_on), text)
    console.print(table, highlight=False)
    console.print(
        f"All figures, and the commands that measured them, are in its card: engines/zoo/**/{card.name}.toml",
        highlight=False,
        markup=False,
    )


def accuracy_note(card: Card) -> str | None:
    """What the classifier gets wrong in the worst laboratory that it never saw, for the display; None where the card
    has no such figure."""
    worst = known_of(card).worst_unseen
    return None if worst is None else worst_unseen(worst)


def _headlines(figures: Mapping[str, Any]) -> Iterator[str]:
    for key, name in HEADLINES.items():
        if isinstance(figures.get(key), float):
            yield f"{name} {figures[key]:.3f}"


def _recalls(figures: Mapping[str, Any]) -> str:
    """For sets whose labels are too incomplete for more."""
    return ", ".join(
        f"{key.replace('_', ' ')} {value:.3f}"
        for key, value in figures.items()
        if key.endswith("recall") and isinstance(value, float)
    )
