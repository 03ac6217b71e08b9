"""A source and a VideoCapture that do what a test wrote down."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from streamer.records import Frame, Mode, Skip
from streamer.sources.base import SourceError, SourceLostError

Step = str | Callable[[], None]


class ScriptedSource:
    """Each step answers one call of `open` (those starting with "open") or `read`, in order; then it ends.

    "open", "open lost", "open never"; "frame", "skip", "lost", "never", "bug"; a function is called, and the
    read goes on.
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
