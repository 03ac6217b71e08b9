"""Write into a classifier's card how the pictures look that trained it: what a verdict compares a slide with.

    python -m tools.export appearances engines/zoo/mobilenetv3-small.toml

The colours of plasma and red cells and the width of the red cells, of training pictures of each of its sets
(`[training] data` of the card), grouped by their colours; and how novel the cells are that a run counts in pictures of
the laboratory that did not train it (of the simulated slide: of another seed). Tables that the card had are replaced.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engines.base import Detections
from engines.geometry import Image, halved
from engines.models.classifier import Classifier
from engines.models.detector import Detector
from engines.models.loading import load_classifier, load_detector
from engines.zoo.toml import toml
from streamer.analysis.colours import field_colours
from streamer.counting.evidence import whole_red_cells_px
from streamer.sources import simulated
from streamer.sources.simulated import SlideParameters, VirtualSlide
from tools.commands import command_parser
from tools.data import TRAIN, CellPicture, load_splits, read_cells
from tools.data.crops import read_image, set_name
from tools.data.located import DETECTOR, detections_at_scale
from tools.data.squares import SIMULATED, SIMULATED_RED_PX
from tools.evaluate.verdict import SETS
from tools.evaluate.verdict_runs import pictures_of
from tools.evaluate.whole_run import run_over

GROUPS = 6
"""Of a laboratory at most."""
PICTURES = 120
"""Of a laboratory that are measured."""
LEAST_SHARE, LEAST_PICTURES = 0.02, 3
"""Of a group: smaller ones are a few odd pictures."""
SHOWN_SEEDS, SHOWN_FRAMES = range(21, 33), 4
_FAR = 0.95
"""A new group begins with the picture that so many lie nearer to those there are: the farthest ones are faults."""


@dataclass(frozen=True, slots=True)
class Look:
    """Of one picture with red cells."""

    colours: tuple[float, ...]
    """Of plasma and red cells, three optical densities each."""
    rbc_px: list[float]


def simulated_looks(detector: Detector) -> list[Look]:
    """Of the simulated slide in its usual colours, as `sim:` shows it; what trains is in many others."""
    slides = [VirtualSlide(SlideParameters.parse(f"seed={seed},cells=12")) for seed in SHOWN_SEEDS]
    frames = (slide.render(int(number)) for slide in slides for number in np.linspace(0, len(slide) - 1, SHOWN_FRAMES))
    return list(_looks(((frame, detector.detect([frame])[0]) for frame in frames), detector))


def looks_of_training(trained: Sequence[str]) -> dict[str, list[Look]]:
    """By laboratory, those of `PICTURES` training pictures of the sets `trained`; sets without red cells have none."""
    detector = load_detector(DETECTOR, backend="onnxruntime")
    looks: dict[str, list[Look]] = {}
    parts = load_splits()
    for name in trained:
        if name == SIMULATED:
            fields = simulated.training_fields(1, PICTURES, 640, 480, red_px=SIMULATED_RED_PX)
            looks[name] = list(_looks(((image, detector.detect([image])[0]) for image, *_ in fields), detector))
        if name not in SETS:
            continue
        by_laboratory: dict[str, list[CellPicture]] = defaultdict(list)
        for cell in read_cells(sets=(name,)):
            if parts[cell.key] == TRAIN and cell.cell_class != "platelet":
                by_laboratory[set_name(cell)].append(cell)
        for laboratory, own in sorted(by_laboratory.items()):
            chosen = [own[int(i)] for i in np.linspace(0, len(own) - 1, min(PICTURES, len(own)))]
            seen = ((picture, found) for _, picture, found, _ in detections_at_scale(chosen, detector))
            looks[laboratory] = list(_looks(seen, detector))
    return looks


def _looks(pictures: Iterator[tuple[Image, Detections]], detector: Detector) -> Iterator[Look]:
    least = detector.card.thresholds.operating
    for picture, found in pictures:
        height, width = picture.shape[:2]
        colours = field_colours(halved(picture, 1), found, least)
        rbc_px = whole_red_cells_px(found, (width, height), least).tolist()
        if colours.plasma is not None and colours.red is not None and rbc_px:
            yield Look((*colours.plasma, *colours.red), rbc_px)


def appearances_of(laboratory: str, looks: Sequence[Look]) -> list[dict[str, Any]]:
    """Rows for the card: pictures grouped by their colours (k-means), in at most `GROUPS`."""
    if len(looks) < LEAST_PICTURES:
        return []
    colours = np.array([look.colours for look in looks])
    centres = [np.median(colours, 0)]
    while len(centres) < GROUPS:
        distances = np.linalg.norm(colours[:, None] - np.array(centres)[None], axis=2).min(1)
        centres.append(colours[int(np.argsort(distances)[int(_FAR * len(colours))])])
    group = np.zeros(len(colours), int)
    for _ in range(20):
        group = np.linalg.norm(colours[:, None] - np.array(centres)[None], axis=2).argmin(1)
        centres = [colours[group == i].mean(0) if (group == i).any() else centres[i] for i in range(GROUPS)]
    rows = []
    for i in range(GROUPS):
        mine = np.nonzero(group == i)[0].tolist()
        if len(mine) >= max(LEAST_PICTURES, LEAST_SHARE * len(looks)):
            middle = np.median(colours[mine], 0).round(3).tolist()
            width = float(np.median(np.concatenate([looks[one].rbc_px for one in mine])))
            row = {"laboratory": laboratory, "plasma": middle[:3], "red": middle[3:]}
            rows.append({**row, "rbc_diameter_px": round(width, 1)})
    return rows


def usual_novelty(classifier: Classifier, trained: Sequence[str], most: int = 300) -> dict[str, float]:
    """By laboratory, the mean novelty of the white cells that a run counts in pictures that did not train the
    classifier, at most `most` of them; none where it says none.

    Of what a run counts, not of what is labelled: a detector finds cells that nobody labelled, and worse ones.
    """
    detector = load_detector(DETECTOR, backend="onnxruntime")
    novelty: dict[str, float] = {}
    for name in trained:
        pictures: dict[str, Iterable[Image]] = {}
        if name in SETS:
            found = pictures_of(name, trained, most)
            pictures = {laboratory: map(read_image, paths) for laboratory, paths in found.items()}
        elif name == SIMULATED:
            fields = simulated.training_fields(2, PICTURES // 2, 640, 480, red_px=SIMULATED_RED_PX)
            pictures[name] = (image for image, *_ in fields)
        for laboratory, own in pictures.items():
            mean = run_over(own, detector, classifier).count.novelty().mean
            if mean is not None:
                novelty[laboratory] = round(mean, 3)
    return novelty


def with_appearances(card: str, rows: Sequence[dict[str, Any]]) -> str:
    """The text of a card with these tables before its figures, in the place of those that it had."""
    parts = [part for part in card.split("\n[") if not part.startswith("[appearances]]")]
    place = next((i for i, part in enumerate(parts) if part.startswith("[figures]]")), len(parts))
    if place == len(parts):
        parts[-1] = parts[-1].rstrip("\n") + "\n"
    text = toml({"appearances": list(rows)}).strip()
    return "\n[".join([*parts[:place], text[1:] + "\n", *parts[place:]])


def main(arguments: Sequence[str]) -> None:
    """Command line."""
    parser = command_parser("tools.export appearances", __doc__)
    parser.add_argument("card", type=Path, metavar="CARD.toml", help="of a classifier, its ONNX file beside it")
    path: Path = parser.parse_args(arguments).card
    text = path.read_text("utf-8")
    classifier = load_classifier(str(path.with_suffix(".onnx")))
    trained = classifier.card.training.get("data", ())
    usual = usual_novelty(classifier, trained)
    rows = [row for laboratory, some in looks_of_training(trained).items() for row in appearances_of(laboratory, some)]
    if SIMULATED in trained:
        rows += appearances_of(SIMULATED, simulated_looks(load_detector(DETECTOR, backend="onnxruntime")))
    rows = [{**row, "novelty": usual.get(row["laboratory"])} for row in rows]
    path.write_text(with_appearances(text, rows), "utf-8")
    print(f"{path}: {len(rows)} appearances of {len({row['laboratory'] for row in rows})} laboratories")
