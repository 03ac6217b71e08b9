"""Measure the wire: python -m tools.bench wire [--only publish|rate|latency|crowd]

The engines are scripted, so that the wire is measured and not the models. Prints one JSON object a measurement. The
crowd is many subscribers in a few processes, some of them cut off and stopped: each must end with the exact state.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from engines.base import Detections
from streamer.network.gap_repair import GapRepair
from streamer.network.publisher import WINDOW_MAX_BYTES, Publisher
from streamer.network.subscriber import Subscriber
from streamer.protocol.factory import MessageFactory
from streamer.protocol.messages import DifferentialMessage, FrameMessage, encode
from streamer.records import (
    ClassShare,
    Differential,
    Flag,
    Frame,
    FrameQuality,
    Health,
    ModelHealth,
    Observation,
    StagePosition,
)
from tools.commands import command_parser

LOCAL = "tcp://127.0.0.1:*"


def main(arguments: Sequence[str]) -> None:
    parser = command_parser("tools.bench wire", __doc__)
    parser.add_argument("--only", choices=("publish", "rate", "latency", "crowd"))
    parser.add_argument("--seconds", type=float, default=10.0, help="of publishing at 30 frames a second (crowd)")
    parser.add_argument("--subscribers", type=int, default=200, help="in the crowd")
    parser.add_argument("--join", nargs=2, metavar=("ENDPOINT", "COUNT"), help=argparse.SUPPRESS)
    parser.add_argument("--slow", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.join:
        follow(options.join[0], int(options.join[1]), slow=options.slow)
        return
    measures: dict[str, Callable[[], dict[str, object]]] = {
        "publish": publish_cost,
        "rate": receive_rate,
        "latency": latency,
        "crowd": lambda: crowd(options.subscribers, options.seconds),
    }
    for name, measure in measures.items():
        if options.only in (None, name):
            print(json.dumps({"measurement": name, **measure()}), flush=True)


def frame_of(factory: MessageFactory, number: int, boxes: int = 60) -> FrameMessage:
    """A frame with 2 white and otherwise red cells: 7.9 KB for 60."""
    x, y = np.arange(boxes) % 10 * 60.0, np.arange(boxes) // 10 * 60.0
    detections = Detections(
        boxes_px=np.stack([x, y, x + 50.5, y + 48.25], 1).astype(np.float32),
        scores=np.linspace(0.95, 0.4, boxes).astype(np.float32),
        labels=(np.arange(boxes) >= 2).astype(np.intp),
        label_names=("WBC", "RBC"),
        kinds=("white", "red"),
        truncated=False,
    )
    return factory.frame(
        Frame("cam", number, time.monotonic_ns(), np.zeros((480, 640, 3), np.uint8), None),
        detections,
        stage=StagePosition(island=0, x_px=100.0, y_px=-20.0, quality=0.98),
        quality=FrameQuality(focus=12.5, accepted=True),
        observations=[Observation(cell_id=i, is_new=False, counted=True) for i in range(boxes)],
    )


def differential_of(total: int, *, final: bool = False) -> Differential:
    """About a kilobyte as a message."""
    names = ("neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil", "immature granulocyte", "promyelocyte")
    return Differential(
        total=total,
        classes={name: ClassShare(total // 7, 100 / 7, 9.876543210987, 19.87654321098) for name in names},
        limits_method="clopper-pearson",
        limits_note="limits are of sampling only",
        unclassified=0,
        nrbc=0,
        nrbc_per_100_wbc=0.0,
        not_seen={},
        flags=tuple(
            Flag(code="seen", text=text, class_=text, direction="seen", count=1, of=200, percent=0.5)
            for text in ("immature granulocyte", "erythroblast")
        ),
        not_assessed=("blast", "variant lymphocyte", "smudge cell", "plasma cell"),
        rbc_seen=total * 20,
        platelets_seen=total,
        frames=total,
        frames_accepted=total,
        final=final,
    )


def new_factory() -> MessageFactory:
    return MessageFactory("cam", session="slide", run_id="run")


@contextlib.contextmanager
def reading(endpoint: str, topics: list[str], take: Callable[[Subscriber], object]) -> Iterator[None]:
    """A subscriber on its own thread, which ends with the final differential."""
    with Subscriber(endpoint, topics) as subscriber:

        def read() -> None:
            while (state := subscriber.state()) is None or not state.final:
                take(subscriber)

        thread = threading.Thread(target=read)
        thread.start()
        yield
        thread.join()


def publish_cost(frames: int = 600) -> dict[str, object]:
    """Milliseconds of the publishing thread for each frame message, with one subscriber that reads."""
    factory = new_factory()
    with Publisher(LOCAL) as publisher:
        process = subprocess.Popen(
            [sys.executable, "-m", "tools.bench", "wire", "--join", publisher.endpoint, "1"],
            stdout=subprocess.DEVNULL,
            text=True,
        )
        serve(publisher, until=lambda: publisher.wants("frame", "cam"))
        times = []
        message = frame_of(factory, 0)
        publisher.publish(message)
        for number in range(1, frames):
            message = frame_of(factory, number)
            began = time.perf_counter()
            publisher.publish(message)
            times.append(1000 * (time.perf_counter() - began))
            time.sleep(0.005)
        end(publisher, factory, [process])
    return {
        "frames": frames,
        "bytes": len(encode(message)),
        "median_ms": round(statistics.median(times), 4),
        "p99_ms": round(float(np.percentile(times, 99)), 4),
    }


def receive_rate(messages: int = 40_000) -> dict[str, object]:
    """Messages of a kilobyte a second that `Subscriber` gives, decoded and checked, from a queue that is full."""
    factory = new_factory()
    parts = []
    for number in range(messages):
        message = factory.differential(differential_of(number))
        parts.append([b"differential.cam", encode(message)])
    core = GapRepair([""], replay=True, history=False)
    began = time.perf_counter()
    for one in parts:
        for _ in core.take(one):
            raise AssertionError("nothing is missing")
        core.ready.popleft()
    decoding_s = time.perf_counter() - began
    with (
        Publisher(LOCAL, high_water_mark=messages) as publisher,
        Subscriber(publisher.endpoint, high_water_mark=messages) as subscriber,
    ):
        serve(publisher, until=lambda: publisher.wants("frame", "cam"))
        factory = new_factory()
        for number in range(messages):
            publisher.publish(factory.differential(differential_of(number, final=number == messages - 1)))
        time.sleep(1.0)
        began = time.perf_counter()
        got = 0
        while got < messages and subscriber.receive(5.0) is not None:
            got += 1
        socket_s = time.perf_counter() - began
    return {
        "bytes": len(parts[0][1]),
        "per_s": round(got / socket_s),
        "received": got,
        "without_socket_per_s": round(messages / decoding_s),
    }


def latency(messages: int = 1000) -> dict[str, object]:
    """Milliseconds from the making of a frame message to its being received and decoded, over loopback."""
    factory = new_factory()
    times: list[float] = []

    def take(subscriber: Subscriber) -> None:
        received = subscriber.receive(0.5)
        if received is not None:
            times.append((time.monotonic_ns() - received.message.published_ns) / 1e6)

    with Publisher(LOCAL) as publisher, reading(publisher.endpoint, ["frame."], take):
        serve(publisher, until=lambda: publisher.wants("frame", "cam"))
        for number in range(messages):
            publisher.publish(frame_of(factory, number))
            time.sleep(0.005)
        end(publisher, factory, [])
    return {
        "messages": len(times),
        "median_ms": round(statistics.median(times), 3),
        "p99_ms": round(float(np.percentile(times, 99)), 3),
    }


def crowd(subscribers: int, seconds: float, processes: int = 4) -> dict[str, object]:
    """Many subscribers, one that never reads, one that is slow, and processes stopped for a second in turn.

    Each of the many must end with exactly the last differential. Every fifth of them takes everything, the others what
    a laboratory's programs take: cells, differential and health.
    """
    factory, rng = new_factory(), random.Random(1)
    with Publisher(LOCAL, linger_s=10.0) as publisher:
        command = [sys.executable, "-m", "tools.bench", "wire", "--join", publisher.endpoint]
        joined = [
            subprocess.Popen([*command, str(subscribers // processes)], stdout=subprocess.PIPE, text=True)
            for _ in range(processes)
        ]
        stalled = subprocess.Popen([*command, "1"], stdout=subprocess.DEVNULL)
        slow = subprocess.Popen([*command, "1", "--slow"], stdout=subprocess.DEVNULL)
        there = 2 * (subscribers // processes) * processes + 4
        serve(publisher, until=lambda: (publisher.health().connections or 0) >= there)
        os.kill(stalled.pid, signal.SIGSTOP)
        frames = round(seconds * 30)
        stopped, costs, memory = None, [], []
        for number in range(frames):
            message = frame_of(factory, number)
            began = time.perf_counter()
            publisher.publish(message)
            publisher.publish(factory.differential(differential_of(number)))
            costs.append(1000 * (time.perf_counter() - began))
            if number % 30 == 0:
                stream = publisher.health()
                publisher.publish(factory.health(Health(ModelHealth("scripted", "none"), number / 30, {}, stream)))
                memory.append((stream.window_bytes, resident_mib()))
                if stopped is not None:
                    os.kill(stopped.pid, signal.SIGCONT)
                stopped = rng.choice(joined)
                os.kill(stopped.pid, signal.SIGSTOP)
            while time.perf_counter() - began < 1 / 30:
                publisher.service()
                time.sleep(0.002)
        if stopped is not None:
            os.kill(stopped.pid, signal.SIGCONT)
        stream = publisher.health()
        for process in (stalled, slow):
            process.kill()
            process.wait()
        last = end(publisher, factory, joined)
    results = [json.loads(line) for process in joined for line in (process.stdout or [])]
    full = [resident for window_bytes, resident in memory if window_bytes > 0.98 * WINDOW_MAX_BYTES]
    return {
        "subscribers": len(results),
        "with_exact_state": sum(result["state"] == digest(last) for result in results),
        "replayed": sum(result["replayed"] for result in results),
        "lost": sum(result["lost"] for result in results),
        "frames": frames,
        "publish_median_ms": round(statistics.median(costs), 3),
        "publish_p99_ms": round(float(np.percentile(costs, 99)), 3),
        "publish_longer_than_a_frame": sum(cost > 1000 / 30 for cost in costs),
        "queue_found_full": stream.lost,
        "resident_mib_first_last": [memory[0][1], memory[-1][1]],
        "resident_mib_with_window_full_first_least_most_last": (
            [full[0], min(full), max(full), full[-1]] if full else None
        ),
    }


def follow(endpoint: str, count: int, *, slow: bool = False) -> None:
    """`count` subscribers on threads, each until it has the final differential; then its state as a line."""

    def one(number: int) -> None:
        topics = [""] if number % 5 == 0 else ["cell.", "differential.", "health."]
        with Subscriber(endpoint, topics) as subscriber:
            while (state := subscriber.state()) is None or not state.final:
                subscriber.receive(1.0)
                if slow:
                    time.sleep(0.1)
            report = {
                "state": digest(state),
                "replayed": subscriber.replayed,
                "lost": subscriber.lost,
            }
            os.write(1, json.dumps(report).encode() + b"\n")  # whole, whatever the other threads write

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def digest(message: DifferentialMessage) -> str:
    """Short, so that what all subscribers report fits into the pipe that is read when they have ended."""
    return hashlib.sha256(encode(message)).hexdigest()


def serve(publisher: Publisher, *, until: Callable[[], bool]) -> None:
    while not until():
        publisher.service()
        time.sleep(0.001)


def end(publisher: Publisher, factory: MessageFactory, processes: list[subprocess.Popen[str]]) -> DifferentialMessage:
    """Publish the final differential, and health until all have it."""
    last = factory.differential(differential_of(10_000, final=True))
    publisher.publish(last)
    due = 0.0
    while any(process.poll() is None for process in processes) or not due:
        publisher.service()
        if time.monotonic() > due:
            due = time.monotonic() + 1.0
            publisher.publish(factory.health(Health(ModelHealth("scripted", "none"), 0.0, {}, publisher.health())))
        time.sleep(0.002)
    return last


def resident_mib(pid: int | str = "self") -> float:
    """Of a process; Linux only."""
    return round(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20, 1)
