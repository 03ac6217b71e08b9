"""Find the thresholds of a classifier's verdict, and judge them on laboratories that did not choose them.

    python -m tools.evaluate verdict --json verdict.json
    python -m tools.evaluate verdict --classifier runs/classifier/trial.onnx

Of sets that trained the classifier, as its card says, cells of validation and holdout are measured, of all others all
cells; `--cells` at most of each laboratory, whole patients where it names them. Cells are boxed by the detector and
looked at as the stream does; what was seen is kept in the user's cache.

A "slide" is 100 cells: a patient's (40 at least) where the set names patients, else drawn at random from the laboratory
(`--draws` times, so that slides of one laboratory share cells; with replacement where it has fewer than 100). It is
judged by the very function of the stream, by all that can be known of such a slide: cells unlike training, novelty,
share unclassified, stain, magnification. That it is too small, cut short or of one place is left out.

A threshold is the highest value of the slides of which at most 10 % of the named cells are wrong, but for `--refused`
of them. Each laboratory is judged by thresholds that the others alone have chosen.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from engines.geometry import halved
from engines.models.classifier import Classifier
from engines.models.loading import load_classifier, load_detector
from streamer.analysis.colours import field_colours
from streamer.config import DEFAULT_CLASSIFIER, VerdictConfig
from streamer.counting.decision import ClassDecision
from streamer.counting.evidence import EvidenceBook, whole_red_cells_px
from streamer.counting.known import Known, known_of
from streamer.counting.verdict import SlideEvidence, judge, least_stain_distance, novelty_above_usual
from streamer.records import UNCLASSIFIED, FieldColours, SourceProgress, Verdict
from tools.commands import command_parser
from tools.data import TRAIN, CellPicture, load_splits, read_cells
from tools.data.crops import set_name
from tools.data.located import DETECTOR, box_of, detections_at_scale
from tools.data.splits import cached

SETS = ("krd", "deepapl", "marrow", "wbc_masks", "pbc", "chula_wbc", "txl_pbc", "bccd", "bcd")
SLIDE_CELLS = 100
LEAST_CELLS = 40
"""Of a patient, and of a laboratory: fewer tell nothing of a slide."""
MOST_WRONG = 0.10
"""Of the named cells, where a result is not to be believed."""
FITTED = ("unlike_training_percent", "novelty_above_usual", "unclassified_percent", "stain_distance")
"""Thresholds of VerdictConfig that are found here."""
_VERSION = 1


class SeenCell(msgspec.Struct, frozen=True):
    """One cell of a set, as the stream sees it."""

    laboratory: str
    slide: str
    """Patient or slide; empty where the set names none."""
    class_name: str
    probabilities: list[float]
    novelty: float | None
    colours: FieldColours
    rbc_px: list[float]
    """Diameters of the whole red cells around."""


@dataclass(frozen=True, slots=True)
class Slide:
    """Some cells of a laboratory as a slide."""

    laboratory: str
    evidence: SlideEvidence
    named: int
    wrong: int
    """Of the named."""

    @property
    def wrong_share(self) -> float:
        return self.wrong / self.named if self.named else 0.0

    @property
    def is_bad(self) -> bool:
        return self.wrong_share > MOST_WRONG


def chosen_cells(name: str, trained: Sequence[str], most: int) -> list[CellPicture]:
    """Cells of a set that did not train the classifier, at most `most`: whole patients where it names them."""
    cells = [cell for cell in read_cells(sets=(name,)) if cell.cell_class != "platelet"]
    if name in trained:
        parts = load_splits()
        cells = [cell for cell in cells if parts[cell.key] != TRAIN]
    by_slide: dict[str, list[CellPicture]] = defaultdict(list)
    for cell in cells:
        by_slide[cell.slide or cell.key].append(cell)
    order = sorted(by_slide, key=lambda slide: hashlib.sha256(slide.encode()).digest())
    chosen: list[CellPicture] = []
    for slide in order:
        if len(chosen) + len(by_slide[slide]) <= most:
            chosen += by_slide[slide]
    return chosen


def seen_cells(cells: Sequence[CellPicture], classifier: Classifier) -> list[SeenCell]:
    """The cells, in their order, from the user's cache after the first time."""
    told = [[cell.key, cell.box_px] for cell in cells]
    text = json.dumps([_VERSION, classifier.card.sha256, told])
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    rows = cached(f"verdict-{digest}.json", lambda: msgspec.to_builtins(_look(cells, classifier)))
    return msgspec.convert(rows, list[SeenCell])


