"""`leukostream explain`: pictures with Grad-CAM laid over their cells, and the class of each."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import msgspec
import numpy as np

from engines.base import UsageError, near
from engines.geometry import Image
from engines.models.detector import Detector
from engines.models.explainer import EvidenceMap, Explainer, overlay
from engines.models.loading import load_detector, load_explainer
from engines.models.scale import rbc_diameter_seen
from streamer.commands.classify import files_below, readable
from streamer.commands.options import Parser, add_classifier_option
from streamer.commands.output import output_folder, reporting, say
from streamer.commands.progress import track
from streamer.counting.decision import ClassDecision
from streamer.sources.base import SourceError

LINES = "explained.jsonl"
LEAST_SHOWN_PX = 256
"""Pictures are enlarged to at least this height before anything is laid over them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    source: str
    out: str
    classifier: str
    detector: str | None
    """What finds the white cells of fields; None: the pictures show single cells."""
    class_name: str | None
    """The class to explain; None: the likeliest of each cell."""


def add_options(parser: Parser) -> None:
    parser.add_argument("source", metavar="FILE|DIR", help="pictures of single cells; with --detector, of fields")
    parser.add_argument("-o", dest="out", required=True, metavar="DIR", help="for the overlays and explained.jsonl")
    models = parser.add_argument_group("models", "names of leukostream models, or files")
    add_classifier_option(models)
    models.add_argument("--detector", metavar="NAME|FILE", help="explain every white cell that it finds")
    models.add_argument("--class", dest="class_name", metavar="NAME", help="the class to explain; else the likeliest")


class ExplainedCell(msgspec.Struct, frozen=True, kw_only=True, rename={"class_": "class"}):
    """One line of explained.jsonl: a cell of a picture."""

    file: str
    """POSIX path relative to the folder."""
    overlay: str
    """The picture with the evidence laid over it, relative to the output folder."""
    box_px: tuple[float, float, float, float] | None
    """Where the detector found the cell; None for pictures of single cells."""
    class_: str
    subclass: str | None
    top_class: str
    explained_class: str
    """The class whose evidence is shown."""
    class_probabilities: dict[str, float]


def main(options: Options) -> int:
    """Explain the picture `source`, or every picture below that folder, into the folder `out`.

    Each picture becomes a PNG of the same name, each cell a line of explained.jsonl. With a detector the pictures are
    fields, and every counted white cell in them is explained; else each shows one cell.
    """
    source = options.source
    if not os.path.exists(source):
        raise SourceError(f"source {source}: got no such file or folder, expected pictures")
    folder, files = source, [""]
    if os.path.isdir(source):
        files = files_below(source)
    else:
        folder, files[0] = os.path.split(source)
    skipped: Counter[str] = Counter()
    done = 0
    out = output_folder(options.out)
    explainer = load_explainer(options.classifier)
    finder = load_detector(options.detector) if options.detector else None
    naming = ClassDecision.of(explainer.classifier)
    index = _class_index(options.class_name, naming)
    with reporting("-o", out, "a folder that can be written"), open(out / LINES, "wb") as lines:
        for name, picture in readable(folder, track(files, "pictures", len(files)), skipped):
            cells, boxes = _explained(picture, explainer, finder, index)
            target = Path(name).with_suffix(".png")
            _write(out / target, picture, cells)
            for cell, box in zip(cells, boxes, strict=True):
                lines.write(msgspec.json.encode(_line(name, target.as_posix(), cell, box, naming)) + b"\n")
            done += 1
    counted = ", ".join(f"{reason} {count}" for reason, count in sorted(skipped.items()))
    say(f"explained {done} pictures in {out}" + (f"; skipped {skipped.total()}: {counted}" if skipped else ""))
    if not done:
        raise SourceError(f"source {source}: got no image among {len(files)} files, expected pictures")
    return 0


def _class_index(name: str | None, naming: ClassDecision) -> int | None:
    if name is None:
        return None
    if name not in naming.class_names:
        raise UsageError(
            f"--class: got {name!r}, expected one of {', '.join(naming.class_names)}{near(name, naming.class_names)}"
        )
    return naming.class_names.index(name)


def _explained(
    picture: Image, explainer: Explainer, detector: Detector | None, index: int | None
) -> tuple[list[EvidenceMap], Sequence[tuple[float, float, float, float] | None]]:
    if detector is None:
        return [explainer.explain_cell(picture, index)], [None]
    (detections,) = detector.detect([picture])
    white = [i for i, label in enumerate(detections.labels.tolist()) if detections.kinds[label] == "white"]
    boxes_px = detections.boxes_px[white]
    rounded = [(x1, y1, x2, y2) for x1, y1, x2, y2 in np.round(boxes_px.astype(float), 1).tolist()]
    height, width = picture.shape[:2]
    rbc_px = rbc_diameter_seen(detector, [detections], [(width, height)])
    return explainer.explain_boxes(picture, boxes_px, index, rbc_px), rounded


def _write(path: Path, picture: Image, cells: Sequence[EvidenceMap]) -> None:
    """Enlarged where it is small, so that the map is seen over the cell and not as a few pixels."""
    shown = overlay(picture, cells)
    factor = -(-LEAST_SHOWN_PX // shown.shape[0])
    if factor > 1:
        shown = cv2.resize(shown, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)  # type: ignore[assignment]
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = cv2.imencode(".png", shown)[1]
    path.write_bytes(encoded.tobytes())


def _line(
    file: str, shown: str, cell: EvidenceMap, box: tuple[float, float, float, float] | None, naming: ClassDecision
) -> ExplainedCell:
    values = cell.looks.probabilities[0].astype(float)
    probabilities = (values / values.sum()).tolist()
    name = naming.class_names_of(cell.looks)[0]
    return ExplainedCell(
        file=file,
        overlay=shown,
        box_px=box,
        class_=name,
        subclass=naming.subclass(name, cell.looks.subclass_probabilities[0]),
        top_class=naming.top_class(probabilities),
        explained_class=naming.class_names[cell.class_index],
        class_probabilities=dict(zip(naming.class_names, probabilities, strict=True)),
    )
