"""MQTT 5 by paho: every message with QoS 1, state retained, a last will that says when the bridge is gone."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from engines.base import LeukostreamError
from streamer.bridge.addresses import Address, Secrets
from streamer.bridge.base import RejectedError, Remark, UnavailableError
from streamer.bridge.events import Event, kinds_of
from streamer.bridge.mqtt_messages import OFFLINE, ONLINE, Publication, Topics

CONNECT_WAIT_S = 10.0
KEEPALIVE_S = 30
"""Without a sign of life for one and a half times this, the broker publishes the last will."""
LONGEST_PAUSE_S = 30
_NOT_WANTED = (
    "Not authorized",
    "Bad user name or password",
    "Bad authentication method",
    "Banned",
    "Client identifier not valid",
    "Unsupported protocol version",
)


class MqttTarget:
    """paho's thread keeps the connection, comes back after every break, and sends again what was not acknowledged."""

    def __init__(self, address: Address, secrets: Secrets, topics: Topics, *, cells: bool, remark: Remark) -> None:
        self.kinds = kinds_of("silent", cells=cells)
        self._address, self._topics, self._remark = address, topics, remark
        self._lock = threading.Lock()
        self._retained: dict[str, bytes] = {}
        """What the broker keeps of us, for one that comes back without it."""
        self._waiting: dict[int, asyncio.Future[ReasonCode]] = {}
        self._connected: asyncio.Future[ReasonCode] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._broken = False
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=f"leukostream-{topics.name}", protocol=paho.MQTTv5
        )
        if secrets.user is not None or secrets.secret is not None:
            self._client.username_pw_set(secrets.user or "", secrets.secret)
        if address.is_encrypted:
            self._client.tls_set_context(secrets.tls())
        self._client.will_set(topics.availability, OFFLINE, qos=1, retain=True)
        self._client.reconnect_delay_set(1, LONGEST_PAUSE_S)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_publish = self._on_publish

    async def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._connected = self._loop.create_future()
        where = (self._address.host, self._address.port, KEEPALIVE_S)
        try:
            await asyncio.to_thread(self._client.connect, *where)
        except ssl.SSLCertVerificationError as error:
            raise LeukostreamError(
                f"{self._address}: got a certificate that can't be trusted ({error.verify_message}), expected one that"
                " --ca FILE vouches for"
            ) from error
        except OSError as error:
            raise UnavailableError(f"{self._address}: got '{error}' on connecting, expected a broker there") from error
        self._client.loop_start()
        try:
            reason = await asyncio.wait_for(self._connected, CONNECT_WAIT_S)
        except TimeoutError:
            await asyncio.to_thread(self._client.loop_stop)
            raise UnavailableError(f"{self._address}: got no answer on connecting, expected an MQTT broker") from None
        if reason.is_failure:
            await asyncio.to_thread(self._client.loop_stop)
            fault = f"{self._address}: got '{reason}' on connecting"
            if str(reason) in _NOT_WANTED:
                raise LeukostreamError(
                    f"{fault}, expected a broker of MQTT 5 that lets us in: see LEUKOSTREAM_BRIDGE_USER and"
                    " LEUKOSTREAM_BRIDGE_SECRET or --secret-file"
                )
            raise UnavailableError(f"{fault}, expected to be let in")

    async def deliver(self, event: Event) -> None:
        rejected: RejectedError | None = None
        for publication in self._topics.publications(event):
            try:
                await self._publish(publication)
            except RejectedError as error:  # an access list may take some topics and not others
                rejected = error
        if rejected is not None:
            raise rejected

    async def finish(self, timeout_s: float) -> None:
        """Nothing is left to do: `deliver` waited for the broker."""

    async def close(self) -> None:
        """Say that the bridge is gone: the will is for those that can't."""
        if self._client.is_connected():
            with contextlib.suppress(TimeoutError, LeukostreamError):
                await asyncio.wait_for(self._publish(Publication(self._topics.availability, OFFLINE, True)), 2.0)
        self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)

    def lost(self) -> dict[str, int]:
        return {}

    async def _publish(self, publication: Publication) -> None:
        """Return when the broker has it, however often the connection breaks before."""
        assert self._loop is not None, "open comes first"
        if publication.is_retained and publication.topic != self._topics.availability:
            with self._lock:
                self._retained[publication.topic] = publication.body
        sent = self._client.publish(publication.topic, publication.body, qos=1, retain=publication.is_retained)
        if sent.rc not in (MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_NO_CONN):
            raise UnavailableError(f"{self._address}: got '{paho.error_string(sent.rc)}', expected to publish")
        answered = self._waiting[sent.mid] = self._loop.create_future()  # before `_acknowledged` can run on this loop
        reason = await answered
        if reason.is_failure:
            with self._lock:
                self._retained.pop(publication.topic, None)
            raise RejectedError(
                f"{self._address}: got '{reason}' for {publication.topic}, expected a broker that takes it: see its"
                " access list"
            )

    def _acknowledged(self, mid: int, reason: ReasonCode) -> None:
        answered = self._waiting.pop(mid, None)
        if answered is not None and not answered.done():
            answered.set_result(reason)

    # paho's thread calls these.

    def _on_connect(self, client: paho.Client, data: Any, flags: Any, reason: ReasonCode, more: Any) -> None:
        if not reason.is_failure:
            client.publish(self._topics.availability, ONLINE, qos=1, retain=True)
            with self._lock:
                retained = list(self._retained.items())
            for topic, body in retained:  # of an earlier connection: the broker may have been started anew
                client.publish(topic, body, qos=1, retain=True)
            if self._broken:
                self._broken = False
                self._remark(f"{self._address}: connected again")
        self._on_loop(self._answered, reason)

    def _answered(self, reason: ReasonCode) -> None:
        if self._connected is not None and not self._connected.done():
            self._connected.set_result(reason)

    def _on_disconnect(self, client: paho.Client, data: Any, flags: Any, reason: ReasonCode, more: Any) -> None:
        if reason.is_failure and not self._broken and self._connected is not None and self._connected.done():
            self._broken = True
            self._remark(f"{self._address}: got '{reason}', the connection is broken; what comes waits meanwhile")

    def _on_publish(
        self, client: paho.Client, data: Any, mid: int, reason: ReasonCode, more: Properties | None
    ) -> None:
        self._on_loop(self._acknowledged, mid, reason)

    def _on_loop(self, call: Any, *arguments: Any) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(call, *arguments)
