"""A streamer with known messages, a bridge behind it, and a target that fails as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from streamer.bridge.base import Remark, Target
from streamer.bridge.buffer import Buffer
from streamer.bridge.cursor import Cursor
from streamer.bridge.events import Event, Kind, Selection
from streamer.bridge.running import Bridge
from streamer.network.gap_repair import Received
from streamer.network.publisher import Publisher
from streamer.network.subscriber_async import AsyncSubscriber
from streamer.protocol.factory import MessageFactory
from streamer.protocol.messages import AnyMessage, DifferentialMessage, encode, topic_of
from streamer.records import Flag, Verdict
from tests.streamer.network.service_cases import PATIENCE_S, Served
from tests.streamer.protocol.message_cases import make_cell, make_differential, make_factory, make_health

KINDS: frozenset[Kind] = frozenset({"differential", "end", "health", "cell", "silent"})


def received(message: AnyMessage) -> Received:
    return Received(topic_of(message), message, encode(message), (), 0, False)


def event(message: AnyMessage, result: DifferentialMessage | None = None) -> Event:
    kind: Any = topic_of(message).partition(".")[0]
    return Event(kind, message.source, received(message), result)


def differential(
    factory: MessageFactory, total: int = 1, *, final: bool = False, **changes: Any
) -> DifferentialMessage:
    changes = {"verdict": Verdict(state="incomplete", reasons=()), **changes}
    return factory.differential(msgspec.structs.replace(make_differential(total, final=final), **changes))


def blast_flag() -> Flag:
    return Flag(code="seen", text="blast seen", class_="blast", direction="seen", count=1)


def session(factory: MessageFactory, cells: int = 3) -> list[AnyMessage]:
    """What a run publishes over a slide, up to its end."""
    messages: list[AnyMessage] = [factory.health(make_health())]
    for number in range(cells):
        messages += [factory.cell(make_cell(number)), differential(factory, number + 1)]
    return [
        *messages,
        differential(factory, cells, final=True),
        factory.health(make_health()),
        factory.end("finished", "the source has ended"),
    ]


def streamer() -> Served:
    return Served(lambda: Publisher("tcp://127.0.0.1:*", flush_ms=0))


class ScriptedTarget:
    """Takes everything down, after the faults that it was given."""

    def __init__(self, faults: Iterable[Exception] = (), kinds: frozenset[Kind] = KINDS) -> None:
        self.kinds = kinds
        self.faults = list(faults)
        self.taken: list[Event] = []
        self.opened = self.closed = False

    @property
    def keys(self) -> list[str]:
        return [one.key for one in self.taken if one.received is not None]

    async def open(self) -> None:
        self.opened = True

    async def deliver(self, event: Event) -> None:
        if self.faults:
            raise self.faults.pop(0)
        self.taken.append(event)

    async def finish(self, timeout_s: float) -> None: ...

    async def close(self) -> None:
        self.closed = True

    def lost(self) -> dict[str, int]:
        return {}


def run_bridge(
    endpoint: str,
    target: Target,
    state: Path,
    *,
    until: Callable[[], object] | None = None,
    remark: Remark = lambda line: None,
    buffer: Buffer | None = None,
    health_every_s: float = 0.0,
    linger_s: float = PATIENCE_S,
) -> Bridge:
    """A bridge until every source has ended, or `until` holds."""

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.01))

    async def run() -> Bridge:
        stop = asyncio.Event()
        cursor = Cursor(state)
        topics = [f"{kind}." for kind in sorted(target.kinds | {"differential"})]
        subscriber = AsyncSubscriber(endpoint, topics, history=True, progress=cursor.progress)
        selection = Selection(target.kinds, health_every_s=health_every_s)
        bridge = Bridge(
            subscriber, target, selection, Buffer() if buffer is None else buffer, cursor, remark, sleep=sleep
        )
        async with subscriber, asyncio.timeout(PATIENCE_S):
            running = asyncio.create_task(bridge.run(stop, until_end=until is None, linger_s=linger_s))
            while until is not None and not until() and not running.done():
                await asyncio.sleep(0.01)
            if until is not None:
                stop.set()
            await running
        return bridge

    return asyncio.run(run())


def factory(source: str = "cam", **more: Any) -> MessageFactory:
    return make_factory(source, **more)
