"""NATS: subjects PREFIX.NAME.SOURCE.TYPE; by JetStream where one of its streams has them, which removes repeats."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

import nats
from nats.aio.client import Client
from nats.errors import Error
from nats.js.client import JetStreamContext
from nats.js.errors import APIError, NotFoundError, ServiceUnavailableError

from engines.base import LeukostreamError
from streamer.bridge.addresses import Address, Secrets
from streamer.bridge.base import RejectedError, Remark, UnavailableError
from streamer.bridge.events import Event, kinds_of

WAIT_S = 5.0
"""For an acknowledgement."""


class NatsTarget:
    """The client comes back by itself after a break; what was not acknowledged is published again by the bridge."""

    def __init__(
        self, address: Address, secrets: Secrets, prefix: str, name: str, *, cells: bool, remark: Remark
    ) -> None:
        self.kinds = kinds_of(cells=cells)
        self._address, self._secrets, self._remark = address, secrets, remark
        self._subject = f"{prefix}.{name}".replace("/", ".")
        self._client: Client | None = None
        self._stream: JetStreamContext | None = None
        self._has_streams: dict[str, bool] = {}
        """By subject."""

    async def open(self) -> None:
        scheme = "tls" if self._address.is_encrypted else "nats"
        faults: list[Exception] = []

        async def noted(error: Exception) -> None:
            faults.append(error)

        try:
            async with asyncio.timeout(2.0 * WAIT_S):
                self._client = await nats.connect(
                    f"{scheme}://{self._address.host_port}",
                    name="leukostream",
                    allow_reconnect=False,  # so that it says at once what is wrong
                    connect_timeout=int(WAIT_S),
                    error_cb=noted,
                    user=self._secrets.user,
                    password=self._secrets.secret,
                    tls=self._secrets.tls() if self._address.is_encrypted else None,
                )
        except (OSError, TimeoutError, Error) as error:
            raise self._refused(faults[-1] if faults else error) from error
        self._client.options.update(allow_reconnect=True, max_reconnect_attempts=-1)
        self._stream = self._client.jetstream(timeout=WAIT_S)

    def _refused(self, error: Exception) -> LeukostreamError:
        fault = str(error) or type(error).__name__
        if isinstance(error, ssl.SSLCertVerificationError):
            return LeukostreamError(
                f"{self._address}: got a certificate that can't be trusted ({error.verify_message}), expected one that"
                " --ca FILE vouches for"
            )
        if "authorization" in fault.lower():
            return LeukostreamError(
                f"{self._address}: got '{fault}', expected a server that lets us in: see LEUKOSTREAM_BRIDGE_USER and"
                " LEUKOSTREAM_BRIDGE_SECRET or --secret-file"
            )
        return UnavailableError(f"{self._address}: got '{fault}' on connecting, expected a NATS server there")

    async def deliver(self, event: Event) -> None:
        assert self._client is not None, "open comes first"
        assert self._stream is not None
        subject = f"{self._subject}.{event.source}.{event.kind}"
        headers = {"Nats-Msg-Id": event.key}
        try:
            if await self._has_stream(subject):
                await self._stream.publish(subject, event.body, timeout=WAIT_S, headers=headers)
            else:
                await self._client.publish(subject, event.body, headers=headers)
                await self._client.flush(int(WAIT_S))
        except APIError as error:
            if error.code is not None and error.code < 500:
                raise RejectedError(f"{self._address}: got '{error.description}' for {subject}") from error
            raise UnavailableError(
                f"{self._address}: got '{error.description}', expected a stream that takes"
            ) from error
        except (Error, TimeoutError, OSError) as error:
            self._has_streams.pop(subject, None)  # its stream may be gone
            fault = str(error) or type(error).__name__
            raise UnavailableError(f"{self._address}: got '{fault}', expected an acknowledgement") from error

    async def _has_stream(self, subject: str) -> bool:
        """Asked once a subject. To publish and see is no way: who listens without a stream answers nothing."""
        assert self._stream is not None
        known = self._has_streams.get(subject)
        if known is None:
            try:
                await self._stream.find_stream_name_by_subject(subject)
                known = True
            except (NotFoundError, ServiceUnavailableError):  # the latter: the server runs without JetStream
                known = False
                if False not in self._has_streams.values():
                    self._remark(
                        f"{self._address}: no stream of JetStream has {subject}: published without; who does not listen"
                        " at that moment misses it"
                    )
            self._has_streams[subject] = known
        return known

    async def finish(self, timeout_s: float) -> None:
        """Nothing is left to do: `deliver` waited for the server."""

    async def close(self) -> None:
        if self._client is not None:
            with contextlib.suppress(Error, TimeoutError, OSError):
                await asyncio.wait_for(self._client.close(), 2.0)

    def lost(self) -> dict[str, int]:
        return {}
