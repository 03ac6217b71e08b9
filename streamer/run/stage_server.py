"""The process that measures and places frames: what it is asked, and what it answers.

One thread a source, which answers one request after the other; a frame's pixels lie in shared memory.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from queue import SimpleQueue

import cv2
import numpy as np

from engines.base import LeukostreamError
from streamer.analysis.measured import measured_image
from streamer.records import FrameQuality, PositionsStatus
from streamer.run.slide_stage import OwnStage, Placed
from streamer.run.tuning import collect_rarely, keep_freed_memory
from streamer.stage.ahead import CountedStage
from streamer.stage.hidden import HiddenParts
from streamer.stage.keyframes import KeyframeState
from streamer.stage.objects_sent_once import ObjectReader, ObjectWriter
from streamer.stage.placement import Correction
from streamer.stage.preparation import PreparedFrame
from streamer.stage.readings import KeyframeReading, Reading
from streamer.stage.static_mask import BoxesPx
from streamer.stage.tracker_state import TrackerState


@dataclass(frozen=True, slots=True)
class Measure:
    """A frame whose pixels, uint8 (height, width, 3) BGR, are at the beginning of a shared memory, or here.
    Answer: Measured."""

    frame_id: int
    room: str | None
    pixels: bytes
    """Empty where there is a room."""
    height: int
    width: int
    moving: bool
    gone: tuple[str, ...] = ()
    """Shared memories that are used no more."""


@dataclass(frozen=True, slots=True)
class Measured:
    frame_id: int
    quality: FrameQuality
    took_ms: float


@dataclass(frozen=True, slots=True)
class Begin:
    """Of a slide, by a number of its own. No answer."""

    slide: int
    ignored_px: BoxesPx


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """A keyframe of those that a slide goes on with, each by itself. No answer."""

    keyframe: KeyframeState
    picture: PreparedFrame


@dataclass(frozen=True, slots=True, eq=False)
class Restore:
    """Go on with what was kept of a slide. Answer: StageState, or a Fault where that contradicts itself."""

    slide: int
    state: TrackerState
    readings: Sequence[KeyframeReading]


@dataclass(frozen=True, slots=True)
class Place:
    """A frame that was measured. Answer: Told."""

    slide: int
    frame_id: int
    reading: Reading | None
    unusable: bool


@dataclass(frozen=True, slots=True)
class StageState:
    """What a SlideStage says of itself."""

    islands: tuple[int, ...] = ()
    hidden: HiddenParts | None = None
    positions: PositionsStatus | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    placed: Placed
    state: StageState


@dataclass(frozen=True, slots=True, eq=False)
class Finish:
    """The end of a slide, as at `counted` where frames were placed after it. Answer: Finished."""

    slide: int
    counted: CountedStage | None


@dataclass(frozen=True, slots=True)
class Finished:
    corrections: tuple[Correction, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """Instead of any other answer, what was wrong."""

    text: str
    contradicts_itself: bool = False
    """Whether it is of what a slide was to go on with."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The first word of the process, which takes most of a second to start."""


Request = Measure | Begin | Kept | Restore | Place | Finish
Answer = Ready | Measured | StageState | Told | Finished | Fault


class StageServer:
    """What one source's frames come to."""

    def __init__(self) -> None:
        self._rooms: dict[str, SharedMemory] = {}
        self._prepared: dict[int, tuple[PreparedFrame, bool]] = {}
        """By frame_id: of frames whose turn has not come, and whether they are accepted."""
        self._stages: dict[int, OwnStage] = {}
        self._kept: list[tuple[KeyframeState, PreparedFrame]] = []

    def answer(self, request: Request) -> Answer | None:
        match request:
            case Measure():
                return self._measure(request)
            case Place():
                stage = self._stages[request.slide]
                prepared, accepted = self._prepared.pop(request.frame_id)
                placed = stage.place_prepared(prepared, accepted, request.reading, request.unusable)
                return Told(placed, _state_of(stage))
            case Begin():
                self._stages[request.slide] = OwnStage(request.ignored_px)
                return None
            case Kept():
                self._kept.append((request.keyframe, request.picture))
                return None
            case Restore():
                kept, self._kept = self._kept, []
                stage = self._stages[request.slide]
                try:
                    stage.restore(kept, request.state, request.readings)
                except ValueError as error:
                    return Fault(str(error), contradicts_itself=True)
                return _state_of(stage)
            case Finish():
                stage = self._stages.pop(request.slide)
                return Finished(stage.finish(request.counted))

    def _measure(self, request: Measure) -> Measured:
        started = time.perf_counter()
        held = request.pixels if request.room is None else self._shared(request.room)
        size = request.height * request.width * 3
        image = np.frombuffer(held, np.uint8, size).reshape(request.height, request.width, 3)
        for gone in request.gone:
            if gone in self._rooms:
                self._rooms.pop(gone).close()
        prepared, quality = measured_image(image, moving=request.moving)
        self._prepared[request.frame_id] = prepared, quality.accepted
        return Measured(request.frame_id, quality, (time.perf_counter() - started) * 1000)

    def _shared(self, room: str) -> memoryview:
        if room not in self._rooms:
            self._rooms[room] = SharedMemory(room)
        memory = self._rooms[room].buf
        assert memory is not None
        return memory


def _state_of(stage: OwnStage) -> StageState:
    return StageState(stage.islands, stage.hidden, stage.positions)


def serve(pipe: Connection, pipes: Sequence[Connection]) -> None:
    """The process, until `pipe` ends: one source at each of `pipes`."""
    cv2.setNumThreads(1)
    keep_freed_memory()
    collect_rarely()
    for one in pipes:
        threading.Thread(target=_serve_source, args=(one,), daemon=True).start()
    pipe.recv()  # nothing comes; it raises when the other side is gone


def _serve_source(pipe: Connection) -> None:
    """Requests are taken in whenever they come: whoever sends one may not be there for an answer before it is sent."""
    waiting: SimpleQueue[bytes | None] = SimpleQueue()
    threading.Thread(target=_take_in, args=(pipe, waiting), daemon=True).start()
    server, reader, writer = StageServer(), ObjectReader(), ObjectWriter()
    with contextlib.suppress(OSError):
        pipe.send_bytes(writer.write(Ready()))
        while (request := waiting.get()) is not None:
            answer: Answer | None
            try:
                answer = server.answer(reader.read(request))
            except LeukostreamError as error:
                answer = Fault(str(error))
            except Exception as error:
                answer = Fault(f"got {type(error).__name__} ({error}) where a frame is placed, expected none")
            if answer is not None:
                pipe.send_bytes(writer.write(answer))


def _take_in(pipe: Connection, waiting: SimpleQueue[bytes | None]) -> None:
    """Until the other side is gone; None then."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            waiting.put(pipe.recv_bytes())
    waiting.put(None)
