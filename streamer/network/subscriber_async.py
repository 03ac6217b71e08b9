"""`Subscriber` for asyncio."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import zmq.asyncio

from streamer.network.connection import POLL_MS, Connection, read_answer, slices_ms
from streamer.network.gap_repair import Answer, GapRepair, Progress, Received, Steps
from streamer.network.sockets import HEARTBEAT_MS
from streamer.protocol.messages import DifferentialMessage, EndMessage
from streamer.protocol.requests import AnyReply, AnyRequest, encode_request


class AsyncSubscriber:
    """Iterates over the messages of a publisher, as `Subscriber` does. One task uses it.

    async with AsyncSubscriber("tcp://127.0.0.1:5555", ["differential."]) as subscriber:
        async for received in subscriber:
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
        progress: Mapping[str, Progress] | None = None,
        keys: str | Path | None = None,
        server_key: str | Path | None = None,
        reply_timeout_s: float = 2.0,
        high_water_mark: int = 1000,
        heartbeat_ms: int = HEARTBEAT_MS,
    ) -> None:
        """As `Subscriber`. `progress`: by source, how far an earlier subscriber received it; this one goes on there, as
        far as the publisher has what came since."""
        self.endpoint = endpoint
        self._timeout_s = timeout_s
        self._reply_timeout_s = reply_timeout_s
        self._repair = GapRepair(topics, replay=replay, history=history, progress=progress)
        self._connection = Connection(
            endpoint,
            self._repair.subscriptions,
            keys=keys,
            server_key=server_key,
            high_water_mark=high_water_mark,
            heartbeat_ms=heartbeat_ms,
        )
        self._stream = zmq.asyncio.Socket.from_socket(self._connection.stream)
        self._service = zmq.asyncio.Socket.from_socket(self._connection.service)

    @property
    def lost(self) -> int:
        return self._repair.lost

    @property
    def replayed(self) -> int:
        return self._repair.replayed

    @property
    def restarts(self) -> int:
        return self._repair.restarts

    def state(self, source: str | None = None) -> DifferentialMessage | None:
        return self._repair.state(source)

    def run_of(self, source: str) -> str | None:
        return self._repair.run_of(source)

    def end_of(self, source: str) -> EndMessage | None:
        return self._repair.end_of(source)

    def progress(self) -> dict[str, Progress] | None:
        """By source, how far it was received and taken; None while something received is still to be taken."""
        return self._repair.progress()

    @property
    def is_over(self) -> bool:
        return self._repair.is_over

    async def refresh(self) -> None:
        await self._run(self._repair.refresh())

    async def receive(self, timeout_s: float | None = None) -> Received | None:
        """As `Subscriber.receive`."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._repair.ready:
            left_ms = POLL_MS if until is None else max(0, round(1000 * (until - time.monotonic())))
            if await self._stream.poll(min(left_ms, POLL_MS)):
                await self._run(self._repair.take(await self._stream.recv_multipart()))
                continue
            self._connection.check_handshakes()
            if until is not None and time.monotonic() >= until:
                return None
        return self._repair.ready.popleft()

    async def ask(self, request: AnyRequest, timeout_s: float | None = None) -> AnyReply | None:
        """As `Subscriber.ask`."""
        answer = await self._ask(request, self._reply_timeout_s if timeout_s is None else timeout_s)
        return None if answer is None else answer[0]

    def __aiter__(self) -> AsyncIterator[Received]:
        return self

    async def __anext__(self) -> Received:
        received = await self.receive(self._timeout_s)
        if received is None:
            raise StopAsyncIteration
        return received

    def close(self) -> None:
        self._connection.close(self._stream, self._service)

    async def __aenter__(self) -> AsyncSubscriber:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def _run(self, steps: Steps) -> None:
        try:
            request = next(steps)
            while True:
                request = steps.send(await self._ask(request, self._reply_timeout_s))
        except StopIteration:
            pass

    async def _ask(self, request: AnyRequest, timeout_s: float) -> Answer | None:
        await self._service.send(encode_request(request))
        for slice_ms in slices_ms(timeout_s):
            while await self._service.poll(slice_ms):
                answer = read_answer(await self._service.recv_multipart(), request.id)
                if answer is not None:
                    return answer
        return None
