"""What the sockets of both ends have in common: binding, with what went wrong in words, and heartbeats."""

from __future__ import annotations

import errno
import socket as unix
import stat
from pathlib import Path
from typing import Any

import zmq

from engines.base import LeukostreamError, UsageError
from streamer.network.endpoints import service_endpoint

Socket = zmq.Socket[bytes]

HEARTBEAT_MS = 5_000

_PORTS_TRIED = 50
"""Of a wildcard port, until the one after it is free too."""

_IN_USE = (
    "got an address in use by another program, expected a free one: choose another, or stop the program that has it"
)


def bind_both(stream: Socket, service: Socket, endpoint: str) -> tuple[str, str]:
    """Bind the stream to `endpoint` and the service beside it; the two addresses, wildcards resolved.

    UsageError or LeukostreamError where either can't be had.
    """
    wildcard = endpoint.startswith("tcp://") and endpoint.rpartition(":")[2] in ("*", "0")
    for _ in range(_PORTS_TRIED):
        bound = bind(stream, endpoint, "--publish")
        try:
            beside = service_endpoint(bound)
            bind(service, beside, "--publish")
        except LeukostreamError:
            if not wildcard:
                raise
            stream.unbind(bound)
            continue
        return bound, beside
    raise LeukostreamError(f"--publish {endpoint}: got no two free ports side by side, expected some: name a port")


def bind(socket: Socket, endpoint: str, option: str) -> str:
    """Bind one socket; its address, wildcards resolved. UsageError or LeukostreamError, which begin with `option`,
    where it can't be had."""
    if endpoint.startswith("ipc://"):
        _check_ipc_path(endpoint, option)
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        raise LeukostreamError(f"{option} {endpoint}: {_bind_fault(error)}") from error
    return socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")


def _check_ipc_path(endpoint: str, option: str) -> None:
    """ZeroMQ deletes what lies at the path before it binds: a file of the user's, a running publisher's socket."""
    path = Path(endpoint.removeprefix("ipc://"))
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise UsageError(f"{option} {endpoint}: got a path where a file or folder lies, expected a free one")
    with unix.socket(unix.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return  # left over by a process that ended
    raise LeukostreamError(f"{option} {endpoint}: {_IN_USE}")


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


def notice_silence(socket: zmq.Socket[Any], heartbeat_ms: int) -> None:
    """Cut off a peer that did not answer for three heartbeats. Set before the socket binds or connects."""
    socket.setsockopt(zmq.HEARTBEAT_IVL, heartbeat_ms)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 2 * heartbeat_ms)
    socket.setsockopt(zmq.TCP_MAXRT, 3 * heartbeat_ms)  # no heartbeat gets past data that nobody takes
