"""Who may connect: keys by ZAP (ZeroMQ RFC 27), the number of connections by monitors of the sockets."""

from __future__ import annotations

from collections import Counter

import zmq
from zmq.utils.monitor import recv_monitor_message
from zmq.utils.z85 import encode as z85

from streamer.network.keys import AuthorisedKeys, KeyPair
from streamer.network.service import Peer

DOMAIN = "leukostream"
CONNECTIONS_MAX = 1024
"""Over both sockets; a subscriber of ours has two."""

HANDSHAKE_S = 5.0
"""Who has not ended the handshake by then is cut off."""

_HANDLED_PER_SERVICE = 200
_READER, _CONTROLLER = b"read:", b"control:"

_EVENTS = (
    zmq.EVENT_ACCEPTED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)

Context = zmq.Context[zmq.Socket[bytes]]
Socket = zmq.Socket[bytes]


class ZapAuthenticator:
    """Answers every handshake on the sockets of `context` that have its domain. One thread owns it.

    While `service` is not called, nobody new comes in; who is in stays.
    """

    def __init__(
        self,
        context: Context,
        authorised: AuthorisedKeys | None,
        *,
        anyone_controls: bool,
        connections_max: int = CONNECTIONS_MAX,
    ) -> None:
        """`authorised`: None lets everyone in, without key."""
        self.refused: Counter[str] = Counter()
        """Connections refused, by reason."""
        self._authorised = authorised
        self._anyone = _CONTROLLER if anyone_controls else _READER
        self._connections_max = connections_max
        self._open: set[tuple[int, int]] = set()
        self._leaving = 0
        """Connections that were refused and are still open."""
        self._monitors: list[Socket] = []
        self._socket = context.socket(zmq.REP)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind("inproc://zeromq.zap.01")

    @property
    def connections(self) -> int:
        """Peers connected, over all guarded sockets, as of the last `service`."""
        return len(self._open)

    def guard(self, socket: Socket) -> None:
        """Before `socket` binds: make its handshakes come here, and count its connections."""
        socket.setsockopt_string(zmq.ZAP_DOMAIN, DOMAIN)
        monitor: Socket = socket.get_monitor_socket(_EVENTS)
        self._monitors.append(monitor)

    def service(self) -> None:
        self._count_all()
        for _ in range(_HANDLED_PER_SERVICE):
            try:
                request = self._socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            self._count_all()
            self._socket.send_multipart(self._judge(request))

    def close(self, sockets: list[Socket]) -> None:
        """Before the guarded sockets close."""
        for socket in sockets:
            socket.disable_monitor()
        for monitor in self._monitors:
            monitor.close(0)
        self._monitors.clear()
        self._socket.close(0)

    def _count_all(self) -> None:
        for number, monitor in enumerate(self._monitors):
            monitor.getsockopt(zmq.EVENTS)  # ZeroMQ hears of new messages once a millisecond only, or when asked
            self._count(number, monitor)

    def _count(self, number: int, monitor: Socket) -> None:
        for _ in range(_HANDLED_PER_SERVICE):
            try:
                event = recv_monitor_message(monitor, zmq.DONTWAIT)
            except zmq.Again:
                return
            place = number, event["value"]
            if event["event"] == zmq.EVENT_ACCEPTED:
                self._open.add(place)
            elif event["event"] == zmq.EVENT_DISCONNECTED:
                self._open.discard(place)
                self._leaving = max(0, self._leaving - 1)
            else:
                self.refused["handshake failed"] += 1

    def _judge(self, request: list[bytes]) -> list[bytes]:
        """The reply to a ZAP request [version, id, domain, address, identity, mechanism, credentials…]."""
        id_ = request[1] if len(request) > 1 else b""
        mechanism = request[5] if len(request) > 5 else b""
        status, text, user = b"200", b"OK", self._anyone + b"anyone"
        if len(self._open) - self._leaving > self._connections_max:
            self.refused["too many connections"] += 1
            status, text, user = b"300", b"too many connections", b""
        elif self._authorised is not None:
            owner = None
            if mechanism == b"CURVE" and len(request) > 6 and len(request[6]) == 32:
                owner = self._authorised.look_up(z85(request[6]))
            if owner is None:
                self.refused["key not authorised"] += 1
                status, text, user = b"400", b"key not authorised", b""
            else:
                user = (_CONTROLLER if owner.may_control else _READER) + owner.name.encode("utf-8", "replace")
        self._leaving += status != b"200"
        return [b"1.0", id_, status, text, user, b""]


def new_pair() -> KeyPair:
    public, secret = zmq.curve_keypair()
    return KeyPair(public, secret)


def peer_of(user_id: str) -> Peer:
    """The peer behind the user id that the authenticator gave its connection."""
    right, _, name = user_id.partition(":")
    return Peer(name, right == _CONTROLLER.rstrip(b":").decode())
