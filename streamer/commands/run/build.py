"""Puts the parts of a run together, and shows it until it ends."""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, Protocol, TextIO, TypeVar

import cv2
import msgspec

from engines.backends.choice import Say
from engines.backends.onnxruntime import Threads
from engines.base import UsageError, near, usable_cores
from engines.models.classifier import Classifier
from engines.models.own_classes import OwnClasses
from engines.models.site import find_site
from streamer.analysis.magnification import MeasuredSource
from streamer.analysis.models import Analysers, SourceModels, load_models
from streamer.commands.display import draws_dashboard, open_display
from streamer.commands.models import accuracy_note
from streamer.commands.output import remark, say
from streamer.commands.run.area import area_summary, check_area
from streamer.commands.run.elsewhere import Inference, open_inference
from streamer.commands.run.ending import losses, recording_summary, show_until_end, stop_on_signals
from streamer.commands.run.reporting import ReportAtEnd
from streamer.commands.run.sessions import Models, RunStamp, SessionMaker
from streamer.commands.run.slides import slides_of
from streamer.commands.run.sources import OpenedSource, ignored_boxes, open_sources
from streamer.config import AUTO, FIVE_PART_RANGES, Config
from streamer.counting.differential import KNOWN_CONDITIONS
from streamer.dashboard import Dashboard, Display, format_differential, shows_anything
from streamer.journal import JournaledSource, JournalHistory, RunJournal, rules_of
from streamer.network.publisher import Publisher
from streamer.protocol.messages import Sink
from streamer.recording import Recorder, TrackInfo
from streamer.records import Frame, Mode, ModelHealth, Skip, SlideInfo
from streamer.run.local_commands import LocalCommands
from streamer.run.pipeline import Limits, Pipeline, RunOutputs
from streamer.run.stage_process import StageProcesses
from streamer.run.tuning import collect_rarely, keep_freed_memory, release_freed_memory
from streamer.sinks.jsonl import JsonLines
from streamer.sinks.pictures import PictureMaker
from streamer.sources.base import Source, length_of

if TYPE_CHECKING:
    from streamer.sinks.metrics import Metrics

MOST_WORKERS = 4

USUAL_CAMERA = (640, 480)
"""Width and height that most cameras start with, and the simulated one."""


class Viewer(Sink, Protocol):
    """A sink that gets the frames too: a display, or the program that has asked for them."""

    def show(self, frame: Frame) -> None:
        """Hand over a frame; its messages follow. Called on the publishing thread."""


AnyViewer = TypeVar("AnyViewer", bound=Viewer)


@dataclass(frozen=True, slots=True, eq=False)
class Assembled(Generic[AnyViewer]):
    """The parts of a run that has not started yet."""

    pipeline: Pipeline
    viewer: AnyViewer
    sources: Sequence[OpenedSource]
    models: Models
    keyboard: LocalCommands
    jsonl: JsonLines | None
    publisher: Publisher | None
    recorder: Recorder | None
    report: ReportAtEnd | None
    note: str | None
    """What the classifiers get wrong, for people."""


