"""What Prometheus is to ask for and Grafana to draw exists under that name, with those labels."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

yaml = pytest.importorskip("yaml", reason="needs PyYAML")

from streamer.inference.counts import ServerCounts  # noqa: E402
from streamer.inference.wire import ServedModel, StatusReply  # noqa: E402
from streamer.records import StreamStatus, Verdict  # noqa: E402
from streamer.sinks.inference_metrics import InferenceMetrics  # noqa: E402
from streamer.sinks.metrics import Metrics  # noqa: E402
from tests.streamer.protocol.message_cases import make_differential, make_factory, make_health  # noqa: E402
from tests.streamer.sinks.test_metrics import make_inference  # noqa: E402

MONITORING = Path(__file__).parents[1] / "deploy" / "monitoring"

OF_PROMETHEUS = {"up": {"job", "instance"}}
GIVEN = {"job", "instance", "microscope"}
"""Labels that Prometheus and the files of targets add."""


def existing() -> dict[str, set[str]]:
    """Labels by name of each metric, of microscopes and of inference servers."""
    metrics, factory = Metrics(), make_factory()
    models = msgspec.structs.replace(make_health().models, inference=make_inference())
    stream = StreamStatus(connections=1, lost={"frame": 1}, requests=1, refused={"malformed": 1}, window_bytes=1)
    metrics.publish(factory.health(dataclasses.replace(make_health(), models=models, stream=stream)))
    verdict = Verdict(state="incomplete", reasons=())
    metrics.publish(factory.differential(msgspec.structs.replace(make_differential(5), verdict=verdict)))
    counts = ServerCounts()
    counts.ran("a" * 64, 1, [1.0], 2.0)
    counts.fault("busy")
    status = StatusReply(
        server="s",
        release="1",
        models=(ServedModel("a" * 64, "m", "detector"),),
        draining=False,
        uptime_s=1.0,
        waiting=0,
        queue_age_ms=0.0,
        answered=1,
        faults={},
    )
    server: Any = SimpleNamespace(id="s", status=lambda: status, figures=counts.figures, connections=1, refused={})
    found: dict[str, set[str]] = {}
    for collector in (metrics, InferenceMetrics(server)):
        for family in collector.collect():
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
    return found


def asked_for() -> Iterator[tuple[str, str]]:
    """(where, expression)"""
    dashboard = json.loads((MONITORING / "grafana-fleet.json").read_text("utf-8"))
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]["query"].removeprefix("label_values(").partition(",")[0]
    for group in yaml.safe_load((MONITORING / "alerts.yml").read_text("utf-8"))["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


def test_every_metric_that_is_asked_for_exists_with_its_labels():
    known = {**existing(), **OF_PROMETHEUS}
    expressions = list(asked_for())
    assert len(expressions) > 20
    for where, expression in expressions:
        by = {name for found in re.findall(r"by \(([^)]*)\)", expression) for name in re.split(r",\s*", found)}
        rest = re.sub(r"by \([^)]*\)", "", expression)  # a StateSet's label has the name of its metric
        selectors = re.findall(r"\{([^}]*)\}", rest)
        labels = {name for one in selectors for name in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", one)}
        names = re.findall(r"\b(leukostream_\w+|up)\b", re.sub(r"\{[^}]*\}", "", rest))
        assert names, (where, expression)
        assert set(names) <= set(known), (where, set(names) - set(known))
        assert labels | by <= set().union(GIVEN, *(known[name] for name in names)), (where, labels | by)


def test_panels_lie_side_by_side_and_have_numbers_of_their_own():
    panels = json.loads((MONITORING / "grafana-fleet.json").read_text("utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_files_that_prometheus_is_told_to_read_are_there():
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text("utf-8"))
    files = [*config["rule_files"]]
    files += [file for job in config["scrape_configs"] for one in job["file_sd_configs"] for file in one["files"]]
    assert len(files) == 4
    for file in [one for one in files if "*" not in one]:
        assert yaml.safe_load((MONITORING / file).read_text("utf-8")) is not None
