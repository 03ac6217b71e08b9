"""What differential, flags and verdict say of slides that are mixed of single cells at true rates.

    python -m tools.evaluate mixed-slides --classifier efficientnet-lite0 --part holdout --json mixed.json

The cells are of pictures that did not train the classifier, looked at as in the stream; each slide has those of one
laboratory, its blasts those of one patient, and borrows from the others what that laboratory lacks. It is counted and
judged by the very code of the stream. What has to do with frames alone (light, stain, losses) says nothing here.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from engines.models.classifier import Classifier
from engines.models.loading import load_classifier
from engines.zoo.slide_flags import SlideFlag
from streamer.config import DEFAULT_CLASSIFIER, FIVE_PART_RANGES, VerdictConfig
from streamer.counting.decision import ClassDecision
from streamer.counting.known import known_of
from streamer.counting.slide_count import SeenFrame, SlideCount
from streamer.records import Classifications, Detections, Differential, SourceProgress, StagePosition
from streamer.stage.placement import Placement
from tools.commands import command_parser
from tools.data import ABNORMAL_CLASSES, ABNORMAL_SUBCLASSES, HOLDOUT, VALIDATION
from tools.data.splits import cached
from tools.evaluate.classifier import chosen_cells
from tools.metrics.abnormal import COVERED, Predicted, predict_with
from tools.metrics.slide_flags import BLAST, FlagCells, card_rows, choose, flag_cells

LEAST_CELLS = 5
"""A laboratory or patient of fewer cells of a kind lends none: a slide would be one cell over and over."""
SlideFlags = tuple[SlideFlag, ...]
_SIDE_PX, _SPACING_PX = 80, 100
_VERSION = 1


@dataclass(frozen=True)
class Scenario:
    """What a slide has; kinds are classes and subclasses."""

    name: str
    cells: int = 200
    """White cells."""
    percent: Mapping[str, float] = field(default_factory=dict)
    """Of the white cells; what is missing to 100 are the five types as in normal blood."""
    beside: Mapping[str, float] = field(default_factory=dict)
    """What is no leukocyte, per 100 white cells."""


NORMAL = "normal"
SCENARIOS = (
    Scenario(NORMAL),
    Scenario("normal, 1000 cells", 1000),
    Scenario("leukopenia, 30 cells", 30),
    Scenario("leukopenia, 30 cells, 20 % blasts", 30, {BLAST: 20}),
    Scenario("1 % blasts", percent={BLAST: 1}),
    Scenario("2 % blasts", percent={BLAST: 2}),
    Scenario("5 % blasts", percent={BLAST: 5}),
    Scenario("all blasts", percent={BLAST: 100}),
    Scenario("CLL", percent={"lymphocyte": 95}, beside={"smudge cell": 30}),
    Scenario("mononucleosis", percent={"lymphocyte": 35, "variant lymphocyte": 25}),
    Scenario("monocytosis", percent={"monocyte": 30}),
    Scenario("monocytosis beside monoblasts", percent={"monocyte": 20, "promonocyte": 10}),
    Scenario("newborn, nucleated red cells", percent={"neutrophil": 60, "lymphocyte": 28}, beside={"erythroblast": 10}),
)


def of_kind(cells: FlagCells, kind: str) -> np.ndarray:
    """int64: the cells of a subclass, or of a class, of lymphocytes without the variant ones."""
    found = cells.predicted
    if kind in ABNORMAL_SUBCLASSES:
        return np.nonzero(found.subclasses == list(ABNORMAL_SUBCLASSES).index(kind))[0]
    variant = list(ABNORMAL_SUBCLASSES).index("variant lymphocyte")
    return np.nonzero((found.classes == ABNORMAL_CLASSES.index(kind)) & (found.subclasses != variant))[0]


def cells_of(classifier: Classifier, part: str, left_out: Sequence[str] = ()) -> dict[str, Predicted]:
    """The predicted cells of a part by laboratory, from the user's cache after the first time."""
    chosen = {name: some for name, some in chosen_cells(part, left_out).items() if not name.endswith(COVERED)}
    told = [[one.cell.key, one.cell.box_px, one.rbc_px] for some in chosen.values() for one in some.cells]
    text = json.dumps([_VERSION, classifier.card.name, classifier.card.sha256, told])
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    stored = cached(
        f"mixed-slides-{digest}.json",
        lambda: {name: _stored(predict_with(classifier, some)) for name, some in chosen.items()},
    )
    return {name: _restored(one) for name, one in stored.items()}


