"""Answers requests: snapshots, replay, status and commands. No socket: bytes in, parts out.

Every request gets one reply, however wrong it is, and costs a bounded amount of work and memory.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from streamer.network.history import ReplayWindow
from streamer.protocol.messages import AnyMessage, DifferentialMessage, EndMessage, HealthMessage, type_of
from streamer.protocol.requests import (
    REQUEST_MAX_BYTES,
    AnyCommand,
    AnyReply,
    Command,
    DoneReply,
    RefusedReply,
    ReplayReply,
    ReplayRequest,
    RequestRefused,
    SnapshotReply,
    SnapshotRequest,
    SourceSnapshot,
    SourceState,
    StatusReply,
    decode_request,
    encode_reply,
    request_id,
)

REPLAY_MAX_MESSAGES = 256
REPLAY_MAX_BYTES = 256 * 1024
"""Of one reply; a single larger message is sent alone."""

COMMANDS_REMEMBERED = 4096
COMMANDS_PER_S = 20


class Controls(Protocol):
    """What commands act on."""

    def execute(self, command: AnyCommand, *, by: str) -> SourceState:
        """Carry out; RequestRefused (with nothing done) where it makes no sense. `by`: who asked, for the audit."""

    def recall(self, command: AnyCommand, *, by: str) -> SourceState | None:
        """The state now, where an earlier run is known to have carried out this very command; None where not."""

    def states(self) -> Mapping[str, SourceState]:
        """By source name."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who asks."""

    name: str
    may_control: bool


@dataclass(slots=True)
class _Stand:
    """The newest of one source."""

    session: str
    session_seq: int
    last_seq: dict[str, int] = field(default_factory=dict)
    differential: DifferentialMessage | None = None
    health: HealthMessage | None = None
    end: EndMessage | None = None


