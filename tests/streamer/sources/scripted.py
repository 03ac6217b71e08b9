"""A source, a VideoCapture and a decoder that do what a test wrote down."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from streamer.records import DeferredImage, Frame, Mode, Skip
from streamer.sources.base import SourceAbsentError, SourceError, SourceLostError
from streamer.sources.decoder import Grabbed, Pixels

Step = str | Callable[[], None]


class ScriptedSource:
    """Each step answers one call of `open` (those starting with "open") or `read`, in order; then it ends.

    "open", "open lost", "open absent", "open never"; "frame", "skip", "lost", "never", "bug"; a function is called, and
    the read goes on.
    """

    def __init__(self, steps: Iterable[Step], default_mode: Mode = "live") -> None:
        self.name = "scripted"
        self.default_mode: Mode = default_mode
        self.closed = 0
        self._steps: Iterator[Step] = iter(steps)
        self._frame_id = 0

    def open(self) -> None:
        step = next(self._steps, "open")
        assert isinstance(step, str)
        assert step.startswith("open"), step
        if step == "open lost":
            raise SourceLostError("gone for now")
        if step == "open absent":
            raise SourceAbsentError("not on")
        if step == "open never":
            raise SourceError("not there")

    def read(self) -> Frame | Skip | None:
        for step in self._steps:
            if not isinstance(step, str):
                step()
            elif step == "frame":
                self._frame_id += 1
                return frame(self._frame_id - 1, source=self.name)
            elif step == "skip":
                return Skip(self.name, "x", "not an image", "x: got words")
            elif step == "lost":
                raise SourceLostError("cable")
            elif step == "never":
                raise SourceError("broken")
            else:
                raise ZeroDivisionError(step)
        return None

    def close(self) -> None:
        self.closed += 1


class ScriptedCapture:
    """cv2.VideoCapture with one True (a frame), False (no frame) or None (a frame that does not decode) a grab."""

    def __init__(self, grabs: Sequence[bool | None], properties: dict[int, float] | None = None) -> None:
        self.properties = properties or {}
        self.wishes: list[tuple[int, float]] = []
        self.released = False
        self._grabs = list(grabs)
        self._opened = bool(grabs)
        self._whole = False

    def isOpened(self) -> bool:
        return self._opened

    def grab(self) -> bool:
        grab = self._grabs.pop(0) if self._grabs else False
        self._whole = grab is True
        return grab is not False

    def retrieve(self) -> tuple[bool, Any]:
        return (True, np.zeros((40, 60, 3), np.uint8)) if self._whole else (False, None)

    def get(self, prop: int) -> float:
        return self.properties.get(prop, 0.0)

    def set(self, prop: int, value: float) -> bool:
        self.wishes.append((prop, value))
        return True

    def release(self) -> None:
        self.released = True


class Opener:
    """Gives one scripted capture after the other, and remembers what was asked."""

    def __init__(self, *captures: ScriptedCapture) -> None:
        self.asked: list[tuple[int | str, int, list[int]]] = []
        self._captures = list(captures)

    def __call__(self, target: int | str, backend: int, parameters: Sequence[int]) -> ScriptedCapture:
        self.asked.append((target, backend, list(parameters)))
        return self._captures.pop(0) if self._captures else ScriptedCapture([])


def frame(frame_id: int, captured_ns: int = 0, source: str = "scripted") -> Frame:
    return Frame(source, frame_id, captured_ns, np.zeros((1, 1, 3), np.uint8))


class ScriptedDecoder:
    """Gives what a test feeds it, at the time that the test says; `grab` waits for that."""

    codec, announced, fps, begun_utc_ns, about = "scripted", None, 30.0, None, "a script"

    def __init__(
        self, *, keeps_frames: bool = True, sees_sizes: bool = True, size_px: tuple[int, int] = (6, 4)
    ) -> None:
        self.keeps_frames = keeps_frames
        self.sees_sizes = sees_sizes
        self._size_px = size_px
        self.converted: list[float | None] = []
        self.closed = threading.Event()
        self.now_ns = 0
        self._fed: queue.Queue[tuple[float | None, float, bool] | None] = queue.Queue()
        self._asked: queue.Queue[None] = queue.Queue()

    def put(self, position_s: float | None, now_s: float) -> None:
        """One frame more, for whoever reads on the thread of the test."""
        self._fed.put((position_s, now_s, False))

    def feed(self, position_s: float | None, now_s: float, *, damaged: bool = False) -> None:
        """Hand over one frame; when this returns, the one before was dealt with."""
        self._asked.get(timeout=10)
        self._fed.put((position_s, now_s, damaged))

    def settle(self) -> None:
        """Wait until what was fed is dealt with."""
        self._asked.get(timeout=10)
        self._asked.put(None)

    def end(self) -> None:
        self._fed.put(None)

    def clock(self) -> int:
        return self.now_ns

    def grab(self) -> Grabbed | None:
        self._asked.put(None)
        fed = self._fed.get(timeout=10)
        if fed is None:
            return None
        position_s, now_s, damaged = fed
        self.now_ns = round(now_s * 1e9)
        return Grabbed(position_s, lambda: None if damaged else self._pixels(position_s), damaged and self.keeps_frames)

    def close(self) -> None:
        self.closed.set()

    def _pixels(self, position_s: float | None) -> Pixels:
        def convert() -> npt.NDArray[np.uint8]:
            self.converted.append(position_s)
            return np.zeros((height, width, 3), np.uint8)

        width, height = self._size_px
        return DeferredImage(height, width, convert) if self.keeps_frames else convert()