def _stored(found: Predicted) -> dict[str, list[Any] | None]:
    columns = {one.name: getattr(found, one.name) for one in dataclasses.fields(Predicted)}
    return {name: None if column is None else column.tolist() for name, column in columns.items()}


def _restored(stored: Mapping[str, list[Any] | None]) -> Predicted:
    columns: dict[str, Any] = {key: None if column is None else np.array(column) for key, column in stored.items()}
    return Predicted(**columns)


def shares_of(scenario: Scenario, rng: np.random.Generator) -> dict[str, float]:
    """The percentages of a slide's white cells, those of the five types within and a little beyond their usual ranges,
    as 95 % of healthy people are within."""
    usual = {
        name: max(0.0, float(rng.normal((low + high) / 2, (high - low) / 4)))
        for name, (low, high) in FIVE_PART_RANGES.items()
        if name not in scenario.percent
    }
    rest = 100 - sum(scenario.percent.values())
    return {**scenario.percent, **{name: rest * share / sum(usual.values()) for name, share in usual.items()}}


def lenders(cells: FlagCells, scenario: Scenario) -> list[str]:
    """Laboratories that have what is unusual of a scenario, of a normal one those that have most of the five types."""
    wanted = list(scenario.percent) or ["neutrophil", "lymphocyte", "monocyte"]
    return [
        name
        for name in np.unique(cells.laboratories).tolist()
        if all((cells.laboratories[of_kind(cells, kind)] == name).sum() >= LEAST_CELLS for kind in wanted)
    ]


def drawn(
    cells: FlagCells, scenario: Scenario, laboratory: str, rng: np.random.Generator
) -> tuple[np.ndarray, Counter[str]]:
    """The cells of one slide, with replacement, and how many of each kind."""
    shares = shares_of(scenario, rng)
    numbers = rng.multinomial(scenario.cells, np.array(list(shares.values())) / sum(shares.values()))
    counts = Counter(dict(zip(shares, numbers.tolist(), strict=True)))
    counts.update({kind: int(rng.poisson(scenario.cells * per / 100)) for kind, per in scenario.beside.items()})
    chosen = [rng.choice(_lent(cells, kind, laboratory, rng), count) for kind, count in counts.items() if count]
    return np.concatenate(chosen), counts


def _lent(cells: FlagCells, kind: str, laboratory: str, rng: np.random.Generator) -> np.ndarray:
    """The cells of a kind that a slide is drawn from: of one patient where they are blasts, else of its laboratory."""
    rows = of_kind(cells, kind)
    own = rows[cells.laboratories[rows] == laboratory]
    if len(own) < LEAST_CELLS:
        return rows
    if kind != BLAST:
        return np.asarray(own)
    names, counts = np.unique(cells.patients[own], return_counts=True)
    large = names[counts >= LEAST_CELLS]
    return np.asarray(own if not len(large) else own[cells.patients[own] == rng.choice(large)])


