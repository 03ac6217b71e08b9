"""The interface of a display, and an inbox that never makes the threads of the pipeline wait."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

import cv2
import numpy as np

from streamer.dashboard.chart import Step, step_of
from streamer.dashboard.state import CELLS_KEPT, DashboardState, Picture
from streamer.protocol import messages
from streamer.records import Frame


class Display(Protocol):
    """A sink (streamer.protocol.messages.Sink) that shows messages to people.

    Any thread may call `publish`, `show` and `close`; only the main thread calls the rest. Inside `with display`, `run`
    shows messages until the run ends or the user quits. A caller with its own loop calls `tick` instead and waits for
    the time that it returns.
    """

    @property
    def quit_requested(self) -> bool:
        """True once the user asked to stop."""

    def publish(self, message: messages.AnyMessage, payload: bytes | None = None) -> None:
        """Hand over a message and its payload (the JPEG of a cell); never waits."""

    def show(self, frame: Frame) -> None:
        """Hand over the image of a frame message, before or after that message; never waits, never copies."""

    def tick(self, now_ns: int) -> float:
        """Show what is new if it is due. Returns the seconds until the next call."""

    def run(self, running: Callable[[], bool]) -> None:
        """Call `tick` until `running()` is false or the user quits."""

    def stay(self) -> None:
        """Keep what was seen until the user leaves, where one is there."""

    def leave(self) -> None:
        """Do not stay. Any thread."""

    def close(self) -> None:
        """No more messages will come. Any thread. The last picture stays until `__exit__`."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


STEPS_KEPT = 4096
"""Of each source, for the map: more than come between two ticks unless the terminal hangs for a minute."""


class Inbox:
    """The newest messages between two ticks. New frames, differentials and health messages replace older ones, and the
    newest CELLS_KEPT cells of a source stay: what is lost here is only not shown. The map gets the positions of all
    frames and cells, and counts those beyond STEPS_KEPT."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shown: dict[str, Frame] = {}
        self._frames: dict[str, tuple[messages.FrameMessage, Picture | None]] = {}
        self._cells: dict[str, deque[tuple[messages.CellMessage, bytes | None]]] = {}
        self._differentials: dict[str, messages.DifferentialMessage] = {}
        self._health: dict[str, messages.HealthMessage] = {}
        self._ends: dict[str, messages.EndMessage] = {}
        self._steps: dict[str, deque[Step]] = {}
        self._missed: Counter[str] = Counter()

    def publish(self, message: messages.AnyMessage, payload: bytes | None = None) -> None:
        """Keep a message until `take_into`. Any thread."""
        step = step_of(message)
        with self._lock:
            self._ends.pop(message.source, None)  # it goes on with another slide
            if step is not None:
                steps = self._steps.setdefault(message.source, deque(maxlen=STEPS_KEPT))
                self._missed[message.source] += len(steps) == STEPS_KEPT
                steps.append(step)
            if isinstance(message, messages.FrameMessage):
                shown = self._shown.get(message.source)
                matches = shown is not None and shown.frame_id == message.frame_id
                self._frames[message.source] = (message, shown.image if shown is not None and matches else None)
            elif isinstance(message, messages.CellMessage):
                self._cells.setdefault(message.source, deque(maxlen=CELLS_KEPT)).append((message, payload))
            elif isinstance(message, messages.DifferentialMessage):
                self._differentials[message.source] = message
            elif isinstance(message, messages.HealthMessage):
                self._health[message.source] = message
            elif isinstance(message, messages.EndMessage):
                self._ends[message.source] = message

    def show(self, frame: Frame) -> None:
        """Keep the image of a frame for its message. Any thread."""
        with self._lock:
            self._shown[frame.source] = frame
            waiting = self._frames.get(frame.source)
            if waiting is not None and waiting[0].frame_id == frame.frame_id:
                self._frames[frame.source] = (waiting[0], frame.image)

    def take_into(self, state: DashboardState, now_ns: int) -> bool:
        """Hand everything to `state`; False if nothing was new."""
        with self._lock:
            health, self._health = self._health, {}
            ends, self._ends = self._ends, {}
            frames, self._frames = self._frames, {}
            cells, self._cells = self._cells, {}
            differentials, self._differentials = self._differentials, {}
            steps, self._steps = self._steps, {}
            missed, self._missed = self._missed, Counter()
        for frame, picture in frames.values():
            state.update(frame, picture, now_ns)
        for source in cells.values():
            for cell, payload in source:
                state.update(cell, decoded(payload), now_ns)
        for differential in differentials.values():
            state.update(differential, None, now_ns)
        for name, of_source in steps.items():
            state.follow(name, of_source, missed[name])
        for newest in health.values():
            state.update(newest, None, now_ns)
        for end in ends.values():
            state.update(end, None, now_ns)
        return bool(frames or cells or differentials or health or ends)


def decoded(payload: bytes | None) -> Picture | None:
    """(H, W, 3) uint8 BGR of an encoded picture; None if there is none or it can't be decoded."""
    if not payload:
        return None
    picture = cv2.imdecode(np.frombuffer(payload, np.uint8), cv2.IMREAD_COLOR)
    return None if picture is None else picture.astype(np.uint8, copy=False)
