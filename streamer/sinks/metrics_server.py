"""Health over HTTP: /metrics for Prometheus, /healthz and /readyz for the supervisor of the process.

Waitress reads requests on one thread, all connections side by side, and hands only whole ones to another: a client that
is slow costs a connection and nobody's time. Chosen for its size (pure Python, no dependency); the others that were
weighed have no time limit for an unfinished request (uvicorn), give each a thread of a small pool (cheroot), or bring
five compiled packages (aiohttp).
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterable
from typing import Any, Protocol, cast

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from waitress.adjustments import Adjustments
from waitress.server import TcpWSGIServer

from engines.base import LeukostreamError, UsageError
from streamer.sinks.readiness import SERVING, Readiness

REQUEST_TIMEOUT_S = 5
"""A request that is not whole by then, or an answer that is not taken, is dropped with its connection."""

IDLE_TIMEOUT_S = 120
"""Of a connection between two requests: twice the usual interval of Prometheus."""

CONNECTIONS_MAX = 256
"""Others wait until one of these is free."""

_LIMITS = {
    "channel_timeout": IDLE_TIMEOUT_S,
    "cleanup_interval": 1,
    "connection_limit": CONNECTIONS_MAX,
    "backlog": CONNECTIONS_MAX,
    "max_request_header_size": 8192,
    "max_request_body_size": 1024,
    "threads": 2,
    "asyncore_use_poll": True,
    "ident": "leukostream",
}

_JOIN_S = 2.0

for _name in ("waitress", "waitress.queue"):
    logging.getLogger(_name).setLevel(logging.ERROR)  # a crowd of clients is no news


class Measured(Protocol):
    """What is served; any thread calls it."""

    def collect(self) -> Iterable[Metric]: ...

    def readiness(self) -> Readiness: ...


class _Application:
    """The WSGI application of the metrics of a run, or of a server."""

    def __init__(self, metrics: Measured) -> None:
        self._metrics = metrics
        self._registry = CollectorRegistry()
        self._registry.register(cast(Collector, metrics))
        ProcessCollector(registry=self._registry)

    def __call__(self, request: dict[str, Any], start: Callable[[str, list[tuple[str, str]]], Any]) -> Iterable[bytes]:
        status, body, content_type = self._answer(request)
        start(status, [("Content-Type", content_type), ("Content-Length", str(len(body)))])
        return [b"" if request["REQUEST_METHOD"] == "HEAD" else body]

    def _answer(self, request: dict[str, Any]) -> tuple[str, bytes, str]:
        if request["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return "405 Method Not Allowed", b"expected GET\n", "text/plain"
        path = request["PATH_INFO"]
        if path == "/metrics":
            encode, content_type = choose_encoder(request.get("HTTP_ACCEPT", ""))
            return "200 OK", encode(self._registry), content_type
        if path in ("/healthz", "/readyz"):
            readiness = self._metrics.readiness()
            good = readiness.alive if path == "/healthz" else readiness.state in SERVING
            body = json.dumps({"state": readiness.state, "reasons": readiness.reasons}).encode() + b"\n"
            return "200 OK" if good else "503 Service Unavailable", body, "application/json"
        return "404 Not Found", b"expected /metrics, /healthz or /readyz\n", "text/plain"


class _Server(TcpWSGIServer):  # type: ignore[misc]  # waitress has no types
    def maintenance(self, now: float) -> None:
        """Waitress drops who says nothing; this also who says a byte now and then and never ends."""
        super().maintenance(now)
        for channel in self.active_channels.values():
            unfinished = channel.request is not None or (channel.total_outbufs_len and not channel.requests)
            if unfinished and now - channel.creation_time > REQUEST_TIMEOUT_S:
                channel.will_close = True


class MetricsServer:
    """Serves metrics until it is closed."""

    def __init__(self, where: str | int, metrics: Measured, *, insecure: bool = False) -> None:
        """`where` is PORT, on this machine's loopback only, or HOST:PORT; port 0 is any free one.

        UsageError for another address, and for one that others can reach without `insecure`; LeukostreamError for
        one that can't be had.
        """
        host, port = _place(str(where), insecure)
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            listening = socket.create_server((host, port), family=family)
        except (OSError, OverflowError) as error:
            raise LeukostreamError(
                f"--metrics {where}: got '{getattr(error, 'strerror', None) or error}', expected an address of this "
                "machine that no program uses: choose another port"
            ) from error
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
        self._server = _Server(
            _Application(metrics),
            _sock=listening,
            adj=Adjustments(**_LIMITS),
            sockinfo=(family, listening.type, listening.proto, listening.getsockname()),
            bind_socket=False,
        )
        self._thread = threading.Thread(target=self._server.run, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Harmless when called twice."""
        if self._thread.is_alive():
            with contextlib.suppress(OSError):  # a request woke the thread meanwhile, and it has closed already
                self._server.trigger.pull_trigger(self._close)
            self._thread.join(_JOIN_S)

    def _close(self) -> None:
        """On the server's own thread, which ends with its last connection."""
        for channel in list(self._server.active_channels.values()):
            channel.handle_close()
        self._server.close()
        self._server.task_dispatcher.shutdown(timeout=0)


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