def counted(predicted: Predicted, rows: np.ndarray, decision: ClassDecision, count: SlideCount) -> Differential:
    """The differential of some cells, side by side on one frame, each looked at once."""
    columns = max(1, int(np.ceil(np.sqrt(len(rows)))))
    corners = np.stack([np.arange(len(rows)) % columns, np.arange(len(rows)) // columns], 1) * _SPACING_PX + _SPACING_PX
    side = (columns + 2) * _SPACING_PX
    classes = [ABNORMAL_CLASSES.index(name) for name in decision.class_names]
    subclasses = [list(ABNORMAL_SUBCLASSES).index(name) for name in decision.subclass_names]
    novelty = None if predicted.novelty is None or decision.novel_above is None else predicted.novelty[rows]
    frame = SeenFrame(
        frame_id=0,
        width=side,
        height=side,
        placement=Placement(StagePosition(0, 0.0, 0.0, 1.0), 0),
        detections=Detections(
            boxes_px=np.concatenate([corners, corners + _SIDE_PX], 1).astype(np.float32),
            scores=np.full(len(rows), 0.9, np.float32),
            labels=np.zeros(len(rows), np.int64),
            label_names=("WBC",),
            kinds=("white",),
            truncated=False,
        ),
        looks=Classifications(
            probabilities=predicted.probabilities[rows][:, classes].astype(np.float32),
            class_names=decision.class_names,
            subclass_probabilities=predicted.subclass_probabilities[rows][:, subclasses].astype(np.float32),
            subclass_names=decision.subclass_names,
            subclass_parents=decision.subclass_parents,
            novelty=None if novelty is None else novelty.astype(np.float32),
        ),
        accepted=True,
        reasons=(),
        focus=None,
        file=None,
        captured_utc="",
        progress=SourceProgress(None),
    )
    count.add_frame(frame)
    count.finish(())
    return count.differential(final=True)


@dataclass(frozen=True)
class JudgedSlide:
    laboratory: str
    truth: Counter[str]
    found: Differential

    @property
    def is_flagged(self) -> bool:
        """As having blasts."""
        return any(flag.class_ == BLAST for flag in self.found.flags)


def judged(
    cells: FlagCells, scenario: Scenario, classifier: Classifier, decision: ClassDecision, slides: int
) -> list[JudgedSlide]:
    """The slides of a scenario, of each laboratory that can lend them as many; none where none can."""
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(scenario.name.encode()).digest()[:4], "big"))
    names, known, verdict = lenders(cells, scenario), known_of(classifier.card), _of_cells_alone()
    made = []
    for number in range(slides if names else 0):
        laboratory = names[number % len(names)]
        rows, truth = drawn(cells, scenario, laboratory, rng)
        count = SlideCount(decision, operating_score=0.0, known=known, verdict=verdict)
        made.append(JudgedSlide(laboratory, truth, counted(cells.predicted, rows, decision, count)))
    return made


def _of_cells_alone() -> VerdictConfig:
    """What was not measured of the frames, which there are none of, is no reason."""
    return VerdictConfig(states={"not_measured": "ready for review", "one_area": "ready for review"})


def summary(made: Sequence[JudgedSlide]) -> dict[str, Any]:
    """The slides of a scenario in numbers: shares of the slides, and medians of percentages."""
    n = max(1, len(made))
    flags = Counter(f"{flag.class_} {flag.direction}" for one in made for flag in one.found.flags)
    verdicts = [one.found.verdict for one in made if one.found.verdict is not None]
    states = Counter(verdict.state for verdict in verdicts)
    reasons = Counter(code for verdict in verdicts for code in {reason.code for reason in verdict.reasons})
    suspects = sum(len(reason.cell_ids) for verdict in verdicts for reason in verdict.reasons)
    by_laboratory: dict[str, list[bool]] = defaultdict(list)
    for one in made:
        by_laboratory[one.laboratory].append(one.is_flagged)
    return {
        "slides": len(made),
        "flagged_blast": sum(one.is_flagged for one in made) / n,
        "flagged_blast_by_laboratory": {name: float(np.mean(own)) for name, own in sorted(by_laboratory.items())},
        "suspects_to_see": suspects / n,
        "flags": {name: count / n for name, count in flags.most_common()},
        "verdicts": {name: count / n for name, count in states.most_common()},
        "reasons": {name: count / n for name, count in reasons.most_common()},
        "percent": {name: list(pair) for name, pair in _medians(made).items()},
        "smudge_per_100_wbc": _median([one.found.smudge_per_100_wbc for one in made]),
        "nrbc_per_100_wbc": _median([one.found.nrbc_per_100_wbc for one in made]),
        "unclassified_percent": _median([100 * one.found.unclassified / max(1, one.found.total) for one in made]),
    }