def _look(cells: Sequence[CellPicture], classifier: Classifier) -> list[SeenCell]:
    detector = load_detector(DETECTOR, backend="onnxruntime")
    least = detector.card.thresholds.operating
    seen: dict[int, SeenCell] = {}
    for i, picture, found, rbc_px in detections_at_scale(cells, detector):
        cell, box = cells[i], box_of(cells[i], found, least)
        looks = classifier.classify(picture, np.array([box or cell.box_px], np.float32), rbc_px)
        height, width = picture.shape[:2]
        seen[i] = SeenCell(
            laboratory=set_name(cell),
            slide=cell.slide or "",
            class_name=cell.cell_class,
            probabilities=looks.probabilities[0].tolist(),
            novelty=None if looks.novelty is None else float(looks.novelty[0]),
            colours=field_colours(halved(picture, 1), found, least),
            rbc_px=whole_red_cells_px(found, (width, height), least).tolist(),
        )
    return [seen[i] for i in range(len(cells))]


def slides_of(cells: Sequence[SeenCell], classifier: Classifier, known: Known, draws: int) -> list[Slide]:
    """Slides of one laboratory: its patients, or cells drawn at random."""
    rng = np.random.default_rng(0)
    patients: dict[str, list[SeenCell]] = defaultdict(list)
    for cell in cells:
        patients[cell.slide].append(cell)
    large = [some for name, some in patients.items() if name and len(some) >= LEAST_CELLS]
    if not large:
        few = len(cells) < SLIDE_CELLS
        large = [[cells[i] for i in rng.choice(len(cells), SLIDE_CELLS, replace=few).tolist()] for _ in range(draws)]
    return [_slide(some[:SLIDE_CELLS], classifier, known) for some in large]


def _slide(cells: Sequence[SeenCell], classifier: Classifier, known: Known) -> Slide:
    decision = ClassDecision.of(classifier)
    names = [decision.class_name(cell.probabilities, cell.novelty) for cell in cells]
    limit = decision.novel_above
    novelty = [cell.novelty for cell in cells if cell.novelty is not None]
    book = EvidenceBook(0.0)
    for cell in cells:
        book.add_colours(cell.colours)
        book.add_widths(np.array(cell.rbc_px))
    named = [(name, cell) for name, cell in zip(names, cells, strict=True) if name != UNCLASSIFIED]
    evidence = SlideEvidence(
        white_cells=len(cells),
        unclassified=len(cells) - len(named),
        unlike_training=0 if limit is None else sum(one > limit for one in novelty),
        mean_novelty=float(np.mean(novelty)) if novelty else None,
        seen=Counter(names),
        smudge_cells=names.count("smudge cell"),
        frames=len(cells),
        progress=SourceProgress(None),
        rbc_px=book.rbc_px,
        plasma=book.plasma,
        red=book.red,
        light_range=None,
        only_extent_px=None,
        has_colours=True,
        known=known,
    )
    wrong = sum(name != cell.class_name for name, cell in named)
    return Slide(cells[0].laboratory, evidence, len(named), wrong)


def figures_of(cells: Sequence[SeenCell], classifier: Classifier) -> dict[str, float]:
    """Of all cells of a laboratory, as a card's table has them: named as the stream names them, in the detector's
    boxes."""
    decision = ClassDecision.of(classifier)
    named = [decision.class_name(cell.probabilities, cell.novelty) for cell in cells]
    likeliest = [decision.top_class(cell.probabilities) for cell in cells]
    right = sum(name == cell.class_name for name, cell in zip(named, cells, strict=True))
    classified = len(cells) - named.count(UNCLASSIFIED)
    correct = sum(name == cell.class_name for name, cell in zip(likeliest, cells, strict=True))
    return {
        "cells": len(cells),
        "accuracy": round(correct / len(cells), 4),
        "classified": round(classified / len(cells), 4),
        "accuracy_classified": round(right / max(1, classified), 4),
    }


def values_of(slide: Slide) -> dict[str, float | None]:
    """What is measured of a slide, by the threshold that it is compared with."""
    evidence = slide.evidence
    return {
        "unlike_training_percent": 100.0 * evidence.unlike_training / evidence.white_cells,
        "novelty_above_usual": novelty_above_usual(evidence),
        "unclassified_percent": 100.0 * evidence.unclassified / evidence.white_cells,
        "stain_distance": least_stain_distance(evidence),
    }


def fitted(slides: Sequence[Slide], refused: float) -> dict[str, float]:
    """The lowest thresholds that refuse at most `refused` of the slides that are not bad, each by itself; every
    laboratory weighs the same. Those of VerdictConfig for what no slide tells."""
    weights = Counter(slide.laboratory for slide in slides if not slide.is_bad)
    limits = {}
    for name in FITTED:
        known = [
            (value, 1.0 / weights[slide.laboratory])
            for slide in slides
            if not slide.is_bad and (value := values_of(slide)[name]) is not None
        ]
        known.sort()
        if not known:
            limits[name] = float(getattr(VerdictConfig(), name))
            continue
        below = np.cumsum([weight for _, weight in known])
        place = int(np.searchsorted(below, (1.0 - refused) * below[-1] - 1e-9))
        limits[name] = known[min(place, len(known) - 1)][0]
    return limits


