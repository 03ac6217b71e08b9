"""A reference slide, counted again by today's program and models, beside its accepted result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from streamer.counting.verdict import STATES
from streamer.dashboard.words import number
from streamer.journal import ModelId, StoredSession
from streamer.qc.classes import ClassComparison, compared_classes
from streamer.qc.counts import CountedSlide, folded
from streamer.qc.matched_cells import Matched, matched_kappa

LEAST_KAPPA = 0.8
"""From which on Landis and Koch (Biometrics 33 (1977) 159) call agreement almost perfect."""

LEAST_FOUND = 0.95
"""Of the white cells of the accepted result, how many have to be found again where the frames are the same."""


@dataclass(frozen=True, slots=True)
class Change:
    """Of what decides a count."""

    what: str
    accepted: str
    now: str


@dataclass(frozen=True, slots=True)
class ReferenceCheck:
    slide: str
    accepted: CountedSlide
    now: CountedSlide
    """Both with the classes that both have."""
    classes: Sequence[ClassComparison]
    kappa: Matched | str
    """In words why it can't be measured."""
    changes: Sequence[Change]
    """Models, thresholds, program."""
    verdicts: tuple[str | None, str | None]
    """A VerdictState of the accepted result, and of today's."""
    failures: Sequence[str]
    """In words; empty: it passes."""

    @property
    def found(self) -> int | None:
        """Cells of the accepted result that were found again at their places; None: not measurable."""
        return None if isinstance(self.kappa, str) else self.kappa[0].cells + self.kappa[1]


def checked_against(
    accepted: CountedSlide, now: CountedSlide, *, recording: bool, least_kappa: float = LEAST_KAPPA
) -> ReferenceCheck:
    """Both of a journal. `recording`: what was counted now is a recording of the accepted run."""
    accepted, now, into = folded(accepted, now)
    classes = compared_classes(accepted, now) if accepted.total and now.total else []
    kappa = matched_kappa(accepted, now, into, recording=recording)
    verdicts = _verdict(accepted), _verdict(now)
    failures = [*_of_counts(accepted, now, classes), *_of_cells(accepted, kappa, least_kappa), *_of_verdicts(*verdicts)]
    changes = list(_changes(_session(accepted), _session(now)))
    return ReferenceCheck(accepted.slide, accepted, now, classes, kappa, changes, verdicts, failures)


def _of_counts(accepted: CountedSlide, now: CountedSlide, classes: Sequence[ClassComparison]) -> Iterator[str]:
    for side, counted in (("accepted result", accepted), ("new count", now)):
        if not counted.total:
            yield f"no white cell in the {side}"
    for one in classes:
        if one.differs and one.expected is not None:
            low, high = map(number, one.expected)
            yield f"{one.name}: {number(one.second)} cells, {low} to {high} expected, {number(one.first)} accepted"
    missing = [one.name for one in classes if one.second is None and one.first]
    if missing:
        yield f"no longer told apart: {', '.join(missing)}"


def _of_cells(accepted: CountedSlide, kappa: Matched | str, least_kappa: float) -> Iterator[str]:
    if isinstance(kappa, str):
        return
    found, unnamed, _ = kappa
    if found.cells + unnamed < LEAST_FOUND * accepted.total:
        yield f"only {number(found.cells + unnamed)} of {number(accepted.total)} white cells found again"
    if found.kappa is not None and found.kappa < least_kappa:
        yield f"kappa {number(found.kappa, 2)}, at least {least_kappa:g} expected"


def _of_verdicts(accepted: str | None, now: str | None) -> Iterator[str]:
    if accepted is not None and now is not None and STATES.index(now) > STATES.index(accepted):
        yield f"verdict: {now}, it was {accepted}"


def _verdict(one: CountedSlide) -> str | None:
    verdict = None if one.stored is None else one.stored[1].differential.verdict
    return None if verdict is None else verdict.state


def _session(one: CountedSlide) -> StoredSession:
    if one.stored is None:
        raise ValueError("checked_against: got a table, expected counts of journals")
    return one.stored[0]


def _changes(accepted: StoredSession, now: StoredSession) -> Iterator[Change]:
    runs = accepted.runs(), now.runs()
    then, today = accepted.rules, now.rules
    rows = [
        ("finds the cells", _model(then.detector), _model(today.detector)),
        ("names the white cells", _model(then.classifier), _model(today.classifier)),
        ("measures the white cells", _model(then.segmenter), _model(today.segmenter)),
        ("a box counts from a score of", f"{then.operating_score:g}", f"{today.operating_score:g}"),
        ("longer side of the detector's input", f"{then.long_side_px} px", f"{today.long_side_px} px"),
        ("a cell has a class from a probability of", f"{then.class_threshold:g}", f"{today.class_threshold:g}"),
        ("unlike the training above a novelty of", _threshold(then.novel_above), _threshold(today.novel_above)),
        ("program", *(f"leukostream {one[-1].program}" if one else "unknown" for one in runs)),
    ]
    for what, before, after in rows:
        if before != after:
            yield Change(what, before, after)


def _model(model: ModelId | None) -> str:
    if model is None:
        return "none"
    return model.name if model.sha256 is None else f"{model.name} (SHA-256 {model.sha256[:16]}…)"


def _threshold(value: float | None) -> str:
    return "none" if value is None else f"{value:g}"