def _medians(made: Sequence[JudgedSlide]) -> dict[str, tuple[float, float]]:
    """By class the median percentage and the true one."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for one in made:
        truth: Counter[str] = Counter()
        for kind, count in one.truth.items():
            truth[ABNORMAL_SUBCLASSES.get(kind, kind)] += count
        total = sum(truth[name] for name in one.found.classes)
        for name, share in one.found.classes.items():
            pairs = found.setdefault(name, ([], []))
            pairs[0].append(share.percent or 0.0)
            pairs[1].append(100 * truth[name] / max(1, total))
    return {name: (float(np.median(got)), float(np.median(true))) for name, (got, true) in found.items()}


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def table(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The scenarios as the rows of a Markdown table."""
    lines = [
        "| slides | drawn | `blast?` | other flags | verdict | percent, median (true) |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in results.items():
        if not row["slides"]:
            lines.append(f"| {name} | – | no laboratory has the cells | | | |")
            continue
        others = {flag: share for flag, share in row["flags"].items() if not flag.startswith(BLAST)}
        shares = [
            f"{label} {got:.0f} ({true:.0f})" for label, (got, true) in row["percent"].items() if max(got, true) >= 1
        ]
        for key, label in (("smudge_per_100_wbc", "smudge cells"), ("nrbc_per_100_wbc", "nucleated red cells")):
            if row[key]:
                shares.append(f"{label} per 100 {row[key]:.0f}")
        shares.append(f"unclassified {row['unclassified_percent']:.0f}")
        lines.append(
            f"| {name} | {row['slides']} | {row['flagged_blast']:.3f} | {_listed(others)} | "
            f"{_listed(row['verdicts'])} | {', '.join(shares)} |"
        )
    return lines


def _listed(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {share:.2f}" for name, share in shares.items() if share >= 0.01) or "–"


def flags_of(classifier: Classifier, validation: Callable[[], Mapping[str, Predicted]]) -> tuple[SlideFlags, str]:
    """The card's flags, or, where it has none, those that the validation cells choose; and a line that says which."""
    own = classifier.card.slide_flags
    if own:
        return own, f"flags of the card: {_words(own)}"
    chosen = (choose(flag_cells(validation())),)
    return chosen, f"the card has no slide_flags; those that the validation cells choose: {_words(chosen)}"


def _words(flags: Sequence[SlideFlag]) -> str:
    return "; ".join(
        f"{' + '.join((one.name, *one.equivalents))} from {one.above:g}, false rate {one.false_rate:g}" for one in flags
    )


def main(arguments: Sequence[str]) -> int:
    """Command line. ValueError for a classifier that does not know blasts."""
    parser = command_parser("tools.evaluate mixed-slides", __doc__)
    parser.add_argument("--classifier", default=DEFAULT_CLASSIFIER, metavar="NAME|FILE")
    parser.add_argument(
        "--part", choices=(VALIDATION, HOLDOUT), default=VALIDATION, help="whose cells (default %(default)s)"
    )
    parser.add_argument("--left-out", nargs="+", default=[], metavar="LABORATORY", help="those that did not train it")
    parser.add_argument("--slides", type=_positive, default=400, help="of each scenario (default %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    args = parser.parse_args(arguments)
    classifier = load_classifier(args.classifier, backend="onnxruntime")
    if BLAST not in classifier.class_names:
        raise ValueError(
            f"--classifier: got {classifier.card.name} without a class {BLAST!r}, expected one that knows blasts; "
            "slides with blasts say nothing of it"
        )
    found = cells_of(classifier, args.part, args.left_out)
    flags, line = flags_of(classifier, lambda: cells_of(classifier, VALIDATION, args.left_out))
    rates = {flag.name: flag.false_rate for flag in flags}
    decision = ClassDecision.of(classifier)
    decision = replace(decision, slide_flags=flags, error_rates={**decision.error_rates, **rates})
    cells = flag_cells(found)
    results = {one.name: summary(judged(cells, one, classifier, decision, args.slides)) for one in SCENARIOS}
    print("\n".join([line, "", *table(results)]))
    if args.json is not None:
        left_out = f" --left-out {' '.join(args.left_out)}" if args.left_out else ""
        command = f"python -m tools.evaluate mixed-slides --classifier {args.classifier} --part {args.part}{left_out}"
        head = {
            "command": command,
            "classifier_sha256": classifier.card.sha256,
            "part": args.part,
            "slide_flags": card_rows(flags),
            "cells": {name: len(one.classes) for name, one in found.items()},
        }
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({**head, "scenarios": results}, indent=1) + "\n")
    return 0


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number above 0")
    return int(text)
