"""Recordings that several tests share."""

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from streamer.protocol.messages import AnyMessage
from streamer.recording import Recorder, TrackInfo
from streamer.records import Frame, Mode
from tests.cases import textured_slide

UTC_OFFSET_NS = 1_700_000_000_000_000_000
PERIOD_NS = 40_000_000


def pictures(count: int, width: int = 96, height: int = 64) -> list[np.ndarray]:
    slide = textured_slide(width=width + 10 * count, height=height)
    return [np.ascontiguousarray(slide[:, 10 * i : 10 * i + width]) for i in range(count)]


def frames_of(source: str, images: list[np.ndarray], first: int = 0) -> list[Frame]:
    return [Frame(source, number, number * PERIOD_NS, image) for number, image in enumerate(images, start=first)]


def recorder(path: Path, *names: str, mode: Mode = "analysis", **options) -> Recorder:
    tracks = [TrackInfo(name, f"sim:{name}", mode) for name in names or ("slide",)]
    return Recorder(path, tracks, run_id="run", utc_offset_ns=UTC_OFFSET_NS, **options)


def record(path: Path, frames: list[Frame], messages: Sequence[AnyMessage] = (), **options) -> Recorder:
    """Frames and messages to a file."""
    kept = recorder(path, *dict.fromkeys(frame.source for frame in frames), **options)
    thread = threading.Thread(target=kept.run)
    thread.start()
    for frame in frames:
        kept.frame(frame)
    for message in messages:
        kept.publish(message)
    kept.close()
    thread.join()
    return kept