def run(config: Config, sinks: Sequence[Sink] = (), known: Mapping[str, SlideInfo] | None = None) -> int:
    """Analyse the sources of the configuration until they end or the user stops it. `sinks` get the messages too.
    `known`: what was said of their slides elsewhere, by source; the configuration wins."""
    if not config.source:
        raise UsageError("got no source, expected --source [NAME=]SRC (to try it out: leukostream run --source sim:)")
    keep_freed_memory()
    # Where the messages go to standard output, everything for people goes to standard error.
    people = sys.stderr if config.jsonl == "-" else sys.stdout
    # On the dashboard's screen lines would stand in the way; what goes to standard error is held back meanwhile.
    held = _HeldLines(sys.stderr if draws_dashboard(config, people) else people)

    def display_of(note: str | None, opened: Mapping[str, Source]) -> Display:
        return open_display(config, people, note, lengths=lambda: _lengths(opened))

    with assembled(config, people, held, display_of, sinks, known) as parts:
        pipeline, display = parts.pipeline, parts.viewer
        if isinstance(display, Dashboard):
            display.obey(parts.keyboard)
        collect_rarely()
        release_freed_memory()
        held.begin()
        try:
            with stop_on_signals(pipeline, parts.publisher, display), display:
                pipeline.start()
                if parts.report is not None:
                    parts.report.is_due = True
                show_until_end(display, pipeline, parts.jsonl, config.stop_after_s)
                pipeline.finish()
                display.stay()
        finally:
            if isinstance(display, Dashboard):  # its screen is gone; plain lines had them already
                for final in filter(shows_anything, pipeline.finals.values()):
                    print(format_differential(final, parts.note), file=people)
            for name, area, audit in pipeline.looked():
                say(area_summary(name, area, audit), people)
            if parts.publisher is not None and (lost := losses(parts.publisher)):
                say(lost, people)
            if parts.recorder is not None:
                say(recording_summary(config.record, parts.recorder.health()), people)
        if parts.jsonl is not None:
            parts.jsonl.check()
    return 0


@contextlib.contextmanager
def assembled(
    config: Config,
    people: TextIO,
    tell: Say,
    viewer_of: Callable[[str | None, Mapping[str, Source]], AnyViewer],
    more_sinks: Sequence[Sink] = (),
    known: Mapping[str, SlideInfo] | None = None,
) -> Iterator[Assembled[AnyViewer]]:
    """The parts of a run, to be started and finished inside; leaving closes what it opened, and writes the report that
    is due. `tell` gets what there is to say before the start, `people` what is said then. `viewer_of` makes the viewer,
    given the note on what the classifiers get wrong, and the sources by name. `more_sinks` get the messages too.
    `known` as of `run`."""
    if config.resume and config.journal is None:
        raise UsageError("--resume: got no --journal, expected the journal of the run that is to be resumed")
    with (
        _one_thread_of_opencv(),  # frames are analysed side by side; OpenCV's own threads would only get in between
        _metrics(config) as metrics,  # first of all, so that it says what is starting
        contextlib.ExitStack() as outer,
        _assembled(config, metrics, outer, people, tell, viewer_of, more_sinks, known or {}) as parts,
    ):
        yield parts


