"""ZeroMQ addresses: which ones are well formed, and which ones only this machine can reach."""

from __future__ import annotations

import ipaddress
import os
import re
from typing import Literal

from engines.base import UsageError

_TCP = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+(%\w+)?\]|[^\[\]:/\s]+):(?P<port>\*|[0-9]{1,5})")
_IPC_PATH_MAX = 107
"""Bytes of a Unix socket's path on Linux; the kernel refuses more."""


def check_endpoint(endpoint: str, option: str, *, side: Literal["bind", "connect"]) -> None:
    """UsageError, which begins with `option`, unless `endpoint` is a well-formed tcp, ipc or inproc address.

    A port `*` or 0 (any free one) and a host `*` (all interfaces) are for the binding side only.
    """
    fault = _fault(endpoint, side)
    if fault is not None:
        raise UsageError(
            f"{option} {endpoint}: got {fault}, expected an address like tcp://127.0.0.1:5555 or ipc:///tmp/leukostream"
        )


def _fault(endpoint: str, side: Literal["bind", "connect"]) -> str | None:
    transport, separator, place = endpoint.partition("://")
    if not separator:
        return "no transport before '://'"
    if transport not in ("tcp", "ipc", "inproc"):
        return f"transport {transport!r}"
    if not place:
        return "nothing after the transport"
    wildcard = False
    if transport == "ipc":
        wildcard = place == "*"
        if len(os.fsencode(place)) > _IPC_PATH_MAX:
            return f"a path of {len(os.fsencode(place))} bytes, more than the {_IPC_PATH_MAX} that sockets can have"
    if transport == "tcp":
        match = _TCP.fullmatch(place)
        if match is None:
            return f"{place!r}, which is not HOST:PORT"
        if match["port"] != "*" and int(match["port"]) > 65535:
            return f"port {match['port']}, above 65535"
        wildcard = match["host"] == "*" or match["port"] == "*" or int(match["port"]) == 0
    if wildcard and side == "connect":
        return "a wildcard, which only the publishing side can use"
    return None


def is_ipv6(endpoint: str) -> bool:
    return endpoint.startswith("tcp://[")


def is_local(endpoint: str) -> bool:
    """Whether only programs of this machine can reach a (well-formed) address: ipc, inproc and loopback TCP."""
    transport, _, place = endpoint.partition("://")
    if transport != "tcp":
        return True
    host = place.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def service_endpoint(endpoint: str) -> str:
    """Where the service socket beside a (well-formed, resolved) address is: on the next port, or at PATH.service.

    UsageError where there is none.
    """
    transport, _, place = endpoint.partition("://")
    if transport != "tcp":
        if transport == "ipc" and len(os.fsencode(place)) + len(".service") > _IPC_PATH_MAX:
            raise UsageError(
                f"endpoint {endpoint}: got a path of {len(os.fsencode(place))} bytes, expected at most "
                f"{_IPC_PATH_MAX - len('.service')}: the service socket lies beside it as PATH.service"
            )
        return f"{endpoint}.service"
    host, _, port = place.rpartition(":")
    if int(port) >= 65535:
        raise UsageError(
            f"endpoint {endpoint}: got port {port}, expected at most 65534: the next port is for the service socket"
        )
    return f"tcp://{host}:{int(port) + 1}"
