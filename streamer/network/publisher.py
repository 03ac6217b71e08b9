"""The sockets that others connect to: XPUB for the stream, multipart [topic, header, payload…]; ROUTER for requests."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from types import TracebackType

import zmq

from engines.base import UsageError
from streamer.network.auth import CONNECTIONS_MAX, HANDSHAKE_S, ZapAuthenticator, peer_of
from streamer.network.endpoints import check_endpoint, is_ipv6, is_local
from streamer.network.history import History, ReplayWindow
from streamer.network.keys import AuthorisedKeys, KeyPair, read_key_pair
from streamer.network.outgoing import OutgoingMessages, try_to_send
from streamer.network.service import Controls, Peer, RequestHandler
from streamer.network.sockets import HEARTBEAT_MS, bind_both, notice_silence
from streamer.protocol.messages import AnyMessage, PictureMessage, encode, topic_of, type_of
from streamer.protocol.requests import REQUEST_MAX_BYTES
from streamer.records import StreamStatus

WINDOW_MAX_BYTES = 32 * 1024 * 1024

_SUBSCRIPTION_MAX_BYTES = 4096
_REQUESTS_NS_PER_SERVICE = 2_000_000
"""So long requests are answered before the publishing thread goes on; those left wait for the next time."""

_REPLIES_WAITING_MAX = 8
"""Replies of one peer that doesn't read them, of 256 KiB each at most; further ones are lost to it."""

_REQUESTS_WAITING_MAX = 64
_LINGER_STEP_MS = 10
_QUIET_S = 0.5
"""After so long without a request, who was sent everything is taken to have all that it wants."""

Socket = zmq.Socket[bytes]