@contextlib.contextmanager
def _assembled(
    config: Config,
    metrics: Metrics | None,
    outer: contextlib.ExitStack,
    people: TextIO,
    held: Say,
    viewer_of: Callable[[str | None, Mapping[str, Source]], AnyViewer],
    more_sinks: Sequence[Sink],
    known: Mapping[str, SlideInfo],
) -> Iterator[Assembled[AnyViewer]]:
    """`outer` closes what is needed until everything of the run is closed."""
    config = with_site(config, held)
    sources = list(open_sources(config))
    check_area(config, sources)
    ignored_px = ignored_boxes(config.ignore_box, [one.name for one in sources])
    slides = slides_of(config, [one.name for one in sources], known)
    stages = stage_processes([one.name for one in sources])
    outer.callback(stages.end)
    inference = open_inference(config, held)
    if inference is not None:
        outer.callback(inference.close)
    threads = Threads(model_threads(config, [one.mode for one in sources], usable_cores()), _workers(config))
    elsewhere = None if inference is None else inference.engine
    models = load_models(config, [one.name for one in sources], threads, held, elsewhere)
    for one in models.values():
        outer.callback(one.close)
    _prepare(sources, models)
    for one in dict.fromkeys(models.values()):
        _check_statistics(config, one.classifier)
    note = _accuracy_notes(models)
    viewer = viewer_of(note, {one.name: one.source for one in sources})
    for line in dict.fromkeys(line for one in models.values() for line in one.detector.card.notes):
        remark(line)
    with contextlib.ExitStack() as stack:
        report = None
        if config.report is not None:
            report = stack.enter_context(ReportAtEnd(config.report, config.journal, people))
            config = msgspec.structs.replace(config, journal=report.journal)
        stamp = RunStamp()
        journal = _open_journal(config, sources, models, stamp)
        history = None
        if journal is not None:
            stack.callback(journal.close)
            history = JournalHistory(journal.stored())
            sources = [replace(one, source=source) for one, source in zip(sources, journal.sources, strict=True)]
        recorder = _open_recorder(config, sources, stamp)
        if recorder is not None:
            stack.callback(recorder.abandon)
        append = journal is not None and journal.journal.resumed
        jsonl = JsonLines(config.jsonl, append=append, on_fault=remark) if config.jsonl is not None else None
        publisher = _open_publisher(config, history, people)
        sinks: list[Sink] = [sink for sink in (jsonl, publisher, metrics, *more_sinks) if sink is not None]
        for sink in sinks:
            stack.callback(sink.close)
        sessions = SessionMaker(config, models, stamp, journal, history, ignored_px, slides, stages.by_source)
        keyboard = LocalCommands(lambda: pipeline.stop("by the user"))
        pipeline = Pipeline(
            [(MeasuredSource(one.source, models[one.name].magnification), one.mode) for one in sources],
            Analysers({name: one.analyser for name, one in models.items()}),
            sessions.first,
            RunOutputs(
                [*sinks, viewer],
                service=lambda: _serve(publisher, keyboard),
                show=viewer.show,
                picture=PictureMaker(publisher.wants_picture if publisher else lambda source: False).picture,
                stream=publisher.health if publisher else lambda: None,
                on_skip=_report_skip,
                lines_lost=lambda: None if jsonl is None else jsonl.lost,
                recorder=recorder,
            ),
            _limits(config, max(one.detector.batch for one in models.values())),
            next_session=sessions.next,
            measuring=stages.by_source,
            models=lambda source: _health(models[source], inference),
        )
        keyboard.controls = pipeline.controls
        if publisher is not None:
            publisher.obey(pipeline.controls)
        if metrics is not None:
            metrics.stopping = lambda: pipeline.stopping
        yield Assembled(pipeline, viewer, sources, models, keyboard, jsonl, publisher, recorder, report, note)


@contextlib.contextmanager
def _one_thread_of_opencv() -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


class _HeldLines:
    """Lines for people that are kept until the run begins: one that can't begin says only why."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._kept: list[str] | None = []

    def __call__(self, line: str) -> None:
        if self._kept is None:
            remark(line, self._out)
        else:
            self._kept.append(line)

    def begin(self) -> None:
        kept, self._kept = self._kept or [], None
        for line in kept:
            self(line)


def with_site(config: Config, say: Say) -> Config:
    """With the profile of its site as classifier, where it has one; UsageError where another one is given too."""
    if config.site is None:
        return config
    if config.classifier != AUTO:
        raise UsageError("--site: got --classifier too, expected one of them; the profile is a classifier")
    profile = find_site(config.site)
    say(str(profile))
    return msgspec.structs.replace(config, classifier=profile.model)


def _prepare(sources: Iterable[OpenedSource], models: Models) -> None:
    for one in sources:
        if one.mode == "live":
            models[one.name].detector.prepare(*USUAL_CAMERA)  # or frames would be dropped while the engine loads


def _health(models: SourceModels, inference: Inference | None) -> ModelHealth:
    health = models.health()
    return health if inference is None else msgspec.structs.replace(health, inference=inference.status())


def _check_statistics(config: Config, classifier: Classifier | OwnClasses | None) -> None:
    """UsageError where what was asked for can't be computed from the classes of this classifier."""
    if classifier is None:
        if config.stop_at_precision is not None:
            raise UsageError(
                "--stop-at-precision: got no classifier, expected one: without classes there are no limits; "
                "use --stop-at N"
            )
        return
    card = classifier.card
    known = [*card.class_names, *(entry.name for entry in card.subclasses), *KNOWN_CONDITIONS, *FIVE_PART_RANGES]
    for name in config.reference_ranges:
        if name not in known and (hint := near(name, known, cutoff=0.8)):
            raise UsageError(f"reference_ranges: got {name!r}, which {card.name} does not name{hint}")


