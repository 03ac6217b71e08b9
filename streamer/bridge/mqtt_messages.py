"""Which MQTT messages an event makes: topics, contents, and what the broker keeps. No socket.

The table in docs/bridge.md is of these.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from streamer.bridge.events import Event
from streamer.bridge.home_assistant import Device, Places
from streamer.protocol.messages import DifferentialMessage, EndMessage, HealthMessage

ONLINE, OFFLINE = b"online", b"offline"


@dataclass(frozen=True, slots=True)
class Publication:
    topic: str
    body: bytes
    is_retained: bool
    """The broker keeps the newest and gives it to whoever subscribes later."""


@dataclass(slots=True)
class Topics:
    """One bridge's topics at a broker, PREFIX/NAME/SOURCE/…, and what was said of each source so far."""

    prefix: str
    name: str
    """Of the instrument or bridge; no two bridges at a broker share it."""
    discovery: str | None = "homeassistant"
    """Home Assistant's discovery prefix; None: it is told nothing."""
    _availability: dict[str, bytes] = field(default_factory=dict)
    _devices: dict[str, Device] = field(default_factory=dict)
    _states: dict[str, str] = field(default_factory=dict)

    @property
    def availability(self) -> str:
        """The bridge's own, which its last will sets to offline."""
        return f"{self.prefix}/{self.name}/availability"

    def publications(self, event: Event) -> list[Publication]:
        return list(self._publications(event))

    def _publications(self, event: Event) -> Iterator[Publication]:
        source = event.source
        yield from self._available(source, ONLINE if event.received is not None else OFFLINE)
        if event.received is None:
            return
        yield from self._discovered(event)
        message, place = event.message, self._place(source, event.kind)
        yield Publication(place, event.body, event.kind in ("differential", "health"))
        if isinstance(message, DifferentialMessage):
            yield Publication(self._place(source, "verdict"), _verdict(message), True)
        elif isinstance(message, HealthMessage) and source in message.sources:
            yield from self._state(source, message.sources[source].state)
        elif isinstance(message, EndMessage):
            yield from self._state(source, message.state)

    def _place(self, source: str, what: str) -> str:
        return f"{self.prefix}/{self.name}/{source}/{what}"

    def _available(self, source: str, value: bytes) -> Iterator[Publication]:
        if self._availability.get(source) != value:
            self._availability[source] = value
            yield Publication(self._place(source, "availability"), value, True)

    def _state(self, source: str, state: str) -> Iterator[Publication]:
        if self._states.get(source) != state:
            self._states[source] = state
            yield Publication(self._place(source, "state"), state.encode(), True)

    def _discovered(self, event: Event) -> Iterator[Publication]:
        if self.discovery is None:
            return
        device = self._devices.get(event.source)
        is_new = device is None
        if device is None:
            place = self._place
            device = self._devices[event.source] = Device(
                f"leukostream_{self.name}_{event.source}",
                f"{self.name} {event.source}",
                Places(
                    differential=place(event.source, "differential"),
                    verdict=place(event.source, "verdict"),
                    state=place(event.source, "state"),
                    availability=(self.availability, place(event.source, "availability")),
                ),
            )
        has_more = isinstance(event.message, DifferentialMessage) and device.add(event.message)
        if is_new or has_more:
            yield Publication(f"{self.discovery}/device/{device.id}/config", device.config(), True)


def _verdict(differential: DifferentialMessage) -> bytes:
    """`state` null: of an older streamer, which gives no verdict."""
    verdict = differential.verdict
    return msgspec.json.encode(
        {
            "state": None if verdict is None else verdict.state,
            "reasons": () if verdict is None else verdict.reasons,
            "total": differential.total,
            "final": differential.final,
            "session": differential.session,
            "session_seq": differential.session_seq,
        }
    )
