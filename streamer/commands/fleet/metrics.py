"""Prometheus and the servers of a fleet: where each is asked, and the file that says so."""

from __future__ import annotations

import json
from collections.abc import Iterable

from streamer.commands.output import writing
from streamer.fleet.servers import ServerRow
from streamer.inference.server import InferenceServer
from streamer.sinks.inference_metrics import InferenceMetrics
from streamer.sinks.metrics_server import MetricsServer


def serve_metrics(server: InferenceServer, host: str) -> str:
    """HOST:PORT of /metrics of a server, for as long as its process lasts. They have no pictures and no names."""
    return MetricsServer(f"{host}:0", InferenceMetrics(server), insecure=True).url.partition("://")[2]


def write_targets(path: str, rows: Iterable[ServerRow]) -> None:
    """As `file_sd_configs` of Prometheus reads it."""
    targets = [{"targets": [row.metrics], "labels": {"node": row.node}} for row in rows if row.metrics is not None]
    with writing(path, "--targets") as file:
        file.write(json.dumps(targets, indent=1).encode() + b"\n")
