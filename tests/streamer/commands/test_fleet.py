"""`leukostream fleet`: bad usage, and status without a cluster."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from streamer.cli import main
from streamer.commands.fleet import status
from streamer.inference import fleet_watch


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["up"], "--workers"),
        (["up", "--workers", "3"], "--workers 3: got no servers, expected cpu=N"),
        (["up", "--workers", "cpu=4..2"], "--workers cpu=4..2: got no servers"),
        (["up", "--workers", "cpu=0"], "--workers cpu=0: got no servers"),
        (["up", "--workers", "tpu=1"], "--workers tpu=1: got no servers"),
        (["status", "nowhere"], "nowhere"),
        ([], "COMMAND"),
    ],
)
def test_bad_usage(words, fault, capsys):
    assert main(["fleet", *words]) == 2
    assert fault in capsys.readouterr().err


def no_cluster(pipe, address, option):
    pipe.send(f"{option} {address}: got no cluster, expected one")


@pytest.mark.lengthy
def test_status_without_a_cluster_shows_microscopes_all_the_same(monkeypatch, capsys, free_port):
    monkeypatch.setattr(fleet_watch, "_watch", no_cluster)
    monkeypatch.setattr(status, "HEARD_WITHIN_S", 0.1)
    assert main(["fleet", "status"]) == 1
    assert "--address auto: got no cluster, expected one" in capsys.readouterr().err
    assert main(["fleet", "status", f"tcp://127.0.0.1:{free_port}"]) == 1
    assert "no answer" in capsys.readouterr().out


@pytest.mark.parametrize("given", [[], ["--address", "10.0.0.1:6379"]])
def test_a_cluster_that_nobody_named_is_named(given, monkeypatch, capsys):
    pytest.importorskip("ray")
    from streamer.commands.fleet import servers

    monkeypatch.setattr(servers, "_is_node", lambda: True)
    monkeypatch.setattr(servers, "_until", lambda *_: ["tcp://10.0.0.1:5000"])
    monkeypatch.setattr(servers.ray_fleet, "connected", nullcontext)
    monkeypatch.setattr(servers.ray_fleet, "own_address", lambda: "10.0.0.1:6379")
    monkeypatch.setattr(servers.ray_fleet, "bring_up", lambda spec: None)
    assert main(["fleet", "up", "--workers", "cpu=1", "--insecure", *given]) == 0
    said = capsys.readouterr()
    assert said.out == "fleet at 10.0.0.1:6379: 1 servers, tcp://10.0.0.1:5000\n"
    assert ("--address: not given; the cluster of this machine, 10.0.0.1:6379" in said.err) == (not given)
