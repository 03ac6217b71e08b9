"""A subscriber's two sockets: their options and keys, and why a publisher refused them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message

from engines.base import LeukostreamError, UsageError
from streamer.network.endpoints import check_endpoint, is_ipv6, service_endpoint
from streamer.network.gap_repair import Answer
from streamer.network.keys import read_key_pair, read_public_key
from streamer.network.sockets import notice_silence
from streamer.protocol.requests import decode_reply

_RECONNECT_MS = 100
_RECONNECT_MAX_MS = 5_000
_MESSAGE_MAX_BYTES = 64 * 1024 * 1024
_FAILURES_MAX = 3
"""Handshakes that fail without a reason before that counts as a refusal: one may be a publisher that just stopped."""

_WATCHED = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)

Socket = zmq.Socket[bytes]

POLL_MS = 500
"""How long to wait at most before looking whether the publisher refuses us."""

_SLICE_MS = 50


def slices_ms(timeout_s: float) -> Iterator[int]:
    """A wait cut into short ones: a process that is stopped meanwhile, and goes on, uses up one of them only."""
    left_ms = max(1, round(1000 * timeout_s))
    while left_ms > 0:
        yield min(left_ms, _SLICE_MS)
        left_ms -= _SLICE_MS


class RefusedError(LeukostreamError):
    """The publisher does not let us in."""


class Connection:
    """A SUB and a DEALER socket that connect to a publisher in the background, again after every break."""

    def __init__(
        self,
        endpoint: str,
        topics: Iterable[str],
        *,
        keys: str | Path | None,
        server_key: str | Path | None,
        high_water_mark: int,
        heartbeat_ms: int,
        context: zmq.Context[Socket] | None = None,
    ) -> None:
        """UsageError for a malformed address or keys that can't be used."""
        check_endpoint(endpoint, "endpoint", side="connect")
        service_endpoint(endpoint)
        curve = curve_options(endpoint, keys, server_key)
        self._endpoint = endpoint
        self._keyed = bool(curve)
        self._failures = 0
        self._own_context = context is None
        self._context = zmq.Context() if context is None else context
        self.stream = self._context.socket(zmq.SUB)
        self.service = self._context.socket(zmq.DEALER)
        self._monitor: Socket = self.stream.get_monitor_socket(int(_WATCHED))
        try:
            self._connect(topics, high_water_mark, curve, heartbeat_ms)
        except BaseException:
            self.close()
            raise

    def _connect(self, topics: Iterable[str], high_water_mark: int, curve: dict[int, bytes], heartbeat_ms: int) -> None:
        self.stream.setsockopt(zmq.RCVHWM, high_water_mark)
        for socket in (self.stream, self.service):
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.MAXMSGSIZE, _MESSAGE_MAX_BYTES)
            socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
            socket.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX_MS)
            notice_silence(socket, heartbeat_ms)
            socket.setsockopt(zmq.IPV6, is_ipv6(self._endpoint))
            for option, value in curve.items():
                socket.setsockopt(option, value)
        for topic in topics:
            self.stream.setsockopt(zmq.SUBSCRIBE, topic.encode())
        try:
            self.stream.connect(self._endpoint)
            self.service.connect(service_endpoint(self._endpoint))
        except zmq.ZMQError as error:
            raise LeukostreamError(
                f"endpoint {self._endpoint}: got {zmq.strerror(error.errno or 0)}, expected an address that can be"
                " reached"
            ) from error

    def check_handshakes(self) -> None:
        """RefusedError where the publisher does not let us in, so that there is no use in waiting."""
        for event_parts in drain(self._monitor):
            event = parse_monitor_message(event_parts)["event"]
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._failures = 0
                continue
            self._failures += 1
            if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                raise RefusedError(
                    f"endpoint {self._endpoint}: got our key refused, expected it among the publisher's authorised"
                    " keys: give its owner the file leukostream.key of --keys DIR"
                )
            if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL or self._failures >= _FAILURES_MAX:
                hint = "--server-key is not the publisher's, or it uses none" if self._keyed else "it may want --keys"
                raise RefusedError(
                    f"endpoint {self._endpoint}: got the connection refused, expected a leukostream that lets us in:"
                    f" {hint}"
                )

    def close(self, *shadows: zmq.Socket[Any]) -> None:
        """Disconnect, and drop what was not yet received. `shadows` of the two sockets are closed first, since they
        may still wait for something. Safe to call twice."""
        if self.stream.closed:
            return
        self.stream.disable_monitor()
        self._monitor.close(0)
        for socket in (*shadows, self.stream, self.service):
            socket.close(0)
        if self._own_context:
            self._context.term()


def curve_options(endpoint: str, keys: str | Path | None, server_key: str | Path | None) -> dict[int, bytes]:
    """The socket options of who connects with keys; none without. UsageError for keys that can't be used."""
    if (keys is None) != (server_key is None):
        raise UsageError(
            f"endpoint {endpoint}: got {'--server-key' if keys is None else '--keys'} alone, expected both or neither: "
            "--keys DIR is one's own folder, --server-key FILE the publisher's public key"
        )
    if keys is None or server_key is None:
        return {}
    pair = read_key_pair(keys)
    return {
        zmq.CURVE_SERVERKEY: read_public_key(server_key),
        zmq.CURVE_PUBLICKEY: pair.public,
        zmq.CURVE_SECRETKEY: pair.secret,
    }


def read_answer(parts: Sequence[bytes], id_: str) -> Answer | None:
    """The reply in what came from the service socket; None for one to another request, which came too late."""
    if not parts:
        return None
    reply = decode_reply(parts[0])
    return (reply, parts[1:]) if reply.id == id_ else None


def drain(socket: Socket) -> deque[list[bytes]]:
    """All multiparts that are here now."""
    multiparts: deque[list[bytes]] = deque()
    while True:
        try:
            multiparts.append(socket.recv_multipart(zmq.DONTWAIT))
        except zmq.Again:
            return multiparts
