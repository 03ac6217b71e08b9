"""Each example runs as its first line says."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import zmq

from streamer.network.publisher import Publisher
from streamer.protocol.messages import AnyMessage, encode, topic_of
from streamer.records import Frame, StagePoint
from streamer.sources.imagezmq import ImagezmqSource
from tests.requirements import NODE_MODULES, why_no_node
from tests.streamer.network.service_cases import PATIENCE_S, Served, wait_for
from tests.streamer.protocol.message_cases import make_cell, make_differential, make_factory, one_of_each

EXAMPLES = Path(__file__).parents[1] / "examples"


def started(name: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["node" if name.endswith(".js") else sys.executable, str(EXAMPLES / name), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=EXAMPLES.parent,
        env={"PYTHONPATH": str(EXAMPLES.parent), "NODE_PATH": str(NODE_MODULES), "PATH": os.environ["PATH"]},
    )


def said(process: subprocess.Popen[str]) -> str:
    with process:
        return process.communicate(timeout=PATIENCE_S)[0]


def subscribed(server: Served) -> bool:
    return bool(server.do(lambda publisher: publisher.wants("differential", "cam")))


def test_alarm() -> None:
    factory = make_factory()
    with Served(lambda: Publisher("tcp://127.0.0.1:*")) as server:
        server.publish(factory.differential(make_differential(12)))
        alarm = started("alarm.py", server.endpoint, "neutrophil", "2")
        assert said(alarm) == "cam: neutrophil 100.0 % of 12 cells\n"
        quiet = started("alarm.py", server.endpoint, "monocyte", "2")
        wait_for(lambda: subscribed(server))
        server.publish(factory.differential(make_differential(13, final=True)))
        assert said(quiet) == "cam: the slide ended, no alarm\n"


def test_csv_logger_started_late(tmp_path: Path) -> None:
    factory = make_factory()
    with Served(lambda: Publisher("tcp://127.0.0.1:*")) as server:
        server.publish(*(factory.cell(make_cell(number)) for number in range(400)))
        server.publish(factory.differential(make_differential(400)))
        logger = started("csv_logger.py", server.endpoint, str(tmp_path / "cells.csv"))
        wait_for(lambda: subscribed(server))
        server.publish(*(factory.cell(make_cell(number)) for number in range(400, 420)))
        server.publish(factory.differential(make_differential(420, final=True)))
        assert said(logger) == "0 messages were lost\n"
    with (tmp_path / "cells.csv").open() as file:
        assert [int(row["cell_id"]) for row in csv.DictReader(file)] == list(range(420))


@pytest.mark.skipif(sys.platform == "win32", reason="a pseudo terminal stands in for the stage's serial line")
def test_stage_bridge_sends_each_picture_with_its_place(tmp_path: Path) -> None:
    import pty
    import tty

    film = cv2.VideoWriter(str(tmp_path / "film.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for level in (50, 100, 150):
        film.write(np.full((48, 64, 3), level, np.uint8))
    film.release()
    line, port = pty.openpty()
    tty.setraw(port)

    def stage() -> None:
        for place in (b":A 0 0 \r\n", b":A 12345 -678 \r\n", b":A 20000 5 \r\n"):
            asked = b""
            while not asked.endswith(b"\r"):
                asked += os.read(line, 1)
            assert asked == b"W X Y\r"
            os.write(line, place)

    answering = threading.Thread(target=stage, daemon=True)
    answering.start()
    source = ImagezmqSource("scope", "tcp://127.0.0.1:*", time.monotonic_ns)
    source.open()
    bridge = started("stage_bridge.py", source.endpoint, os.ttyname(port), str(tmp_path / "film.avi"))
    frames = [source.read() for _ in range(4)]
    source.close()
    assert said(bridge) == "3 pictures were taken\n"
    assert frames.pop() is None  # it said that the third is the last
    got = [(frame.stage_um, round(float(frame.image.mean()), -1)) for frame in frames if isinstance(frame, Frame)]
    assert got == [(StagePoint(0, 0), 50), (StagePoint(1234.5, -67.8), 100), (StagePoint(2000, 0.5), 150)]
    answering.join(PATIENCE_S)


def test_imagezmq_sender_sends_again_what_was_not_answered(tmp_path: Path) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    paths = [tmp_path / name for name in ("a.jpg", "b.jpg")]
    for path in paths:
        path.write_bytes(path.name.encode())
    code = (EXAMPLES / "imagezmq_sender.py").read_text()
    (tmp_path / "sender.py").write_text(re.sub("ANSWER_MS = [0-9_]+", "ANSWER_MS = 300", code, count=1))
    with context.socket(zmq.REP) as hub:
        port = hub.bind_to_random_port("tcp://127.0.0.1")
        sender = started(str(tmp_path / "sender.py"), f"tcp://127.0.0.1:{port}", *map(str, paths))
        assert sender.stdout is not None
        got = [hub.recv_multipart()]
        assert sender.stdout.readline() == f"{paths[0]}: no answer, sending it again\n"
        for _ in range(2):
            hub.send(b"OK")  # the first one comes too late
            got.append(hub.recv_multipart())
        hub.send(b"OK")
        assert said(sender) == "2 pictures were taken\n"
    context.destroy(linger=0)
    assert got == [[b'{"msg": 0}', b"a.jpg"], [b'{"msg": 0}', b"a.jpg"], [b'{"msg": 1}', b"b.jpg"]]


def test_plain_subscriber_gets_everything_that_is_published() -> None:
    messages = one_of_each(make_factory())
    with Served(lambda: Publisher("tcp://127.0.0.1:*")) as server:
        plain = started("plain_subscriber.py", server.endpoint)
        wait_for(lambda: subscribed(server))
        server.do(lambda publisher: [publisher.publish(message, b"JPEG") for message in messages])
        assert plain.stdout is not None
        lines = [plain.stdout.readline() for _ in messages]
        plain.kill()
        plain.wait()
        plain.stdout.close()
    assert lines == [f"{topic_of(message)} 0 {len(encode(message))} [4]\n" for message in messages]


CLIENTS = (
    "complete_client.py",
    pytest.param(
        "complete_client.js",
        marks=pytest.mark.skipif(why_no_node() is not None, reason=f"the client in JavaScript: {why_no_node()}"),
    ),
)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("before", [0, 300])
def test_a_complete_client_gets_every_message_once_and_in_order(client: str, before: int) -> None:
    """Those from before it came, and those that its queue of 20 had no room for."""
    factory = make_factory()
    messages: list[AnyMessage] = [factory.cell(make_cell(number)) for number in range(before)]
    with Served(lambda: Publisher("tcp://127.0.0.1:*", high_water_mark=20, linger_s=0)) as server:
        server.publish(*messages)
        process = started(client, server.endpoint)
        wait_for(lambda: subscribed(server))
        later: list[AnyMessage] = []
        for _ in range(50):  # until a client that is fast enough for some of them has lost one
            number = before + len(later)
            some: list[AnyMessage] = [factory.cell(make_cell(cell)) for cell in range(number, number + 2000)]
            later += some
            server.publish(*some)
            if server.do(lambda publisher: publisher.lost.get("cell", 0)):
                break
        last = [
            factory.differential(make_differential(before + len(later), final=True)),
            factory.end("finished", "end of the source"),
        ]
        later += last
        server.publish(*last)
        lines = said(process).splitlines()
        lost = server.do(lambda publisher: dict(publisher.lost))
    assert process.returncode == 0
    assert lost.get("cell", 0) > 0
    assert lines == [f"{topic_of(message)} {encode(message).decode()}" for message in messages + later]
