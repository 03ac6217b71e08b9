"""Health over HTTP: /metrics for Prometheus, /healthz and /readyz for the supervisor of the process.

The server has a thread of its own, so that it answers while the rest hangs; it takes one request at a time, and a
client that says nothing is dropped after two seconds, so that no client can make it grow.
"""

from __future__ import annotations

import ipaddress
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from socket import AF_INET6

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
    StateSetMetricFamily,
)
from prometheus_client.registry import Collector

from engines.base import LeukostreamError, UsageError
from streamer import __version__
from streamer.protocol.messages import AnyMessage, DifferentialMessage, HealthMessage
from streamer.records import UNCLASSIFIED
from streamer.sinks.readiness import RUN_STATES, SERVING, Readiness, RunWatch

REQUEST_TIMEOUT_S = 2.0
_SOURCE_STATES = ("starting", "open", "reopening", "ended", "failed")
_QUANTILES = {"p50": "0.5", "p95": "0.95", "p99": "0.99"}


class Metrics(Collector):
    """A sink that keeps the newest of what is published and serves it to Prometheus."""

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
    stream = health.stream
    if stream is None:
        return
    if stream.connections is not None:
        yield GaugeMetricFamily("leukostream_stream_connections", "Over both sockets.", stream.connections)
    yield _counter("leukostream_stream_lost", "Messages that found a subscriber's queue full.", "type", stream.lost)
    yield CounterMetricFamily("leukostream_service_requests", "To the service socket.", stream.requests)
    yield _counter("leukostream_refused", "Connections, requests and replies.", "reason", stream.refused)
    yield GaugeMetricFamily("leukostream_window_bytes", "Messages kept for replay.", stream.window_bytes)


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
            for key, milliseconds in (source.latency_ms or {}).items():
                latency.add_metric((name, _QUANTILES.get(key, key)), milliseconds / 1000)
    yield from (state, captured, published, dropped, skipped, reopened, queue, rate, latency)


def _of_counts(differentials: dict[str, DifferentialMessage]) -> Iterator[Metric]:
    labels = ("source",)
    white = GaugeMetricFamily("leukostream_white_cells", "Unique, seen whole, of the present slide.", labels=labels)
    edge = GaugeMetricFamily("leukostream_edge_cells", "White cells only seen cut by an edge.", labels=labels)
    classes = GaugeMetricFamily("leukostream_class_cells", "Unique white cells by class.", labels=("source", "class"))
    nucleated = GaugeMetricFamily("leukostream_nucleated_red_cells", "Unique.", labels=labels)
    red = GaugeMetricFamily("leukostream_red_cells", "Unique.", labels=labels)
    platelets = GaugeMetricFamily("leukostream_platelets", "Unique.", labels=labels)
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
    yield from (white, edge, classes, nucleated, red, platelets)


class _Server(HTTPServer):
    allow_reuse_address = True

    def __init__(self, place: tuple[str, int], metrics: Metrics) -> None:
        self.metrics = metrics
        self.registry = CollectorRegistry()
        self.registry.register(metrics)
        ProcessCollector(registry=self.registry)
        if ":" in place[0]:
            self.address_family = AF_INET6
        super().__init__(place, _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = REQUEST_TIMEOUT_S
    server_version = "leukostream"
    sys_version = ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            encode, content_type = choose_encoder(self.headers.get("Accept", ""))
            self._reply(200, encode(self.server.registry), content_type)
        elif path in ("/healthz", "/readyz"):
            readiness = self.server.metrics.readiness()
            good = readiness.alive if path == "/healthz" else readiness.state in SERVING
            body = json.dumps({"state": readiness.state, "reasons": readiness.reasons}).encode() + b"\n"
            self._reply(200 if good else 503, body, "application/json")
        else:
            self._reply(404, b"expected /metrics, /healthz or /readyz\n", "text/plain")

    do_HEAD = do_GET

    def _reply(self, status: int, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Standard error is for what people must know."""


class MetricsServer:
    """Serves the metrics of a run until it is closed."""

    def __init__(self, where: str | int, metrics: Metrics, *, insecure: bool = False) -> None:
        """`where` is PORT, on this machine's loopback only, or HOST:PORT; port 0 is any free one.

        UsageError for another address, and for one that others can reach without `insecure`; LeukostreamError for
        one that can't be had.
        """
        host, port = _place(str(where), insecure)
        try:
            self._server = _Server((host, port), metrics)
        except (OSError, OverflowError) as error:
            raise LeukostreamError(
                f"--metrics {where}: got '{getattr(error, 'strerror', None) or error}', expected an address of this "
                "machine that no program uses: choose another port"
            ) from error
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Harmless when called twice."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(REQUEST_TIMEOUT_S)


def _place(where: str, insecure: bool) -> tuple[str, int]:
    host, colon, port = where.rpartition(":")
    host = host.strip("[]") if colon else "127.0.0.1"
    if not port.isdecimal() or int(port) > 65535 or not host:
        raise UsageError(f"--metrics {where}: got no port, expected PORT or HOST:PORT, such as 9464")
    if not insecure and not _is_loopback(host):
        raise UsageError(
            f"--metrics {where}: got an address that other machines can reach, where anyone could read along; "
            "expected a PORT alone, or --insecure to allow it"
        )
    return host, int(port)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
