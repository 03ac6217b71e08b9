"""How long /healthz takes while slow clients hold unfinished requests open and a scraper reads /metrics.

    python -m tools.bench probes --slow 40

Each slow client sends one byte a second of a request that never ends, and connects again where it is dropped. Printed:
median, 99th percentile and largest of the probes, in milliseconds, each with a connection of its own.
"""

from __future__ import annotations

import contextlib
import http
import http.client
import socket
import threading
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from streamer.sinks.metrics import Metrics
from streamer.sinks.metrics_server import MetricsServer
from tools.commands import command_parser

TIMEOUT_S = 20.0


def _ask(port: int, path: str) -> int:
    """The status."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    with contextlib.closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return answer.status


def _slow(port: int, over: threading.Event) -> None:
    while not over.is_set():
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as client:
            client.sendall(b"GET /healthz HTTP/1.1\r\nX: ")
            while not over.wait(1.0):
                client.sendall(b"x")


def _scrape(port: int, over: threading.Event) -> None:
    while not over.wait(0.1):
        with contextlib.suppress(OSError, http.client.HTTPException):
            _ask(port, "/metrics")


def measured(slow: int, probes: int) -> npt.NDArray[np.float64]:
    """Milliseconds of each probe, (probes,); nan where it failed."""
    serving = MetricsServer(0, Metrics())
    port = int(serving.url.rpartition(":")[2])
    over = threading.Event()
    bodies = [_slow] * slow + [_scrape]
    threads = [threading.Thread(target=body, args=(port, over), daemon=True) for body in bodies]
    for thread in threads:
        thread.start()
    time.sleep(1.0)  # until all are connected
    took_ms = np.full(probes, np.nan)
    for number in range(probes):
        start = time.perf_counter()
        with contextlib.suppress(OSError, http.client.HTTPException):
            if _ask(port, "/healthz") == http.HTTPStatus.OK:
                took_ms[number] = (time.perf_counter() - start) * 1000
        time.sleep(0.02)
    over.set()
    for thread in threads:
        thread.join()
    serving.close()
    return took_ms


def main(arguments: Sequence[str]) -> int:
    parser = command_parser("tools.bench probes", __doc__)
    parser.add_argument("--slow", type=int, default=40, metavar="N", help="clients (default 40)")
    parser.add_argument("--probes", type=int, default=500, metavar="N", help="of /healthz (default 500)")
    options = parser.parse_args(arguments)
    took_ms = measured(options.slow, options.probes)
    answered = took_ms[~np.isnan(took_ms)]
    median, p99, largest = np.percentile(answered, (50, 99, 100)) if len(answered) else (np.nan,) * 3
    print(f"{options.slow} slow clients and a scraper: {len(answered)} of {len(took_ms)} probes answered;")
    print(f"/healthz median {median:.1f} ms, p99 {p99:.1f} ms, largest {largest:.1f} ms")
    return 0
