"""`leukostream explain`: pictures beside the same with Grad-CAM laid over their cells, and the class of each."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import cv2
import msgspec
import numpy as np
import numpy.typing as npt

from engines.base import UsageError, near
from engines.geometry import Image
from engines.models.detector import Detector
from engines.models.explainer import EvidenceMap, Explainer, within
from engines.models.loading import load_detector, load_explainer
from engines.models.scale import rbc_diameter_seen
from streamer.analysis.field_search import ENGINES_KEPT, SMALLEST_FIELD_PX, FieldSearch
from streamer.commands.classify import files_below, readable
from streamer.commands.heat_sheet import ShownCell, sheet
from streamer.commands.options import Parser, add_classifier_option
from streamer.commands.output import output_folder, reporting, say
from streamer.commands.progress import track
from streamer.config import DEFAULT_DETECTOR
from streamer.counting.decision import ClassDecision
from streamer.sources.base import SourceError

LINES = "explained.jsonl"

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels of the picture."""


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
    box_px: Box | None
    """Where the detector found the cell; None for pictures of single cells, all of which are looked at."""
    class_: str
    subclass: str | None
    top_class: str
    explained_class: str
    """The class whose evidence is shown."""
    outside_share: float | None
    """Of the evidence, how much lay outside of the cell, 0 to 1, and is not shown. None: there is no evidence, or no
    cell was found in the picture."""
    class_probabilities: dict[str, float]


def main(options: Options) -> int:
    """Explain the picture `source`, or every picture below that folder, into the folder `out`.

    Each picture becomes a PNG of the same name: the picture, beside it the same with its evidence, and words. Each cell
    is a line of explained.jsonl. Evidence is shown within the cell, and how much lay outside is said. With a detector
    the pictures are fields, and every counted white cell in them is explained; else each shows one cell.
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
    search = FieldSearch(load_detector(DEFAULT_DETECTOR, engines_kept=ENGINES_KEPT)) if finder is None else None
    naming = ClassDecision.of(explainer.classifier)
    index = _class_index(options.class_name, naming)
    with reporting("-o", out, "a folder that can be written"), open(out / LINES, "wb") as lines:
        for name, picture in readable(folder, track(files, "pictures", len(files)), skipped):
            target = Path(name).with_suffix(".png")
            cells = []
            for evidence, box, place in _explained(picture, explainer, finder, search, index):
                inside, outside_share = (evidence, None) if place is None else within(evidence, place)
                line = _line(name, target.as_posix(), inside, box, outside_share, naming)
                lines.write(msgspec.json.encode(line) + b"\n")
                cells.append(ShownCell(inside, place, _text(line), outside_share))
            _write(out / target, sheet(picture, cells))
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
    picture: Image, explainer: Explainer, detector: Detector | None, search: FieldSearch | None, index: int | None
) -> list[tuple[EvidenceMap, Box | None, Box | None]]:
    """Evidence, box and place of each cell; a single one has no box but may have a place."""
    height, width = picture.shape[:2]
    if search is not None:
        place: Box | None = (0.0, 0.0, float(width), float(height))
        if min(height, width) >= SMALLEST_FIELD_PX:
            found = search.white_cell(picture)
            place = None if found is None else _box(found.box_px[0])
        return [(explainer.explain_cell(picture, index, turned=True), None, place)]
    assert detector is not None, "one of the two finds cells"
    (detections,) = detector.detect([picture])
    white = [i for i, label in enumerate(detections.labels.tolist()) if detections.kinds[label] == "white"]
    boxes_px = detections.boxes_px[white]
    rbc_px = rbc_diameter_seen(detector, [detections], [(width, height)])
    explained = explainer.explain_boxes(picture, boxes_px, index, rbc_px, turned=True)
    return [(one, _box(box), _box(box)) for one, box in zip(explained, boxes_px, strict=True)]


def _box(box: npt.NDArray[np.float32]) -> Box:
    x1, y1, x2, y2 = np.round(box.astype(float), 1).tolist()
    return x1, y1, x2, y2


def _text(line: ExplainedCell) -> str:
    """Class and probability; what else is explained, where that is not the class."""
    shown = f"{line.class_} {line.class_probabilities[line.top_class]:.2f}"
    if line.class_ != line.top_class:
        shown = f"{line.class_}: likeliest {line.top_class} {line.class_probabilities[line.top_class]:.2f}"
    if line.explained_class == line.top_class:
        return shown
    return f"{shown}; shown: {line.explained_class} {line.class_probabilities[line.explained_class]:.2f}"


def _write(path: Path, picture: Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", picture)[1].tobytes())


def _line(
    file: str, shown: str, cell: EvidenceMap, box: Box | None, outside_share: float | None, naming: ClassDecision
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
        outside_share=None if outside_share is None else round(outside_share, 4),
        class_probabilities=dict(zip(naming.class_names, probabilities, strict=True)),
    )
