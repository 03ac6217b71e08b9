"""Thousands that join and leave, and the memory of what they join:
python -m tools.bench joins --joins 10000 --json docs/benchmarks/joins.json

microscopes: each connects to a `leukostream serve`, has its engine loaded and a crop classified, and leaves; every
fourth leaves without waiting for its answer. subscribers: each connects to a publisher, takes some messages, and
leaves. Resident memory, open files and threads of the process that they join are sampled all along, and those of the
process that joins too. After the first tenth nothing may grow by more than `--limit-mib`: exit status 1.
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from engines.base import Array, EngineId, LeukostreamError, usable_cores
from engines.graphs.graph import INPUT
from engines.models.loading import load_classifier
from streamer.config import DEFAULT_CLASSIFIER
from streamer.inference.client import InferenceClient
from streamer.network.publisher import Publisher
from streamer.network.subscriber import Subscriber
from streamer.records import Health, ModelHealth
from tools.bench.wire import LOCAL, frame_of, new_factory, resident_mib
from tools.commands import command_parser

AT_ONCE = 4
SAMPLES = 50
SETTLED_AFTER = 0.1
"""Of the joins: then libraries, pools and buffers are as large as they get."""

_ANSWER_S = 30.0
_PUBLISH_EVERY_S = 0.02
_WINDOW_BYTES = 128 << 10
"""What the publisher keeps for those who miss something; full before memory is compared."""


@dataclass(slots=True)
class Sample:
    joins: int
    resident_mib: float
    files: int
    threads: int


@dataclass(slots=True)
class Joined:
    """What joined what, and how large both were meanwhile."""

    who: str
    joins: int = 0
    failed: int = 0
    """Those who were not served in time."""
    seconds: float = 0.0
    samples: list[Sample] = field(default_factory=list)
    """Of the process that they join."""
    joining: list[Sample] = field(default_factory=list)
    """Of the process that joins."""

    def growth_mib(self, samples: Sequence[Sample]) -> float:
        """From the first fifth of what is settled to the last, medians."""
        settled = [one.resident_mib for one in samples if one.joins >= SETTLED_AFTER * self.joins]
        fifth = max(1, len(settled) // 5)
        return round(median(settled[-fifth:]) - median(settled[:fifth]), 1)


def main(arguments: Sequence[str]) -> int:
    parser = command_parser("tools.bench joins", __doc__)
    parser.add_argument("--joins", type=int, default=1000, help="of each kind (default 1000)")
    parser.add_argument("--limit-mib", type=float, default=5.0, help="of growth (default 5)")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--publish", action="store_true", help="(for its own use) publish until standard input ends")
    options = parser.parse_args(arguments)
    if options.publish:
        publish()
        return 0
    found = [microscopes(options.joins), subscribers(options.joins)]
    grew = [
        (one, whose, one.growth_mib(samples))
        for one in found
        for whose, samples in (("joined", one.samples), ("joining", one.joining))
    ]
    for one, whose, growth in grew:
        samples = one.samples if whose == "joined" else one.joining
        print(
            f"{one.joins} {one.who} in {one.seconds:.0f} s, {one.failed} not served; process {whose}: "
            f"{samples[0].resident_mib} MiB, {samples[-1].resident_mib} at the end, grew by {growth} since it settled; "
            f"{samples[-1].files} files, {samples[-1].threads} threads"
        )
    if options.json:
        report: dict[str, Any] = {
            "command": f"python -m tools.bench joins --joins {options.joins}",
            "machine": {"cores": usable_cores(), "python": platform.python_version()},
            "kinds": [
                {
                    **asdict(one),
                    "grew_mib": one.growth_mib(one.samples),
                    "joining_grew_mib": one.growth_mib(one.joining),
                }
                for one in found
            ],
        }
        Path(options.json).write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    return 1 if any(growth > options.limit_mib for _, _, growth in grew) or any(one.failed for one in found) else 0


def microscopes(joins: int) -> Joined:
    words = [sys.executable, "-m", "streamer", "serve", "--bind", LOCAL, "--model", DEFAULT_CLASSIFIER]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        endpoint = _second_word(process, "serving on ")
        classifier = load_classifier(DEFAULT_CLASSIFIER, backend="onnxruntime")
        shape = classifier.engine.inputs[0].shape[1:]
        feeds: dict[str, Array] = {INPUT: np.zeros((1, *(size or 1 for size in shape)), np.uint8)}
        sha256, local = classifier.card.sha256, classifier.engine
        assert sha256 is not None
        id_ = EngineId(sha256)

        def join(number: int) -> bool:
            client = InferenceClient([endpoint], first_answer_s=_ANSWER_S, give_up_ms=1000 * _ANSWER_S)
            try:
                client.engine(id_, local)
                if number % 4 == 3:
                    asking = threading.Thread(target=client.ask, args=(id_, feeds))
                    asking.start()
                    time.sleep(0.002)
                    client.close()
                    asking.join()
                    return True
                return client.ask(id_, feeds) is not None
            finally:
                client.close()

        return _joined("microscopes", joins, process.pid, join)
    finally:
        process.terminate()
        process.communicate(timeout=30.0)


def subscribers(joins: int) -> Joined:
    process = subprocess.Popen(
        [sys.executable, "-m", "tools.bench", "joins", "--publish"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        endpoint = _second_word(process, "publishing on ")

        def join(number: int) -> bool:
            with Subscriber(endpoint, ["frame."] if number % 2 else [""]) as subscriber:
                return all(subscriber.receive(_ANSWER_S) is not None for _ in range(1 + number % 3))

        return _joined("subscribers", joins, process.pid, join)
    finally:
        process.communicate(timeout=30.0)


def publish() -> None:
    """Messages of a frame, and of health, until whoever started it ends."""
    over = threading.Event()

    def wait() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=wait, daemon=True).start()
    factory = new_factory()
    with Publisher(LOCAL, linger_s=0.0, window_max_bytes=_WINDOW_BYTES) as publisher:
        print(f"publishing on {publisher.endpoint}", flush=True)
        for number in itertools.count():
            if over.is_set():
                return
            publisher.publish(frame_of(factory, number, boxes=5))
            if number % 50 == 0:
                publisher.publish(factory.health(Health(ModelHealth("scripted", "none"), 0.0, {}, publisher.health())))
            publisher.service()
            time.sleep(_PUBLISH_EVERY_S)


def _joined(who: str, joins: int, pid: int, join: Callable[[int], bool]) -> Joined:
    found = Joined(who)
    began_s = time.monotonic()
    each = max(1, joins // SAMPLES)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for first in range(0, joins, each):
            numbers = range(first, min(first + each, joins))
            found.failed += sum(not served for served in pool.map(join, numbers))
            found.joins = numbers.stop
            found.samples.append(_sample(found.joins, pid))
            found.joining.append(_sample(found.joins, os.getpid()))
    found.seconds = round(time.monotonic() - began_s, 1)
    return found


def _sample(joins: int, pid: int) -> Sample:
    return Sample(joins, resident_mib(pid), *(len(os.listdir(f"/proc/{pid}/{what}")) for what in ("fd", "task")))


def _second_word(process: subprocess.Popen[str], start: str) -> str:
    """The address in the first line of a process."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line.startswith(start):
        raise LeukostreamError(f"joins: got {line!r} as its first line, expected {start!r} and an address")
    return line.removeprefix(start).split()[0].rstrip(":")
