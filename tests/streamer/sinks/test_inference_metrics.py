"""What a run and an inference server tell Prometheus of inference elsewhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import msgspec
import pytest
from prometheus_client.metrics_core import Metric

from streamer.records import InferenceServerStatus, InferenceStatus
from streamer.sinks.inference_metrics import InferenceMetrics
from streamer.sinks.metrics import Metrics
from tests.streamer.inference.served import ENGINE, Asking, ScriptedShelf, Served, engine, wait_for
from tests.streamer.protocol.message_cases import make_factory, make_health


def samples(metrics: Iterable[Metric]) -> dict[tuple[str, ...], float]:
    return {(one.name, *one.labels.values()): one.value for family in metrics for one in family.samples}


def test_a_run_tells_who_answers() -> None:
    servers = {
        "tcp://a:1": InferenceServerStatus("ready", "0.1.0", 9, 7, 1, {"busy": 2}, {"p50": 12.34567, "p99": 50.0}),
        "tcp://b:1": InferenceServerStatus("silent", None, 0, 0, 0, {}, None, "nothing\nheard"),
    }
    status = InferenceStatus(servers, 7, 3, 0.30004, 2, 1, 1000, 100)
    health = make_health()
    factory = make_factory()
    models = msgspec.structs.replace(health.models, inference=status)
    message = factory.health(dataclasses.replace(health, models=models))
    assert message.inference is not None
    assert message.inference.local_share == 0.3
    assert message.inference.servers["tcp://a:1"].latency_ms == {"p50": 12.346, "p99": 50.0}
    metrics = Metrics()
    metrics.publish(message)
    found = samples(metrics.collect())
    assert found["leukostream_inference_questions_total", "server"] == 7
    assert found["leukostream_inference_questions_total", "this machine"] == 3
    assert found[("leukostream_inference_resent_total",)] == 2
    assert found["leukostream_inference_server_ready", "tcp://a:1"] == 1
    assert found["leukostream_inference_server_ready", "tcp://b:1"] == 0
    assert found["leukostream_inference_server_faults_total", "tcp://a:1", "busy"] == 2
    assert found["leukostream_inference_server_latency_seconds", "tcp://a:1", "0.99"] == pytest.approx(0.05)


def test_a_server_tells_what_it_did_and_when_it_ends() -> None:
    broken = engine(lambda feeds: RuntimeError("broken"))
    with Served(ScriptedShelf({ENGINE: broken})) as served, Asking(served.endpoint) as asking:
        metrics = InferenceMetrics(served.server)
        assert metrics.readiness().state == "ready"
        asking.infer(1)
        wait_for(lambda: samples(metrics.collect()).get(("leukostream_inference_faults_total", "engine failed")) == 1)
        found = samples(metrics.collect())
        assert found[("leukostream_inference_waiting",)] == 0
        assert found[("leukostream_inference_images_total",)] == 0
        served.server.drain()
        assert metrics.readiness().state == "stopping"
    with Served() as served, Asking(served.endpoint) as asking:
        asking.infer(1, 2)
        found = samples(InferenceMetrics(served.server).collect())
        assert found["leukostream_inference_requests_total", "scripted", ENGINE.sha256] == 1
        assert found[("leukostream_inference_images_total",)] == 2
        assert found["leukostream_inference_batch_requests_bucket", "1"] == 1


def test_a_server_whose_requests_wait_for_ever_needs_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    served = Served()
    waiting = msgspec.structs.replace(served.server.status(), queue_age_ms=10_001.0)
    monkeypatch.setattr(served.server, "status", lambda: waiting)
    readiness = InferenceMetrics(served.server).readiness()
    assert (readiness.state, readiness.alive) == ("stalled", False)
    monkeypatch.undo()
    with served:
        pass