class RequestHandler:
    """The state that requests are answered from. One thread owns it."""

    def __init__(self, window: ReplayWindow, *, now_ns: Callable[[], int]) -> None:
        self.window = window
        self.controls: Controls | None = None
        self.refused: Counter[str] = Counter()
        """Requests refused, by code."""
        self._now_ns = now_ns
        self._run_id: str | None = None
        self._sources: dict[str, _Stand] = {}
        self._done: OrderedDict[tuple[str, str], tuple[AnyCommand, DoneReply | RefusedReply]] = OrderedDict()
        self._allowance = float(COMMANDS_PER_S)
        self._allowed_at_ns = now_ns()

    def record(self, message: AnyMessage, parts: Sequence[bytes]) -> None:
        """A message that is being published, and its parts as sent."""
        self._run_id = message.run_id
        stand = self._sources.get(message.source)
        if stand is None or stand.session != message.session:
            stand = _Stand(message.session, message.session_seq, stand.last_seq if stand else {})
            self._sources[message.source] = stand
        stand.session_seq = message.session_seq
        stand.last_seq[type_of(message)] = message.seq
        if isinstance(message, DifferentialMessage):
            stand.differential = message
        elif isinstance(message, HealthMessage):
            stand.health = message
        stand.end = message if isinstance(message, EndMessage) else None
        self.window.add(message.session, message.session_seq, parts)

    def answer(self, request: Sequence[bytes], peer: Peer) -> list[bytes]:
        """The parts of the reply to the parts of a request."""
        header = request[0] if request else b""
        try:
            if len(request) != 1 or len(header) > REQUEST_MAX_BYTES:
                raise RequestRefused(
                    "malformed",
                    f"got {len(request)} parts with {sum(map(len, request))} bytes, "
                    f"expected one of at most {REQUEST_MAX_BYTES}",
                )
            return self._answer(header, peer)
        except RequestRefused as refusal:
            id_ = request_id(header) if len(header) <= REQUEST_MAX_BYTES else ""
            return [encode_reply(self._refusal(id_, refusal))]

    def _answer(self, header: bytes, peer: Peer) -> list[bytes]:
        request = decode_request(header)
        if isinstance(request, ReplayRequest):
            return self._replay(request)
        reply: AnyReply
        if isinstance(request, SnapshotRequest):
            reply = SnapshotReply(
                id=request.id,
                run_id=self._run_id,
                sources={name: self._snapshot(stand) for name, stand in self._sources.items()},
            )
        elif isinstance(request, Command):
            reply = self._command(request, peer)
        else:
            states = {} if self.controls is None else dict(self.controls.states())
            may = peer.may_control and self.controls is not None
            reply = StatusReply(id=request.id, run_id=self._run_id, may_control=may, sources=states)
        return [encode_reply(reply)]

    def _snapshot(self, stand: _Stand) -> SourceSnapshot:
        return SourceSnapshot(
            session=stand.session,
            session_seq=stand.session_seq,
            oldest_session_seq=self.window.place(stand.session).oldest,
            last_seq=dict(stand.last_seq),
            differential=stand.differential,
            health=stand.health,
            end=stand.end,
        )

    def _replay(self, request: ReplayRequest) -> list[bytes]:
        topics = [topic.encode("utf-8", "replace") for topic in request.topics]
        batch = self.window.read(
            request.session,
            request.after,
            request.until,
            topics,
            max_messages=REPLAY_MAX_MESSAGES,
            max_bytes=REPLAY_MAX_BYTES,
        )
        try:
            last = self.window.place(request.session).newest
        except KeyError:  # only the history has it
            last = batch.through if request.until is None else request.until
        reply = ReplayReply(
            id=request.id,
            run_id=self._run_id,
            session=request.session,
            through=batch.through,
            last=last,
            messages=[len(parts) for parts in batch.messages],
        )
        return [encode_reply(reply), *(part for parts in batch.messages for part in parts)]

    def _command(self, command: AnyCommand, peer: Peer) -> AnyReply:
        if not peer.may_control:
            raise RequestRefused(
                "not permitted", f"{peer.name} may read only; commands need the right to control, see docs/protocol.md"
            )
        if self.controls is None:
            raise RequestRefused("no control", "this publisher takes no commands")
        key = peer.name, command.id
        earlier = self._done.get(key)
        if earlier is not None:
            if earlier[0] != command:
                raise RequestRefused("id reused", f"got id {command.id!r} again with another command")
            self.refused["repeated"] += 1
            reply = earlier[1]
            return msgspec.structs.replace(reply, repeated=True) if isinstance(reply, DoneReply) else reply
        if command.run_id != self._run_id:
            state = self.controls.recall(command, by=peer.name)
            if state is not None:
                self.refused["repeated"] += 1
                return DoneReply(id=command.id, run_id=self._run_id, state=state, repeated=True)
            raise RequestRefused("another run", f"got run_id {command.run_id!r}, expected {self._run_id!r}")
        self._spend()
        done: DoneReply | RefusedReply
        try:
            state = self.controls.execute(command, by=peer.name)
            done = DoneReply(id=command.id, run_id=self._run_id, state=state, repeated=False)
        except RequestRefused as refusal:
            done = self._refusal(command.id, refusal)
        self._done[key] = command, done
        if len(self._done) > COMMANDS_REMEMBERED:
            self._done.popitem(last=False)
        return done

    def _spend(self) -> None:
        now_ns = self._now_ns()
        self._allowance = min(
            float(COMMANDS_PER_S), self._allowance + COMMANDS_PER_S * (now_ns - self._allowed_at_ns) / 1e9
        )
        self._allowed_at_ns = now_ns
        if self._allowance < 1:
            raise RequestRefused("too many", f"more than {COMMANDS_PER_S} commands a second: try again later")
        self._allowance -= 1

    def _refusal(self, id_: str, refusal: RequestRefused) -> RefusedReply:
        self.refused[refusal.code] += 1
        return RefusedReply(id=id_, run_id=self._run_id, code=refusal.code, reason=str(refusal))
