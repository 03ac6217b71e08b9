"""What a site can get wrong, and what others send: one line each, and the microscope goes on. Wrong answers, engines
and keys are in test_remote.py, servers that hang in test_dispatch.py and test_patience.py, workers of another release
in test_reanalyse.py."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import Pipe
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import zmq

from streamer.inference import fleet_watch
from streamer.inference.client import InferenceClient
from streamer.inference.fleet_watch import FleetInference
from tests.streamer.inference.served import Asking, Served, wait_for


def test_a_server_of_another_version_is_one_line_and_not_asked() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    endpoint = f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}"
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            if socket.poll(20):
                asker, *_ = socket.recv_multipart()
                socket.send_multipart([asker, msgspec.msgpack.encode({"version": "2.0", "reply": "status"})])

    thread = threading.Thread(target=run)
    thread.start()
    try:
        with Asking(endpoint, first_answer_s=0.0) as asking:
            wait_for(lambda: asking.state_of(endpoint) == "other version")
            assert asking.infer(1) == [12.0]
            assert asking.client.status().remote == 0
            wait_for(lambda: any("run the same release" in line for line in asking.said))
            told = [line for line in asking.said if endpoint in line]
            assert len(told) == 1
            assert "\n" not in told[0]
    finally:
        over.set()
        thread.join()
        socket.close(0)
        context.term()


def test_a_clock_that_jumps_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A day back and forth at each look."""
    days = itertools.cycle((0, 86_400, -86_400))
    real_s, real_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: real_s() + next(days))
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + 10**9 * next(days))
    with Served() as served, Asking(served.endpoint) as asking:
        for value in range(20):
            assert asking.infer(value) == [12.0 * value]
        assert asking.local.calls == []
        assert asking.client.status().resent == 0
        assert served.server.status().uptime_s < 3600
        assert served.server.status().faults == {}


def test_a_machine_without_the_extra_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "streamer.inference.ray_fleet", raising=False)
    here, there = Pipe()
    fleet_watch._watch(there, "127.0.0.1:6379", "--inference ray")
    assert here.poll(0)
    line = "--inference ray: got no package ray, expected it: pip install 'leukostream[fleet]'"
    assert here.recv() == line


def test_a_site_without_keys_is_told_of_servers_elsewhere_that_need_them(monkeypatch: pytest.MonkeyPatch) -> None:
    class Watch:
        def __init__(self, address: str, option: str, *, on_state: Callable[[Any], None], **_: object) -> None:
            on_state(SimpleNamespace(endpoints=["tcp://192.0.2.7:5600"]))
            on_state(SimpleNamespace(endpoints=["tcp://192.0.2.7:5600"]))  # a second later

        def wait(self) -> None: ...
        def close(self) -> None: ...

    monkeypatch.setattr(fleet_watch, "FleetWatch", Watch)
    said: list[str] = []
    inference = FleetInference(InferenceClient(()), "auto", said.append)
    try:
        (line,) = said
        assert (
            "to which pictures would go unencrypted; expected --keys DIR and --server-key FILE, or --insecure" in line
        )
        assert "\n" not in line
        assert inference.status().servers == {}
    finally:
        inference.close()
