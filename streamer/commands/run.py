"""`leukostream run`, `demo` and `watch`: they put the parts together and give an exit status."""

from __future__ import annotations

import contextlib
import difflib
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

import cv2
import msgspec

from engines.backends.onnxruntime import Threads
from engines.base import UsageError, usable_cores
from engines.models.classifier import Classifier
from engines.models.own_classes import OwnClasses
from streamer.analysis.magnification import MeasuredSource
from streamer.analysis.models import Analysers, load_models
from streamer.commands.models import accuracy_note
from streamer.config import FIVE_PART_RANGES, Config, load_config
from streamer.counting.decision import ClassDecision
from streamer.counting.differential import KNOWN_CONDITIONS
from streamer.counting.morphometry import ShapeMeter
from streamer.dashboard import Dashboard, Front, PlainReporter, format_differential, is_usable
from streamer.journal import JournaledSource, JournalHistory, Rules, RunJournal, SessionJournal, rules_of
from streamer.network.history import History
from streamer.network.publisher import Publisher
from streamer.network.subscriber import Subscriber
from streamer.protocol.factory import MessageFactory, new_id
from streamer.protocol.messages import DifferentialMessage, Envelope, Sink
from streamer.recording import Recorder, TrackInfo
from streamer.records import Mode, RecordingStatus, Skip
from streamer.run.pipeline import Limits, Pipeline, RunOutputs
from streamer.run.session import SlideSession
from streamer.run.tuning import collect_rarely, keep_freed_memory
from streamer.sinks.jsonl import JsonLines
from streamer.sinks.pictures import PictureMaker
from streamer.sources import Source, SourceAddress, open_source, parse_source, unique_names

if TYPE_CHECKING:
    from streamer.sinks.metrics import Metrics

DEMO_SOURCE = "slide=sim:seed=7,cells=200"
DEMO_SOURCE_PLAIN = "slide=sim:seed=7,cells=100"
"""Where nobody watches, the slide is smaller and analysed as fast as it goes."""

DEMO_ENDPOINT = "tcp://127.0.0.1:*"
"""Any free port of this machine; the demo says which."""

DEMO_LIMIT_S = 45.0
"""After so long the demo ends where output is no terminal; a slow machine shows less of the slide."""

MOST_WORKERS = 4

USUAL_CAMERA = (640, 480)
"""Width and height that most cameras start with, and the simulated one."""

FAREWELL_S = 0.5
"""How long, at the end, subscribers may still ask for what they missed."""


def run(config: Config) -> int:
    """Analyse the sources of the configuration until they end or the user stops it."""
    if not config.source:
        raise UsageError("got no source, expected --source [NAME=]SRC (to try it out: leukostream run --source sim:)")
    keep_freed_memory()
    cv2.setNumThreads(1)  # frames are analysed side by side; OpenCV's own threads would only get in between
    with _metrics(config) as metrics:  # first of all, so that it says what is starting
        return _run(config, metrics)


