"""A network that fails: TCP passed on to a port of this machine, until it is cut, delayed or frozen."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_CHUNK_BYTES = 1 << 16
_CHUNKS_ON_THEIR_WAY = 64
_ANSWERS_WITHIN_S = 10.0

Chunk = tuple[float, bytes]
"""When it is passed on, by the loop's clock, and what; nothing: the end."""


class FaultyLink:
    """Passes connections to `port` on to `target`. Any thread may call it; FaultyNetwork makes it."""

    def __init__(self, network: FaultyNetwork, target: int) -> None:
        self._network, self._target = network, target
        self.port = 0
        self._delay_s = 0.0
        self._is_cut = False
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._passing: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    def cut(self) -> None:
        """Close every connection, and each that is tried, until it is healed."""
        self._network.do(self._cut())

    def delay(self, seconds: float) -> None:
        """Pass everything on later, each way."""
        self._network.do(self._set(delay_s=seconds))

    def freeze(self) -> None:
        """Pass nothing on, as a cable that is pulled does; connections stay."""
        self._network.do(self._set(frozen=True))

    def heal(self) -> None:
        self._network.do(self._set())

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._taken, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._cut()
        for task in list(self._passing):
            task.cancel()

    async def _cut(self) -> None:
        self._is_cut = True
        for writer in list(self._writers):
            writer.transport.abort()

    async def _set(self, *, delay_s: float = 0.0, frozen: bool = False) -> None:
        self._delay_s, self._is_cut = delay_s, False
        if frozen:
            self._thawed.clear()
        else:
            self._thawed.set()

    async def _taken(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = {writer}
        self._writers.add(writer)
        try:
            if self._is_cut:
                return
            there, to_there = await asyncio.open_connection("127.0.0.1", self._target)
            writers.add(to_there)
            self._writers.add(to_there)
            both = [asyncio.create_task(self._pass(*way)) for way in ((reader, to_there), (there, writer))]
            self._passing.update(both)
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            for task in both:
                task.cancel()
                self._passing.discard(task)
        except OSError:  # nobody is there
            pass
        finally:
            self._writers -= writers
            for one in writers:
                one.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        chunks: asyncio.Queue[Chunk] = asyncio.Queue(_CHUNKS_ON_THEIR_WAY)

        async def read() -> None:
            data = b"-"
            while data:
                try:
                    data = await reader.read(_CHUNK_BYTES)
                except OSError:
                    data = b""
                await chunks.put((loop.time() + self._delay_s, data))

        reading = asyncio.create_task(read())
        try:
            while (chunk := await chunks.get())[1]:
                await asyncio.sleep(chunk[0] - loop.time())
                await self._thawed.wait()
                writer.write(chunk[1])
                await writer.drain()
        except OSError:  # the other side is gone
            pass
        finally:
            reading.cancel()


class FaultyNetwork:
    """Links on a thread of their own, for a `with` block."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._links: list[FaultyLink] = []
        self._thread = threading.Thread(target=self._loop.run_forever, name="faulty network", daemon=True)

    def __enter__(self) -> FaultyNetwork:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for link in self._links:
            self.do(link.close())
        with contextlib.suppress(TimeoutError):
            self.do(asyncio.sleep(0.05))  # what was cancelled ends
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def link(self, target: int) -> FaultyLink:
        """To a port of this machine, whether or not somebody listens there already."""
        link = FaultyLink(self, target)
        self.do(link.open())
        self._links.append(link)
        return link

    def do(self, what: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(_ANSWERS_WITHIN_S)
