"""Cameras without cameras: frames at their rate through rings, the batcher and a detector, and what became of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from engines.geometry import Image
from engines.models.detector import Detector
from streamer.records import Frame
from streamer.run.batcher import Batcher
from streamer.run.ring import Ring

FPS = 30


class Cameras(Protocol):
    """What the cameras show, for how long, and how many frames are one batch."""

    frames: list[Image]
    seconds: float
    sources: Sequence[int]
    batch: int


def stream(machine: Cameras, detector: Detector, workers: int, count: int) -> dict[str, float]:
    """`count` cameras for some seconds: rings of two frames that drop the oldest, batches closed at N or 5 ms."""
    rings: dict[str, Ring[Frame]] = {f"camera{i}": Ring(2, "drop_oldest") for i in range(count)}
    batcher = Batcher(rings, now_ns=time.monotonic_ns, max_frames=machine.batch, max_wait_ms=5)
    latencies_ms: list[float] = []
    spent_ms = [0.0, 0.0]
    lock = threading.Lock()

    def work() -> None:
        while (batch := batcher.next_batch()) is not None:
            _, timings = detector.detect_timed([one.frame.image for one in batch])
            now = time.monotonic_ns()
            with lock:
                latencies_ms.extend((now - one.frame.captured_ns) / 1e6 for one in batch)
                spent_ms[0] += timings.letterbox_ms + timings.nms_ms
                spent_ms[1] += timings.infer_ms

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    start = time.perf_counter()
    for number, due in enumerate(_ticks(machine.seconds)):
        time.sleep(max(0.0, start + due - time.perf_counter()))
        for i, (name, ring) in enumerate(rings.items()):
            image = machine.frames[(number + i) % len(machine.frames)]
            ring.put(Frame(name, number, time.monotonic_ns(), image))
    for ring in rings.values():
        ring.close()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - start
    p50, p99 = np.percentile(latencies_ms, [50, 99]) if latencies_ms else (0.0, 0.0)
    return {
        "frames_per_s": round(len(latencies_ms) / elapsed, 1),
        "offered_per_s": count * FPS,
        "p50_ms": round(float(p50), 2),
        "p99_ms": round(float(p99), 2),
        "dropped": sum(sum(ring.dropped.values()) for ring in rings.values()),
        "host_share": round(spent_ms[0] / max(sum(spent_ms), 1e-9), 3),
    }


def _ticks(seconds: float) -> Iterator[float]:
    """When each frame of a camera is due, in seconds."""
    return (n / FPS for n in range(max(1, round(seconds * FPS))))