def _run(config: Config, metrics: Metrics | None) -> int:
    sources = _open_sources(config)
    # Where the messages go to standard output, everything for people goes to standard error.
    people = sys.stderr if config.jsonl == "-" else sys.stdout
    # On the dashboard's screen lines would stand in the way; what goes to standard error is held back meanwhile.
    say = _Lines(sys.stderr if _on_dashboard(config, people) else people)
    models = load_models(config, [source.name for source, _ in sources], Threads(config.threads, _workers(config)), say)
    for source, mode in sources:
        if mode == "live":
            models[source.name].detector.prepare(*USUAL_CAMERA)  # or frames would be dropped while the engine loads
    collect_rarely()
    for one in dict.fromkeys(models.values()):
        _check_statistics(config, one.classifier)
    classifiers = [one.classifier for one in models.values() if one.classifier is not None]
    note = " ".join(dict.fromkeys(filter(None, (accuracy_note(classifier.card) for classifier in classifiers)))) or None
    front = _front(config, people, note)
    for remark in dict.fromkeys(remark for one in models.values() for remark in one.detector.card.notes):
        _tell(remark)
    with contextlib.ExitStack() as stack:
        run_id = new_id()
        rules = {name: rules_of(one.detector, one.classifier, one.segmenter) for name, one in models.items()}
        journal = _journal(config, sources, rules, run_id)
        if journal is not None:
            stack.callback(journal.close)
            sources = [(source, mode) for source, (_, mode) in zip(journal.sources, sources, strict=True)]
        append = journal is not None and journal.journal.resumed
        utc_offset_ns = time.time_ns() - time.monotonic_ns()
        recorder = _recorder(config, sources, run_id, utc_offset_ns)
        if recorder is not None:
            stack.callback(recorder.abandon)
        jsonl = JsonLines(config.jsonl, append=append, on_fault=_tell) if config.jsonl is not None else None
        history = JournalHistory(journal.stored()) if journal else None
        publisher = _publisher(config, people, history)
        sinks: list[Sink] = [sink for sink in (jsonl, publisher, metrics) if sink is not None]
        for sink in sinks:
            stack.callback(sink.close)

        def new_session(source: str) -> SlideSession:
            return make_session(source, journal.session(source) if journal else None)

        def next_session(source: str) -> SlideSession:
            kept = journal.next_session(source) if journal else None
            if history is not None and kept is not None:
                history.add(kept.stored)
            return make_session(source, kept)

        def make_session(source: str, kept: SessionJournal | None) -> SlideSession:
            factory = MessageFactory(
                source,
                session=kept.stored.id if kept else new_id(),
                run_id=run_id,
                next_session_seq=kept.stored.next_seq if kept else 0,
                utc_offset_ns=utc_offset_ns,
            )
            own = models[source]
            return SlideSession(
                factory,
                ClassDecision.of(own.classifier) if own.classifier else None,
                operating_score=own.detector.card.thresholds.operating,
                min_score=config.min_score,
                reference_ranges=config.reference_ranges,
                stop_at_precision=config.stop_at_precision,
                journal=kept,
                shapes=ShapeMeter(own.segmenter, own.um_per_px) if own.segmenter else None,
            )

        measured = [(MeasuredSource(source, models[source.name].magnification), mode) for source, mode in sources]
        pipeline = Pipeline(
            measured,
            Analysers({name: one.analyser for name, one in models.items()}),
            new_session,
            RunOutputs(
                [*sinks, front],
                service=publisher.service if publisher else lambda: None,
                show=front.show,
                picture=PictureMaker(publisher.wants_picture if publisher else lambda source: False).picture,
                stream=publisher.health if publisher else lambda: None,
                on_skip=_tell_skip,
                recorder=recorder,
            ),
            _limits(config, max(one.detector.batch for one in models.values())),
            next_session=next_session,
            models=lambda source: models[source].health(),
        )
        if publisher is not None:
            publisher.obey(pipeline.controls)
        say.begin()
        if metrics is not None:
            metrics.stopping = lambda: pipeline.stopping
        try:
            with _stop_on_signals(pipeline), front:
                pipeline.start()
                _keep_front(front, pipeline, jsonl, config.stop_after_s)
                pipeline.finish()
        finally:
            if isinstance(front, Dashboard):  # its screen is gone; the plain front printed them itself
                for final in pipeline.finals.values():
                    print(format_differential(final, note), file=people)
            if recorder is not None:
                print(_told_recording(config.record, recorder.health()), file=people)
    return 0


