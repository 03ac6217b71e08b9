"""What an inference server does, as metrics of Prometheus; metrics_server serves them."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from streamer import __version__
from streamer.inference.latency import percentiles_ms
from streamer.inference.server import InferenceServer
from streamer.sinks.metrics import QUANTILES
from streamer.sinks.readiness import Readiness

STUCK_MS = 10_000.0
"""A request that waits so long: the engines hang, and a restart is all that helps."""


class InferenceMetrics(Collector):
    """The counts of one server."""

    def __init__(self, server: InferenceServer) -> None:
        self._server = server

    def readiness(self) -> Readiness:
        status = self._server.status()
        if status.draining:
            return Readiness("stopping", ("it was told to end",), True)
        if status.queue_age_ms > STUCK_MS:
            return Readiness("stalled", (f"a request waits for {status.queue_age_ms / 1000:.0f} s",), False)
        return Readiness("ready", (), True)

    def collect(self) -> Iterator[Metric]:
        server = self._server
        status, figures = server.status(), server.figures()
        names = {model.sha256: model.name for model in status.models}
        yield InfoMetricFamily("leukostream_inference", "What serves.", {"version": __version__, "server": server.id})
        yield GaugeMetricFamily("leukostream_inference_uptime_seconds", "Since it started.", status.uptime_s)
        yield GaugeMetricFamily("leukostream_inference_draining", "1: it ends.", int(status.draining))
        yield GaugeMetricFamily("leukostream_inference_connections", "Microscopes connected.", server.connections)
        yield GaugeMetricFamily("leukostream_inference_waiting", "Requests that wait for an engine.", status.waiting)
        yield GaugeMetricFamily(
            "leukostream_inference_queue_age_seconds", "Of the request that waits longest.", status.queue_age_ms / 1000
        )
        answered = CounterMetricFamily("leukostream_inference_requests", "Answered.", labels=("model", "sha256"))
        for sha256, count in figures.requests.items():
            answered.add_metric((names.get(sha256, ""), sha256), count)
        faults = CounterMetricFamily(
            "leukostream_inference_faults", "Requests and connections that came to nothing.", labels=("reason",)
        )
        for reason, count in {**figures.faults, **server.refused}.items():
            faults.add_metric((reason,), count)
        images = CounterMetricFamily("leukostream_inference_images", "Images that ran.", figures.rows)
        yield from (answered, faults, images, _batches(figures.batch_sizes))
        for name, about, values in (
            ("waited", "From arrival to run, of the last requests.", figures.waited_ms),
            ("ran", "Of the last runs.", figures.ran_ms),
        ):
            family = GaugeMetricFamily(f"leukostream_inference_{name}_seconds", about, labels=("quantile",))
            for key, ms in (percentiles_ms(list(values)) or {}).items():
                family.add_metric((QUANTILES[key],), ms / 1000)
            yield family


def _batches(sizes: dict[int, int]) -> Metric:
    family = HistogramMetricFamily("leukostream_inference_batch_requests", "Requests that one run took.")
    bounds = (1, 2, 4, 8, 16, 32)
    buckets = [(str(bound), sum(runs for size, runs in sizes.items() if size <= bound)) for bound in bounds]
    runs = sum(sizes.values())
    family.add_metric((), [*buckets, ("+Inf", runs)], sum(size * count for size, count in sizes.items()))
    return family
