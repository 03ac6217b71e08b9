"""`leukostream qc`: a reference slide counted again beside its accepted result, and what is measured over time.

What is judged is in streamer/qc. recount: counts the reference. history: finds the journals.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from engines.base import LeukostreamError, UsageError
from streamer.commands.options import Parser, add_site_option, number, positive
from streamer.commands.output import say, say_table, writing
from streamer.commands.qc.history import measured_slides
from streamer.commands.qc.recount import counted_again, session_of
from streamer.config import AUTO, DEFAULT_DETECTOR
from streamer.dashboard.words import number as shown
from streamer.journal import opened
from streamer.mosaic.compose import plural
from streamer.qc.counts import counted_slide
from streamer.qc.levey_jennings import BASELINE, LEAST_BASELINE, InstrumentHistory, histories
from streamer.qc.page import Outcome, page
from streamer.qc.reference import LEAST_KAPPA, ReferenceCheck, checked_against
from streamer.qc.westgard import MEANINGS

STATUS = {"pass": 0, "fail": 1, "not judged": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    reference: str | None
    """A recording or another source that ends; None: only the history is judged."""
    accepted: str | None
    source: str | None
    """Of the accepted journal; None: its only one."""
    history: Sequence[str]
    """Journals, and folders of them."""
    baseline: int
    least_kappa: float
    out: str | None
    journal: str | None
    """Where today's count is kept; None: nowhere."""
    detector: str
    classifier: str
    site: str | None


def add_options(parser: Parser) -> None:
    parser.add_argument(
        "reference", metavar="REFERENCE", nargs="?", help="a recording (run --record), or another source that ends"
    )
    reference = parser.add_argument_group("reference", "a slide whose result was accepted once, counted again")
    reference.add_argument("--accepted", metavar="JOURNAL", help="its accepted result")
    reference.add_argument("--source", metavar="NAME", help="which of the accepted journal, where it has several")
    reference.add_argument(
        "--least-kappa", type=number, default=LEAST_KAPPA, metavar="F", help="of the cells that both name, to pass"
    )
    reference.add_argument("--journal", metavar="FILE", help="keep today's count, to be accepted next time")
    time = parser.add_argument_group("over time", "focus, light, colour and cells unlike the training, by instrument")
    time.add_argument(
        "--history", nargs="+", default=[], metavar="JOURNAL|DIR", help="journals, or folders of them (default: none)"
    )
    time.add_argument(
        "--baseline", type=positive, default=BASELINE, metavar="N", help="first slides that mean and SD are taken from"
    )
    output = parser.add_argument_group("output", "a page to read and print")
    output.add_argument("-o", dest="out", metavar="FILE.html", help="one file that needs nothing else")
    models = parser.add_argument_group("models", "that count the reference: today's, unless others are given")
    models.add_argument("--detector", metavar="NAME|FILE", default=DEFAULT_DETECTOR, help="finds the cells")
    models.add_argument("--classifier", metavar="NAME|FILE", default=AUTO, help="names the white cells")
    add_site_option(models)


def main(options: Options) -> int:
    """0: it passes. 1: it does not. 2: it can't be judged."""
    try:
        return _judge(options)
    except UsageError:
        raise
    except LeukostreamError as error:
        raise UsageError(f"qc can't judge: {error}") from error


def _judge(options: Options) -> int:
    _check(options)
    made_utc = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    slides = measured_slides(options.history)  # first: it is quick, and counting the reference may take minutes
    instruments = histories(slides, options.baseline)
    with contextlib.ExitStack() as stack:
        check = _reference(options, stack)
    outcome = _outcome(check, instruments)
    say(f"{outcome.state.upper()}: {'; '.join(outcome.reasons)}")
    if check is not None:
        _say_reference(check)
    for one in instruments:
        _say_history(one)
    if options.out is not None:
        with writing(options.out) as file:
            file.write(page(outcome, check, instruments, made_utc=made_utc).encode())
    return STATUS[outcome.state]


def _check(options: Options) -> None:
    if options.reference is None and not options.history:
        raise UsageError("qc: got neither REFERENCE nor --history, expected one of them, or both")
    if (options.reference is None) != (options.accepted is None):
        got, expected = (
            ("--accepted", "REFERENCE") if options.reference is None else ("REFERENCE", "--accepted JOURNAL")
        )
        raise UsageError(f"qc: got {got} without {expected}, expected both: the slide, and its accepted result")
    if options.journal is not None and options.reference is None:
        raise UsageError("--journal: got no REFERENCE, expected one whose count is to be kept")
    if options.baseline < LEAST_BASELINE:
        raise UsageError(f"--baseline: got {options.baseline}, expected at least {LEAST_BASELINE} slides")
    if not 0.0 <= options.least_kappa <= 1.0:
        raise UsageError(f"--least-kappa: got {options.least_kappa:g}, expected 0 to 1")