def verdict_on(slide: Slide, limits: Mapping[str, float], rules: VerdictConfig) -> Verdict:
    return judge(slide.evidence, msgspec.structs.replace(rules, **limits))


def judged(slides: Sequence[Slide], limits: Mapping[str, float], rules: VerdictConfig) -> dict[str, Any]:
    """How the verdicts on some slides agree with what is wrong on them."""
    verdicts = [verdict_on(slide, limits, rules) for slide in slides]
    passed = [slide for slide, one in zip(slides, verdicts, strict=True) if one.state == "ready for review"]
    reasons = Counter(
        code
        for one in verdicts
        for code in {reason.code for reason in one.reasons if rules.state_of(reason.code) != "ready for review"}
    )
    bad = sum(slide.is_bad for slide in slides)
    return {
        "slides": len(slides),
        "wrong": sum(slide.wrong for slide in slides) / max(1, sum(slide.named for slide in slides)),
        "bad": bad,
        "bad_passed": sum(slide.is_bad for slide in passed),
        "good": len(slides) - bad,
        "good_stopped": len(slides) - bad - sum(not slide.is_bad for slide in passed),
        "wrong_passed": sum(slide.wrong for slide in passed) / n if (n := sum(s.named for s in passed)) else None,
        "states": dict(Counter(one.state for one in verdicts)),
        "reasons": dict(reasons.most_common()),
        "measured": {name: float(np.median(values)) if (values := _known(slides, name)) else None for name in FITTED},
    }


def _known(slides: Sequence[Slide], name: str) -> list[float]:
    return [value for slide in slides if (value := values_of(slide)[name]) is not None]


def measure(slides: Mapping[str, Sequence[Slide]], refused: float, rules: VerdictConfig) -> dict[str, Any]:
    """Thresholds by all laboratories, and each laboratory judged by those of the others."""
    everything = [slide for some in slides.values() for slide in some]
    rows = {}
    for name, own in slides.items():
        others = [slide for slide in everything if slide.laboratory != name]
        limits = fitted(others, refused)
        rows[name] = {
            "thresholds": limits,
            "left_out": judged(own, limits, rules),
            "as_configured": judged(own, {}, rules),
        }
    return {"thresholds": fitted(everything, refused), "laboratories": rows}


def table(result: Mapping[str, Any], trained: Sequence[str], kind: str) -> list[str]:
    """The result as the rows of a Markdown table."""
    lines = [
        "| laboratory | trained it | slides | wrong of the named | above 10 % | stopped | others stopped | reasons |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in result["laboratories"].items():
        one = row[kind]
        reasons = ", ".join(f"{code} {count}" for code, count in one["reasons"].items()) or "–"
        lines.append(
            f"| `{name}` | {'yes' if name.split('/')[0] in trained else 'no'} | {one['slides']} | {one['wrong']:.3f} | "
            f"{one['bad']} | {one['bad'] - one['bad_passed']} | {one['good_stopped']} of {one['good']} | {reasons} |"
        )
    return lines


def main(arguments: Sequence[str]) -> None:
    """Command line."""
    parser = command_parser("tools.evaluate verdict", __doc__)
    parser.add_argument("--classifier", default=DEFAULT_CLASSIFIER, metavar="NAME|FILE")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--trained", nargs="*", metavar="SET", help="sets that trained it (default: as its card says)")
    parser.add_argument("--cells", type=int, default=1000, help="of each laboratory at most")
    parser.add_argument("--draws", type=int, default=20, help="slides of a laboratory without patients")
    parser.add_argument("--refused", type=float, default=0.02, help="share of the good slides that a threshold refuses")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args(arguments)
    classifier = load_classifier(args.classifier)
    trained = classifier.card.training.get("data", ()) if args.trained is None else args.trained
    known, slides, figures = known_of(classifier.card), {}, {}
    for name in args.sets:
        seen = seen_cells(chosen_cells(name, trained, args.cells), classifier)
        for laboratory in sorted({cell.laboratory for cell in seen}):
            own = [cell for cell in seen if cell.laboratory == laboratory]
            if len(own) < LEAST_CELLS:
                print(f"{laboratory}: left out, {len(own)} cells are too few")
                continue
            slides[laboratory] = slides_of(own, classifier, known, args.draws)
            figures[laboratory] = figures_of(own, classifier)
    result = measure(slides, args.refused, VerdictConfig(least_cells=1))
    for title, kind in (("thresholds of the other laboratories", "left_out"), ("as configured", "as_configured")):
        print("\n".join([f"{title}:", *table(result, trained, kind), ""]))
    print("thresholds by all: " + ", ".join(f"{name} {value:.3g}" for name, value in result["thresholds"].items()))
    if args.json is not None:
        command = f"python -m tools.evaluate verdict --classifier {args.classifier}"
        head = {"command": command, "classifier_sha256": classifier.card.sha256, "trained": list(trained)}
        args.json.write_text(json.dumps({**head, **result, "cells": figures}, indent=1) + "\n")