class _Lines:
    """Lines for people that are kept until the run begins: one that can't begin says only why."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._kept: list[str] | None = []

    def __call__(self, line: str) -> None:
        if self._kept is None:
            print(f"leukostream: {line}", file=self._out, flush=True)
        else:
            self._kept.append(line)

    def begin(self) -> None:
        kept, self._kept = self._kept or [], None
        for line in kept:
            self(line)


def demo(options: dict[str, Any]) -> int:
    """The simulated slide: paced like a camera where somebody watches, else as fast as it goes and within a minute."""
    watched = is_usable(sys.stdout) and options.get("dashboard") is not False
    overrides = {
        "source": (DEMO_SOURCE if watched else DEMO_SOURCE_PLAIN,),
        "mode": "live" if watched else "analysis",
        "publish": DEMO_ENDPOINT,
        **options,
    }
    if not watched:
        overrides["stop_after_s"] = DEMO_LIMIT_S
    return run(load_config(None, overrides))


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
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
        if name not in known and near:
            raise UsageError(
                f"reference_ranges: got {name!r}, which {card.name} does not name; did you mean {near[0]!r}?"
            )


def _open_sources(config: Config) -> list[tuple[Source, Mode]]:
    sources = []
    for address in unique_names([parse_source(text) for text in config.source]):
        source = open_source(address, mode=config.mode)
        sources.append((source, config.mode or source.default_mode))
        for remark in getattr(source, "remarks", ()):
            _tell(remark)
    return sources


def _journal(
    config: Config, sources: Sequence[tuple[Source, Mode]], rules: Mapping[str, Rules], run_id: str
) -> RunJournal | None:
    if config.journal is None:
        if config.resume:
            raise UsageError("--resume: got no --journal, expected the journal of the run that is to be resumed")
        return None
    addresses = unique_names([parse_source(text) for text in config.source])
    journaled = [
        JournaledSource(source, _whole_address(address))
        for (source, _), address in zip(sources, addresses, strict=True)
    ]
    configuration = msgspec.json.encode(config).decode()
    return RunJournal(
        config.journal,
        journaled,
        rules,
        resume=config.resume,
        run_id=run_id,
        configuration=configuration,
        on_remark=_tell,
    )


def _recorder(
    config: Config, sources: Sequence[tuple[Source, Mode]], run_id: str, utc_offset_ns: int
) -> Recorder | None:
    if config.record is None:
        return None
    addresses = unique_names([parse_source(text) for text in config.source])
    tracks = [
        TrackInfo(source.name, _whole_address(address), mode)
        for (source, mode), address in zip(sources, addresses, strict=True)
    ]
    return Recorder(
        config.record,
        tracks,
        run_id=run_id,
        keep=config.record_as,
        go_on=config.resume,
        utc_offset_ns=utc_offset_ns,
        on_fault=_tell,
    )


def _told_recording(path: str | None, health: RecordingStatus) -> str:
    lost = {"frames": health.frames_lost, "messages": health.messages_lost}
    told = [f"lost {count} {what} ({reason})" for what, reasons in lost.items() for reason, count in reasons.items()]
    size = f"{health.file_bytes / 1e6:.1f} MB"
    return "; ".join([f"recorded {health.frames} frames and {health.messages} messages to {path}, {size}", *told])


def _whole_address(address: SourceAddress) -> str:
    """The same for the same source, from whatever folder it is named."""
    shown = os.path.realpath(os.path.expanduser(address.shown)) if address.kind == "path" else address.shown
    return f"{address.kind}:{shown}"


def _workers(config: Config) -> int:
    return config.workers or min(usable_cores(), MOST_WORKERS)


def _limits(config: Config, max_batch: int) -> Limits:
    return Limits(
        workers=_workers(config),
        max_batch=max_batch,
        stale_after_ms=config.stale_after_ms,
        max_wait_ms=config.max_wait_ms,
        queue=config.queue,
        health_interval_s=config.health_interval_s,
        stop_at=config.stop_at,
    )


def _publisher(config: Config, people: TextIO, history: History | None) -> Publisher | None:
    if config.publish is None:
        return None
    publisher = Publisher(
        config.publish,
        insecure=config.insecure,
        keys=config.keys,
        control=config.control,
        history=history,
        farewell_s=FAREWELL_S,
    )
    print(f"publishing on {publisher.endpoint}", file=people, flush=True)
    return publisher


def _on_dashboard(config: Config, people: TextIO) -> bool:
    return config.dashboard is not False and is_usable(people)


@contextlib.contextmanager
def _metrics(config: Config) -> Iterator[Metrics | None]:
    """Health over HTTP while the run lasts, if it is asked for."""
    if config.metrics is None:
        yield None
        return
    from streamer.sinks.metrics import Metrics, MetricsServer

    metrics = Metrics()
    server = MetricsServer(config.metrics, metrics, insecure=config.insecure)
    _tell(f"metrics at {server.url}/metrics")
    try:
        yield metrics
    finally:
        server.close()


def _front(config: Config, people: TextIO, note: str | None) -> Front:
    """The dashboard where people watch a terminal, else plain lines."""
    if config.dashboard and not is_usable(people):
        raise UsageError(
            "--dashboard: got an output that is no terminal, expected one; leave the option out for plain lines"
        )
    if _on_dashboard(config, people):
        return Dashboard(people, picture=config.picture, map_=config.map, note=note, ranges=config.reference_ranges)
    return PlainReporter(people, note=note)


def _keep_front(front: Front, pipeline: Pipeline, jsonl: JsonLines | None, stop_after_s: float | None) -> None:
    """Show until the pipeline ends, the user quits, the reader of our output left, or the time is over."""
    until = None if stop_after_s is None else time.monotonic() + stop_after_s

    def on() -> bool:
        over = until is not None and time.monotonic() >= until
        if over or (jsonl is not None and jsonl.reader_gone):
            pipeline.stop()
        return pipeline.running

    front.run(on)
    if front.quit_requested:
        pipeline.stop()


@contextlib.contextmanager
def _stop_on_signals(pipeline: Pipeline) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the run as its sources' end would: what was read is published, with the differential."""

    def stop(number: int, _: FrameType | None) -> None:
        pipeline.stop()
        signal.signal(number, previous[number])  # the second time it is meant as it always was

    previous = {int(number): signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _tell(text: str) -> None:
    print(f"leukostream: {text}", file=sys.stderr, flush=True)


def _tell_skip(skip: Skip) -> None:
    _tell(f"{skip.source}: skipped {skip.what}: {skip.detail}")


def watch(endpoint: str, shown: dict[str, bool], *, keys: tuple[str | None, str | None] = (None, None)) -> int:
    """The dashboard of a streamer elsewhere, until it publishes its final differential or the user leaves.

    `shown`: what is to be shown, by field of Config.
    """
    front = _front(load_config(None, shown), sys.stdout, None)
    with Subscriber(endpoint, keys=keys[0], server_key=keys[1]) as subscriber, front:
        final: dict[str, bool] = {}
        while not front.quit_requested and not (final and all(final.values())):
            received = subscriber.receive(front.tick(time.monotonic_ns()))
            while received is not None:
                message = received.message
                if not isinstance(message, Envelope):
                    front.publish(message, received.payload)
                    known = final.setdefault(message.source, False)
                    final[message.source] = message.final if isinstance(message, DifferentialMessage) else known
                received = subscriber.receive(0)
    return 0
