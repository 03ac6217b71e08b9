"""`leukostream fleet`: bad usage, and status without a cluster."""

from __future__ import annotations

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
