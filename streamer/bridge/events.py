"""What of a streamer's messages a bridge passes on. No socket, no clock."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from streamer.network.gap_repair import Progress, Received
from streamer.protocol.factory import SOURCE_NAME
from streamer.protocol.messages import AnyMessage, DifferentialMessage, EndMessage, Envelope, type_of

Kind = Literal["differential", "end", "health", "cell", "silent"]
PASSED_ON: frozenset[str] = frozenset(get_args(Kind)) - {"silent"}
SILENT_AFTER_S = 30.0
"""Without a message of a source whose session has not ended. Health comes every second, once a minute at the rarest."""


def kinds_of(*more: Kind, cells: bool) -> frozenset[Kind]:
    """What a broker is given; cells where they were asked for."""
    kinds: list[Kind] = ["differential", "health", "end", *more]
    if cells:
        kinds.append("cell")
    return frozenset(kinds)


@dataclass(frozen=True, slots=True, eq=False)
class Event:
    """One message to be passed on, or the news that a source has fallen silent."""

    kind: Kind
    source: str
    """Letters, digits, `_` and `-`: safe as a part of a topic."""
    received: Received | None
    """None: silent."""
    result: DifferentialMessage | None = None
    """Of an end: the last differential of its session; None: not known here."""
    progress: Mapping[str, Progress] | None = None
    """How far the streamer was received when this event was made; None where that is not known."""

    @property
    def message(self) -> AnyMessage:
        assert self.received is not None, "who has nothing but silence asks for no message"
        assert not isinstance(self.received.message, Envelope), "types of a later version are not passed on"
        return self.received.message

    @property
    def body(self) -> bytes:
        """The JSON object as the streamer published it, UTF-8."""
        return b"" if self.received is None else self.received.raw_header

    @property
    def key(self) -> str:
        """SESSION.SESSION_SEQ: the same whenever the same message is delivered, and no other message has it."""
        return f"{self.message.session}.{self.message.session_seq}"

    @property
    def is_replaceable(self) -> bool:
        """Whether a newer event of its kind and source says all that it does."""
        if self.kind == "differential":
            assert isinstance(self.message, DifferentialMessage)
            return not self.message.final
        return self.kind in ("health", "silent")


class Selection:
    """Chooses the events of one streamer's messages; a few numbers a source are kept."""

    def __init__(
        self,
        kinds: Collection[Kind],
        *,
        health_every_s: float,
        silent_after_s: float = SILENT_AFTER_S,
        going_on: Iterable[str] = (),
        now_s: float = 0.0,
    ) -> None:
        """`going_on`: sources that an earlier bridge heard of, and not of their end: silent if nothing comes now."""
        self._kinds = kinds
        self._health_every_s = health_every_s
        self._silent_after_s = silent_after_s
        self._health_s: dict[str, float] = {}
        """By source, when health was passed on last."""
        self._heard_s: dict[str, float] = dict.fromkeys(going_on, now_s)
        """By source that is neither silent nor at its end, when it was heard last."""
        self._results: dict[str, DifferentialMessage] = {}
        self.refused: int = 0
        """Messages whose source has a name that no source can have."""

    def take(self, received: Received, now_s: float) -> Event | None:
        """The event of a message; None where it is not passed on. `now_s`: monotonic seconds."""
        message, source = received.message, received.message.source
        if not SOURCE_NAME.fullmatch(source):
            self.refused += 1
            return None
        kind = type_of(message)
        if isinstance(message, EndMessage):
            self._heard_s.pop(source, None)
            self._health_s.pop(source, None)
        else:
            self._heard_s[source] = now_s
        if isinstance(message, DifferentialMessage):
            self._results[source] = message
        if kind not in PASSED_ON or kind not in self._kinds:
            return None
        if kind == "health":
            last_s = self._health_s.get(source)
            if last_s is not None and now_s < last_s + self._health_every_s:
                return None
            self._health_s[source] = now_s
        return Event(kind, source, received, self._result(message))  # type: ignore[arg-type]  # PASSED_ON are kinds

    def silent(self, now_s: float) -> list[Event]:
        """The sources that have fallen silent since this was asked last."""
        gone = [source for source, last_s in self._heard_s.items() if now_s >= last_s + self._silent_after_s]
        for source in gone:
            del self._heard_s[source]
            self._health_s.pop(source, None)
        return [Event("silent", source, None) for source in gone if "silent" in self._kinds]

    def _result(self, message: AnyMessage | Envelope) -> DifferentialMessage | None:
        if not isinstance(message, EndMessage):
            return None
        result = self._results.get(message.source)
        return result if result is not None and result.session == message.session else None
