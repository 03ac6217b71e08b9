"""Health over HTTP: what is told, when a run counts as ready, and who may ask."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("prometheus_client")
from prometheus_client.parser import text_string_to_metric_families

from engines.base import LeukostreamError, UsageError
from streamer.analysis import models
from streamer.cli import main
from streamer.records import InferenceServerStatus, InferenceStatus, StreamStatus, Verdict
from streamer.sinks.metrics import Metrics
from streamer.sinks.metrics_server import REQUEST_TIMEOUT_S, MetricsServer
from streamer.sinks.readiness import RunWatch
from tests.streamer.journal.journal_cases import classifier, detector, write_images
from tests.streamer.protocol.message_cases import Clock, frame_message, make_differential, make_factory, make_health

SECOND_NS = 1_000_000_000


def make_inference() -> InferenceStatus:
    server = InferenceServerStatus(
        state="ready",
        release="1.0",
        requests=9,
        answered=9,
        outstanding=0,
        faults={"stale": 1},
        latency_ms={"p50": 9.0, "p99": 20.0},
    )
    return InferenceStatus(
        servers={"tcp://a:1": server},
        remote=9,
        local=1,
        local_share=0.1,
        resent=0,
        late=0,
        sent_bytes=1,
        received_bytes=1,
    )


class Run:
    """A run that publishes what a test says, at the time that it says."""

    def __init__(self, *names: str) -> None:
        self.clock = Clock()
        self.watch = RunWatch(self.clock)
        self.factories = {name: make_factory(name) for name in names or ("cam",)}
        self.lost = 0

    def health(self, **states: str | int) -> None:
        """`cam="open"`, and `cam_queue=3`."""
        for name, factory in self.factories.items():
            source = make_health().sources["cam"]
            changed = msgspec.structs.replace(
                source, state=states.get(name, "open"), queue=states.get(f"{name}_queue", 0)
            )
            stream = StreamStatus(connections=1, lost={"frame": self.lost}, requests=0, refused={}, window_bytes=0)
            self.watch.take(factory.health(dataclasses.replace(make_health(), sources={name: changed}, stream=stream)))

    def after(self, seconds: float) -> None:
        self.clock.now_ns += round(seconds * SECOND_NS)

    def state(self, *, stopping: bool = False) -> str:
        return self.watch.readiness(stopping=stopping).state


def test_from_starting_to_stopping() -> None:
    run = Run()
    assert run.state() == "starting"
    run.health(cam="starting")
    assert run.state() == "starting"
    run.health()
    assert run.state() == "ready"
    assert run.state(stopping=True) == "stopping"
    run.health(cam="ended")
    assert run.state() == "ready"


def test_silence_after_the_end_is_no_hang() -> None:
    run = Run()
    run.health(cam="ended")
    run.watch.take(run.factories["cam"].end("finished", "new slide"))
    run.after(11)
    assert run.watch.readiness(stopping=True).alive
    run.health()
    run.after(11)
    assert not run.watch.readiness(stopping=True).alive


def test_one_source_of_two_is_gone_then_both() -> None:
    run = Run("cam", "cam2")
    run.health(cam="reopening")
    found = run.watch.readiness(stopping=False)
    assert (found.state, found.reasons, found.alive) == ("degraded", ("source cam: reopening",), True)
    run.health(cam="reopening", cam2="failed")
    assert run.state() == "stalled"
    run.health()
    assert run.state() == "ready"


def test_frames_that_wait_and_are_not_analysed() -> None:
    run = Run()
    run.health(cam_queue=2)
    run.after(9)
    run.health(cam_queue=2)
    assert run.state() == "ready"
    run.after(2)
    run.health(cam_queue=2)
    assert run.state() == "stalled"
    run.watch.take(frame_message(run.factories["cam"]))
    assert run.state() == "ready"
    run.after(11)
    run.health(cam_queue=0)  # nothing to do is no fault
    assert run.state() == "ready"


def test_messages_lost_lately() -> None:
    run = Run()
    run.lost = 5
    run.health()
    assert run.state() == "degraded"
    run.after(11)
    run.health()
    assert run.state() == "ready"


def test_no_more_health_is_a_hanging_process() -> None:
    run = Run()
    run.health()
    run.after(11)
    found = run.watch.readiness(stopping=False)
    assert (found.state, found.alive) == ("stalled", False)


def get(url: str, **headers: str) -> tuple[int, str, str]:
    """(status, content type, body)."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read().decode()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(Clock())


