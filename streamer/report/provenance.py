"""Where a result comes from: the slide, the models, what they ran on, thresholds, versions, times, commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from streamer import __version__
from streamer.config import FIVE_PART_RANGES
from streamer.counting.differential import CLOPPER_PEARSON, CONFIDENCE_SEQUENCE
from streamer.dashboard.words import number, slide_rows
from streamer.journal import ModelId, Recounted, StoredSession, differences, last_published
from streamer.protocol.factory import MessageFactory
from streamer.protocol.messages import EndMessage, HealthMessage
from streamer.records import SlideInfo
from streamer.report.review import review_of

LIMITS_WORDS = {
    CLOPPER_PEARSON: "Clopper-Pearson, for a count whose end was fixed in advance",
    CONFIDENCE_SEQUENCE: "confidence sequence, valid at every look",
}

Rows = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Provenance:
    groups: Sequence[tuple[str, Rows]]
    """(title, rows of label and value)."""
    recount: str
    """Whether counting again gives what was published, in a sentence."""
    recount_differs: bool


def provenance_of(
    session: StoredSession,
    again: Recounted,
    captured_utc: tuple[str, str] | None,
    end: EndMessage | None,
    health: HealthMessage | None,
    ranges: Mapping[str, tuple[float, float]],
    made_utc: str,
) -> Provenance:
    """`captured_utc`: of the first and the last frame. `made_utc`: when the page is made."""
    rules, runs = session.rules, session.runs()
    backend = "" if health is None else health.backend
    ended = "not ended" if end is None else f"{utc(end.published_utc)} ({end.state}: {end.reason})"
    first, last = captured_utc or ("", "")
    slide = [
        *slide_rows(session.slide),
        *_white_cell_count(session.slide),
        ("Source", session.source),
        ("Frames from", session.address),
        ("Journal", session.path.name),
        ("Session", session.id),
    ]
    times = [
        ("Session begun", utc(session.created_utc)),
        ("First frame", utc(first)),
        ("Last frame", utc(last)),
        ("Session ended", ended if session.ended or end is not None else "not ended"),
        ("Runs of the program", str(len(runs))),
        ("This page made", utc(made_utc)),
    ]
    models = [
        ("Finds the cells", _model(rules.detector)),
        (
            "Names the white cells",
            _model(rules.classifier),
        ),
        ("Measures the white cells", _model(rules.segmenter)),
        ("Ran on", backend or "not noted in the journal"),
        ("Precision", "that of the models' files" if backend.startswith("onnxruntime") else backend or "not noted"),
    ]
    novel = "none" if rules.novel_above is None else f"{rules.novel_above:g}"
    thresholds = [
        ("A box counts from a score of", f"{rules.operating_score:g}"),
        ("A cell has a class from a probability of", f"{rules.class_threshold:g}"),
        ("Unlike the training cells above a novelty of", novel),
        ("Detector's input", f"{number(rules.long_side_px)} pixels, longer side"),
        ("95 % limits", LIMITS_WORDS.get(again.differential.limits_method, again.differential.limits_method)),
        ("Usual ranges", _ranges(ranges)),
    ]
    versions = [
        ("Counted by", f"leukostream {', '.join(dict.fromkeys(run.program for run in runs)) or 'unknown'}"),
        ("Page made by", f"leukostream {__version__}"),
    ]
    groups: list[tuple[str, Rows]] = [
        *(("Slide", slide), ("Times", times), ("Models", models), ("Thresholds", thresholds))
    ]
    signed = [("Signatures", review_of(again).signatures)] if again.corrections.signatures else []
    groups = [*groups, ("Versions", versions), *signed, *_commands(session)]
    return Provenance(groups, *_recounted(session, again))


def utc(text: str) -> str:
    """A time of the journal, to the second; as it is where it is none."""
    date, t, clock = text.partition("T")
    whole, _, _ = clock.removesuffix("Z").partition(".")
    return f"{date} {whole} UTC" if t and text.endswith("Z") else text or "–"


def _white_cell_count(slide: SlideInfo) -> Rows:
    if slide.wbc is None:
        return []
    includes = ", nucleated red cells among them" if slide.wbc_includes_nrbc else ""
    return [("White-cell count from elsewhere", f"{slide.wbc:g} x 10^9/L{includes}")]


def _model(model: ModelId | None) -> str:
    if model is None:
        return "none"
    return model.name if model.sha256 is None else f"{model.name}, SHA-256 {model.sha256}"


def _ranges(ranges: Mapping[str, tuple[float, float]]) -> str:
    if dict(ranges) == dict(FIVE_PART_RANGES):
        return "those that leukostream has for adults; a laboratory sets its own"
    return "as this run was configured"


def _commands(session: StoredSession) -> list[tuple[str, Rows]]:
    rows = []
    for one in session.commands():
        outcome = "" if one.refused is None else f", refused: {one.reason or one.refused}"
        rows.append((f"By {one.by}", f"{one.request.replace('_', ' ')}{outcome}"))
    return [("Commands given", rows)] if rows else []


def _recounted(session: StoredSession, again: Recounted) -> tuple[str, bool]:
    published = last_published(session)
    if published is None or again.last_due is None:
        return "Counted again from the journal for this page. Nothing was published to compare it with.", False
    if published.version.startswith("1."):
        text = f"Counted again from the journal for this page, by other rules than those of {published.version}."
        return f"{text} What was published then is not compared.", False
    message = MessageFactory(session.source, session=session.id, run_id="").differential(again.last_due)
    changes = differences(message, published)
    when = utc(published.published_utc)
    if not changes:
        return f"Counted again from the journal for this page: equal to what was published, {when}.", False
    names = ", ".join(change.removeprefix("another ").partition(" (")[0] for change in changes)
    return (
        f"Counted again from the journal for this page, with another result than was published, {when}: {names} differ."
        " Use the version of leukostream that counted it.",
        True,
    )