def _accuracy_notes(models: Models) -> str | None:
    notes = [accuracy_note(one.classifier.card) for one in models.values() if one.classifier is not None]
    return " ".join(dict.fromkeys(filter(None, notes))) or None


def _open_journal(
    config: Config, sources: Sequence[OpenedSource], models: Models, stamp: RunStamp
) -> RunJournal | None:
    if config.journal is None:
        return None
    return RunJournal(
        config.journal,
        [JournaledSource(one.source, one.address) for one in sources],
        {name: rules_of(one.detector, one.classifier, one.segmenter) for name, one in models.items()},
        resume=config.resume,
        run_id=stamp.run_id,
        configuration=msgspec.json.encode(config).decode(),
        on_remark=remark,
        passed=lambda frame: models[frame.source].magnification.look(frame),
    )


def _open_recorder(config: Config, sources: Sequence[OpenedSource], stamp: RunStamp) -> Recorder | None:
    if config.record is None:
        return None
    return Recorder(
        config.record,
        [TrackInfo(one.name, one.address, one.mode) for one in sources],
        run_id=stamp.run_id,
        keep=config.record_as,
        go_on=config.resume,
        utc_offset_ns=stamp.utc_offset_ns,
        on_fault=remark,
    )


def _open_publisher(config: Config, history: JournalHistory | None, people: TextIO) -> Publisher | None:
    if config.publish is None:
        return None
    publisher = Publisher(
        config.publish,
        insecure=config.insecure,
        keys=config.keys,
        control=config.control,
        history=history,
        linger_s=config.linger,
    )
    say(f"publishing on {publisher.endpoint}", people)
    return publisher


@contextlib.contextmanager
def _metrics(config: Config) -> Iterator[Metrics | None]:
    """Health over HTTP while the run lasts, if it is asked for."""
    if config.metrics is None:
        yield None
        return
    from streamer.sinks.metrics import Metrics
    from streamer.sinks.metrics_server import MetricsServer

    metrics = Metrics()
    server = MetricsServer(config.metrics, metrics, insecure=config.insecure)
    remark(f"metrics at {server.url}/metrics")
    try:
        yield metrics
    finally:
        server.close()


def _workers(config: Config) -> int:
    return config.workers or min(usable_cores(), MOST_WORKERS)


def stage_processes(sources: Sequence[str]) -> StageProcesses:
    """Where the frames of sources are placed: in processes beside this one, as many as there are cores; in none, so
    here, where there is one core, or where this one is a worker of others."""
    is_alone = multiprocessing.parent_process() is None and usable_cores() > 1
    return StageProcesses(sources if is_alone else (), usable_cores())


def model_threads(config: Config, modes: Sequence[Mode], cores: int) -> int:
    """Of one model call, for sources in these modes. Frames that are all looked at are looked at side by side, which
    costs the least. Where most are not, a look is waited for before the next frames are decided on: cores that are idle
    then may help it, but for the one that places and counts meanwhile, where frames come as fast as they are taken."""
    if config.threads is not None or config.every_frame:
        return config.threads or 1
    free = cores - 1 if "analysis" in modes else cores
    return max(1, min(MOST_WORKERS, free // len(modes)))


def _limits(config: Config, max_batch: int) -> Limits:
    return Limits(
        workers=_workers(config),
        max_batch=max_batch,
        stale_after_ms=config.stale_after_ms,
        max_wait_ms=config.max_wait_ms,
        queue=config.queue,
        health_interval_s=config.health_interval_s,
        stop_at=config.stop_at,
        wait_s=config.wait,
    )


def _serve(publisher: Publisher | None, keyboard: LocalCommands) -> None:
    keyboard.serve()
    if publisher is not None:
        publisher.service()


def _lengths(sources: Mapping[str, Source]) -> dict[str, int]:
    """Frames that each source holds, where it has an end and is open."""
    return {name: length for name, source in sources.items() if (length := length_of(source)) is not None}


def _report_skip(skip: Skip) -> None:
    remark(f"{skip.source}: skipped {skip.what}: {skip.detail}")