@pytest.fixture
def url(metrics: Metrics) -> Iterator[str]:
    server = MetricsServer(0, metrics)
    yield server.url
    server.close()


def samples(text: str) -> dict[str, Any]:
    return {
        " ".join([sample.name, *(f"{key}={value}" for key, value in sorted(sample.labels.items()))]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_all_that_health_and_the_differential_say_is_a_metric(metrics: Metrics, url: str) -> None:
    factory = make_factory()
    stream = StreamStatus(connections=3, lost={"frame": 7}, requests=11, refused={"malformed": 2}, window_bytes=1000)
    metrics.publish(factory.health(dataclasses.replace(make_health(), stream=stream)))
    metrics.publish(factory.differential(make_differential(5)))
    status, content_type, body = get(f"{url}/metrics")
    assert (status, content_type.startswith("text/plain")) == (200, True)
    found = samples(body)
    expected = {
        "leukostream_state leukostream_state=degraded": 1,
        "leukostream_state leukostream_state=stalled": 0,
        "leukostream_uptime_seconds": 10.0,
        "leukostream_source_state leukostream_source_state=open source=cam": 1,
        "leukostream_frames_captured_total source=cam": 300,
        "leukostream_frames_published_total source=cam": 290,
        "leukostream_frames_dropped_total reason=queue full source=cam": 10,
        "leukostream_frames_per_second source=cam": 29.99,
        "leukostream_queue_frames source=cam": 1,
        "leukostream_source_behind_seconds source=cam": 0.123,
        "leukostream_latency_seconds quantile=0.99 source=cam": 0.055,
        "leukostream_white_cells source=cam": 5,
        "leukostream_class_cells class=neutrophil source=cam": 5,
        "leukostream_class_cells class=unclassified source=cam": 0,
        "leukostream_nucleated_red_cells source=cam": 1,
        "leukostream_red_cells source=cam": 120,
        "leukostream_platelets source=cam": 8,
        "leukostream_stream_connections": 3,
        "leukostream_stream_lost_total type=frame": 7,
        "leukostream_service_requests_total": 11,
        "leukostream_refused_total reason=malformed": 2,
        "leukostream_window_bytes": 1000,
    }
    assert {name: found.get(name) for name in expected} == expected
    assert get(f"{url}/metrics", Accept="application/openmetrics-text")[1].startswith("application/openmetrics-text")


def test_probes(metrics: Metrics, url: str) -> None:
    assert get(f"{url}/healthz")[0] == 200
    status, content_type, body = get(f"{url}/readyz")
    assert (status, content_type, json.loads(body)["state"]) == (503, "application/json", "starting")
    metrics.publish(make_factory().health(make_health()))
    assert get(f"{url}/readyz")[0] == 200
    metrics.stopping = lambda: True
    assert (get(f"{url}/readyz")[0], get(f"{url}/healthz")[0]) == (503, 200)
    metrics._watch.now_ns.now_ns += 11 * SECOND_NS  # type: ignore[attr-defined]
    assert get(f"{url}/healthz")[0] == 503
    assert get(f"{url}/anything")[0] == 404


def connected(url: str, said: bytes = b"") -> socket.socket:
    client = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=20)
    client.sendall(said)
    return client


def test_forty_unfinished_requests_keep_nobody_out(url: str) -> None:
    with contextlib.ExitStack() as stack:
        silent = stack.enter_context(connected(url))
        slow = [stack.enter_context(connected(url, b"GET /healthz HTTP/1.1\r\nHost:")) for _ in range(40)]
        assert get(f"{url}/healthz")[0] == 200
        for client in (silent, *slow):  # none of them was dropped for it
            client.setblocking(False)
            with pytest.raises(BlockingIOError):
                client.recv(1)


def test_who_says_a_byte_now_and_then_is_dropped(metrics: Metrics) -> None:
    server = MetricsServer(0, metrics)
    with connected(server.url, b"GET /hea") as slow, connected(server.url, b"GET /healthz HTTP/1.1\r\n\r\n") as good:
        assert good.recv(20).startswith(b"HTTP/1.1 200")
        slow.sendall(b"lthz")
        server._server.maintenance(time.time() + REQUEST_TIMEOUT_S + 1)
        assert slow.recv(1) == b""
        good.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
        assert good.recv(4096)
    server.close()


def test_what_is_no_request_is_refused_and_harms_nobody(url: str) -> None:
    with connected(url, b"\x00\xff" * 1000 + b"\r\n\r\n") as rude, connected(url, b"GET /" + b"x" * 9000) as long:
        assert rude.recv(12) == b"HTTP/1.0 400"
        assert long.recv(12) == b"HTTP/1.0 431"
    with connected(url, b"POST /metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n") as writer:
        assert writer.recv(12) == b"HTTP/1.1 405"
    with connected(url, b"HEAD /healthz HTTP/1.1\r\nConnection: close\r\n\r\n") as head:
        assert head.makefile("rb").read().endswith(b"\r\n\r\n")
    assert get(f"{url}/healthz")[0] == 200


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("http", "expected PORT or HOST:PORT"),
        ("70000", "expected PORT or HOST:PORT"),
        (":80", "expected PORT or HOST:PORT"),
        ("0.0.0.0:0", "other machines can reach"),
        ("lab.example:0", "other machines can reach"),
    ],
)
def test_an_address_that_is_no_good(where: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        MetricsServer(where, Metrics())


def test_a_port_in_use_and_one_for_all(metrics: Metrics, url: str) -> None:
    with pytest.raises(LeukostreamError, match="expected an address of this machine that no program uses"):
        MetricsServer(url.rpartition(":")[2], metrics)
    server = MetricsServer("0.0.0.0:0", metrics, insecure=True)
    server.close()
    server.close()


def test_a_run_serves_them_while_it_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(models, "load_detector", lambda *_, **__: detector())
    monkeypatch.setattr(models, "load_classifier", lambda *_, **__: classifier())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url, seen, over = f"http://127.0.0.1:{port}", [], threading.Event()

    def ask() -> None:
        while not over.wait(0.005):
            with contextlib.suppress(OSError):
                seen.append(get(f"{url}/readyz")[0])

    asking = threading.Thread(target=ask)
    asking.start()
    assert main(["run", "--source", f"slide={write_images(tmp_path / 'frames')}", "--metrics", str(port)]) == 0
    over.set()
    asking.join()
    assert set(seen) <= {200, 503}
    assert 503 in seen
    assert f"metrics at {url}/metrics" in capsys.readouterr().err
    with pytest.raises(OSError, match="refused"):
        get(f"{url}/readyz")


def test_the_document_lists_every_name() -> None:
    metrics, factory = Metrics(), make_factory()
    source = msgspec.structs.replace(make_health().sources["cam"], skipped={"not an image": 1})
    stream = StreamStatus(connections=1, lost={"frame": 1}, requests=1, refused={"malformed": 1}, window_bytes=1)
    elsewhere = msgspec.structs.replace(make_health().models, inference=make_inference())
    metrics.publish(
        factory.health(
            dataclasses.replace(make_health(), models=elsewhere, sources={"cam": source}, stream=stream, jsonl_lost=1)
        ),
        None,
    )
    verdict = Verdict(state="incomplete", reasons=())
    metrics.publish(factory.differential(msgspec.structs.replace(make_differential(5), edge=1, verdict=verdict)), None)
    names = {sample.name for family in metrics.collect() for sample in family.samples}
    text = Path(__file__).parents[3].joinpath("docs", "protocol.md").read_text("utf-8")
    section = text.partition("\n## Health over HTTP\n")[2].partition("\n## ")[0]
    rows = [row.split("|")[1] for row in section.splitlines() if row.startswith("|")]
    listed = {name for row in rows for name in re.findall(r"`(leukostream_\w+)`", row)}
    assert listed == names
