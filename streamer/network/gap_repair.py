"""What a subscriber has received, what it missed, and how it gets that again. No socket, no clock.

`GapRepair.take` is a generator: it yields the requests to be made of the publisher's service socket and is sent each
reply (None: there was none in time). The messages that are then complete and in order are in `ready`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from streamer.protocol.messages import (
    NEW_SLIDE,
    AnyMessage,
    DifferentialMessage,
    EndMessage,
    Envelope,
    HealthMessage,
    WireError,
    decode,
)
from streamer.protocol.requests import (
    AnyReply,
    AnyRequest,
    RefusedReply,
    ReplayReply,
    ReplayRequest,
    SnapshotReply,
    SnapshotRequest,
    new_request_id,
)

Answer = tuple[AnyReply, Sequence[bytes]]
"""A reply and the parts that followed it."""

Steps = Generator[AnyRequest, Answer | None, None]

_INTERNAL = ("differential.", "health.", "end.")
"""Received in any case: `state`, `end_of` and the noticing of losses rest on them."""

_NEWEST = "newest."
"""Before a topic: conflated by the publisher."""

_TOPICS_MAX = 32
"""That one request may name."""

_UNANSWERED_MAX = 3
"""Requests in a row without reply after which few are made: there is no service socket, or nobody answers it now."""

_HEALTH_BEFORE_RETRY = 30
"""Messages of health after which one that did not answer is asked again."""

_ATTEMPTS = 3
"""To begin a replay where the publisher's window does, which moves on meanwhile."""


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
    """Messages of this topic that were published since the last one received here, and lost for good."""
    restarted: bool
    """True for the first message of a run that replaced one seen before: counts may start again."""
    replayed: bool = False
    """It was missed, and came by asking for it."""

    @property
    def payload(self) -> bytes | None:
        """The first payload, such as the picture of a cell; None without one."""
        return self.payloads[0] if self.payloads else None


class Progress(msgspec.Struct, frozen=True):
    """How far a source was received, for a subscriber that goes on where this one is."""

    run_id: str
    session: str
    last: dict[str, tuple[int, str, int]]
    """As in `_Source`, and the others too."""
    baseline: int | None
    earlier: int = -1


@dataclass(slots=True)
class _Source:
    run_id: str
    session: str
    last: dict[str, tuple[int, str, int]] = field(default_factory=dict)
    """By topic: seq, session and session_seq of the newest message received, or known to be before what we want."""
    earlier: int = -1
    """`session_seq` of the newest message of the present session that was received of earlier runs; -1: none."""
    baseline: int | None = None
    """`seq` that a topic not in `last` has had; None: not known, so its first message shows no loss."""
    differential: DifferentialMessage | None = None
    end: EndMessage | None = None
    """Of the present session, when all of it is here; None while it goes on."""
    given_up: dict[str, int] = field(default_factory=dict)
    """By topic: `seq` of a newest message that was asked for in vain."""
    restarted: bool = False
    """The next message is the first of a run that replaced another one."""
    is_behind: bool = False
    """An earlier subscriber received it: what came since is to be asked for before the first message that is newer."""

    def enter(self, session: str) -> None:
        """The present session is this one."""
        if session != self.session:
            self.session, self.earlier = session, -1

    @property
    def newest(self) -> int:
        """`session_seq` of the newest message received of the present session; -1: none."""
        return max((last[2] for last in self.last.values() if last[1] == self.session), default=self.earlier)


