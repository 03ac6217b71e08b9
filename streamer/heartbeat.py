"""How either end of a connection notices that the other one is gone."""

from __future__ import annotations

from typing import Any

import zmq

HEARTBEAT_MS = 5_000


def notice_silence(socket: zmq.Socket[Any], heartbeat_ms: int) -> None:
    """Cut off a peer that did not answer for three heartbeats. Set before the socket binds or connects."""
    socket.setsockopt(zmq.HEARTBEAT_IVL, heartbeat_ms)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 2 * heartbeat_ms)
    socket.setsockopt(zmq.TCP_MAXRT, 3 * heartbeat_ms)  # no heartbeat gets past data that nobody takes
