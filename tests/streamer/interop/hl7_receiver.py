"""A laboratory system for tests: the receiver of the package hl7, behind a line that may be cut at any byte."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections import Counter
from collections.abc import Callable

import hl7
from hl7.mllp import start_hl7_server


class HospitalSystem:
    """Answers every message, and knows by MSH-10 what it had before.

    `codes`: of each answer, by the number of the message that was received. `cut`: after how many bytes, both ways
    together, a line is cut; None: never.
    """

    def __init__(
        self, codes: Callable[[int], str | None] = lambda number: "AA", cut: Callable[[], int | None] = lambda: None
    ) -> None:
        self.received: list[str] = []
        """MSH-10 of every message that arrived whole, in order."""
        self.messages: dict[str, str] = {}
        """Those that were new."""
        self.lines = 0
        self.cuts = 0
        self._codes, self._cut = codes, cut
        self._loop = asyncio.new_event_loop()
        self._ready, self._tasks = threading.Event(), set()
        self.port = 0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        assert not self._thread.is_alive()

    @property
    def doubles(self):
        return [one for one, times in Counter(self.received).items() if times > 1]

    def _run(self):
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self):
        self._stop = asyncio.Event()
        inner = await start_hl7_server(self._receive, "127.0.0.1", 0, encoding="utf-8", limit=1 << 20)
        self._inner = inner.sockets[0].getsockname()[1]
        outer = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.port = outer.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        for server in (outer, inner):
            server.close()
        rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _receive(self, reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                message = await reader.readmessage()
                control_id = str(message.segment("MSH")[10])
                self.messages.setdefault(control_id, str(message))
                self.received.append(control_id)
                code = self._codes(len(self.received))
                if code is not None:
                    writer.writemessage(message.create_ack(ack_code=code))
                    await writer.drain()
        writer.close()

    async def _relay(self, reader, writer):
        self.lines += 1
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._inner)
        left = self._cut()

        async def forward(source, sink):
            nonlocal left
            while data := await source.read(4096):
                if left is not None:
                    data, left = data[:left], left - len(data)
                sink.write(data)
                await sink.drain()
                if left is not None and left <= 0:
                    self.cuts += 1
                    return

        both = [asyncio.ensure_future(forward(reader, to_writer)), asyncio.ensure_future(forward(to_reader, writer))]
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for task in both:
            task.cancel()
        await asyncio.gather(*both, return_exceptions=True)
        for one in (writer, to_writer):
            one.close()


def cut_at_random(seed: int, most: int) -> Callable[[], int]:
    """After 1 to `most` bytes, evenly."""
    draw = random.Random(seed)
    return lambda: draw.randint(1, most)


def silent(number: int) -> None:
    """No answer at all."""
    return None


__all__ = ["HospitalSystem", "cut_at_random", "hl7", "silent"]
