"""Which addresses are well formed, and which only this machine can reach."""

from __future__ import annotations

from typing import Literal

import pytest

from engines.base import UsageError
from streamer.network.endpoints import check_endpoint, is_local


@pytest.mark.parametrize(
    "endpoint",
    ["tcp://127.0.0.1:5555", "tcp://[::1]:5555", "tcp://lab-7.example.org:1", "ipc:///tmp/x", "ipc://@x", "inproc://x"],
)
@pytest.mark.parametrize("side", ["bind", "connect"])
def test_well_formed(endpoint: str, side: Literal["bind", "connect"]) -> None:
    check_endpoint(endpoint, "--publish", side=side)


@pytest.mark.parametrize("endpoint", ["tcp://*:5555", "tcp://127.0.0.1:*", "tcp://127.0.0.1:0", "ipc://*"])
def test_wildcards_are_for_binding(endpoint: str) -> None:
    check_endpoint(endpoint, "--publish", side="bind")
    with pytest.raises(UsageError, match="got a wildcard, which only the publishing side can use"):
        check_endpoint(endpoint, "endpoint", side="connect")


@pytest.mark.parametrize(
    ("endpoint", "fault"),
    [
        ("", "no transport"),
        ("5555", "no transport"),
        ("127.0.0.1:5555", "no transport"),
        ("udp://127.0.0.1:5555", "transport 'udp'"),
        ("TCP://127.0.0.1:5555", "transport 'TCP'"),
        ("tcp://", "nothing after the transport"),
        ("ipc://", "nothing after the transport"),
        ("tcp://127.0.0.1", "'127.0.0.1', which is not HOST:PORT"),
        ("tcp://:5555", "':5555', which is not HOST:PORT"),
        ("tcp://127.0.0.1:http", "which is not HOST:PORT"),
        ("tcp://127.0.0.1:-1", "which is not HOST:PORT"),
        ("tcp://::1:5555", "which is not HOST:PORT"),
        ("tcp://a b:5555", "which is not HOST:PORT"),
        ("tcp://127.0.0.1:65536", "port 65536, above 65535"),
        ("ipc:///tmp/" + "é" * 60, "a path of 125 bytes, more than the 107"),
    ],
)
def test_malformed(endpoint: str, fault: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_endpoint(endpoint, "--publish", side="bind")
    said = str(caught.value)
    assert said.startswith(f"--publish {endpoint}: got ")
    assert fault in said
    assert said.endswith("expected an address like tcp://127.0.0.1:5555 or ipc:///tmp/leukostream")


@pytest.mark.parametrize(
    ("endpoint", "local"),
    [
        ("tcp://127.0.0.1:5555", True),
        ("tcp://127.8.9.1:5555", True),
        ("tcp://[::1]:5555", True),
        ("tcp://localhost:5555", True),
        ("ipc:///tmp/x", True),
        ("inproc://x", True),
        ("tcp://*:5555", False),
        ("tcp://0.0.0.0:5555", False),
        ("tcp://[::]:5555", False),
        ("tcp://192.168.1.4:5555", False),
        ("tcp://eth0:5555", False),
        ("tcp://localhost.example.org:5555", False),
    ],
)
def test_who_can_reach_it(endpoint: str, local: bool) -> None:
    assert is_local(endpoint) is local
