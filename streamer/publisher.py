"""The socket that messages leave by: XPUB, multipart [topic, header, payload…]."""

from __future__ import annotations

import errno
import socket as unix
import stat
from pathlib import Path
from types import TracebackType

import zmq

from engines.base import LeukostreamError, UsageError
from streamer.endpoints import check_endpoint, is_ipv6, is_local
from streamer.wire import AnyMessage, encode, topic_of, type_of

LAST_VALUE_TYPES = frozenset({"differential", "health"})
"""Types of which a late subscriber gets the newest message at once."""

_SUBSCRIPTIONS_PER_SERVICE = 1000
_SUBSCRIPTION_MAX_BYTES = 4096
_HEARTBEAT_MS = 5_000
_HEARTBEAT_TIMEOUT_MS = 15_000


class Publisher:
    """A sink that publishes to whoever subscribes.

    The one publishing thread owns it: it calls `publish` for every message and, when there is none, `service`
    several times a second, so that late subscribers get their last values. Neither ever waits for a subscriber: one
    that doesn't keep up loses messages, beyond `high_water_mark` of them in its queue.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        insecure: bool = False,
        high_water_mark: int = 500,
        linger_ms: int = 1000,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
    ) -> None:
        """Bind `endpoint`. `linger_ms`: how long `close` may wait for what is still to be sent.
        `context`: for inproc, the one that the subscribers use.

        UsageError for a malformed address, and for TCP that other machines can reach unless `insecure`;
        LeukostreamError for one that is in use or can't be had.
        """
        check_endpoint(endpoint, "--publish", side="bind")
        if not insecure and not is_local(endpoint):
            raise UsageError(
                f"--publish {endpoint}: got an address that other machines can reach, where anyone could read along; "
                "expected tcp://127.0.0.1:PORT or ipc://PATH, or --insecure to allow it"
            )
        if endpoint.startswith("ipc://"):
            _check_ipc_path(endpoint)
        self._last: dict[bytes, list[bytes]] = {}
        self._prefixes: set[bytes] = set()
        self._own_context = context is None
        self._context = zmq.Context() if context is None else context
        self._socket = self._context.socket(zmq.XPUB)
        self._socket.setsockopt(zmq.XPUB_VERBOSE, 1)  # every subscription, not only the first of its prefix
        self._socket.setsockopt(zmq.SNDHWM, high_water_mark)
        self._socket.setsockopt(zmq.LINGER, linger_ms)
        self._socket.setsockopt(zmq.MAXMSGSIZE, _SUBSCRIPTION_MAX_BYTES)
        self._socket.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_MS)
        self._socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, _HEARTBEAT_TIMEOUT_MS)
        self._socket.setsockopt(zmq.IPV6, is_ipv6(endpoint))
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise LeukostreamError(f"--publish {endpoint}: {_bind_fault(error)}") from error
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
        """The address bound, wildcards resolved."""

    def publish(self, message: AnyMessage, payload: bytes | None = None) -> None:
        self.service()
        topic = topic_of(message).encode()
        keep = type_of(message) in LAST_VALUE_TYPES
        wanted = self._is_wanted(topic)
        if not (keep or wanted):
            return  # nobody to encode it for
        parts = [topic, encode(message)] if payload is None else [topic, encode(message), payload]
        if keep:
            self._last[topic] = parts
        if wanted:
            self._socket.send_multipart(parts)

    def service(self) -> None:
        """Take in subscriptions and send the last values that they ask for.

        A last value reaches every subscriber of its topic, not the new one alone: those who have it already
        see its `seq` again and ignore it. Many subscriptions at once cost one repeat.
        """
        newcomers: set[bytes] = set()
        for _ in range(_SUBSCRIPTIONS_PER_SERVICE):
            try:
                parts = self._socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                break
            event = parts[0]
            if event[:1] == b"\1":
                self._prefixes.add(event[1:])
                newcomers.add(event[1:])
            elif event[:1] == b"\0":  # the last subscriber of this prefix left
                self._prefixes.discard(event[1:])
        for topic, message in self._last.items():
            if any(topic.startswith(prefix) for prefix in newcomers):
                self._socket.send_multipart(message)

    def wants(self, type_: str, source: str) -> bool:
        """Whether anyone subscribes to TYPE.SOURCE, as of the last `service`."""
        return self._is_wanted(f"{type_}.{source}".encode())

    def close(self) -> None:
        """Send what is still queued, within `linger_ms`, and free the address. Safe to call twice."""
        self._socket.close()
        if self._own_context:
            self._context.term()

    def __enter__(self) -> Publisher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _is_wanted(self, topic: bytes) -> bool:
        return any(topic.startswith(prefix) for prefix in self._prefixes)


def _check_ipc_path(endpoint: str) -> None:
    """ZeroMQ deletes what lies at the path before it binds: a file of the user's, a running publisher's socket."""
    path = Path(endpoint.removeprefix("ipc://"))
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise UsageError(f"--publish {endpoint}: got a path where a file or folder lies, expected a free one")
    with unix.socket(unix.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return  # left over by a process that ended
    raise LeukostreamError(f"--publish {endpoint}: {_IN_USE}")


_IN_USE = "address in use by another program, expected a free one: choose another, or stop the program that has it"


def _bind_fault(error: zmq.ZMQError) -> str:
    if error.errno == errno.EADDRINUSE:
        return _IN_USE
    if error.errno == errno.EACCES:
        return "got permission denied, expected a port above 1023 or a folder where you may write"
    if error.errno in (errno.EADDRNOTAVAIL, errno.ENODEV):
        return "got an address that this machine does not have, expected one of its own, such as 127.0.0.1"
    if error.errno == errno.ENOENT:
        return "got a folder that does not exist, expected an existing one: create it first"
    return f"got {zmq.strerror(error.errno or 0)}, expected an address that can be bound"
