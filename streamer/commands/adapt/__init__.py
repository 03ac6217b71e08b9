"""`leukostream adapt`: a site profile from a laboratory's own cells.

The cells: `file,class` of a CSV file, and those of a journal that people corrected or confirmed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import get_args

from streamer.commands.options import Parser, add_classifier_option
from streamer.config import DEFAULT_DETECTOR, Backend


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    cells: list[str]
    """Files."""
    out: str
    classifier: str
    detector: str
    """What finds the cell in pictures larger than one cell; "none": every picture shows one cell."""
    backend: Backend


def add_options(parser: Parser) -> None:
    parser.add_argument(
        "cells",
        metavar="JOURNAL|CSV",
        nargs="+",
        help="journals whose cells were corrected or confirmed (control reclassify), or CSV files with columns file, "
        "class and, if known, slide",
    )
    parser.add_argument("-o", dest="out", metavar="SITE/", required=True, help="the folder of the profile")
    models = parser.add_argument_group("models", "names of leukostream models, or files")
    add_classifier_option(models)
    models.add_argument(
        "--detector",
        metavar="NAME|FILE|none",
        default=DEFAULT_DETECTOR,
        help="finds the cell in pictures larger than one cell; none: every picture shows one cell",
    )
    models.add_argument("--backend", choices=get_args(Backend), default="auto", help="what runs them")


def main(options: Options) -> int:
    """Write the profile; AdaptationError, in one line, where it does not help or would miss blasts."""
    from streamer.commands.adapt.profile import adapt  # here, so that help and misspelt options are answered at once

    return adapt(options)


def counted(names: Counter[str]) -> str:
    """For people: "neutrophil 51, lymphocyte 40"."""
    return ", ".join(f"{name} {count}" for name, count in names.most_common())
