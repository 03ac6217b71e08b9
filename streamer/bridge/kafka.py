"""Kafka: topics PREFIX.TYPE, a source's messages in order in one partition, acknowledged by all replicas."""

from __future__ import annotations

import asyncio

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from engines.base import LeukostreamError
from streamer.bridge.addresses import Address, Secrets
from streamer.bridge.base import RejectedError, UnavailableError
from streamer.bridge.events import Event, kinds_of

WAIT_S = 10.0
"""For an acknowledgement."""
_POLL_S = 0.05
_PASSING = frozenset(
    (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._MSG_TIMED_OUT, KafkaError._RESOLVE)
)


class KafkaTarget:
    def __init__(self, address: Address, secrets: Secrets, prefix: str, name: str, *, cells: bool) -> None:
        self.kinds = kinds_of(cells=cells)
        self._address, self._prefix, self._name = address, prefix.replace("/", "."), name
        protocol = ("SASL_" if secrets.secret else "") + ("SSL" if address.is_encrypted else "PLAINTEXT")
        settings: dict[str, object] = {
            "bootstrap.servers": address.host_port,
            "client.id": "leukostream",
            "enable.idempotence": True,  # and acks=all: what the library sends again is stored once
            "message.timeout.ms": round(1000 * WAIT_S),
            "linger.ms": 0,
            "log_level": 2,  # its lines would bypass ours
            "security.protocol": protocol,
        }
        if secrets.secret:
            settings |= {
                "sasl.mechanism": "PLAIN",
                "sasl.username": secrets.user or "",
                "sasl.password": secrets.secret,
            }
        if secrets.ca:
            settings["ssl.ca.location"] = secrets.ca
        try:
            self._producer = Producer(settings)
        except KafkaException as error:
            raise LeukostreamError(
                f"{address}: got '{error.args[0].str()}', expected settings that Kafka takes"
            ) from error

    async def open(self) -> None:
        try:
            await asyncio.to_thread(self._producer.list_topics, timeout=WAIT_S)
        except KafkaException as error:
            raise self._unavailable(error.args[0]) from error

    async def deliver(self, event: Event) -> None:
        await asyncio.to_thread(self._deliver, event)

    def _deliver(self, event: Event) -> None:
        answers: list[KafkaError | None] = []

        def on_delivery(error: KafkaError | None, message: Message) -> None:
            answers.append(error)

        topic = f"{self._prefix}.{event.kind}"
        try:
            self._producer.produce(
                topic,
                event.body,
                key=f"{self._name}/{event.source}".encode(),
                headers=[("key", event.key.encode()), ("content-type", b"application/json")],
                on_delivery=on_delivery,
            )
        except (BufferError, KafkaException) as error:
            raise UnavailableError(f"{self._address}: got '{error}', expected to produce") from error
        while not answers:
            self._producer.poll(_POLL_S)
        if answers[0] is not None:
            if answers[0].code() in _PASSING or answers[0].retriable():
                raise self._unavailable(answers[0])
            raise RejectedError(
                f"{self._address}: got '{answers[0].str()}' for {topic}, expected a topic that can be written"
            )

    async def finish(self, timeout_s: float) -> None:
        """Nothing is left to do: `deliver` waited for the brokers."""

    async def close(self) -> None:
        await asyncio.to_thread(self._producer.flush, 1.0)

    def lost(self) -> dict[str, int]:
        return {}

    def _unavailable(self, error: KafkaError) -> UnavailableError:
        return UnavailableError(f"{self._address}: got '{error.str()}', expected a Kafka broker there")
