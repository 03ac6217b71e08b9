"""How old a frame of a live stream is when it is used: python -m tools.bench lag [--sizes 1280x720,3840x2160]

An RTSP server on this machine sends H.264 at 30 frames a second (`--over tcp`: MPEG-TS without a server, for machines
that lack GStreamer's); a consumer that takes 100 or 300 ms a frame reads it with PyAV, with OpenCV, and with OpenCV
frame by frame, as programs usually do. The number that a frame bears says when it was captured. Prints a table of
milliseconds (first, median, last, worst), and what it counted; `--json FILE` keeps it.

Figures are of a machine that does nothing else: sending and decoding take part of it. `load` in the JSON tells how
many threads wanted a core meanwhile, `busy` whether they always were more than there are cores.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from engines.base import UsageError, usable_cores
from streamer.records import Frame, Mode, Skip
from streamer.sources.base import Source, behind_of, passed_over_by
from streamer.sources.capture import set_ffmpeg_options
from streamer.sources.decoder import Decoder, Timeouts
from streamer.sources.opencv_decoder import open_opencv
from streamer.sources.packages import extra
from streamer.sources.stream import FELL_BEHIND, StreamSource
from tools.commands import command_parser

if TYPE_CHECKING:
    from tools.bench.rtsp_camera import RtspCamera
    from tools.bench.sender import LiveSender, NumberedFilm

FPS = 30
LOOP_S = 40
"""Length of the film that is sent over and over: an age below it is known for certain."""


@dataclass(frozen=True, slots=True)
class Lag:
    """One reader with one consumer; ages in milliseconds, None where there was no frame."""

    size: str
    reader: str
    consumer_ms: int
    frames: int
    first_ms: float | None
    median_ms: float | None
    last_ms: float | None
    worst_ms: float | None
    first_after_ms: float | None
    """From opening the stream to having its first frame, most of which is waiting for a key frame."""
    behind_s: float | None
    """What the source itself said at the end."""
    passed_over: int
    jumps: int


class FrameByFrame:
    """OpenCV as programs usually read it: one frame after the other."""

    name = "plain"
    default_mode: Mode = "live"

    def __init__(self, url: str) -> None:
        self._url = url
        self._capture = cv2.VideoCapture()
        self._given = 0

    def open(self) -> None:
        set_ffmpeg_options(is_stream=False)
        self._capture.open(self._url, cv2.CAP_FFMPEG)

    def read(self) -> Frame | Skip | None:
        whole, image = self._capture.read()
        if not whole:
            return None
        self._given += 1
        return Frame(self.name, self._given - 1, time.monotonic_ns(), np.asarray(image, np.uint8))

    def close(self) -> None:
        self._capture.release()


def main(arguments: Sequence[str]) -> int:
    parser = command_parser("tools.bench lag", __doc__)
    parser.add_argument("--sizes", default="1280x720,3840x2160", metavar="WxH,...", help="of the frames")
    parser.add_argument("--consumers-ms", default="100,300", metavar="MS,...", help="time that a frame takes")
    parser.add_argument("--seconds", type=float, default=30.0, help="that each is read (default 30)")
    parser.add_argument("--loop-seconds", type=int, default=LOOP_S, help=f"of the film that is sent (default {LOOP_S})")
    parser.add_argument("--over", choices=["rtsp", "tcp"], default="rtsp", help="how it is sent (default rtsp)")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    options = parser.parse_args(arguments)
    if options.seconds >= options.loop_seconds or options.loop_seconds * FPS > 4095:
        raise UsageError(f"--loop-seconds: got {options.loop_seconds}, expected more than --seconds, and at most 136")
    with extra("av", "tools.bench lag"):
        import av

        from tools.bench.sender import NumberedFilm
    found, loads = [], [os.getloadavg()[0]]
    for size in options.sizes.split(","):
        width, height = (int(side) for side in size.lower().split("x"))
        film = NumberedFilm.encode(width, height, frames=options.loop_seconds * FPS, fps=FPS)
        with contextlib.closing(_sender(film, options.over)) as sender:
            for consumer_ms in (int(text) for text in options.consumers_ms.split(",")):
                for reader, source in _sources(sender.url):
                    found.append(measured(sender.age_s, source, consumer_ms, options.seconds, size, reader))
                    loads.append(os.getloadavg()[0])
                    print(_row(found[-1]) if len(found) > 1 else f"{_HEAD}\n{_row(found[-1])}", flush=True)
    if options.json:
        machine = {
            "machine": platform.machine(),
            "cores": usable_cores(),
            "load": {"lowest": min(loads), "highest": max(loads)},
            "busy": min(loads) > usable_cores(),
            "opencv": cv2.__version__,
            "av": av.__version__,
        }
        sent = {"over": options.over, "fps": FPS, "seconds": options.seconds}
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({**machine, **sent, "lags": [asdict(lag) for lag in found]}, file, indent=1)
            file.write("\n")
    return 0


def _sender(film: NumberedFilm, over: str) -> LiveSender | RtspCamera:
    from tools.bench.rtsp_camera import RtspCamera
    from tools.bench.sender import LiveSender

    return RtspCamera([film]) if over == "rtsp" else LiveSender([film])


def measured(
    age_s: Callable[[int, float], float],
    source: Source,
    consumer_ms: int,
    seconds: float,
    size: str,
    reader: str,
) -> Lag:
    """Read a stream for some seconds. `age_s`: of the frame with a number, at a time."""
    from tools.bench.sender import number_of

    ages_ms, jumps = [], 0
    began_s = time.monotonic()
    source.open()
    first_after_ms = until_s = None
    while (until_s is None or time.monotonic() < until_s) and (item := source.read()) is not None:
        if isinstance(item, Skip):
            jumps += item.reason == FELL_BEHIND
            continue
        image = item.image
        now_s = time.monotonic()
        if until_s is None:
            first_after_ms, until_s = (now_s - began_s) * 1000, now_s + seconds
        ages_ms.append(age_s(number_of(image), now_s) * 1000)
        time.sleep(consumer_ms / 1000)
    behind_s = behind_of(source)
    source.close()
    return Lag(
        size,
        reader,
        consumer_ms,
        frames=len(ages_ms),
        first_ms=ages_ms[0] if ages_ms else None,
        median_ms=statistics.median(ages_ms) if ages_ms else None,
        last_ms=ages_ms[-1] if ages_ms else None,
        worst_ms=max(ages_ms, default=None),
        first_after_ms=first_after_ms,
        behind_s=behind_s,
        passed_over=passed_over_by(source),
        jumps=jumps,
    )


def _sources(url: str) -> Iterator[tuple[str, Source]]:
    from streamer.sources.av_decoder import open_av

    def opencv(address: str, timeouts: Timeouts | None = None) -> Decoder | None:
        return open_opencv(address, timeouts)

    yield "PyAV", StreamSource("av", url, time.monotonic_ns, open_decoder=open_av)
    yield "OpenCV", StreamSource("opencv", url, time.monotonic_ns, open_decoder=opencv)
    yield "OpenCV frame by frame", FrameByFrame(url)


_HEAD = """\
| size | reader | consumer ms | frames | first ms | median ms | last ms | worst ms | behind s | jumps |
|---|---|---|---|---|---|---|---|---|---|"""


def _row(lag: Lag) -> str:
    ages = (lag.first_ms, lag.median_ms, lag.last_ms, lag.worst_ms)
    shown = ["–" if age is None else f"{age:.0f}" for age in ages]
    behind = "–" if lag.behind_s is None else f"{lag.behind_s:.2f}"
    cells = [lag.size, lag.reader, lag.consumer_ms, lag.frames, *shown, behind, lag.jumps]
    return f"| {' | '.join(map(str, cells))} |"
