"""`leukostream run` in a process of its own, for tools/bench/area.py: what its models were given, and what it cost.

Its words are the file for these figures and then those of `leukostream`: FIGURES.json run --source film:FILM.npy …
A source `film:` shows frames that were painted before (tools/bench/area_film.py), `painted:` those of the simulated
slide; their processor time is the feeder's, and is kept apart from that of the run. Input tensors are counted where
engines are called, whatever decides what they are given. Processor time is told by thread, and apart from it what was
spent before the first of them started, on loading the models above all.
"""

from __future__ import annotations

import importlib.metadata
import json
import resource
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from engines.backends.choice import EngineMaker
from engines.base import Array, Engine, TensorSpec
from streamer import cli
from streamer.run.pipeline import Pipeline
from streamer.sources import packages
from tools.bench import area_film

CHANNELS = 3
DETECTOR, CLASSIFIER = "detector", "classifier"


@dataclass(slots=True)
class InputPixels:
    """Pixels of the input tensors, padding and all, by what they were given to. Any thread adds."""

    pixels: dict[str, int] = field(default_factory=lambda: {DETECTOR: 0, CLASSIFIER: 0})
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, model: str, feeds: Mapping[str, Array]) -> None:
        elements = sum(array.size for array in feeds.values())
        with self._lock:
            self.pixels[model] += elements // CHANNELS


class CountedEngine:
    """An engine that counts what it is given, and is else the one that it holds."""

    def __init__(self, engine: Engine, model: str, counts: InputPixels) -> None:
        self._engine, self._model, self._counts = engine, model, counts

    @property
    def backend(self) -> str:
        return self._engine.backend

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self._engine.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self._engine.outputs

    @property
    def concurrency(self) -> int:
        return self._engine.concurrency

    @property
    def max_batch(self) -> int | None:
        return self._engine.max_batch

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        self._counts.add(self._model, feeds)
        return self._engine.infer(feeds)

    def close(self) -> None:
        self._engine.close()


@contextmanager
def counted(counts: InputPixels) -> Iterator[None]:
    """Every engine that is made meanwhile counts. Only a detector is made for a size."""
    make = EngineMaker.__call__

    def make_counted(self: EngineMaker, height: int | None, width: int | None) -> Engine:
        return CountedEngine(make(self, height, width), CLASSIFIER if height is None else DETECTOR, counts)

    with mock.patch.object(EngineMaker, "__call__", make_counted):
        yield


@contextmanager
def films() -> Iterator[None]:
    """`--source` takes films and painted slides, as those of a package."""
    entries = [
        importlib.metadata.EntryPoint(prefix, f"{area_film.__name__}:{opener}", packages.GROUP)
        for prefix, opener in (("film", "open_film"), ("painted", "open_painted"))
    ]

    own, real = importlib.metadata.EntryPoints(entries), importlib.metadata.entry_points

    def entry_points(**wanted: Any) -> Any:
        return own.select(**wanted) if wanted.get("group") == packages.GROUP else real(**wanted)

    with mock.patch.object(importlib.metadata, "entry_points", entry_points):
        yield


@dataclass(slots=True)
class ProcessorTime:
    """Seconds of it, by what they were spent on."""

    started_s: float | None = None
    """Of the process, when the pipeline started; None: it did not."""
    threads_s: dict[str, float] = field(default_factory=dict)
    """By the first word of a thread's name, of those that have ended."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Of what runs meanwhile."""
        start, run = Pipeline.start, threading.Thread.run

        def start_measured(pipeline: Pipeline) -> None:
            self.started_s = time.process_time()
            start(pipeline)

        def run_measured(thread: threading.Thread) -> None:
            try:
                run(thread)
            finally:
                with self._lock:
                    kind = thread.name.partition(" ")[0]
                    self.threads_s[kind] = self.threads_s.get(kind, 0.0) + time.thread_time()

        with (
            mock.patch.object(Pipeline, "start", start_measured),
            mock.patch.object(threading.Thread, "run", run_measured),
        ):
            yield


def main(arguments: Sequence[str]) -> int:
    figures, *words = arguments
    counts, processor = InputPixels(), ProcessorTime()
    begun = time.process_time()
    with counted(counts), films(), processor.measured():
        status = cli.main(words)
    beside = resource.getrusage(resource.RUSAGE_CHILDREN)  # of the processes that place frames; they have ended
    unit = 1e6 if sys.platform == "darwin" else 1e3
    found: dict[str, Any] = {
        "pixels": counts.pixels,
        "processor_s": time.process_time() + beside.ru_utime + beside.ru_stime - begun - area_film.fed_s(),
        "loading_s": 0.0 if processor.started_s is None else processor.started_s - begun,
        "threads_s": processor.threads_s,
        "feeder_s": area_film.fed_s(),
        "peak_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + beside.ru_maxrss) / unit,
    }
    Path(figures).write_text(json.dumps(found))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
