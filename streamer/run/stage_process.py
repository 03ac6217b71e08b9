"""The frames of a source are measured and placed in another process than that of the models and the count.

What every frame costs, looked at or not, is a hundred short calls of OpenCV and NumPy with Python between them. In one
process they wait for the lock of the interpreter, and models and count wait for them (docs/area.md has the figures).
"""

from __future__ import annotations

import multiprocessing
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import TypeVar

import numpy as np

from engines.base import LeukostreamError
from streamer.analysis.analyser import Analysed
from streamer.analysis.measured import MeasuredFrame
from streamer.records import Frame, PositionsStatus
from streamer.run.slide_stage import Pictures, Placed, reading_of
from streamer.run.stage_server import (
    Answer,
    Begin,
    Fault,
    Finish,
    Finished,
    Kept,
    Measure,
    Measured,
    Place,
    Ready,
    Request,
    Restore,
    StageState,
    Told,
    serve,
)
from streamer.sources.own_process import OwnProcess
from streamer.stage.ahead import CountedStage
from streamer.stage.hidden import HiddenParts
from streamer.stage.objects_sent_once import ObjectReader, ObjectWriter
from streamer.stage.placement import Correction
from streamer.stage.readings import KeyframeReading
from streamer.stage.static_mask import BoxesPx
from streamer.stage.tracker_state import TrackerState

HANGS_S = 120.0
"""A process that does not answer for so long hangs; the joining of many islands at a slide's end takes seconds."""

ENDS_WITHIN_S = 1.0

SHARED = "/dev/shm"
"""Where Linux keeps shared memory, of which it has so much and no more."""

AnswerT = TypeVar("AnswerT", bound=Answer)


class StageLostError(LeukostreamError):
    """The process is gone, or hangs."""


