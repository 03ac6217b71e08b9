"""The sink that keeps the newest of what a run publishes, as metrics of Prometheus; metrics_server serves them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import get_args

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
    StateSetMetricFamily,
)
from prometheus_client.registry import Collector

from streamer import __version__
from streamer.protocol.messages import AnyMessage, DifferentialMessage, HealthMessage
from streamer.records import UNCLASSIFIED, InferenceStatus, VerdictState
from streamer.sinks.readiness import RUN_STATES, Readiness, RunWatch

_SOURCE_STATES = ("starting", "open", "reopening", "ended", "failed")
QUANTILES = {"p50": "0.5", "p95": "0.95", "p99": "0.99"}


class Metrics(Collector):
    """A sink that keeps the newest of what is published, and gives it to Prometheus."""

    def __init__(self, now_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self.stopping: Callable[[], bool] = lambda: False
        """Whether the run has been told to stop, or its sources have ended."""
        self._lock = threading.Lock()
        self._watch = RunWatch(now_ns)
        self._health: dict[str, HealthMessage] = {}
        self._differentials: dict[str, DifferentialMessage] = {}

    def publish(self, message: AnyMessage, payload: bytes | None = None) -> None:
        with self._lock:
            self._watch.take(message)
            if isinstance(message, HealthMessage):
                self._health[message.source] = message
            elif isinstance(message, DifferentialMessage):
                self._differentials[message.source] = message

    def close(self) -> None:
        """Nothing to free: the last values can still be read."""

    def readiness(self) -> Readiness:
        with self._lock:
            return self._watch.readiness(stopping=self.stopping())

    def collect(self) -> Iterator[Metric]:
        state = self.readiness().state
        with self._lock:
            health, differentials = dict(self._health), dict(self._differentials)
        yield StateSetMetricFamily(
            "leukostream_state", "How the run does.", {name: name == state for name in RUN_STATES}
        )
        if health:
            newest = max(health.values(), key=lambda message: message.published_ns)
            yield from _of_run(newest)
        yield from _of_sources(health)
        yield from _of_counts(differentials)


def _of_run(health: HealthMessage) -> Iterator[Metric]:
    info = {
        "version": __version__,
        "run_id": health.run_id,
        "backend": health.backend,
        "detector": health.detector,
        "classifier": health.classifier or "none",
    }
    yield InfoMetricFamily("leukostream", "What runs.", info)
    yield GaugeMetricFamily("leukostream_uptime_seconds", "Since the process started.", health.uptime_s)
    if health.jsonl_lost is not None:
        yield CounterMetricFamily("leukostream_jsonl_lost", "Lines of JSON that were not written.", health.jsonl_lost)
    if health.inference is not None:
        yield from _of_inference(health.inference)
    stream = health.stream
    if stream is None:
        return
    if stream.connections is not None:
        yield GaugeMetricFamily("leukostream_stream_connections", "Over both sockets.", stream.connections)
    yield _counter("leukostream_stream_lost", "Messages that found a subscriber's queue full.", "type", stream.lost)
    yield CounterMetricFamily("leukostream_service_requests", "To the service socket.", stream.requests)
    yield _counter("leukostream_refused", "Connections, requests and replies.", "reason", stream.refused)
    yield GaugeMetricFamily("leukostream_window_bytes", "Messages kept for replay.", stream.window_bytes)


def _of_inference(inference: InferenceStatus) -> Iterator[Metric]:
    answered = {"server": inference.remote, "this machine": inference.local}
    about = "Batches of one model, by who answered."
    yield _counter("leukostream_inference_questions", about, "answered_by", answered)
    yield CounterMetricFamily("leukostream_inference_resent", "Asked of another server too.", inference.resent)
    ready = GaugeMetricFamily("leukostream_inference_server_ready", "1: it is asked.", labels=("server",))
    faults = CounterMetricFamily(
        "leukostream_inference_server_faults", "Questions that came to nothing there.", labels=("server", "reason")
    )
    latency = GaugeMetricFamily(
        "leukostream_inference_server_latency_seconds", "From question to answer.", labels=("server", "quantile")
    )
    for endpoint, server in inference.servers.items():
        ready.add_metric((endpoint,), int(server.state == "ready"))
        for reason, count in server.faults.items():
            faults.add_metric((endpoint, reason), count)
        for key, milliseconds in (server.latency_ms or {}).items():
            latency.add_metric((endpoint, QUANTILES.get(key, key)), milliseconds / 1000)
    yield from (ready, faults, latency)


def _counter(name: str, about: str, label: str, counts: dict[str, int]) -> Metric:
    family = CounterMetricFamily(name, about, labels=(label,))
    for value, count in counts.items():
        family.add_metric((value,), count)
    return family


def _of_sources(health: dict[str, HealthMessage]) -> Iterator[Metric]:
    labels = ("source",)
    state = StateSetMetricFamily("leukostream_source_state", "Of the source.", labels=labels)
    captured = CounterMetricFamily("leukostream_frames_captured", "Frames that the source gave.", labels=labels)
    published = CounterMetricFamily("leukostream_frames_published", "Frames analysed and published.", labels=labels)
    dropped = CounterMetricFamily("leukostream_frames_dropped", "Frames lost.", labels=("source", "reason"))
    skipped = CounterMetricFamily("leukostream_skipped", "What could not be a frame.", labels=("source", "reason"))
    reopened = CounterMetricFamily("leukostream_source_reopened", "How often it was opened again.", labels=labels)
    queue = GaugeMetricFamily("leukostream_queue_frames", "Frames waiting.", labels=labels)
    rate = GaugeMetricFamily("leukostream_frames_per_second", "Published over the last seconds.", labels=labels)
    behind = GaugeMetricFamily(
        "leukostream_source_behind_seconds", "What a stream gives, behind what its camera sends.", labels=labels
    )
    latency = GaugeMetricFamily(
        "leukostream_latency_seconds", "From grab to publish, of the last frames.", labels=("source", "quantile")
    )
    for message in health.values():
        for name, source in message.sources.items():
            state.add_metric((name,), {known: known == source.state for known in _SOURCE_STATES})
            captured.add_metric((name,), source.captured)
            published.add_metric((name,), source.published)
            reopened.add_metric((name,), source.reopened)
            queue.add_metric((name,), source.queue)
            for reason, count in source.dropped.items():
                dropped.add_metric((name, reason), count)
            for reason, count in source.skipped.items():
                skipped.add_metric((name, reason), count)
            if source.fps is not None:
                rate.add_metric((name,), source.fps)
            if source.behind_s is not None:
                behind.add_metric((name,), source.behind_s)
            for key, milliseconds in (source.latency_ms or {}).items():
                latency.add_metric((name, QUANTILES.get(key, key)), milliseconds / 1000)
    yield from (state, captured, published, dropped, skipped, reopened, queue, rate, behind, latency)


def _of_counts(differentials: dict[str, DifferentialMessage]) -> Iterator[Metric]:
    labels = ("source",)
    white = GaugeMetricFamily("leukostream_white_cells", "Unique, seen whole, of the present slide.", labels=labels)
    edge = GaugeMetricFamily("leukostream_edge_cells", "White cells only seen cut by an edge.", labels=labels)
    classes = GaugeMetricFamily("leukostream_class_cells", "Unique white cells by class.", labels=("source", "class"))
    nucleated = GaugeMetricFamily("leukostream_nucleated_red_cells", "Unique.", labels=labels)
    red = GaugeMetricFamily("leukostream_red_cells", "Unique.", labels=labels)
    platelets = GaugeMetricFamily("leukostream_platelets", "Unique.", labels=labels)
    verdict = StateSetMetricFamily("leukostream_verdict", "Of the differential.", labels=labels)
    for name, message in differentials.items():
        white.add_metric((name,), message.total)
        if message.edge is not None:
            edge.add_metric((name,), message.edge)
        for class_, share in message.classes.items():
            classes.add_metric((name, class_), share.count)
        classes.add_metric((name, UNCLASSIFIED), message.unclassified)
        nucleated.add_metric((name,), message.nrbc)
        red.add_metric((name,), message.rbc_seen)
        platelets.add_metric((name,), message.platelets_seen)
        if message.verdict is not None:
            verdict.add_metric((name,), {state: state == message.verdict.state for state in get_args(VerdictState)})
    yield from (white, edge, classes, nucleated, red, platelets, verdict)
