"""`leukostream bridge`: what is refused before anything is sent, and the whole way in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from engines.base import UsageError
from streamer.bridge.addresses import address_of, read_secrets
from streamer.bridge.opening import default_state
from streamer.cli import main
from tests.streamer.bridge.bridge_cases import factory, session, streamer
from tests.streamer.network.service_cases import PATIENCE_S, wait_for

ENDPOINT = "tcp://127.0.0.1:5555"


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["broker.lab"], "got 'broker.lab', expected mqtt://HOST"),
        (["ftp://broker.lab"], "got 'ftp://broker.lab', expected mqtt://HOST"),
        (["mqtt://broker.lab:70000"], "expected mqtt://HOST"),
        (["mqtts://broker.lab/topic"], "expected mqtt://HOST"),
        (
            ["mqtt://broker.lab"],
            "an address beyond this machine, where anyone on the way could read along; expected mqtts://",
        ),
        (["http://lis.lab/results"], "expected https://…, or --insecure"),
        (["mqtts://broker.lab", "--name", "a/b"], "--name: got 'a/b', expected letters"),
        (["mqtts://broker.lab", "--prefix", "lab/#"], "--prefix: got 'lab/#', expected letters"),
        (["mqtts://broker.lab", "--discovery", "ha/+"], "--discovery: got 'ha/+', expected a topic"),
        (["mqtts://broker.lab", "--secret-file", "/nowhere"], "--secret-file /nowhere: got 'No such file"),
        (["mqtts://broker.lab", "--ca", "/nowhere"], "--ca /nowhere: got"),
        (["mqtts://broker.lab", "--health-every", "often"], "expected seconds"),
    ],
)
def test_bad_usage_is_one_line(words: list[str], fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("paho", reason="paho is not installed")
    assert main(["bridge", *words[:1], ENDPOINT, *words[1:]]) == 2
    error = capsys.readouterr().err
    assert fault in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "target", ["mqtts://lab:geheim@broker.lab", "https://geheim@lis.lab/", "mqtt://lab:geheim@broker.lab:x"]
)
def test_a_secret_in_the_address_is_refused_and_not_shown(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bridge", target, ENDPOINT]) == 2
    assert "geheim" not in capsys.readouterr().err


def test_where_an_address_leads() -> None:
    assert str(address_of("mqtt://127.0.0.1", insecure=False)) == "mqtt://127.0.0.1:1883"
    assert str(address_of("mqtts://[::1]:99", insecure=False)) == "mqtts://[::1]:99"
    webhook = address_of("https://lis.lab/results?token=abc", insecure=False)
    assert (webhook.path, str(webhook)) == ("/results?token=abc", "https://lis.lab:443/results")
    assert not address_of("nats://broker.lab", insecure=True).is_encrypted
    assert address_of("natss://broker.lab", insecure=False).is_encrypted


def test_secrets_come_from_the_environment_or_a_file_and_are_not_shown(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from a file\n")
    environment = {"LEUKOSTREAM_BRIDGE_USER": "lab", "LEUKOSTREAM_BRIDGE_SECRET": "from there"}
    from_there = read_secrets(None, None, environment)
    assert (from_there.user, from_there.secret) == ("lab", "from there")
    assert read_secrets(str(tmp_path / "secret"), None, environment).secret == "from a file"
    assert "from there" not in repr(from_there)
    (tmp_path / "secret").write_text("\n")
    with pytest.raises(UsageError, match="got nothing in it, expected the secret"):
        read_secrets(str(tmp_path / "secret"), None, {})


def test_the_state_is_where_the_system_keeps_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", "/home/lab/.state")
    assert default_state() == Path("/home/lab/.state/leukostream")
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/leukostream")
    assert default_state() == Path("/var/lib/leukostream")


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[Any]]]:
    """An HTTP server of this machine: its address, and the results posted to it."""
    got: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            got.append((dict(self.headers), json.loads(body)))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/results", got
    server.shutdown()
    thread.join()
    server.server_close()


def start(*words: str, state: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "streamer", "bridge", *words, "--state", str(state)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.mark.lengthy
def test_a_result_is_posted_once_by_bridges_that_come_one_after_the_other(
    receiver: tuple[str, list[Any]], tmp_path: Path
) -> None:
    pytest.importorskip("httpx", reason="httpx is not installed")
    address, got = receiver
    with streamer() as server:
        server.publish(*session(factory(), cells=2))
        for _ in range(2):
            process = start(
                address, server.endpoint, "--until-end", state=tmp_path / "state", LEUKOSTREAM_BRIDGE_SECRET=""
            )
            _, said = process.communicate(timeout=PATIENCE_S * 2)
            assert process.returncode == 0, said
    assert len(got) == 1
    headers, body = got[0]
    assert body["data"]["differential"]["total"] == 2
    assert "webhook-signature" not in {name.lower() for name in headers}
    assert "without a signature" in said


@pytest.mark.lengthy
def test_sigterm_ends_it_well(receiver: tuple[str, list[Any]], tmp_path: Path) -> None:
    pytest.importorskip("httpx", reason="httpx is not installed")
    address, got = receiver
    with streamer() as server:
        server.publish(*session(factory(), cells=1))
        process = start(address, server.endpoint, state=tmp_path / "state")
        wait_for(lambda: got)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said
    assert "1 delivered" in said.splitlines()[-1]
