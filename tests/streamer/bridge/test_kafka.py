"""Kafka, against the brokers that its client library simulates on TCP: they speak the protocol, and store in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamer.bridge.addresses import Secrets, address_of
from streamer.bridge.base import UnavailableError
from tests.conftest import a_free_port
from tests.streamer.bridge.bridge_cases import differential, event, factory, run_bridge, session, streamer

confluent_kafka = pytest.importorskip("confluent_kafka", reason="confluent-kafka is not installed")

from streamer.bridge import kafka  # noqa: E402
from streamer.bridge.kafka import KafkaTarget  # noqa: E402


@pytest.fixture
def brokers() -> Iterator[str]:
    """HOST:PORT of one of three."""
    cluster = confluent_kafka.Producer({"bootstrap.servers": "127.0.0.1:1", "test.mock.num.brokers": 3, "log_level": 0})
    broker = next(iter(cluster.list_topics(timeout=20.0).brokers.values()))
    yield f"{broker.host}:{broker.port}"
    del cluster


def target(place: str) -> KafkaTarget:
    return KafkaTarget(address_of(f"kafka://{place}", insecure=False), Secrets(), "leukostream", "bench", cells=True)


def consumed(place: str, topic: str, count: int) -> list[Any]:
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": place, "group.id": "lis", "auto.offset.reset": "earliest", "log_level": 0}
    )
    partitions = consumer.list_topics(topic, timeout=20.0).topics[topic].partitions
    consumer.assign([confluent_kafka.TopicPartition(topic, number, 0) for number in partitions])
    try:
        return list(consumer.consume(count, timeout=20.0))
    finally:
        consumer.close()


@pytest.mark.lengthy
def test_a_session_arrives_in_order_with_its_keys(brokers: str, tmp_path: Path) -> None:
    with streamer() as server:
        server.publish(*session(factory(), cells=3))
        bridge = run_bridge(server.endpoint, target(brokers), tmp_path / "cursor")
    assert bridge.lost() == {}
    cells = consumed(brokers, "leukostream.cell", 3)
    assert [json.loads(one.value())["cell_id"] for one in cells] == [0, 1, 2]
    assert [dict(one.headers())["key"] for one in cells] == [b"slide-1.1", b"slide-1.3", b"slide-1.5"]
    assert len({(one.key(), one.partition()) for one in cells}) == 1
    assert cells[0].key() == b"bench/cam"
    [end] = consumed(brokers, "leukostream.end", 1)
    assert json.loads(end.value())["state"] == "finished"


def test_no_broker_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "WAIT_S", 0.5)

    async def run() -> None:
        one = target(f"127.0.0.1:{a_free_port()}")
        try:
            with pytest.raises(UnavailableError, match="expected a Kafka broker there"):
                await one.open()
            with pytest.raises(UnavailableError, match="expected a Kafka broker there"):
                await one.deliver(event(differential(factory())))
        finally:
            await one.close()

    asyncio.run(run())
