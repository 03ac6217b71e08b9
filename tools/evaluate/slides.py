"""Count the white cells of real slides with the shipped models, and compare with what people saw in them.

    python -m tools.evaluate slides --pictures cells/
    python -m tools.evaluate slides --slides B-57 E-14 --json slides.json

The frames of each slide of `chula_wbc/unique_cells.json` go through the very session of `leukostream run`, in their
order. `labelled` are the cells that carry a label: each must be one counted cell, of the class of its label. `white` is
the number of all white cells where somebody checked it, else unknown. With `--pictures` every counted cell is saved as
it was seen in up to eight frames, side by side, so that a person can say what it is.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from engines.models.loading import load_classifier, load_detector
from streamer.analysis.analyser import Analyser
from streamer.config import DEFAULT_CLASSIFIER
from streamer.counting.decision import ClassDecision
from streamer.protocol.factory import MessageFactory
from streamer.protocol.messages import FrameMessage
from streamer.records import Cell, Frame
from streamer.run.session import SlideSession
from tools.commands import command_parser
from tools.data.crops import read_image
from tools.data.readers import data_root

Box = tuple[float, float, float, float]
PICTURE_PX = 160
PICTURES_MAX = 8


@dataclass(frozen=True)
class Label:
    """One labelled box; `cell` numbers the labelled cells of its slide."""

    file: str
    box_px: Box
    class_name: str
    cell: int


@dataclass(frozen=True)
class Seen:
    """One look at a counted cell."""

    file: str
    box_px: Box


@dataclass(frozen=True)
class SlideResult:
    islands: int
    cells: list[Cell]
    looks: dict[int, list[Seen]]
    """By cell, those that the frames' messages told of."""
    rejected: dict[str, list[str]]
    lost: list[str]


def labels_of(marks: dict[str, Any], positions: dict[str, dict[str, float]]) -> list[Label]:
    """The labelled boxes of a slide; those whose centres lie within 40 px on the slide are one cell."""
    image_of = {image["id"]: image["file_name"] for image in marks["images"]}
    names = {category["id"]: category["name"] for category in marks["categories"]}
    places: list[tuple[float, float, float]] = []
    labels = []
    for mark in marks["annotations"]:
        file = image_of[mark["image_id"]]
        if file not in positions:
            continue
        x, y, width, height = mark["bbox"]
        at = positions[file]
        place = at["island"], at["x_px"] + x + width / 2, at["y_px"] + y + height / 2
        near = [i for i, p in enumerate(places) if p[0] == place[0] and np.hypot(p[1] - place[1], p[2] - place[2]) < 40]
        if not near:
            places.append(place)
        cell = near[0] if near else len(places) - 1
        labels.append(Label(file, (x, y, x + width, y + height), names[mark["category_id"]], cell))
    return labels


def run_slide(folder: Path, files: list[str], analyser: Analyser) -> SlideResult:
    """One slide through a session of its own."""
    factory = MessageFactory("slide", session="slide", run_id="slide")
    naming = None if analyser.classifier is None else ClassDecision.of(analyser.classifier)
    session = SlideSession(factory, naming, operating_score=analyser.detector.card.thresholds.operating)
    looks: dict[int, list[Seen]] = defaultdict(list)
    rejected: dict[str, list[str]] = {}
    lost = []
    for frame_id, file in enumerate(files):
        (analysed,) = analyser.analyse([Frame("slide", frame_id, 0, read_image(folder / file), file)])
        for message, _ in session.update(analysed):
            if isinstance(message, FrameMessage):
                if not message.accepted:
                    rejected[file] = list(message.reasons)
                if message.stage is None:
                    lost.append(file)
                for box in message.detections:
                    if box.cell_id is not None:
                        left, top, right, bottom = box.box_px
                        looks[box.cell_id].append(Seen(file, (left, top, right, bottom)))
    session.finish("finished", "end of the slide")
    final: dict[int, list[Seen]] = defaultdict(list)
    for number, seen in looks.items():
        final[session.count.cell(number).cell_id] += seen
    cells = [*session.count.cells(), *session.count.uncounted_cells()]
    return SlideResult(len(session.islands), cells, final, rejected, lost)


def compare(result: SlideResult, labels: list[Label], truth: dict[str, Any]) -> list[str]:
    """What differs from the truth, a line each."""
    faults = []
    of_cell: dict[int, list[Label]] = defaultdict(list)
    for label in labels:
        of_cell[label.cell].append(label)
    cells = {cell.cell_id: cell for cell in result.cells}
    taken: Counter[int] = Counter()
    for number, own in of_cell.items():
        found: Counter[int | None] = Counter(_cell_at(result, label) for label in own)
        counted = [cell for cell in found if cell is not None and cells[cell].kind == "white"]
        taken.update(counted)
        expected = Counter(label.class_name for label in own).most_common(1)[0][0]
        where = f"{own[0].file} at {[round(value) for value in own[0].box_px]}"
        if not counted:
            faults.append(f"missed: {expected} {where}")
        elif len(counted) > 1:
            faults.append(f"doubled: {expected} {where}: cells {counted}")
        else:
            cell = cells[counted[0]]
            if cell.class_name != expected:
                told = ", ".join(f"{n} {p:.2f}" for n, p in cell.class_probabilities.items() if p > 0.05)
                faults.append(f"class: cell {cell.cell_id} is {cell.class_name}, labelled {expected}: {told}")
        unseen = found.get(None, 0)
        if counted and unseen:
            faults.append(f"unseen: {expected}, labelled cell {number}: {unseen} of {len(own)} labels have no box")
    faults += [f"joined: cell {cell} holds {count} labelled cells" for cell, count in taken.items() if count > 1]
    white = sum(cell.kind == "white" for cell in result.cells)
    if truth["white_cells"] is not None and white != truth["white_cells"]:
        faults.append(f"white cells: got {white}, expected {truth['white_cells']}")
    if result.islands != truth["islands"]:
        faults.append(f"islands: got {result.islands}, expected {truth['islands']}")
    return faults


