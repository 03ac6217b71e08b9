"""Receive what a publisher sends: typed messages in order, losses repaired, restarts reported."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import zmq

from streamer.network.connection import POLL_MS, Connection, Socket, drain, read_answer, slices_ms
from streamer.network.gap_repair import Answer, GapRepair, Received, Steps
from streamer.network.sockets import HEARTBEAT_MS
from streamer.protocol.messages import DifferentialMessage, EndMessage
from streamer.protocol.requests import AnyReply, AnyRequest, encode_request

__all__ = ["Received", "Subscriber"]


class Subscriber:
    """Iterates over the messages of a publisher, in order, repeats left out.

    Connects in the background, before or after the publisher starts, and again after every break. What is lost is
    asked for again; what the publisher no longer has is counted in `lost` and in `lost_before` of the next message.
    One thread uses it.

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
        replay: bool = True,
        history: bool = False,
        newest_only: bool = False,
        keys: str | Path | None = None,
        server_key: str | Path | None = None,
        reply_timeout_s: float = 2.0,
        high_water_mark: int = 1000,
        heartbeat_ms: int = HEARTBEAT_MS,
        context: zmq.Context[Socket] | None = None,
    ) -> None:
        """`topics`: prefixes of TYPE.SOURCE; "frame." is every source's frames, "" everything.
        `timeout_s`: silence that ends the iteration; None for never. `replay`: ask for what was missed.
        `history`: begin with the beginning of the session, as far as the publisher has it. `newest_only`: of every
        topic only the newest message, for who shows and doesn't count; what is passed over is in `passed_over`.
        `keys`: one's own key folder, `server_key`: the publisher's public key file; both or neither.
        `heartbeat_ms`: a publisher that did not answer for three of these is connected to anew.
        `context`: for inproc, the publisher's.

        UsageError for a malformed address or keys that can't be used.
        """
        self.endpoint = endpoint
        self.passed_over = 0
        self._timeout_s = timeout_s
        self._newest_only = newest_only
        self._reply_timeout_s = reply_timeout_s
        self._repair = GapRepair(topics, replay=replay and not newest_only, history=history)
        self._connection = Connection(
            endpoint,
            self._repair.subscriptions,
            keys=keys,
            server_key=server_key,
            high_water_mark=high_water_mark,
            heartbeat_ms=heartbeat_ms,
            context=context,
        )
        self._stream, self._service = self._connection.stream, self._connection.service

    @property
    def lost(self) -> int:
        """Messages published and not received, over the topics asked for."""
        return self._repair.lost

    @property
    def replayed(self) -> int:
        """Messages that were missed and came by asking for them."""
        return self._repair.replayed

    @property
    def repeats(self) -> int:
        """Last values that were here already: the publisher repeats them when somebody joins."""
        return self._repair.repeats

    @property
    def restarts(self) -> int:
        """How often a source's run was replaced by a new one."""
        return self._repair.restarts

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources heard of so far."""
        return self._repair.sources()

    def run_of(self, source: str) -> str | None:
        """The run that publishes a source, which commands must name; None: nothing was heard of it."""
        return self._repair.run_of(source)

    def state(self, source: str | None = None) -> DifferentialMessage | None:
        """The differential as of all that was received; None before the first. Never an older one than before.

        `source` may be left out where there is one only. `refresh` before it asks the publisher.
        """
        return self._repair.state(source)

    def end_of(self, source: str) -> EndMessage | None:
        """How the present session of a source ended, once all of it was received; None while it goes on.

        A streamer that was killed, or could not write its journal, sends none: the session may be resumed.
        """
        return self._repair.end_of(source)

    @property
    def is_over(self) -> bool:
        """Whether every source heard of has ended, and none goes on with another slide. What was received before that
        is still to be taken: `receive(0)`."""
        return self._repair.is_over

    def refresh(self) -> None:
        """Ask the publisher for its newest differentials; where it does not answer, `state` stays as it is."""
        self._run(self._repair.refresh())

    def receive(self, timeout_s: float | None = None) -> Received | None:
        """The next message; None when none came for `timeout_s` (None: wait for ever; 0: only what is here).

        ProtocolVersionError for a message of another major version, WireError for what is no message; receiving
        may go on after either. RefusedError where the publisher does not let us in.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            if self._repair.ready and not self._newest_only:
                return self._repair.ready.popleft()
            left_ms = POLL_MS if until is None else max(0, round(1000 * (until - time.monotonic())))
            arrived = self._stream.poll(min(left_ms, POLL_MS))
            if not arrived:
                self._connection.check_handshakes()
                if until is not None and time.monotonic() >= until and not self._repair.ready:
                    return None
            elif self._newest_only:
                for parts in drain(self._stream):
                    self._run(self._repair.take(parts))
            else:
                self._run(self._repair.take(self._stream.recv_multipart()))
            if self._newest_only and self._repair.ready:
                self.passed_over += keep_newest(self._repair)
                return self._repair.ready.popleft()

    def ask(self, request: AnyRequest, timeout_s: float | None = None) -> AnyReply | None:
        """Make a request of the publisher's service socket; None where no reply came in time.

        A command may be given again with the same id: it is carried out once.
        """
        answer = self._ask(request, self._reply_timeout_s if timeout_s is None else timeout_s)
        return None if answer is None else answer[0]

    def __iter__(self) -> Iterator[Received]:
        return self

    def __next__(self) -> Received:
        received = self.receive(self._timeout_s)
        if received is None:
            raise StopIteration
        return received

    def close(self) -> None:
        """Disconnect; what was not yet received is dropped. Safe to call twice."""
        self._connection.close()

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, steps: Steps) -> None:
        try:
            request = next(steps)
            while True:
                request = steps.send(self._ask(request, self._reply_timeout_s))
        except StopIteration:
            pass

    def _ask(self, request: AnyRequest, timeout_s: float) -> Answer | None:
        self._service.send(encode_request(request), zmq.DONTWAIT)
        for slice_ms in slices_ms(timeout_s):
            while self._service.poll(slice_ms):
                answer = read_answer(self._service.recv_multipart(), request.id)
                if answer is not None:
                    return answer
        return None


def keep_newest(repair: GapRepair) -> int:
    """Leave of every topic only the newest message ready; how many were passed over."""
    newest = {received.topic: received for received in repair.ready}
    passed_over = len(repair.ready) - len(newest)
    repair.ready.clear()
    repair.ready.extend(newest.values())
    return passed_over
