"""MQTT over a real mosquitto: what it keeps, what it says when the bridge is killed, and what happens when it goes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engines.base import LeukostreamError
from streamer.bridge.addresses import Secrets, address_of
from streamer.bridge.mqtt_messages import Topics
from tests.conftest import a_free_port
from tests.requirements import why_no_mosquitto
from tests.streamer.bridge.bridge_cases import differential, event, factory, run_bridge, session, streamer
from tests.streamer.bridge.brokers import certificates, mosquitto
from tests.streamer.network.service_cases import PATIENCE_S, wait_for
from tests.streamer.protocol.message_cases import make_cell, make_health

pytest.importorskip("paho.mqtt.client", reason="paho is not installed")
if (why_not := why_no_mosquitto()) is not None:
    pytest.skip(f"mosquitto is not installed: {why_not}", allow_module_level=True)

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from streamer.bridge.mqtt import MqttTarget

NO_SECRETS = Secrets()


class Listener:
    """Another client of the broker: what it is given, by topic, and whether the broker had kept it."""

    def __init__(self, port: int) -> None:
        self.got: list[tuple[str, bytes, bool, int]] = []
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self._client.on_message = lambda client, data, m: self.got.append((m.topic, m.payload, m.retain, m.qos))
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def newest(self, topic: str) -> bytes | None:
        return next((body for at, body, *_ in reversed(self.got) if at == topic), None)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.fixture
def port(free_port: int, tmp_path: Path) -> Iterator[int]:
    with mosquitto(free_port, tmp_path):
        yield free_port


def target(port: int, *, scheme: str = "mqtt", secrets: Secrets = NO_SECRETS, **more: Any) -> MqttTarget:
    remarks: list[str] = more.pop("remarks", [])
    return MqttTarget(
        address_of(f"{scheme}://127.0.0.1:{port}", insecure=False),
        secrets,
        Topics("leukostream", "bench"),
        cells=True,
        remark=remarks.append,
    )


def test_a_session_as_subscribers_see_it_who_come_before_and_after(port: int, tmp_path: Path) -> None:
    messages = session(factory(), cells=2)
    with streamer() as server, Listener(port) as early:
        server.publish(*messages)
        bridge = run_bridge(server.endpoint, target(port), tmp_path / "cursor")
        wait_for(lambda: early.newest("leukostream/bench/availability") == b"offline")
    assert bridge.lost() == {}
    assert {qos for *_, qos in early.got} == {1}
    cells = [json.loads(body)["cell_id"] for topic, body, *_ in early.got if topic == "leukostream/bench/cam/cell"]
    assert cells == [0, 1]
    assert json.loads(early.newest("leukostream/bench/cam/end") or b"")["state"] == "finished"
    with Listener(port) as late:
        wait_for(lambda: len(late.got) >= 7)
        kept = {topic: body for topic, body, is_retained, _ in late.got if is_retained}
    assert json.loads(kept["leukostream/bench/cam/differential"])["final"] is True
    verdict = json.loads(kept["leukostream/bench/cam/verdict"])
    assert (verdict["state"], verdict["total"], verdict["final"]) == ("incomplete", 2, True)
    assert kept["leukostream/bench/cam/state"] == b"finished"
    assert kept["leukostream/bench/cam/availability"] == b"online"
    assert kept["leukostream/bench/availability"] == b"offline"
    assert "homeassistant/device/leukostream_bench_cam/config" in kept
    assert set(kept) == {topic for topic, *_ in early.got} - {"leukostream/bench/cam/cell", "leukostream/bench/cam/end"}


@pytest.mark.lengthy
def test_bridges_that_are_killed_at_any_moment_leave_no_cell_out(port: int, tmp_path: Path) -> None:
    make = factory()

    def cells(listener: Listener) -> list[int]:
        bodies = [json.loads(body) for topic, body, *_ in listener.got if topic == "leukostream/bench/cam/cell"]
        return [body["session_seq"] for body in bodies]

    published: list[int] = []
    with streamer() as server, Listener(port) as listener:
        command = [sys.executable, "-m", "streamer", "bridge", f"mqtt://127.0.0.1:{port}", server.endpoint]
        command += ["--name", "bench", "--cells", "--state", str(tmp_path / "state")]
        for life in range(4):
            messages = [make.cell(make_cell(number)) for number in range(300)]
            published += [message.session_seq for message in messages]
            server.publish(*messages, make.health(make_health()))
            if life == 3:
                server.publish(make.end("finished", ""))
                assert subprocess.run([*command, "--until-end"], timeout=PATIENCE_S * 3).returncode == 0
                break
            process = subprocess.Popen(command)
            try:
                enough = 300 * life + 100
                wait_for(lambda enough=enough: len(set(cells(listener))) > enough)
            finally:
                process.kill()  # while most of the rest is on its way
                process.wait(PATIENCE_S)
        wait_for(lambda: listener.newest("leukostream/bench/cam/end"))
        got = cells(listener)
    assert sorted(set(got)) == published
    first = list(dict.fromkeys(got))
    assert first == published, "what comes twice comes after it came once, in order"


def test_a_bridge_that_is_killed_is_said_to_be_gone_by_its_will(port: int, tmp_path: Path) -> None:
    with streamer() as server, Listener(port) as listener:
        make = factory()
        server.publish(differential(make))
        command = [sys.executable, "-m", "streamer", "bridge", f"mqtt://127.0.0.1:{port}", server.endpoint]
        process = subprocess.Popen([*command, "--name", "bench", "--state", str(tmp_path / "state")])
        try:
            wait_for(lambda: listener.newest("leukostream/bench/cam/differential"))
            assert listener.newest("leukostream/bench/availability") == b"online"
        finally:
            process.kill()
            process.wait(PATIENCE_S)
        wait_for(lambda: listener.newest("leukostream/bench/availability") == b"offline")


@pytest.mark.lengthy
def test_a_broker_that_is_started_anew_and_kept_nothing_has_it_all_again(free_port: int, tmp_path: Path) -> None:
    remarks: list[str] = []
    make = factory()

    async def run() -> None:
        one = target(free_port, remarks=remarks)
        with mosquitto(free_port, tmp_path):
            await one.open()
            await one.deliver(event(differential(make, 5)))
        sending = asyncio.create_task(one.deliver(event(make.health(make_health()))))  # while it is away
        with mosquitto(free_port, tmp_path), Listener(free_port) as listener:
            await asyncio.wait_for(sending, PATIENCE_S)
            for topic in ("differential", "verdict", "availability", "health", "state"):
                await asyncio.to_thread(wait_for, lambda at=topic: listener.newest(f"leukostream/bench/cam/{at}"))
            await asyncio.to_thread(wait_for, lambda: listener.newest("leukostream/bench/availability") == b"online")
            await one.close()

    asyncio.run(run())
    assert len(remarks) == 2
    assert "the connection is broken" in remarks[0]
    assert "connected again" in remarks[1]


def test_encrypted_with_a_user_and_a_password(free_port: int, tmp_path: Path) -> None:
    ca, certificate, key = certificates(tmp_path)
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(passwords), "lab", "geheim"], check=True, capture_output=True)
    lines = (f"certfile {certificate}", f"keyfile {key}", f"password_file {passwords}")
    right = Secrets("lab", "geheim", str(ca))

    async def connect(secrets: Secrets) -> None:
        one = target(free_port, scheme="mqtts", secrets=secrets)
        try:
            await one.open()
            await one.deliver(event(differential(factory())))
        finally:
            await one.close()

    with mosquitto(free_port, tmp_path, *lines):
        asyncio.run(connect(right))
        with pytest.raises(LeukostreamError, match=r"Not authorized.*LEUKOSTREAM_BRIDGE_SECRET") as refused:
            asyncio.run(connect(Secrets("lab", "falsch", str(ca))))
        assert "falsch" not in str(refused.value)
        with pytest.raises(LeukostreamError, match="expected one that --ca FILE vouches for"):
            asyncio.run(connect(Secrets("lab", "geheim")))


def test_topics_that_its_access_list_refuses_are_counted_and_the_others_come(free_port: int, tmp_path: Path) -> None:
    (tmp_path / "acl").write_text("topic readwrite leukostream/#\ntopic read #\n")
    with mosquitto(free_port, tmp_path, f"acl_file {tmp_path / 'acl'}"), Listener(free_port) as listener:
        with streamer() as server:
            server.publish(*session(factory(), cells=1))
            bridge = run_bridge(server.endpoint, target(free_port), tmp_path / "cursor")
        wait_for(lambda: listener.newest("leukostream/bench/cam/end"))
        assert listener.newest("leukostream/bench/cam/differential")
        assert not [topic for topic, *_ in listener.got if topic.startswith("homeassistant")]
    assert 1 <= bridge.lost()["rejected"] <= 2


def test_no_broker_is_waited_for(free_port: int, tmp_path: Path) -> None:
    remarks: list[str] = []
    port = a_free_port()
    with streamer() as server:
        server.publish(*session(factory(), cells=1))
        run_bridge(
            server.endpoint,
            target(port),
            tmp_path / "cursor",
            until=lambda: remarks,
            remark=remarks.append,
            linger_s=0.0,
        )
    assert "Connection refused" in remarks[0]
    assert "expected a broker there" in remarks[0]