def _reference(options: Options, stack: contextlib.ExitStack) -> ReferenceCheck | None:
    if options.reference is None or options.accepted is None:
        return None
    accepted = session_of(stack.enter_context(opened(options.accepted)), options.source)
    models = {"detector": options.detector, "classifier": options.classifier, "site": options.site}
    now = stack.enter_context(counted_again(options.reference, accepted, options.journal, models))
    return checked_against(
        counted_slide(accepted),
        counted_slide(now.session),
        recording=now.recording,
        least_kappa=options.least_kappa,
    )


def _outcome(check: ReferenceCheck | None, instruments: Sequence[InstrumentHistory]) -> Outcome:
    bad = [] if check is None else [f"reference {check.slide}: {failure}" for failure in check.failures]
    for one in instruments:
        for chart, point in one.out_of_control:
            score = "" if point.z is None else f" ({point.z:+.1f} SD)"
            what = f"{chart.measure.name.lower()} of {point.slide.name}{score}"
            bad.append(f"{one.instrument}: {what} breaks {', '.join(point.rules)}")
    if bad:
        return Outcome("fail", bad)
    good = [] if check is None else [f"reference {check.slide}: {', '.join(_passed(check))}"]
    judged = check is not None or any(one.judged for one in instruments)
    return Outcome("pass" if judged else "not judged", [*good, *map(_in_control, instruments)])


def _passed(check: ReferenceCheck) -> Iterator[str]:
    yield f"{sum(one.expected is not None for one in check.classes)} classes within sampling"
    if not isinstance(check.kappa, str):
        yield f"{shown(check.found)} of {shown(check.accepted.total)} white cells found again"
        yield f"kappa {shown(check.kappa[0].kappa, 2)}"
    now = check.verdicts[1]
    yield f"verdict {now or 'none'}{' as accepted' if now == check.verdicts[0] else ''}"
    if check.changes:
        yield f"changed: {', '.join(one.what for one in check.changes)}"


def _in_control(one: InstrumentHistory) -> str:
    slides = plural(len(one.slides), "slide")
    if not one.judged:
        return f"{one.instrument}: {slides}, too few for a baseline of {one.baseline} and what follows"
    return f"{one.instrument}: the newest of {slides} is in control"


def _say_reference(check: ReferenceCheck) -> None:
    say(f"{check.slide}: {shown(check.accepted.total)} white cells accepted, {shown(check.now.total)} now")
    if check.classes:
        rows = [("class", "accepted", "now", "expected", "")]
        for one in check.classes:
            expected = "–" if one.expected is None else "–".join(map(shown, one.expected))
            words = "DIFFERS" if one.differs else "within sampling" if one.expected else "not counted on one side"
            rows.append((one.name, shown(one.first), shown(one.second), expected, words))
        say_table(rows)
    if isinstance(check.kappa, str):
        say(f"  kappa: not measurable: {check.kappa}")
    else:
        found, unnamed, differing = check.kappa
        left_out = f"; {shown(unnamed)} that one side left unclassified are left out" if unnamed else ""
        alike = f"{shown(found.agreed)} of {shown(found.cells)} have the same name"
        say(f"  kappa: {shown(found.kappa, 2)}: {alike}{left_out}")
        if differing:
            say(f"  most often accepted and now: {'; '.join(f'{a} and {b} ({n})' for a, b, n in differing)}")
    then, now = (state or "none" for state in check.verdicts)
    say(f"  verdict: {then} accepted, {now} now")
    for change in check.changes:
        say(f"  changed: {change.what}: {change.accepted} accepted, {change.now} now")


def _say_history(one: InstrumentHistory) -> None:
    say(f"{one.instrument}: {plural(len(one.slides), 'slide')}, {shown(one.judged)} judged")
    waiting = [chart.measure.name.lower() for chart in one.charts if chart.mean is None]
    if waiting:
        say(f"  no baseline of {one.baseline} slides: {', '.join(waiting)}")
    rows = [("slide", "measure", "value", "SD", "rules")]
    for chart, point in one.violations:
        rules = "; ".join(f"{rule} ({MEANINGS[rule]})" for rule in point.rules)
        value = f"{shown(point.value, chart.measure.digits)} {chart.measure.unit}".strip()
        rows.append((point.slide.name, chart.measure.name.lower(), value, f"{point.z:+.1f}", rules))
    if len(rows) > 1:
        say_table(rows)
