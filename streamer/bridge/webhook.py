"""A webhook: the final result of each session, posted once it is stored on disk, until it is taken."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx
import msgspec

from engines.base import LeukostreamError
from streamer import __version__
from streamer.bridge.addresses import Address
from streamer.bridge.base import Remark
from streamer.bridge.events import Event, Kind
from streamer.bridge.signature import Signer
from streamer.bridge.webhook_outbox import StoredResult, WebhookOutbox
from streamer.protocol.messages import encode

EVENT_TYPE = "session.ended"
TIMEOUT_S = 20.0
PAUSES_S = (5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0)
"""After each attempt in vain: the schedule of Standard Webhooks, three days. After the last a result is given up."""
JITTER = 0.1
"""Of a pause, so that the bridges of a house don't all come back at the same moment."""
RETRY_AFTER_MAX_S = 86_400.0


def result_id(event: Event) -> str:
    """The same for the same end of a session, wherever and whenever it is made; without a full stop."""
    return f"msg_{hashlib.sha256(event.key.encode()).hexdigest()[:32]}"


def result_body(event: Event) -> bytes:
    """Of an end. `differential` null: the streamer did not have it any more, the journal has."""
    return msgspec.json.encode(
        {
            "type": EVENT_TYPE,
            "timestamp": event.message.published_utc,
            "data": {
                "key": event.key,
                "source": event.source,
                "end": msgspec.Raw(event.body),
                "differential": None if event.result is None else msgspec.Raw(encode(event.result)),
            },
        }
    )


@dataclass(slots=True)
class _Answer:
    is_taken: bool
    detail: str
    retry_after_s: float | None = None


class WebhookTarget:
    kinds: frozenset[Kind] = frozenset({"end"})

    def __init__(
        self,
        address: Address,
        outbox: WebhookOutbox,
        signer: Signer | None,
        client: httpx.AsyncClient,
        *,
        remark: Remark,
        now_s: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`client`: is closed with the target. `signer` None: what is posted has no signature."""
        self._address, self._outbox, self._signer, self._client = address, outbox, signer, client
        self._remark, self._now_s, self._jitter = remark, now_s, jitter
        self._url = f"{address.scheme}://{address.host_port}{address.path}"
        self._stored = asyncio.Event()
        self._posting: asyncio.Task[None] | None = None
        self._given_up = 0

    async def open(self) -> None:
        self._posting = asyncio.create_task(self._post_all())

    async def deliver(self, event: Event) -> None:
        """Stored is delivered: what is on disk is posted, by this process or the next one."""
        if self._posting is not None and self._posting.done():
            self._posting.result()
        self._outbox.put(result_id(event), result_body(event), self._now_s())
        self._stored.set()

    async def finish(self, timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while (one := self._outbox.next()) is not None and one.attempts == 0 and self._is_posting():
                    await asyncio.sleep(0.02)
        if self._posting is not None and self._posting.done():
            self._posting.result()
        waiting = self._outbox.count("waiting")
        if waiting:
            self._remark(f"{self._address}: {waiting} results were not taken yet; the next start goes on with them")

    async def close(self) -> None:
        if self._posting is not None:
            self._posting.cancel()
            with contextlib.suppress(asyncio.CancelledError, LeukostreamError):
                await self._posting
        await self._client.aclose()
        self._outbox.close()

    def lost(self) -> dict[str, int]:
        return {"given up": self._given_up}

    def _is_posting(self) -> bool:
        return self._posting is not None and not self._posting.done()

    async def _post_all(self) -> None:
        """One after the other, whichever is due first."""
        while True:
            one = self._outbox.next()
            self._stored.clear()
            wait_s = None if one is None else one.due_s - self._now_s()
            if one is None or (wait_s is not None and wait_s > 0.0):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stored.wait(), wait_s)
                continue
            await self._attempt(one)

    async def _attempt(self, one: StoredResult) -> None:
        answer = await self._post(one)
        if answer.is_taken:
            self._outbox.delivered(one.id)
            return
        if one.attempts >= len(PAUSES_S):
            self._outbox.failed(one.id, answer.detail, None)
            self._given_up += 1
            self._remark(
                f"{self._address}: got {answer.detail}; result {one.id} was given up after {one.attempts + 1} attempts"
            )
            return
        pause_s = PAUSES_S[one.attempts] * (1.0 + JITTER * self._jitter())
        pause_s = max(pause_s, min(answer.retry_after_s or 0.0, RETRY_AFTER_MAX_S))
        self._outbox.failed(one.id, answer.detail, self._now_s() + pause_s)
        self._remark(
            f"{self._address}: got {answer.detail}, expected a status from 200 to 299; result {one.id} is posted again"
            f" in {pause_s:.0f} s"
        )

    async def _post(self, one: StoredResult) -> _Answer:
        """LeukostreamError where the receiver wants nothing any more."""
        now_s = int(self._now_s())
        headers = {
            "content-type": "application/json",
            "user-agent": f"leukostream/{__version__}",
            "idempotency-key": one.id,
            "webhook-id": one.id,
            "webhook-timestamp": str(now_s),
        }
        if self._signer is not None:
            headers |= self._signer.headers(one.id, now_s, one.body)
        try:
            response = await self._client.post(self._url, content=one.body, headers=headers)
        except httpx.HTTPError as error:
            return _Answer(False, f"'{error or type(error).__name__}'")
        if response.status_code == httpx.codes.GONE:
            raise LeukostreamError(
                f"{self._address}: got status 410, by which a receiver says that it wants no more; expected one that"
                " does: give another address, results that were not taken stay stored"
            )
        return _Answer(response.is_success, f"status {response.status_code}", _retry_after_s(response))


def _retry_after_s(response: httpx.Response) -> float | None:
    """Seconds of Retry-After; None without it, and for the form that is a date."""
    text = response.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdecimal() else None