class Publisher:
    """A sink that publishes to all subscribers and answers requests for missed messages.

    The one publishing thread owns it: it calls `publish` for every message and, when there is none, `service`
    several times a second, so that late subscribers get their last values and requests their replies. Neither ever
    waits for a subscriber: one that doesn't keep up loses messages, beyond `high_water_mark` of them in its queue.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        insecure: bool = False,
        keys: str | Path | None = None,
        control: bool = False,
        high_water_mark: int = 500,
        heartbeat_ms: int = HEARTBEAT_MS,
        connections_max: int = CONNECTIONS_MAX,
        window_max_bytes: int = WINDOW_MAX_BYTES,
        history: History | None = None,
        flush_ms: int = 1000,
        linger_s: float = 0.0,
        context: zmq.Context[Socket] | None = None,
    ) -> None:
        """Bind `endpoint`, and the service socket beside it.

        `keys`: a key folder (keys.py); only those whose keys are in it come in, and only those who have the
        right give commands. Without keys everyone comes in, and may give commands where `control` is set.
        `heartbeat_ms`: a peer that did not answer for three of these is cut off. `history`: older messages than the
        window of `window_max_bytes` holds. `linger_s`: how long, at most, `close` goes on to send and to answer until
        every subscriber was sent everything; `flush_ms`: how long what is queued may still take after that.
        `context`: for inproc only, the one that the subscribers use.

        UsageError for a malformed address, bad keys, and for TCP that other machines can reach unless with `keys`
        or `insecure`; LeukostreamError for an address that is in use or can't be had.
        """
        check_endpoint(endpoint, "--publish", side="bind")
        inproc = endpoint.startswith("inproc://")
        if (context is None) == inproc:
            raise ValueError(f"endpoint {endpoint}: a context is for inproc, and inproc needs one")
        local = is_local(endpoint)
        if keys is None and not insecure and not local:
            raise UsageError(
                f"--publish {endpoint}: got an address that other machines can reach, where anyone could read along; "
                "expected --keys DIR, an address like tcp://127.0.0.1:PORT or ipc://PATH, or --insecure to allow it"
            )
        if control and keys is None and not local:
            raise UsageError(
                f"--control with --publish {endpoint}: got an address that other machines can reach, "
                "where anyone could give commands; expected --keys DIR, or an address of this machine only"
            )
        if keys is not None and inproc:
            raise UsageError(f"--keys with {endpoint}: inproc is not encrypted, expected a tcp or ipc address")
        pair = None if keys is None else read_key_pair(keys)
        authorised = None if keys is None else AuthorisedKeys(keys)
        self._requests = 0
        self._replies_lost = 0
        self._linger_s = linger_s
        self._hurried = False
        self.lingering = False
        """Whether `close` waits for subscribers."""
        self.cut_off = False
        """Whether, once closed, subscribers were cut off before they were known to have been sent everything."""
        self._handler = RequestHandler(ReplayWindow(window_max_bytes, history), now_ns=time.monotonic_ns)
        self._inproc_peer = Peer("anyone", control)
        self._own_context = context is None
        self._context = zmq.Context() if context is None else context
        self._authenticator = (
            None
            if inproc
            else ZapAuthenticator(
                self._context, authorised, anyone_controls=control and keys is None, connections_max=connections_max
            )
        )
        self._stream = self._context.socket(zmq.XPUB)
        self._stream.setsockopt(zmq.SNDHWM, high_water_mark)
        self._stream.setsockopt(zmq.LINGER, flush_ms)
        self._stream.setsockopt(zmq.MAXMSGSIZE, _SUBSCRIPTION_MAX_BYTES)
        self._outgoing = OutgoingMessages(self._stream, time.monotonic_ns)
        self._service = self._context.socket(zmq.ROUTER)
        self._service.setsockopt(zmq.ROUTER_MANDATORY, 1)  # report replies that can't be delivered, to count them
        self._service.setsockopt(zmq.SNDHWM, _REPLIES_WAITING_MAX)
        self._service.setsockopt(zmq.RCVHWM, _REQUESTS_WAITING_MAX)
        self._service.setsockopt(zmq.LINGER, flush_ms)
        self._service.setsockopt(zmq.MAXMSGSIZE, 2 * REQUEST_MAX_BYTES)  # too long a request is refused, not cut
        try:
            for socket in (self._stream, self._service):
                self._prepare(socket, endpoint, heartbeat_ms, pair)
            self.endpoint, self.service_endpoint = bind_both(self._stream, self._service, endpoint)
        except BaseException:
            self._linger_s = 0.0
            self.close()
            raise

    @property
    def window(self) -> ReplayWindow:
        return self._handler.window

    @property
    def lost(self) -> Counter[str]:
        """Messages that found a subscriber's queue full, by type."""
        return self._outgoing.lost

    def obey(self, controls: Controls) -> None:
        """From now on, carry out the commands of those who may give them."""
        self._handler.controls = controls

    def publish(self, message: AnyMessage, payload: bytes | None = None) -> None:
        self.service()
        topic = topic_of(message).encode()
        parts = [topic, encode(message)] if payload is None else [topic, encode(message), payload]
        # A picture is worth something while it is new, and would push everything else out of the window.
        self._handler.record(message, parts[:2] if isinstance(message, PictureMessage) else parts)
        self._outgoing.publish(parts, type_of(message))

    def service(self) -> None:
        """Let subscribers in, send the last values that new ones ask for, and answer requests."""
        self._outgoing.service()
        self._answer_requests()

    @property
    def has_subscribers(self) -> bool:
        """Whether anyone subscribes to anything, as of the last `service`."""
        return self._outgoing.subscribed

    def wants(self, type_: str, source: str) -> bool:
        """Whether anyone subscribes to TYPE.SOURCE, as of the last `service`."""
        return self._outgoing.wants(f"{type_}.{source}".encode())

    def wants_picture(self, source: str) -> bool:
        """Whether anyone asks for pictures of a source by name; who takes everything doesn't, but gets them too."""
        return self._outgoing.wants_named(f"picture.{source}".encode())

    def health(self) -> StreamStatus:
        refused = Counter(self._handler.refused)
        if self._authenticator is not None:
            refused.update(self._authenticator.refused)
        if self._replies_lost:
            refused["reply not taken"] = self._replies_lost
        return StreamStatus(
            connections=None if self._authenticator is None else self._authenticator.connections,
            lost=dict(self.lost),
            requests=self._requests,
            refused=dict(refused),
            window_bytes=self.window.bytes_used,
        )

    def hurry(self) -> None:
        """Linger no longer. Any thread."""
        self._hurried = True

    def close(self) -> None:
        """Send what is queued, answer who asks, linger as long as there is reason to, and free the addresses. Safe to
        call twice."""
        if self._service.closed:
            return
        self._outgoing.send_newest()
        if self._linger_s > 0:
            self.lingering = True
            self._linger(time.monotonic() + self._linger_s)
            self.lingering = False
        if self._authenticator is not None:
            self._authenticator.close([socket for socket in (self._stream, self._service) if not socket.closed])
        self._stream.close()
        self._service.close()
        if self._own_context:
            self._context.term()

    def __enter__(self) -> Publisher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _prepare(self, socket: Socket, endpoint: str, heartbeat_ms: int, pair: KeyPair | None) -> None:
        notice_silence(socket, heartbeat_ms)
        socket.setsockopt(zmq.HANDSHAKE_IVL, round(1000 * HANDSHAKE_S))
        socket.setsockopt(zmq.IPV6, is_ipv6(endpoint))
        if pair is not None:
            socket.setsockopt(zmq.CURVE_SERVER, 1)
            socket.setsockopt(zmq.CURVE_SECRETKEY, pair.secret)
        if self._authenticator is not None:
            self._authenticator.guard(socket)

    def _answer_requests(self) -> int:
        """How many were answered."""
        if self._authenticator is not None:
            self._authenticator.service()
        until_ns = 0
        answered = 0
        while True:
            try:
                frames = self._service.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                return answered
            answered += 1
            now_ns = time.monotonic_ns()
            until_ns = until_ns or now_ns + _REQUESTS_NS_PER_SERVICE
            self._answer(frames)
            if now_ns >= until_ns:
                return answered

    def _answer(self, frames: list[zmq.Frame]) -> None:
        self._requests += 1
        peer = self._inproc_peer if self._authenticator is None else peer_of(str(frames[-1].get("User-Id")))
        parts = [frame.bytes for frame in frames]
        # A REQ socket puts an empty part before its request, and wants one before the reply.
        envelope = parts[:2] if len(parts) > 1 and not parts[1] else parts[:1]
        reply = self._handler.answer(parts[len(envelope) :], peer)
        if not try_to_send(self._service, [*envelope, *reply]):
            self._replies_lost += 1

    def _linger(self, until: float) -> None:
        """Until every subscriber was sent everything, and nobody asks any more for what it missed before that."""

        def is_over() -> bool:
            return self._hurried or time.monotonic() >= until

        self.service()
        while self._outgoing.subscribed and self._outgoing.owes and not is_over():
            self._service.poll(_LINGER_STEP_MS)
            self.service()
        if not self._outgoing.subscribed:
            return
        # A closed socket lives on until its queues are empty, and its monitor learns when it dies.
        self._stream.disable_monitor()
        sent: Socket = self._stream.get_monitor_socket(zmq.EVENT_MONITOR_STOPPED, f"inproc://sent-{id(self)}")
        self._stream.close(max(0, round(1000 * (until - time.monotonic()))))
        self.cut_off = self._outgoing.owes
        while not sent.poll(_LINGER_STEP_MS):
            if is_over():
                self.cut_off = True
                break
            self._answer_requests()
        sent.close(0)
        quiet_at = time.monotonic() + _QUIET_S
        while time.monotonic() < quiet_at and not is_over():
            self._service.poll(_LINGER_STEP_MS)
            if self._answer_requests():
                quiet_at = time.monotonic() + _QUIET_S
