"""A bridge while it runs: one task receives, one delivers, and the streamer waits for neither."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from streamer.bridge.base import RejectedError, Remark, Target, UnavailableError
from streamer.bridge.buffer import Buffer
from streamer.bridge.cursor import Cursor
from streamer.bridge.events import Event, Selection
from streamer.network.subscriber_async import AsyncSubscriber
from streamer.protocol.messages import EndMessage, WireError

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
SLICE_S = 0.5
"""How long to wait at most before looking whether something else is to be done."""


@dataclass(slots=True)
class Bridge:
    subscriber: AsyncSubscriber
    target: Target
    selection: Selection
    buffer: Buffer
    cursor: Cursor
    remark: Remark
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = asyncio.sleep
    delivered: int = 0
    _arrived: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _lost: Counter[str] = field(default_factory=Counter, init=False)
    _busy: bool = field(default=False, init=False)

    def lost(self) -> dict[str, int]:
        """Messages that will never arrive, by reason: "buffer full", "rejected", "not understood", "source name",
        "streamer" (published before they could be received), and those of the target."""
        lost = self._lost + self.buffer.lost + Counter(self.target.lost())
        lost["streamer"] += self.subscriber.lost
        lost["source name"] += self.selection.refused
        return {reason: count for reason, count in sorted(lost.items()) if count}

    async def run(self, stop: asyncio.Event, *, until_end: bool, linger_s: float) -> None:
        """Until `stop` is set, or with `until_end` until every source has ended; then what waits is delivered for up to
        `linger_s`. LeukostreamError as of the target, RefusedError where the streamer does not let us in."""
        delivering = asyncio.create_task(self._deliver_all())
        receiving = asyncio.create_task(self._receive_all(until_end))
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((delivering, receiving, stopping), return_when=asyncio.FIRST_COMPLETED)
            for task in (delivering, receiving):
                if task.done():
                    task.result()
            await _cancelled(receiving)
            await self._drain(delivering, linger_s)
        finally:
            await _cancelled(delivering, receiving, stopping)
            try:
                await self.target.close()
            finally:
                self.cursor.save()

    async def _receive_all(self, until_end: bool) -> None:
        while True:
            is_over = until_end and self.subscriber.is_over
            try:
                received = await self.subscriber.receive(0 if is_over else SLICE_S)
            except WireError as error:
                if not self._lost["not understood"]:
                    self.remark(f"{self.subscriber.endpoint}: {error}")
                self._lost["not understood"] += 1
                continue
            if received is not None:
                progress = self.subscriber.progress()
                event = self.selection.take(received, self.clock())
                if event is not None:
                    self._put(replace(await self._completed(event), progress=progress))
                elif not self._busy and not len(self.buffer):
                    self.cursor.reached(progress)
            elif is_over:
                return
            for event in self.selection.silent(self.clock()):
                self._put(event)

    async def _completed(self, event: Event) -> Event:
        """An end with the result of its session, which the streamer is asked for where it came before we did."""
        if not isinstance(event.message, EndMessage) or event.result is not None:
            return event
        await self.subscriber.refresh()
        result = self.subscriber.state(event.source)
        return event if result is None or result.session != event.message.session else replace(event, result=result)

    def _put(self, event: Event) -> None:
        had = self.buffer.lost.total()
        self.buffer.put(event)
        if self.buffer.lost.total() and not had:
            self.remark("the buffer is full: from now on the oldest messages are lost, and counted")
        self._arrived.set()

    async def _deliver_all(self) -> None:
        await self._persist(self.target.open)
        saved_s = self.clock()
        while True:
            event = self.buffer.pop()
            if event is None or self.clock() >= saved_s + 1.0:
                self.cursor.save()
                saved_s = self.clock()
            if event is None:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            self._busy = True
            await self._deliver(event)
            self._busy = False

    async def _deliver(self, event: Event) -> None:
        try:
            await self._persist(lambda: self.target.deliver(event))
            self.delivered += 1
        except RejectedError as error:
            if not self._lost["rejected"]:
                self.remark(str(error))
            self._lost["rejected"] += 1
        self.cursor.reached(event.progress)

    async def _persist(self, action: Callable[[], object]) -> None:
        """Do it again and again until it is possible; the first fault of a series is told."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                await action()  # type: ignore[misc]
            except UnavailableError as error:
                if pause_s == FIRST_PAUSE_S:
                    self.remark(f"{error}; trying again, what comes waits meanwhile")
                await self.sleep(pause_s)  # type: ignore[misc]
                pause_s = min(2.0 * pause_s, LONGEST_PAUSE_S)
            else:
                return

    async def _drain(self, delivering: asyncio.Task[None], linger_s: float) -> None:
        until_s = self.clock() + linger_s
        while (self._busy or len(self.buffer)) and self.clock() < until_s and not delivering.done():
            await asyncio.sleep(0.02)
        if delivering.done():
            delivering.result()
        if not self._busy and not len(self.buffer):
            await self.target.finish(max(0.0, until_s - self.clock()))
        left = len(self.buffer) + self._busy
        if left:
            self.remark(f"{left} messages were not delivered yet; the next start asks the streamer for them again")


async def _cancelled(*tasks: asyncio.Task[object] | asyncio.Task[None] | asyncio.Task[bool]) -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task