class StageProcesses:
    """Those of some sources, a process for each or, where there are more sources than `most`, for several."""

    def __init__(self, sources: Sequence[str], most: int, now_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._processes: list[OwnProcess] = []
        self.by_source: Mapping[str, StageProcess] = {}
        self.by_source = {name: one for i in range(most) for name, one in self._start(sources[i::most], now_ns)}

    def _start(self, sources: Sequence[str], now_ns: Callable[[], int]) -> list[tuple[str, StageProcess]]:
        if not sources:
            return []
        pairs = [multiprocessing.Pipe() for _ in sources]
        process = OwnProcess(serve, [theirs for _, theirs in pairs])
        self._processes.append(process)
        for _, theirs in pairs:
            theirs.close()
        return [
            (name, StageProcess(name, ours, process, now_ns)) for name, (ours, _) in zip(sources, pairs, strict=True)
        ]

    def end(self) -> None:
        """Harmless when called twice."""
        for one in self.by_source.values():
            one.close()
        for process in self._processes:
            process.end(ENDS_WITHIN_S)


class StageProcess:
    """Measures and places the frames of one source. `begin` is for the thread that reads them, `expect` and what waits
    for an answer for one thread at a time."""

    def __init__(self, source: str, pipe: Connection, process: OwnProcess, now_ns: Callable[[], int]) -> None:
        self._source = source
        self._pipe, self._process = pipe, process
        self._now_ns = now_ns
        self._sending = threading.Lock()
        self._writer, self._reader = ObjectWriter(), ObjectReader()
        self._rooms: deque[SharedMemory] = deque()
        """Free ones."""
        self._named: set[str] = set()
        """Names of those that the process has not opened yet: of the others the name is gone, so that they go with the
        last of both, however they end."""
        self._gone: list[str] = []
        """Names of those that are used no more, as the process is to be told."""
        self._lent: dict[int, tuple[SharedMemory | None, float]] = {}
        """By frame_id: where the pixels of frames lie that are on their way, None of those that were sent, and how many
        ms each had waited before."""
        self._measured: dict[int, Measured] = {}
        """By frame_id: of frames whose turn has not come."""
        self._slides = 0

    def stage(self, ignored_px: BoxesPx = ()) -> RemoteStage:
        """That of the next slide, once the process is there: a first frame is not to wait for it."""
        if not self._slides:
            self.answer(Ready)
        self._slides += 1
        self.send(Begin(self._slides, ignored_px))
        return RemoteStage(self, self._slides)

    def begin(self, frame: Frame) -> None:
        """Measure a frame while others are placed. Harmless when called twice."""
        if frame.frame_id in self._lent:
            return
        waited_ms = (self._now_ns() - frame.captured_ns) / 1e6
        room = self._room(frame.image.nbytes)
        if room is None:
            self._write(frame, None, frame.image.tobytes(), waited_ms)
            return
        assert room.buf is not None
        pixels = np.frombuffer(room.buf, np.uint8, frame.image.nbytes).reshape(frame.image.shape)
        pixels[:] = frame.image
        del pixels  # shared memory with a view of it does not close
        self._write(frame, room, b"", waited_ms)

    def _write(self, frame: Frame, room: SharedMemory | None, pixels: bytes, waited_ms: float) -> None:
        self._lent[frame.frame_id] = room, waited_ms
        name = None if room is None else room.name
        gone, self._gone = tuple(self._gone), []
        self.send(Measure(frame.frame_id, name, pixels, frame.height, frame.width, bool(frame.moving), gone))

    def measured(self, frame: Frame) -> MeasuredFrame:
        """What `begin` came to, once for each frame."""
        while frame.frame_id not in self._measured:
            self._note(self._receive())
        found = self._measured.pop(frame.frame_id)
        room, waited_ms = self._lent.pop(frame.frame_id)
        if room is not None:
            if room.name in self._named:
                self._named.remove(room.name)
                room.unlink()
            self._rooms.append(room)
        return MeasuredFrame(frame, None, None, found.quality, {"queue": waited_ms, "prepare": found.took_ms})

    def answer(self, kind: type[AnswerT]) -> AnswerT:
        """To the oldest request that was not answered, measuring apart."""
        while not isinstance(answer := self._receive(), kind):
            self._note(answer)
        return answer

    def send(self, request: Request) -> None:
        with self._sending:
            try:
                self._pipe.send_bytes(self._writer.write(request))
            except (OSError, ValueError) as error:
                raise self._lost(self._process.how()) from error

    def close(self) -> None:
        self._pipe.close()
        for room in (*self._rooms, *(room for room, _ in self._lent.values() if room is not None)):
            room.close()
            if room.name in self._named:
                room.unlink()
        self._named.clear()
        self._rooms.clear()
        self._lent.clear()

    def _receive(self) -> Answer:
        try:
            if not self._pipe.poll(HANGS_S):
                raise self._lost(f"it did not answer for {HANGS_S:g} s")
            answer: Answer = self._reader.read(self._pipe.recv_bytes())
        except (EOFError, OSError) as error:
            raise self._lost(self._process.how()) from error
        if isinstance(answer, Fault):
            raise (ValueError if answer.contradicts_itself else LeukostreamError)(answer.text)
        return answer

    def _note(self, answer: Answer) -> None:
        assert isinstance(answer, Measured)
        self._measured[answer.frame_id] = answer

    def _lost(self, how: str) -> StageLostError:
        return StageLostError(
            f"{self._source}: got no place of a frame ({how}), expected one; what was counted is published, and where "
            "there is a journal the run goes on with --resume"
        )

    def _room(self, size_bytes: int) -> SharedMemory | None:
        while self._rooms:
            room = self._rooms.popleft()
            if room.size >= size_bytes:
                return room
            self._gone.append(room.name)
            room.close()
        found = shared_memory(size_bytes)
        if found is not None:
            self._named.add(found.name)
        return found


_making = threading.Lock()


def shared_memory(size_bytes: int) -> SharedMemory | None:
    """So much of it, zero; None where the system gives none. A container has 64 MB as a rule, and whoever writes beyond
    is killed: so all is written once, by one thread at a time, where twice as much was free."""
    with _making:
        if Path(SHARED).is_dir() and shutil.disk_usage(SHARED).free < 2 * size_bytes:
            return None
        try:
            room = SharedMemory(create=True, size=size_bytes)
        except OSError:  # too many files, or a limit of their size, which this counts as
            return None
        assert room.buf is not None
        room.buf[:] = bytes(room.size)
        return room


class RemoteStage:
    """That of one slide, see SlideStage; another process has it."""

    ahead = 1

    def __init__(self, process: StageProcess, slide: int) -> None:
        self._process, self._slide = process, slide
        self._state = StageState()
        self._expected = 0

    @property
    def islands(self) -> tuple[int, ...]:
        return self._state.islands

    @property
    def hidden(self) -> HiddenParts | None:
        return self._state.hidden

    @property
    def positions(self) -> PositionsStatus | None:
        return self._state.positions

    def restore(self, keyframes: Pictures, state: TrackerState, readings: Iterable[KeyframeReading]) -> None:
        for keyframe, picture in keyframes:
            self._process.send(Kept(keyframe, picture))
        self._process.send(Restore(self._slide, state, tuple(readings)))
        self._state = self._process.answer(StageState)

    def expect(self, frame: Frame) -> None:
        self._process.send(Place(self._slide, frame.frame_id, *reading_of(frame)))
        self._expected += 1

    def place(self, measured: MeasuredFrame | Analysed) -> Placed:
        if not self._expected:
            self.expect(measured.frame)
        self._expected -= 1
        told = self._process.answer(Told)
        self._state = told.state
        return told.placed

    def finish(self, counted: CountedStage | None = None) -> tuple[Correction, ...]:
        try:
            self._process.send(Finish(self._slide, counted))
            return self._process.answer(Finished).corrections
        except StageLostError:  # what failed before; the islands stay as they were counted
            return ()
