"""What microscopes publish of themselves, the newest of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

from streamer.network.subscriber import Subscriber
from streamer.protocol.messages import AnyMessage, DifferentialMessage, EndMessage, HealthMessage

TOPICS = ("health.", "differential.", "end.")

SILENT_S = 5.0
"""A streamer publishes its health once a second; after so long without, nobody knows how it does."""

_PAUSE_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Microscope:
    """One source of a streamer."""

    endpoint: str
    source: str | None
    """None: the streamer has not said anything yet, and nothing else is known."""
    slide: str | None = None
    state: str = "no answer"
    """As its health says; "silent": it has said nothing for SILENT_S; "no answer": nothing at all."""
    frames_per_s: float | None = None
    behind_s: float | None = None
    latency_p99_ms: float | None = None
    dropped: int = 0
    """Frames lost, for whatever reason."""
    white_cells: int | None = None
    """None: no differential came yet."""
    verdict: str | None = None
    protocol: str = ""
    models: str = ""
    local_share: float | None = None
    """Of what models were asked, what the microscope's machine answered itself; None: there is no inference elsewhere.
    """
    servers: str = ""
    """Of its inference servers, how many it can use."""


@dataclass(slots=True)
class _Known:
    """The newest messages of a source."""

    heard_s: float
    health: HealthMessage | None = None
    differential: DifferentialMessage | None = None
    end: EndMessage | None = None

    def take(self, message: AnyMessage, now_s: float) -> None:
        self.heard_s = now_s
        if isinstance(message, HealthMessage):
            self.health = message
        elif isinstance(message, DifferentialMessage):
            self.differential = message
        elif isinstance(message, EndMessage):
            self.end = message
        if self.end is not None and message.session != self.end.session:
            self.end = None  # the next slide


class Microscopes:
    """Streamers by their endpoints. One thread."""

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        keys: str | None = None,
        server_key: str | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Connects in the background. UsageError for a malformed address and keys that can't be used."""
        self._now_s = now_s
        self._known: dict[str, dict[str, _Known]] = {endpoint: {} for endpoint in endpoints}
        self._subscribers = {
            endpoint: Subscriber(endpoint, TOPICS, newest_only=True, keys=keys, server_key=server_key)
            for endpoint in self._known
        }

    def look(self, for_s: float, *, until_all: bool = False) -> None:
        """Take what comes meanwhile. `until_all`: no longer than until each has said how it does."""
        until_s = self._now_s() + for_s
        while True:
            for endpoint, subscriber in self._subscribers.items():
                while (received := subscriber.receive(0)) is not None:
                    self.take(endpoint, received.message)
            if self._now_s() >= until_s or (until_all and all(map(self._is_known, self._known))):
                return
            time.sleep(_PAUSE_S)

    def take(self, endpoint: str, message: object) -> None:
        if isinstance(message, HealthMessage | DifferentialMessage | EndMessage):
            now_s = self._now_s()
            self._known[endpoint].setdefault(message.source, _Known(now_s)).take(message, now_s)

    def rows(self) -> Iterator[Microscope]:
        """In the order of the endpoints."""
        for endpoint, sources in self._known.items():
            if not sources:
                yield Microscope(endpoint=endpoint, source=None)
            for source, known in sources.items():
                yield _row(endpoint, source, known, self._now_s())

    def close(self) -> None:
        for subscriber in self._subscribers.values():
            subscriber.close()

    def __enter__(self) -> Microscopes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _is_known(self, endpoint: str) -> bool:
        sources = self._known[endpoint].values()
        return bool(sources) and all(one.health is not None and one.differential is not None for one in sources)


def _row(endpoint: str, source: str, known: _Known, now_s: float) -> Microscope:
    health, differential = known.health, known.differential
    status = None if health is None else health.sources.get(source)
    said = health or differential or known.end
    slide = None if said is None or said.slide is None else said.slide.name
    inference = None if health is None else health.inference
    if known.end is not None:
        state = known.end.state
    elif now_s - known.heard_s > SILENT_S:
        state = "silent"
    else:
        state = "running" if status is None else status.state
    return Microscope(
        endpoint=endpoint,
        source=source,
        slide=slide,
        state=state,
        frames_per_s=None if status is None else status.fps,
        behind_s=None if status is None else status.behind_s,
        latency_p99_ms=None if status is None or status.latency_ms is None else status.latency_ms.get("p99"),
        dropped=0 if status is None else sum(status.dropped.values()),
        white_cells=None if differential is None else differential.total,
        verdict=None if differential is None or differential.verdict is None else differential.verdict.state,
        protocol="" if said is None else said.version,
        models="" if health is None else " + ".join(filter(None, (health.detector, health.classifier))),
        local_share=None if inference is None else inference.local_share,
        servers="" if inference is None else _usable([one.state for one in inference.servers.values()]),
    )


def _usable(states: Sequence[str]) -> str:
    return f"{sum(state == 'ready' for state in states)} of {len(states)}"
