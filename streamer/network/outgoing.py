"""The stream's socket: who subscribes to what, and who gets what when a subscriber is too slow.

ZeroMQ keeps one queue for each subscriber and silently drops what does not fit. So a message is first sent on condition
that every queue has room. If one is full, the other subscribers get the message and the loss is counted; ZeroMQ then
skips the slow subscriber, again silently, until it has read half of its queue. That subscriber asks for the frames and
cells it missed. Differential, health and end messages are complete in themselves: the newest of each is sent again
every second for a while, so that a slow subscriber is up to date as soon as there is room and sees what to ask for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import zmq

LAST_VALUE_TYPES = frozenset({"differential", "health", "end"})
"""Types whose newest message is complete in itself: a late subscriber gets it at once, a slow one as soon as it can.
They are also published conflated. An end is that until the source goes on with another session."""

NEWEST = b"newest."
"""Before a topic: the same messages, the newest one at most twice a second, and only while somebody asks for them."""

NEWEST_INTERVAL_NS = 500_000_000
OWED_INTERVAL_NS = 1_000_000_000
OWED_FOR_NS = 600_000_000_000
"""So long after a queue was found full, the newest values are sent again."""

_SUBSCRIPTIONS_PER_SERVICE = 1000
_PREFIXES_MAX = 10_000

Socket = zmq.Socket[bytes]


class OutgoingMessages:
    """Owns nothing but what is still to be sent; the one publishing thread uses it."""

    def __init__(self, socket: Socket, now_ns: Callable[[], int]) -> None:
        """`socket`: an XPUB, which its owner binds and closes."""
        self.lost: Counter[str] = Counter()
        """Messages that found a subscriber's queue full, by type."""
        self._socket = socket
        self._now_ns = now_ns
        socket.setsockopt(zmq.XPUB_VERBOSE, 1)  # every subscription, not only the first of its prefix
        self._prefixes: tuple[bytes, ...] = ()
        self._last: dict[bytes, Sequence[bytes]] = {}
        self._newest: dict[bytes, Sequence[bytes]] = {}
        self._newest_due_ns = 0
        self._sent_ns: dict[bytes, int] = {}
        """When each last value was sent last."""
        self._owed_until_ns = 0

    def publish(self, parts: Sequence[bytes], type_: str) -> None:
        """Send [topic, header, payload…] to every subscriber that wants it and has room."""
        topic = parts[0]
        if type_ != "end":
            self._last.pop(b"end." + topic.partition(b".")[2], None)
        if type_ in LAST_VALUE_TYPES:
            self._last[topic] = parts
            self._sent_ns[topic] = self._now_ns()
            if self.wants_named(NEWEST + topic):
                self._newest[NEWEST + topic] = [NEWEST + topic, *parts[1:]]
        if self.wants(topic):
            self._send(parts, type_)

    def service(self) -> None:
        """Let subscribers in, with the last values, and send what is due.

        A last value reaches every subscriber of its topic, not the new one alone: those who have it already
        see its `seq` again and ignore it. Many subscriptions at once cost one repeat.
        """
        self._take_subscriptions()
        now_ns = self._now_ns()
        if self._newest and now_ns >= self._newest_due_ns:
            self._newest_due_ns = now_ns + NEWEST_INTERVAL_NS
            self.send_newest()
        if self.owes:
            for topic, parts in self._last.items():
                if now_ns - self._sent_ns[topic] >= OWED_INTERVAL_NS and self.wants(topic):
                    self._sent_ns[topic] = now_ns
                    self._deliver(parts)

    def send_newest(self) -> None:
        """Send the conflated messages that wait for their time."""
        newest, self._newest = self._newest, {}
        for topic, parts in newest.items():
            self._send(parts, topic.split(b".")[1].decode())

    @property
    def owes(self) -> bool:
        """Whether a subscriber may still be behind, and be passed over by ZeroMQ: a queue was found full lately."""
        return self._now_ns() < self._owed_until_ns

    def wants(self, topic: bytes) -> bool:
        """Whether anyone subscribes to it, as of the last `service`."""
        return topic.startswith(self._prefixes)

    def wants_named(self, topic: bytes) -> bool:
        """Whether anyone asks for it by name: who takes everything does not, but gets it too."""
        first = topic.partition(b".")[0]
        return any(prefix.startswith(first) and topic.startswith(prefix) for prefix in self._prefixes)

    @property
    def subscribed(self) -> bool:
        """Whether anyone subscribes to anything."""
        return bool(self._prefixes)

    def _send(self, parts: Sequence[bytes], type_: str) -> None:
        """To everyone whose queue has room."""
        if not self._deliver(parts):
            self.lost[type_] += 1
            self._owed_until_ns = self._now_ns() + OWED_FOR_NS

    def _deliver(self, parts: Sequence[bytes]) -> bool:
        """Whether every queue had room. XPUB drops without a word; asked not to, it says that it would have to."""
        self._socket.setsockopt(zmq.XPUB_NODROP, 1)
        if try_to_send(self._socket, parts):
            return True
        self._socket.setsockopt(zmq.XPUB_NODROP, 0)
        self._socket.send_multipart(parts, zmq.DONTWAIT)
        return False

    def _take_subscriptions(self) -> None:
        newcomers: set[bytes] = set()
        prefixes = set(self._prefixes)
        for _ in range(_SUBSCRIPTIONS_PER_SERVICE):
            try:
                event = self._socket.recv_multipart(zmq.DONTWAIT)[0]
            except zmq.Again:
                break
            if event[:1] == b"\1" and len(prefixes) < _PREFIXES_MAX:
                prefixes.add(event[1:])
                newcomers.add(event[1:])
            elif event[:1] == b"\0":  # the last subscriber of this prefix left
                prefixes.discard(event[1:])
        if len(prefixes) != len(self._prefixes) or newcomers:
            self._prefixes = tuple(prefixes)
        joined = tuple(newcomers)
        for topic, parts in self._last.items():
            if topic.startswith(joined):
                self._send(parts, topic.partition(b".")[0].decode())
            if (NEWEST + topic).startswith(joined) and self.wants_named(NEWEST + topic):
                self._send([NEWEST + topic, *parts[1:]], topic.partition(b".")[0].decode())


def try_to_send(socket: Socket, parts: Sequence[bytes]) -> bool:
    """False, with nothing sent, where a queue is full or the peer disconnected."""
    for _ in range(2):
        try:
            socket.send_multipart(parts, zmq.DONTWAIT)
            return True
        except zmq.ZMQError as error:
            if error.errno == zmq.EHOSTUNREACH:
                return False
            if error.errno != zmq.EAGAIN:
                raise
        # ZeroMQ hears of room in its queues once a millisecond only, or when it is asked for its state.
        socket.getsockopt(zmq.EVENTS)
    return False