def _cell_at(result: SlideResult, label: Label) -> int | None:
    """The counted cell whose look in that frame covers the label best."""
    best, found = 0.3, None
    for cell in result.cells:
        for seen in result.looks[cell.cell_id]:
            if seen.file == label.file and (iou := _iou(seen.box_px, label.box_px)) > best:
                best, found = iou, cell.cell_id
    return found


def _iou(a: Box, b: Box) -> float:
    across, down = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(across, 0.0) * max(down, 0.0)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def save_pictures(folder: Path, out: Path, slide: str, result: SlideResult) -> None:
    """A strip a cell: its looks side by side, at twice its box."""
    out.mkdir(parents=True, exist_ok=True)
    for cell in result.cells:
        strip = [_picture(folder, seen) for seen in result.looks[cell.cell_id][:PICTURES_MAX]]
        if strip:
            name = f"{slide}-{cell.cell_id}-{cell.class_name}{'-partial' if cell.partial else ''}.png"
            cv2.imwrite(str(out / name.replace(" ", "_")), np.hstack(strip))


def _picture(folder: Path, seen: Seen) -> npt.NDArray[np.uint8]:
    image = read_image(folder / seen.file)
    x1, y1, x2, y2 = seen.box_px
    side = 2 * max(x2 - x1, y2 - y1)
    scale = PICTURE_PX / side
    corner = ((x1 + x2 - side) / 2, (y1 + y2 - side) / 2)
    matrix = np.array([[scale, 0, -corner[0] * scale], [0, scale, -corner[1] * scale]])
    return np.asarray(cv2.warpAffine(image, matrix, (PICTURE_PX, PICTURE_PX), flags=cv2.INTER_AREA), np.uint8)


def main(arguments: Sequence[str]) -> int:
    parser = command_parser("tools.evaluate slides", __doc__)
    parser.add_argument("--data", type=Path, help="folder of the data sets (default: LEUKOSTREAM_DATA)")
    parser.add_argument("--slides", nargs="+", metavar="NAME", help="only these slides")
    parser.add_argument("--detector", default="yolov5n-blood", metavar="NAME|FILE")
    parser.add_argument("--classifier", default=DEFAULT_CLASSIFIER, metavar="NAME|FILE|none")
    parser.add_argument("--long-side", type=int, metavar="PX", help="of the detector's input (default: the card's)")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="save the counted cells here")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write figures and faults here")
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    root = (options.data or data_root()) / "chula_wbc"
    slides = json.loads((root / "unique_cells.json").read_text())
    marks = json.loads((root / "annotations.json").read_text())
    classifier = None if options.classifier == "none" else load_classifier(options.classifier)
    analyser = Analyser(load_detector(options.detector, long_side_px=options.long_side), classifier)
    rows: dict[str, Any] = {}
    print(f"{'slide':>6} {'frames':>7} {'islands':>8} {'labelled':>9} {'white':>8} {'partial':>8}")
    for slide in options.slides or slides:
        truth = slides[slide]
        result = run_slide(root / "images", sorted(truth["positions"]), analyser)
        faults = compare(result, labels_of(marks, truth["positions"]), truth)
        white = [cell for cell in result.cells if cell.kind == "white"]
        expected = "?" if truth["white_cells"] is None else truth["white_cells"]
        print(
            f"{slide:>6} {truth['frames']:>7} {result.islands:>4}/{truth['islands']:<3} {truth['labelled_cells']:>9}"
            f" {len(white):>4}/{expected!s:<3} {sum(cell.partial for cell in white):>8}"
        )
        for cell in result.cells:
            told = ", ".join(f"{n} {p:.2f}" for n, p in cell.class_probabilities.items() if p > 0.05)
            frames = f"frames {cell.first_frame_id} to {cell.last_frame_id}"
            partial = ", partial" if cell.partial else ""
            print(f"{'':>7} cell {cell.cell_id}: {cell.class_name} ({told}), {cell.looks} looks, {frames}{partial}")
        for file, reasons in result.rejected.items():
            print(f"{'':>7} rejected {file}: {', '.join(reasons)}")
        for file in result.lost:
            print(f"{'':>7} lost {file}")
        for fault in faults:
            print(f"{'':>7} FAULT {fault}")
        if options.pictures:
            save_pictures(root / "images", options.pictures, slide, result)
        rows[slide] = {
            "islands": result.islands,
            "true_islands": truth["islands"],
            "white": len(white),
            "true_white": truth["white_cells"],
            "partial": sum(cell.partial for cell in white),
            "classes": dict(Counter(cell.class_name for cell in white)),
            "rejected": result.rejected,
            "lost": result.lost,
            "faults": faults,
        }
    if options.json:
        options.json.write_text(json.dumps({"detector": options.detector, "slides": rows}, indent=1) + "\n")
    return 0
