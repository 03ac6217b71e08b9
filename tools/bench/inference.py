"""Microscopes on inference servers beside the same microscopes in one process:
python -m tools.bench inference [--microscopes 8] [--servers 2] [--json FILE]

Every microscope is a simulated slide of its own, analysed in analysis mode: once all in one process, once each in a
process of its own that asks the servers. Journals must be equal, row by row, but for ids, times and hosts. Printed are
p50 and p99 from grab to publish, and what asking elsewhere adds to a frame, in milliseconds and bytes: the same input
is run here and asked of an idle server in turns, and what the server says it spent is taken off.

All of it runs on this machine: the cores are shared out anew, and none are added. `load` says how busy it was besides.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from engines.backends.onnxruntime import OnnxRuntimeEngine, Threads
from engines.base import Elsewhere, Engine, LeukostreamError, usable_cores
from engines.graphs.graph import INPUT, fix_input_shape
from engines.models.loading import load_classifier, load_detector
from engines.zoo.registry import compact, find
from streamer.config import DEFAULT_CLASSIFIER, DEFAULT_DETECTOR
from streamer.inference.client import InferenceClient
from tools.bench.journals_alike import difference, tables_of
from tools.commands import command_parser

QUESTIONS = 60
"""Of each kind, for what asking elsewhere adds."""

CROPS = 6
"""White cells of a dense field."""


@dataclass(frozen=True, slots=True)
class Way:
    """All microscopes, analysed in one way."""

    frames: int
    seconds: float
    p50_ms: float
    p99_ms: float
    """From grab to publish."""
    remote: int
    """Questions that a server answered."""
    local: int
    resent: int
    bytes_a_frame: float
    """Sent and received by a microscope; 0 in one process."""


@dataclass(frozen=True, slots=True)
class Overhead:
    """What asking an idle server adds to one question, medians."""

    model: str
    here_ms: float
    elsewhere_ms: float
    adds_ms: float
    """`elsewhere_ms` without what the server says that the engine ran and that the question waited for it."""
    sent_bytes: int
    received_bytes: int


def main(arguments: Sequence[str]) -> int:
    parser = command_parser("tools.bench inference", __doc__)
    parser.add_argument("--microscopes", type=int, default=8)
    parser.add_argument("--servers", type=int, default=2)
    parser.add_argument("--cells", type=int, default=6, help="white cells of each slide; frames follow (default 6)")
    parser.add_argument("--rounds", type=int, default=1, help="of both ways, in turns")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args(arguments)
    sources = [f"scope{n}=sim:seed={100 + n},cells={options.cells}" for n in range(options.microscopes)]
    loads = [os.getloadavg()[0]]
    ways: dict[str, list[Way]] = {"one process": [], "servers": []}
    differences: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            alone = Path(folder) / f"alone-{number}"
            ways["one process"].append(run_all([sources], alone, ()))
            loads.append(os.getloadavg()[0])
            with serving(options.servers) as endpoints:
                spread = Path(folder) / f"spread-{number}"
                asking = ("--inference", ",".join(endpoints), "--workers", "1")
                ways["servers"].append(run_all([[source] for source in sources], spread, asking))
            loads.append(os.getloadavg()[0])
            differences += list(_differences(alone, spread))
        with serving(1) as endpoints:
            overheads = [overhead(endpoints[0], name) for name in (DEFAULT_DETECTOR, DEFAULT_CLASSIFIER)]
    report: dict[str, Any] = {
        "machine": {"cores": usable_cores(), "load": {"lowest": min(loads), "highest": max(loads)}},
        "microscopes": options.microscopes,
        "servers": options.servers,
        "equal_journals": not differences,
        "differences": differences,
        "ways": {name: [asdict(way) for way in of_way] for name, of_way in ways.items()},
        "overhead": [asdict(one) for one in overheads],
        "joined": joined_differences(),
    }
    show(report)
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=2) + "\n")
    return 1 if differences else 0


@contextlib.contextmanager
def serving(count: int) -> Iterator[list[str]]:
    """The addresses of so many servers, each a process with one worker."""
    words = [sys.executable, "-m", "streamer", "serve", "--bind", "tcp://127.0.0.1:*", "--workers", "1"]
    processes: list[subprocess.Popen[str]] = []
    try:
        for _ in range(count):
            process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            processes.append(process)
        yield [_endpoint(process) for process in processes]
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.communicate(timeout=30.0)


def _endpoint(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line.startswith("serving on "):
        raise LeukostreamError(f"server: got {line!r} as its first line, expected its address")
    return line.split()[2].rstrip(":")


def run_all(groups: Sequence[Sequence[str]], folder: Path, options: Sequence[str]) -> Way:
    """One process for each group of sources, all at once; journals go to `folder`."""
    folder.mkdir()
    began = time.monotonic()
    processes = []
    for number, sources in enumerate(groups):
        words = [sys.executable, "-m", "streamer", "run", "--source", *sources]
        words += ["--mode", "analysis", "--every-frame", "--no-dashboard"]
        paths = ["--journal", str(folder / f"{number}.journal"), "--jsonl", str(folder / f"{number}.jsonl")]
        processes.append(
            subprocess.Popen([*words, *paths, *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        )
    for process in processes:
        _, said = process.communicate()
        if process.returncode:
            raise LeukostreamError(f"run: got exit status {process.returncode} ({said.decode()[-300:]}), expected 0")
    seconds = time.monotonic() - began
    latencies_ms, remote, local, resent, transferred = [], 0, 0, 0, 0
    for number in range(len(groups)):
        inference: dict[str, Any] | None = None
        for line in (folder / f"{number}.jsonl").read_text().splitlines():
            message = json.loads(line)
            if message["type"] == "frame":
                latencies_ms.append((message["published_ns"] - message["captured_ns"]) / 1e6)
            elif message["type"] == "health":
                inference = message.get("inference") or inference
        if inference is not None:
            remote += inference["remote"]
            local += inference["local"]
            resent += inference["resent"]
            transferred += inference["sent_bytes"] + inference["received_bytes"]
    p50, p99 = np.percentile(latencies_ms, (50, 99)).tolist()
    frames = len(latencies_ms)
    return Way(frames, seconds, p50, p99, remote, local, resent, transferred / frames)


def _differences(alone: Path, spread: Path) -> Iterator[str]:
    expected = tables_of(alone / "0.journal")
    got = {source: tables for path in spread.glob("*.journal") for source, tables in tables_of(path).items()}
    for source, tables in expected.items():
        found = difference(tables, got.get(source, {}))
        if found is not None:
            yield f"{source}: {found}"


class Timed:
    """The same question asked of a server and run here, in turns."""

    def __init__(self, endpoint: str) -> None:
        self.client = InferenceClient([endpoint], first_answer_s=30.0)
        self.local: Engine | None = None
        self.remote: Engine | None = None

    @property
    def elsewhere(self) -> Elsewhere:
        def engine(id_: Any, local: Engine) -> Engine:
            self.local, self.remote = local, self.client.engine(id_, local)
            return self.remote

        return engine


def overhead(endpoint: str, name: str) -> Overhead:
    """Of one model, with an input as a camera of 640 x 480 gives it, or a batch of crops."""
    timed = Timed(endpoint)
    rng = np.random.default_rng(1)
    if name == DEFAULT_DETECTOR:
        load_detector(name, threads=Threads(1), frame_size=(640, 480), elsewhere=timed.elsewhere)
        rows = 1
    else:
        load_classifier(name, threads=Threads(1), elsewhere=timed.elsewhere)
        rows = CROPS
    assert timed.local is not None
    assert timed.remote is not None
    shape = timed.local.inputs[0].shape
    feeds = {INPUT: rng.integers(0, 256, (rows, *(size or 1 for size in shape[1:])), np.uint8)}
    here, there, adds = [], [], []
    for number in range(QUESTIONS + 5):
        began = time.perf_counter()
        timed.local.infer(feeds)
        between = time.perf_counter()
        timed.remote.infer(feeds)
        ended = time.perf_counter()
        if number >= 5:
            here.append((between - began) * 1000)
            there.append((ended - between) * 1000)
            adds.append(there[-1] - timed.client.server_ms)
    status = timed.client.status()
    timed.client.close()
    return Overhead(
        name,
        median(here),
        median(there),
        median(adds),
        round(status.sent_bytes / (QUESTIONS + 5)),
        round(status.received_bytes / (QUESTIONS + 5)),
    )


def joined_differences() -> dict[str, dict[str, float]]:
    """By model and images a run on the CPU: the largest difference of any output to that of an image that runs alone
    (a detector) or in the batch that its microscope would have made (of 8 crops). 0: equal bit for bit."""
    rng = np.random.default_rng(2)
    model = find(DEFAULT_DETECTOR, "detector")
    graph = fix_input_shape(compact(model), None, 320, 416)
    detector = OnnxRuntimeEngine(graph, threads=Threads(1), device="cpu")
    classifier = load_classifier(DEFAULT_CLASSIFIER, backend="onnxruntime", threads=Threads(1))
    frames = _blobs(rng, 8, 320, 416)
    crops = _blobs(rng, 8, *classifier.input.size)
    alone = [detector.infer({INPUT: frames[n : n + 1]}) for n in range(8)]
    together = classifier.engine.infer({INPUT: crops})
    found: dict[str, dict[str, float]] = {DEFAULT_DETECTOR: {}, DEFAULT_CLASSIFIER: {}}
    for size in range(1, 9):
        joined = detector.infer({INPUT: frames[:size]})
        pairs = [(joined[name][n], alone[n][name][0]) for name in joined for n in range(size)]
        found[DEFAULT_DETECTOR][str(size)] = _largest(pairs)
        part = classifier.engine.infer({INPUT: crops[:size]})
        found[DEFAULT_CLASSIFIER][str(size)] = _largest([(part[name], together[name][:size]) for name in part])
    return found


def _blobs(rng: np.random.Generator, count: int, height: int, width: int) -> Any:
    """Pictures with dark discs, uint8 (count,H,W,3): noise would leave most of a network's outputs at nothing."""
    y, x = np.mgrid[:height, :width]
    pictures = np.full((count, height, width, 3), 220.0)
    for picture in pictures:
        for _ in range(12):
            radius = rng.uniform(0.05, 0.15) * min(height, width)
            disc = (x - rng.uniform(0, width)) ** 2 + (y - rng.uniform(0, height)) ** 2 < radius**2
            picture[disc] = rng.uniform(60, 200, 3)
    return (pictures + rng.normal(0, 4, pictures.shape)).clip(0, 255).astype(np.uint8)


