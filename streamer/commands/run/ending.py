"""Shows a run until it ends, by its sources, by signals or by hand, and says what it lost and kept."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from types import FrameType

from streamer.commands.output import remark
from streamer.dashboard import Display
from streamer.network.publisher import Publisher
from streamer.records import RecordingStatus
from streamer.run.pipeline import Pipeline
from streamer.sinks.jsonl import JsonLines


def show_until_end(display: Display, pipeline: Pipeline, jsonl: JsonLines | None, stop_after_s: float | None) -> None:
    """Show until the pipeline ends, the user quits, the reader of our output left, or the time is over."""
    until = None if stop_after_s is None else time.monotonic() + stop_after_s

    def running() -> bool:
        if until is not None and time.monotonic() >= until:
            pipeline.stop(f"after {stop_after_s:g} s, as configured")
        if jsonl is not None and jsonl.reader_gone:
            pipeline.stop("the reader of --jsonl left")
        return pipeline.running

    display.run(running)
    if display.quit_requested:
        pipeline.stop("by the user")


@contextlib.contextmanager
def stop_on_signals(pipeline: Pipeline, publisher: Publisher | None, display: Display) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the run as its sources' end would: what was read is published, with the differential.
    Once only subscribers are waited for, they end that.

    A second Ctrl-C before that ends the process at once, which every file of a run survives: its threads are inside
    native code, and the interpreter's own end would abort them there ("terminate called without an active exception").
    """

    def stop(number: int, _: FrameType | None) -> None:
        display.leave()
        if publisher is not None and publisher.lingering:
            publisher.hurry()
        elif number not in stopped_by:
            stopped_by.add(number)
            pipeline.stop(f"by {signal.Signals(number).name}")
        else:  # the second time it is meant as it always was
            signal.signal(number, previous[number])
            signal.raise_signal(number)

    stopped_by: set[int] = set()
    previous = {int(number): signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        remark("stopped at once, before the final differential")
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(130)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def losses(publisher: Publisher) -> str:
    """What subscribers lost, for people; empty where they got everything."""
    counts = ", ".join(f"{count} {type_}" for type_, count in publisher.lost.items())
    parts = [f"messages that found a subscriber's queue full: {counts}"] if counts else []
    parts += ["subscribers were cut off before they were sent everything"] if publisher.cut_off else []
    return f"publishing on {publisher.endpoint}: {'; '.join(parts)}" if parts else ""


def recording_summary(path: str | None, health: RecordingStatus) -> str:
    lost = {"frames": health.frames_lost, "messages": health.messages_lost}
    losses = [f"lost {count} {what} ({reason})" for what, reasons in lost.items() for reason, count in reasons.items()]
    size = f"{health.file_bytes / 1e6:.1f} MB"
    return "; ".join([f"recorded {health.frames} frames and {health.messages} messages to {path}, {size}", *losses])
