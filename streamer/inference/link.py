"""The connection to one inference server: its socket, and what becomes of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import zmq
from zmq.utils.monitor import recv_monitor_message

from streamer.inference.wire import MESSAGE_MAX_BYTES
from streamer.network.endpoints import is_ipv6
from streamer.network.sockets import HEARTBEAT_MS, notice_silence

_RECONNECT_MS, _RECONNECT_MAX_MS = 50, 1000
_SENDS_WAITING_MAX = 64

_FAILURES_MAX = 3
"""Handshakes that fail without a reason before that counts as a refusal: one may be of a server that just stopped."""

_WATCHED = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)

Socket = zmq.Socket[bytes]
Event = Literal["in", "lost", "our key", "their key"]
"""in: the server can be asked; our key: it does not know it; their key: it has another one, or one side has none."""


class Link:
    """Connects in the background, again after every break. One thread owns it."""

    def __init__(self, context: zmq.Context[Socket], endpoint: str, curve: Mapping[int, bytes]) -> None:
        """`curve`: the options of `curve_options`."""
        self._is_keyed = bool(curve)
        self._failures = 0
        self.socket: Socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.IMMEDIATE, 1)  # nothing waits for a server that is not there
        self.socket.setsockopt(zmq.SNDHWM, _SENDS_WAITING_MAX)
        self.socket.setsockopt(zmq.MAXMSGSIZE, MESSAGE_MAX_BYTES)
        self.socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
        self.socket.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX_MS)
        self.socket.setsockopt(zmq.IPV6, is_ipv6(endpoint))
        notice_silence(self.socket, HEARTBEAT_MS)
        for option, value in curve.items():
            self.socket.setsockopt(option, value)
        self.monitor: Socket = self.socket.get_monitor_socket(int(_WATCHED))
        self.socket.connect(endpoint)

    def events(self) -> Iterator[Event]:
        """What happened since the last time."""
        while True:
            try:
                event = recv_monitor_message(self.monitor, zmq.DONTWAIT)["event"]
            except zmq.Again:
                return
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._failures = 0
                yield "in"
            elif event == zmq.EVENT_DISCONNECTED:
                yield "lost"
            elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                yield "our key"
            else:
                self._failures += 1
                if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL or self._failures >= _FAILURES_MAX:
                    yield "their key"

    def why_refused(self, event: Event) -> str:
        """In words, for people."""
        if event == "our key":
            why = "our key is not among its authorised ones: give its owner the file leukostream.key of --keys"
        else:
            why = "--server-key is not the server's, or it uses none" if self._is_keyed else "it may want --keys"
        return f"got the connection refused: {why}"

    def close(self) -> None:
        self.socket.disable_monitor()
        self.monitor.close(0)
        self.socket.close(0)
