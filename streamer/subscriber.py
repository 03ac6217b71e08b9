"""Receive what a publisher sends: typed messages, with losses and restarts told."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

import zmq

from engines.base import LeukostreamError
from streamer.endpoints import check_endpoint, is_ipv6
from streamer.wire import AnyMessage, Envelope, WireError, decode

_HEARTBEAT_MS = 5_000
_HEARTBEAT_TIMEOUT_MS = 15_000
_RECONNECT_MS = 100
_RECONNECT_MAX_MS = 5_000
_MESSAGE_MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Received:
    """One message as it came."""

    topic: str
    message: AnyMessage | Envelope
    """An Envelope where a later minor version added the type; `raw_header` holds all of it."""
    raw_header: bytes
    """The JSON object, UTF-8."""
    payloads: tuple[bytes, ...]
    lost_before: int
    """Messages of this topic that were published since the last one received here, and lost."""
    restarted: bool
    """True for the first message of a run that replaced one seen before: counts may start again."""

    @property
    def payload(self) -> bytes | None:
        """The first payload, such as the picture of a cell; None without one."""
        return self.payloads[0] if self.payloads else None


class Subscriber:
    """Iterates over the messages of a publisher, in order, repeats left out.

    Connects in the background, before or after the publisher starts, and again after every break. Delivery is at
    most once: what is lost is counted in `lost` and in `lost_before` of the next message. One thread uses it.

        with Subscriber("tcp://127.0.0.1:5555", ["differential."]) as subscriber:
            for received in subscriber:
                print(received.message)
    """

    def __init__(
        self,
        endpoint: str,
        topics: Sequence[str] = ("",),
        *,
        timeout_s: float | None = None,
        high_water_mark: int = 1000,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
    ) -> None:
        """`topics`: prefixes of TYPE.SOURCE; "frame." is every source's frames, "" everything.
        `timeout_s`: silence that ends the iteration; None for never. `context`: for inproc, the publisher's.

        UsageError for a malformed address.
        """
        check_endpoint(endpoint, "endpoint", side="connect")
        self.endpoint = endpoint
        self.lost = 0
        """Messages published and not received, over all topics."""
        self.repeats = 0
        """Last values that were here already: the publisher repeats them when somebody joins."""
        self.restarts = 0
        """How often a source's run was replaced by a new one."""
        self._timeout_s = timeout_s
        self._runs: dict[str, str] = {}
        self._last_seq: dict[tuple[str, str], int] = {}
        self._own_context = context is None
        self._context = zmq.Context() if context is None else context
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.RCVHWM, high_water_mark)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.MAXMSGSIZE, _MESSAGE_MAX_BYTES)
        self._socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX_MS)
        self._socket.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_MS)
        self._socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, _HEARTBEAT_TIMEOUT_MS)
        self._socket.setsockopt(zmq.IPV6, is_ipv6(endpoint))
        for topic in topics:
            self._socket.subscribe(topic)
        try:
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise LeukostreamError(
                f"endpoint {endpoint}: got {zmq.strerror(error.errno or 0)}, expected an address that can be reached"
            ) from error

    def receive(self, timeout_s: float | None = None) -> Received | None:
        """The next message; None when none came for `timeout_s` (None: wait for ever; 0: only what is here).

        ProtocolVersionError for a message of another major version, WireError for what is no message; receiving
        may go on after either.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            wait_ms = None if until is None else max(0, round(1000 * (until - time.monotonic())))
            if not self._socket.poll(wait_ms):
                return None
            received = self._read(self._socket.recv_multipart())
            if received is not None:
                return received

    def __iter__(self) -> Iterator[Received]:
        return self

    def __next__(self) -> Received:
        received = self.receive(self._timeout_s)
        if received is None:
            raise StopIteration
        return received

    def close(self) -> None:
        """Disconnect; what was not yet received is dropped. Safe to call twice."""
        self._socket.close()
        if self._own_context:
            self._context.term()

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self, parts: list[bytes]) -> Received | None:
        """The message in `parts`; None for a repeat."""
        if len(parts) < 2:
            raise WireError(f"{self.endpoint}: got a message of {len(parts)} part, expected topic, header and payloads")
        message = decode(parts[1])
        topic = parts[0].decode("utf-8", "replace")
        restarted = self._runs.get(message.source, message.run_id) != message.run_id
        if restarted:
            self.restarts += 1
            self._last_seq = {key: seq for key, seq in self._last_seq.items() if key[0] != message.source}
        self._runs[message.source] = message.run_id
        last_seq = self._last_seq.get((message.source, topic))
        if last_seq is not None and message.seq <= last_seq:
            self.repeats += 1
            return None
        self._last_seq[message.source, topic] = message.seq
        lost = 0 if last_seq is None else message.seq - last_seq - 1
        self.lost += lost
        return Received(topic, message, parts[1], tuple(parts[2:]), lost, restarted)