def _largest(pairs: Sequence[tuple[Any, Any]]) -> float:
    return max(float(np.abs(one.astype(np.float64) - other.astype(np.float64)).max()) for one, other in pairs)


def show(report: dict[str, Any]) -> None:
    console = Console()
    rows = Table("way", "frames", "seconds", "p50 ms", "p99 ms", "asked", "here", "resent", "bytes a frame")
    for name, ways in report["ways"].items():
        for way in ways:
            rows.add_row(
                name,
                str(way["frames"]),
                f"{way['seconds']:.1f}",
                f"{way['p50_ms']:.0f}",
                f"{way['p99_ms']:.0f}",
                str(way["remote"]),
                str(way["local"]),
                str(way["resent"]),
                f"{way['bytes_a_frame']:.0f}",
            )
    console.print(rows)
    costs = Table("one question", "here ms", "elsewhere ms", "adds ms", "bytes sent", "received")
    for one in report["overhead"]:
        costs.add_row(
            one["model"],
            f"{one['here_ms']:.2f}",
            f"{one['elsewhere_ms']:.2f}",
            f"{one['adds_ms']:.2f}",
            str(one["sent_bytes"]),
            str(one["received_bytes"]),
        )
    console.print(costs)
    for name, by_size in report["joined"].items():
        console.print(f"{name}, images a run on the CPU: largest difference {by_size}", highlight=False)
    equal = "equal" if report["equal_journals"] else "; ".join(report["differences"])
    console.print(f"journals: {equal}", highlight=False)
