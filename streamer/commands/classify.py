"""`leukostream classify`: pictures of one cell each, cropped or not, one line a file."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import get_args

import msgspec

from engines.base import UsageError
from engines.geometry import Image
from engines.models.classifier import Classifier
from engines.models.loading import load_classifier, load_detector
from engines.models.site import find_site
from streamer.analysis.field_search import ENGINES_KEPT, FieldSearch
from streamer.analysis.named_cell import NamedCell, named_cell
from streamer.commands.options import Parser, add_classifier_option, add_site_option
from streamer.commands.output import remark, reporting, say
from streamer.commands.progress import track
from streamer.config import DEFAULT_CLASSIFIER, DEFAULT_DETECTOR, Backend
from streamer.counting.decision import ClassDecision
from streamer.protocol.lines import json_line
from streamer.sources.base import SourceError
from streamer.sources.images import ImageLimits, Unreadable, natural_key, read_image

BATCH = 32

LIMITS = ImageLimits(min_side_px=8)
"""A picture of one cell may be smaller than a frame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    source: str
    classifier: str
    site: str | None
    """The folder of a site profile, which is the classifier then."""
    detector: str
    """What finds the cell in pictures larger than one cell; "none": every picture shows one cell."""
    backend: Backend
    jsonl: str


def add_options(parser: Parser) -> None:
    files = parser.add_argument_group("files", "what is read and written")
    files.add_argument("--source", required=True, metavar="DIR", help="every picture below it")
    files.add_argument("--jsonl", required=True, metavar="FILE|-", help="one line a picture; -: standard output")
    models = parser.add_argument_group("models", "names of leukostream models, or files")
    add_classifier_option(models)
    add_site_option(models)
    models.add_argument(
        "--detector",
        metavar="NAME|FILE|none",
        default=DEFAULT_DETECTOR,
        help="finds the cell in pictures larger than one cell; none: every picture shows one cell",
    )
    models.add_argument("--backend", choices=get_args(Backend), default="auto", help="what runs them")


def main(options: Options) -> int:
    def say(line: str) -> None:
        remark(line, sys.stderr if options.jsonl == "-" else sys.stdout)

    name = options.classifier
    if options.site is not None:
        if name != DEFAULT_CLASSIFIER:
            raise UsageError("--site: got --classifier too, expected one of them; the profile is a classifier")
        profile = find_site(options.site)
        name = profile.model
        say(str(profile))
    files = files_below(options.source)  # before models are loaded in vain
    classifier = load_classifier(name, backend=options.backend, say=say)
    search = None
    if options.detector != "none":
        search = FieldSearch(
            load_detector(options.detector, backend=options.backend, engines_kept=ENGINES_KEPT, say=say)
        )
    return classify(options.source, files, classifier, options.jsonl, search)


def classify(
    folder: str, files: Sequence[str], classifier: Classifier, jsonl: str, search: FieldSearch | None = None
) -> int:
    """Classify the images among `files`, relative to `folder`, into `jsonl` ("-": standard output); with `search` the
    cell of larger pictures is looked for first.

    A line is the `file` (POSIX path relative to the folder, links not resolved) and what NamedCell holds. What is no
    image is skipped, reported on standard error and counted. SourceError where no file is an image.
    """
    skipped: Counter[str] = Counter()
    done = 0
    with (
        reporting("--jsonl", jsonl),
        open(sys.stdout.fileno() if jsonl == "-" else jsonl, "wb", closefd=jsonl != "-") as out,
    ):
        for names, pictures in _batches(folder, track(files, "pictures", len(files)), skipped):
            for name, cell in zip(names, named_cells(pictures, classifier, search), strict=True):
                out.write(json_line(msgspec.json.encode({"file": name, **msgspec.to_builtins(cell)})))
            done += len(names)
    counted = ", ".join(f"{reason} {count}" for reason, count in sorted(skipped.items()))
    say(f"classified {done} files" + (f"; skipped {skipped.total()}: {counted}" if skipped else ""), sys.stderr)
    if not done:
        raise SourceError(f"source {folder}: got no image among {len(files)} files, expected pictures of single cells")
    return 0


def files_below(folder: str) -> list[str]:
    """All files below a folder but hidden ones, relative to it, in natural order; SourceError where there are none."""
    if not os.path.isdir(folder):
        raise SourceError(f"source {folder}: got no folder, expected one with pictures of single cells")
    paths = [
        os.path.relpath(os.path.join(root, name), folder)
        for root, _, names in os.walk(folder, followlinks=True)
        for name in names
        if not name.startswith(".")
    ]
    if not paths:
        raise SourceError(f"source {folder}: got an empty folder, expected pictures of single cells")
    return sorted(paths, key=natural_key)


def readable(folder: str, files: Iterable[str], skipped: Counter[str]) -> Iterator[tuple[str, Image]]:
    """(name, picture) of the files that hold one; the others are reported and counted in `skipped` by reason."""
    for file in files:
        read = read_image(Path(folder, file), LIMITS)
        if isinstance(read, Unreadable):
            skipped[read.reason] += 1
            remark(f"skipped {file}: {read.detail}")
        else:
            yield Path(file).as_posix(), read.pixels


def _batches(folder: str, files: Iterable[str], skipped: Counter[str]) -> Iterator[tuple[list[str], list[Image]]]:
    pictures = readable(folder, files, skipped)
    while batch := list(islice(pictures, BATCH)):
        yield [name for name, _ in batch], [picture for _, picture in batch]


def named_cells(pictures: list[Image], classifier: Classifier, search: FieldSearch | None) -> Iterator[NamedCell]:
    """The cell of each picture uint8 (H,W,3) BGR; with `search` that of larger ones is looked for first."""
    cells = [None if search is None else search.white_cell(picture) for picture in pictures]
    cropped = [picture for picture, cell in zip(pictures, cells, strict=True) if cell is None]
    of_cropped, row, naming = classifier.classify_crops(cropped), 0, ClassDecision.of(classifier)
    for picture, cell in zip(pictures, cells, strict=True):
        if cell is not None:
            yield named_cell(classifier.classify(picture, cell.box_px, cell.rbc_px), cell.box_px, naming)
        else:
            yield named_cell(of_cropped[row : row + 1], None, naming)
            row += 1
