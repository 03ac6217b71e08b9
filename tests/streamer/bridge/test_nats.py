"""NATS over a real server: with a stream of JetStream, which removes repeats, and without one."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engines.base import LeukostreamError
from streamer.bridge.addresses import Secrets, address_of
from streamer.bridge.base import UnavailableError
from tests.requirements import why_no_nats_server
from tests.streamer.bridge.bridge_cases import differential, event, factory, run_bridge, session, streamer
from tests.streamer.bridge.brokers import certificates, nats_server
from tests.streamer.network.service_cases import PATIENCE_S

nats = pytest.importorskip("nats", reason="nats-py is not installed")
if (why_not := why_no_nats_server()) is not None:
    pytest.skip(f"nats-server is not installed: {why_not}", allow_module_level=True)

from streamer.bridge.nats import NatsTarget  # noqa: E402

NO_SECRETS = Secrets()


def target(port: int, secrets: Secrets = NO_SECRETS, remarks: list[str] | None = None) -> NatsTarget:
    address = address_of(f"nats://127.0.0.1:{port}", insecure=False)
    return NatsTarget(
        address, secrets, "leukostream", "bench", cells=True, remark=([] if remarks is None else remarks).append
    )


def stored(port: int) -> list[Any]:
    """What the stream has."""

    async def read() -> list[Any]:
        client = await nats.connect(f"nats://127.0.0.1:{port}")
        stream = client.jetstream()
        count = (await stream.stream_info("results")).state.messages
        messages = [await stream.get_msg("results", number + 1) for number in range(count)]
        await client.close()
        return messages

    return asyncio.run(read())


def make_stream(port: int) -> None:
    async def make() -> None:
        client = await nats.connect(f"nats://127.0.0.1:{port}")
        await client.jetstream().add_stream(name="results", subjects=["leukostream.>"])
        await client.close()

    asyncio.run(make())


def test_a_stream_has_each_message_once_though_the_bridge_delivers_twice(free_port: int, tmp_path: Path) -> None:
    with nats_server(free_port, tmp_path, "-js", "-sd", str(tmp_path / "store")):
        make_stream(free_port)
        with streamer() as server:
            server.publish(*session(factory(), cells=3))
            for name in ("cursor", "another cursor"):  # as after a bridge that was killed before it wrote its own
                bridge = run_bridge(server.endpoint, target(free_port), tmp_path / name)
                assert bridge.lost() == {}
        messages = stored(free_port)
    keys = [one.headers["Nats-Msg-Id"] for one in messages]
    assert len(set(keys)) == len(keys)
    assert [one.subject for one in messages if one.subject.endswith("cell")] == ["leukostream.bench.cam.cell"] * 3
    [end] = [json.loads(one.data) for one in messages if one.subject == "leukostream.bench.cam.end"]
    assert f"{end['session']}.{end['session_seq']}" in keys


def test_without_a_stream_it_is_published_and_said_once(free_port: int, tmp_path: Path) -> None:
    remarks: list[str] = []
    got: list[str] = []

    async def run() -> None:
        client = await nats.connect(f"nats://127.0.0.1:{free_port}")

        async def take(message: Any) -> None:
            got.append(message.subject)

        await client.subscribe("leukostream.>", cb=take)
        await client.flush()
        one = target(free_port, remarks=remarks)
        await one.open()
        make = factory()
        await one.deliver(event(differential(make)))
        await one.deliver(event(make.end("finished", "")))
        await until(lambda: len(got) == 2)
        await one.close()
        await client.close()

    with nats_server(free_port, tmp_path):
        asyncio.run(run())
    assert got == ["leukostream.bench.cam.differential", "leukostream.bench.cam.end"]
    assert len(remarks) == 1
    assert "no stream of JetStream has leukostream.bench.cam.differential" in remarks[0]


@pytest.mark.lengthy
def test_a_server_that_is_away_for_a_while_gets_what_came_meanwhile(free_port: int, tmp_path: Path) -> None:
    remarks: list[str] = []
    options = ("-js", "-sd", str(tmp_path / "store"))
    make, one = factory(), target(free_port)
    with nats_server(free_port, tmp_path, *options):
        make_stream(free_port)
    with streamer() as server:
        server.publish(*session(make, cells=2))
        run_bridge(
            server.endpoint, one, tmp_path / "cursor", until=lambda: remarks, remark=remarks.append, linger_s=0.0
        )
        assert "expected a NATS server there" in remarks[0]
        with nats_server(free_port, tmp_path, *options):
            run_bridge(server.endpoint, target(free_port), tmp_path / "cursor")
            assert stored(free_port)[-1].subject == "leukostream.bench.cam.end"


def test_a_password_is_asked_for_and_a_wrong_one_ends_the_bridge(free_port: int, tmp_path: Path) -> None:
    async def connect(secrets: Secrets) -> None:
        one = target(free_port, secrets)
        try:
            await one.open()
            await one.deliver(event(differential(factory())))
        finally:
            await one.close()

    with nats_server(free_port, tmp_path, "--user", "lab", "--pass", "geheim"):
        asyncio.run(connect(Secrets("lab", "geheim")))
        with pytest.raises(LeukostreamError, match="see LEUKOSTREAM_BRIDGE_USER") as refused:
            asyncio.run(connect(Secrets("lab", "falsch")))
        assert "falsch" not in str(refused.value)


@pytest.mark.lengthy
def test_a_connection_that_breaks_comes_back_and_what_was_not_acknowledged_is_delivered(
    free_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamer.bridge.nats.WAIT_S", 1.0)
    options = ("-js", "-sd", str(tmp_path / "store"))
    make = factory()

    async def run() -> None:
        one = target(free_port)
        with nats_server(free_port, tmp_path, *options):
            await asyncio.to_thread(make_stream, free_port)
            await one.open()
            await one.deliver(event(differential(make)))
        last = event(make.end("finished", ""))
        with pytest.raises(UnavailableError):
            await one.deliver(last)
        with nats_server(free_port, tmp_path, *options):
            async with asyncio.timeout(PATIENCE_S):
                delivered = False
                while not delivered:
                    with contextlib.suppress(UnavailableError):
                        await one.deliver(last)
                        delivered = True
            assert [one.subject for one in await asyncio.to_thread(stored, free_port)] == [
                "leukostream.bench.cam.differential",
                "leukostream.bench.cam.end",
            ]
            await one.close()

    asyncio.run(run())


@pytest.mark.lengthy
def test_encrypted_by_a_certificate_of_our_own_authority(free_port: int, tmp_path: Path) -> None:
    ca, certificate, key = certificates(tmp_path)

    async def connect(ca: str | None) -> None:
        address = address_of(f"natss://127.0.0.1:{free_port}", insecure=False)
        one = NatsTarget(address, Secrets(ca=ca), "leukostream", "bench", cells=False, remark=lambda line: None)
        try:
            await one.open()
            await one.deliver(event(differential(factory())))
        finally:
            await one.close()

    options = ("--tls", "--tlscert", str(certificate), "--tlskey", str(key))
    with nats_server(free_port, tmp_path, *options):
        asyncio.run(connect(str(ca)))
        with pytest.raises(LeukostreamError, match="certificate"):
            asyncio.run(connect(None))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)