class GapRepair:
    """One publisher's messages, repeats left out, losses repaired where that is possible and counted where not."""

    def __init__(
        self, topics: Sequence[str], *, replay: bool, history: bool, progress: Mapping[str, Progress] | None = None
    ) -> None:
        """`topics`: prefixes wanted. `history`: the session from its beginning, whenever we joined. `progress`: by
        source, what was received before."""
        self.topics = tuple(topics)
        self.ready: deque[Received] = deque()
        self.lost = 0
        self.repeats = 0
        self.restarts = 0
        self.replayed = 0
        self._replay = replay
        self._history = history and replay
        self._unanswered = 0
        self._unheard = 0
        """Messages of health since the last request was made in vain."""
        self._sources = {
            name: _Source(
                before.run_id, before.session, dict(before.last), before.earlier, before.baseline, is_behind=True
            )
            for name, before in (progress or {}).items()
        }
        self._newest: dict[str, tuple[str, int]] = {}
        """run_id and seq of the last one, by conflated topic."""

    @property
    def subscriptions(self) -> tuple[str, ...]:
        """The prefixes to subscribe to."""
        conflated = self.topics and all(topic.startswith(_NEWEST) for topic in self.topics)
        return tuple(dict.fromkeys(self.topics if conflated else (*self.topics, *_INTERNAL)))

    def state(self, source: str | None) -> DifferentialMessage | None:
        if source is None:
            if len(self._sources) > 1:
                raise ValueError(f"source: got None, expected one of {', '.join(sorted(self._sources))}")
            source = next(iter(self._sources), "")
        known = self._sources.get(source)
        return None if known is None else known.differential

    def sources(self) -> tuple[str, ...]:
        return tuple(self._sources)

    def end_of(self, source: str) -> EndMessage | None:
        known = self._sources.get(source)
        return None if known is None else known.end

    def progress(self) -> dict[str, Progress] | None:
        """By source, how far it was received; None while something of that waits in `ready`."""
        if self.ready:
            return None
        return {
            name: Progress(known.run_id, known.session, dict(known.last), known.baseline, known.earlier)
            for name, known in self._sources.items()
        }

    @property
    def is_over(self) -> bool:
        ends = [known.end for known in self._sources.values()]
        return bool(ends) and all(end is not None and end.reason != NEW_SLIDE for end in ends)

    def run_of(self, source: str) -> str | None:
        known = self._sources.get(source)
        return None if known is None else known.run_id

    def take(self, parts: Sequence[bytes]) -> Steps:
        """One multipart of the stream. WireError, ProtocolVersionError for what is no message of this protocol."""
        if len(parts) < 2:
            raise WireError(f"got a message of {len(parts)} part, expected topic, header and payloads")
        message = decode(parts[1])
        topic = parts[0].decode("utf-8", "replace")
        if topic.startswith(_NEWEST):
            self._take_newest(topic, message, parts)
            return
        known = self._sources.get(message.source)
        if known is None:
            known = self._sources[message.source] = _Source(message.run_id, message.session)
            if self._history:
                yield from self._fetch(known, message.source, message.session, -1, message.session_seq - 1)
        elif known.run_id != message.run_id:
            yield from self._restart(known, message)
        elif known.is_behind and (message.session != known.session or message.session_seq > known.newest):
            known.is_behind = False
            yield from self._catch_up(known, message, known.session, known.newest)
        last = known.last.get(topic)
        if last is not None and message.seq <= last[0]:
            self.repeats += 1
            if known.end is None and isinstance(message, EndMessage) and message.session == known.session:
                known.end = message  # an earlier subscriber received it
            return
        if isinstance(message, HealthMessage) and self._unanswered >= _UNANSWERED_MAX:
            self._unheard = (self._unheard + 1) % _HEALTH_BEFORE_RETRY
            self._unanswered -= not self._unheard
        if self._replay:
            yield from self._repair(known, message, topic)
        known.enter(message.session)
        self._accept(known, topic, message, parts, replayed=False)
        if self._replay and isinstance(message, HealthMessage) and message.last_seq is not None:
            known.baseline = -1  # not before: the health messages that came before this one, or joining, are no loss

    def _take_newest(self, topic: str, message: AnyMessage | Envelope, parts: Sequence[bytes]) -> None:
        """One of the conflated topics, whose gaps are no losses; where they were not asked for, another one did."""
        if not any(asked.startswith(_NEWEST) and topic.startswith(asked) for asked in self.topics):
            return
        before = self._newest.get(topic)
        if before == (message.run_id, message.seq):
            self.repeats += 1
            return
        self._newest[topic] = message.run_id, message.seq
        restarted = before is not None and before[0] != message.run_id
        self.ready.append(Received(topic, message, parts[1], tuple(parts[2:]), 0, restarted))

    def adopt(self, snapshot: SnapshotReply) -> None:
        """Take the newest differentials from a snapshot."""
        for name, source in snapshot.sources.items():
            if source.differential is not None:
                differential = source.differential
                known = self._sources.setdefault(name, _Source(differential.run_id, differential.session))
                self._renew(known, differential)

    def refresh(self) -> Steps:
        """Ask for a snapshot and adopt it."""
        answer = yield SnapshotRequest(id=new_request_id())
        if answer is not None and isinstance(answer[0], SnapshotReply):
            self.adopt(answer[0])

    def _restart(self, known: _Source, message: AnyMessage | Envelope) -> Steps:
        self.restarts += 1
        self._unanswered = 0
        old, end = known.session, known.newest
        known.earlier = end
        known.run_id, known.baseline, known.restarted = message.run_id, -1 if self._replay else None, True
        known.is_behind = False
        known.last.clear()
        known.given_up.clear()
        if self._replay:
            yield from self._catch_up(known, message, old, end)
        known.enter(message.session)

    def _catch_up(self, known: _Source, message: AnyMessage | Envelope, old: str, end: int) -> Steps:
        """Get what came between `end` of the session `old` and `message`."""
        known.enter(message.session)
        if old != message.session:
            yield from self._fetch(known, message.source, old, end, None)
            known.differential = None
            end = -1
        yield from self.refresh()
        yield from self._fetch(known, message.source, message.session, end, message.session_seq - 1)

    def _repair(self, known: _Source, message: AnyMessage | Envelope, topic: str) -> Steps:
        """Get what of this source was published before `message` and didn't come."""
        behind: list[tuple[str, int]] = []
        last = known.last.get(topic)
        if last is not None and message.seq > last[0] + 1:
            behind.append(last[1:])
        if isinstance(message, HealthMessage | EndMessage) and message.last_seq is not None:
            for type_, seq in message.last_seq.items():
                other = f"{type_}.{message.source}"
                if not self._is_received(other):
                    continue
                place = known.last.get(other)
                if place is None:
                    if known.baseline is None:  # joined here: from now on nothing of it may be missing
                        known.last[other] = (seq, message.session, message.session_seq)
                    elif seq > known.given_up.get(other, -1):
                        behind.append((message.session, known.earlier))
                    else:
                        continue
                elif seq > max(place[0], known.given_up.get(other, -1)):
                    behind.append(place[1:])
                else:
                    continue
                known.given_up[other] = seq
        elif last is None and known.baseline is not None and message.seq > known.baseline + 1:
            behind.append((message.session, known.earlier))
        if not behind:
            return
        here = [session_seq for session, session_seq in behind if session == message.session]
        for session in dict.fromkeys(session for session, _ in behind if session != message.session):
            after = min(session_seq for name, session_seq in behind if name == session)
            yield from self._fetch(known, message.source, session, after, None)
            here = [-1]
        yield from self._fetch(known, message.source, message.session, min(here), message.session_seq - 1)

    def _fetch(self, known: _Source, source: str, session: str, after: int, until: int | None) -> Steps:
        """Ask for messages until all are here that there are."""
        topics = list(self.subscriptions) if len(self.subscriptions) <= _TOPICS_MAX else [""]
        attempts = _ATTEMPTS
        request: ReplayRequest | None = None
        while (until is None or after < until) and self._unanswered < _UNANSWERED_MAX:
            if request is None or request.after != after:  # asked again with the same id, so that a late reply counts
                request = ReplayRequest(id=new_request_id(), session=session, after=after, until=until, topics=topics)
            answer = yield request
            if answer is None:
                self._unanswered += 1
                continue
            self._unanswered = 0
            reply, parts = answer
            if isinstance(reply, ReplayReply):
                self._take_replayed(known, source, reply, parts)
                if reply.through <= after or reply.through >= reply.last:
                    return
                after = reply.through
                continue
            attempts -= 1
            if not isinstance(reply, RefusedReply) or reply.code != "too old" or not attempts:
                return
            answer = yield SnapshotRequest(id=new_request_id())
            if answer is None or not isinstance(answer[0], SnapshotReply):
                return
            self.adopt(answer[0])
            stands = answer[0].sources.get(source)
            if stands is None or stands.session != session or stands.oldest_session_seq - 1 <= after:
                return
            after = stands.oldest_session_seq - 1

    def _take_replayed(self, known: _Source, source: str, reply: ReplayReply, parts: Sequence[bytes]) -> None:
        if sum(reply.messages) != len(parts) or any(count < 2 for count in reply.messages):
            raise WireError(
                f"got a replay of {len(parts)} parts, expected {sum(reply.messages)}, at least two for each message"
            )
        at = 0
        for count in reply.messages:
            one = parts[at : at + count]
            at += count
            topic, message = one[0].decode("utf-8", "replace"), decode(one[1])
            last = known.last.get(topic)
            if message.run_id == known.run_id:
                new = last is None or message.seq > last[0]
            else:
                new = message.session != known.session or message.session_seq > known.earlier
            if message.source == source and new and self._is_received(topic):
                self._accept(known, topic, message, one, replayed=True)

    def _accept(
        self, known: _Source, topic: str, message: AnyMessage | Envelope, parts: Sequence[bytes], *, replayed: bool
    ) -> None:
        last = known.last.get(topic)
        before = last[0] if last is not None else known.baseline
        same_run = message.run_id == known.run_id
        lost = max(0, message.seq - before - 1) if before is not None and same_run else 0
        if same_run:
            known.last[topic] = (message.seq, message.session, message.session_seq)
        elif message.session == known.session:
            known.earlier = message.session_seq
        if isinstance(message, DifferentialMessage):
            self._renew(known, message)
        if isinstance(message, EndMessage):
            known.end = message
        elif known.end is not None and (message.session, message.run_id) != (known.end.session, known.end.run_id):
            known.end = None
        if not topic.startswith(self.topics):
            return
        self.lost += lost
        self.replayed += replayed
        restarted, known.restarted = known.restarted, False
        self.ready.append(Received(topic, message, parts[1], tuple(parts[2:]), lost, restarted, replayed))

    def _renew(self, known: _Source, differential: DifferentialMessage) -> None:
        old = known.differential
        newer = old is None or (
            differential.session_seq > old.session_seq
            if differential.session == old.session
            else differential.published_ns > old.published_ns or differential.run_id != old.run_id
        )
        if newer:
            known.differential = differential

    def _is_received(self, topic: str) -> bool:
        return topic.startswith(self.subscriptions)
