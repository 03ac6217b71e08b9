"""A source whose driver runs in a process of its own.

A vendor's library may crash, hang, print or hold the interpreter's lock. Here that is a camera that is lost: its
process is killed, and the reader opens the source again. Pixels come through shared memory and are converted before the
next image is asked for, so that one image is in transit at a time and the newest one is what comes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np

from engines.base import LeukostreamError, UsageError
from streamer.records import Frame, Mode, Skip, StagePoint
from streamer.sources.base import SourceAbsentError, SourceError, SourceLostError
from streamer.sources.decoded import DAMAGED
from streamer.sources.driver import Connect, EndOfImages, RawImage
from streamer.sources.own_process import ENDS_WITHIN_S, OwnProcess, ProcessEndedError
from streamer.sources.pixel_formats import to_bgr

PAUSES_S = (0.5, 1.0, 2.0, 4.0, 5.0)
"""Before a camera of this machine is opened again: who plugs a cable in stands beside it and waits."""

SILENCE_S = 3.0
"""A camera that sends nothing for so long, and for the time of two images, is lost."""

HANGS_S = 5.0
"""A driver that does not even answer for so long, beyond the silence, hangs."""

LOST = "lost on the way"
"""The reason under which images are counted that the camera numbered and that never came."""

_EMPTY = np.empty(0, np.uint8)


@dataclass(frozen=True, slots=True)
class Opened:
    """A driver's first word."""

    settings: Mapping[str, str]
    period_s: float


@dataclass(frozen=True, slots=True)
class Fault:
    """A driver's last word."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class NeedsRoom:
    """The image that was asked for does not fit into the shared memory."""

    size_bytes: int


@dataclass(frozen=True, slots=True)
class Room:
    """Shared memory for that image and those that follow."""

    name: str


@dataclass(frozen=True, slots=True)
class Sent:
    """The image that was asked for; its bytes are at the beginning of the shared memory."""

    image: RawImage
    size_bytes: int


_KINDS: dict[str, type[LeukostreamError]] = {
    "usage": UsageError,
    "absent": SourceAbsentError,
    "lost": SourceLostError,
    "error": SourceError,
}


class DrivenSource:
    """Frames of one camera, live: the newest is what `read` gives. What a driver with an end gives is all of it.

    A camera that was open and is gone is opened again for ever; one that opens and never sends is not.
    """

    pauses_s = PAUSES_S

    def __init__(
        self,
        name: str,
        shown: str,
        connect: Connect,
        target: str,
        now_ns: Callable[[], int],
        *,
        opens_within_s: float = 30.0,
        silence_s: float | None = SILENCE_S,
        default_mode: Mode = "live",
    ) -> None:
        """`shown`: what messages call it. `connect` is called with `target` in the other process. `silence_s` None: it
        may wait as long as it likes, as a sequence does that takes an image every minute."""
        self.name = name
        self.default_mode: Mode = default_mode
        self._shown = shown
        self._connect = connect
        self._target = target
        self._now_ns = now_ns
        self._opens_within_s = opens_within_s
        self._silence_s = silence_s
        self._period_s = 0.0
        self._process: OwnProcess | None = None
        self._room: SharedMemory | None = None
        self._was_open = self._answered = self._hangs = False
        self._held: list[Frame | Skip] = []
        self._frame_id = 0
        self.passed_over = 0
        """Images that nobody took, because a newer one was there."""
        self.settings: Mapping[str, str] = {}
        """What is in force, read back from the camera when it was opened."""

    @property
    def pid(self) -> int | None:
        """Of the driver's process, while it is open."""
        return None if self._process is None else self._process.pid

    def open(self) -> None:
        """What the driver's `connect` raises; of a camera that was open before, SourceLostError instead."""
        self.close()
        self._process = OwnProcess(serve, self._connect, self._target)
        answer = self._answer(self._opens_within_s)
        if not isinstance(answer, Opened):
            raise self._lost(f"got {type(answer).__name__}, expected that it opens")
        self.settings, self._period_s = answer.settings, answer.period_s
        self._was_open = True

    def read(self) -> Frame | Skip | None:
        if self._held:
            return self._held.pop(0)
        if self._process is None:
            raise SourceLostError(f"{self._shown}: got a read before it was open, expected it open")
        sent = self._next()
        if sent is None:
            return None
        image = sent.image
        self._answered = True
        self.passed_over += image.passed_over
        after = f"after frame {self._frame_id - 1}"
        if image.lost:
            detail = "numbered by the camera, and never came; is the cable or the network too slow?"
            self._held.append(Skip(self.name, after, LOST, detail, image.lost))
        if image.damaged:
            self._held.append(Skip(self.name, after, DAMAGED, "came in part", image.damaged))
        self._held.append(self._frame(image, sent.size_bytes))
        return self._held.pop(0)

    def close(self) -> None:
        self._held.clear()
        if self._process is not None:
            process, self._process = self._process, None
            process.end(0.0 if self._hangs else ENDS_WITHIN_S)
            self._hangs = False
        if self._room is not None:
            room, self._room = self._room, None
            room.close()
            with contextlib.suppress(FileNotFoundError):
                room.unlink()

    def _next(self) -> Sent | None:
        """None: at the end."""
        while True:
            self._ask(None)
            answer = self._answer((self._silence_s or SILENCE_S) + 2 * self._period_s + HANGS_S)
            if isinstance(answer, NeedsRoom):
                self._make_room(answer.size_bytes)
                answer = self._answer(HANGS_S)
            if isinstance(answer, Sent):
                return answer
            if isinstance(answer, EndOfImages):
                return None
            if answer is None and self._silence_s is not None:
                silence_s = self._silence_s + 2 * self._period_s
                text = f"{self._shown}: got no image for {silence_s:g} s, expected more; is it plugged in?"
                if self._answered:
                    raise SourceLostError(text)
                raise SourceAbsentError(f"{text} Does it wait for a trigger?")

    def _make_room(self, size_bytes: int) -> None:
        if self._room is not None:
            self._room.close()
            self._room.unlink()
        self._room = SharedMemory(create=True, size=size_bytes)
        self._ask(Room(self._room.name))

    def _frame(self, image: RawImage, size_bytes: int) -> Frame | Skip:
        assert self._room is not None
        age_ns = max(0, time.monotonic_ns() - image.arrived_ns)
        captured_ns = self._now_ns() - age_ns
        assert self._room.buf is not None
        stored = np.frombuffer(self._room.buf, np.uint8, size_bytes)
        try:
            pixels = to_bgr(stored, image.width_px, image.height_px, image.pixel_format)
        except ValueError as error:
            return Skip(self.name, f"after frame {self._frame_id - 1}", "unsupported", str(error))
        finally:
            del stored  # shared memory with a view of it does not close
        exposed_ns = None if image.exposure_ms is None else captured_ns - round(image.exposure_ms * 5e5)
        stage_um = None if image.stage_um is None else StagePoint(*image.stage_um)
        frame = Frame(
            *(self.name, self._frame_id, captured_ns, pixels),
            stage_um=stage_um,
            um_per_px=image.um_per_px,
            exposed_ns=exposed_ns,
            moving=image.moving,
        )
        self._frame_id += 1
        return frame

    def _ask(self, message: object) -> None:
        assert self._process is not None
        try:
            self._process.send(message)
        except ProcessEndedError as error:
            raise self._lost(f"got no answer ({error}), expected images") from error

    def _answer(self, timeout_s: float) -> Any:
        """What the driver says; what it raises."""
        assert self._process is not None
        try:
            answer = self._process.receive(timeout_s)
        except TimeoutError as error:
            self._hangs = True
            raise self._lost(f"got no answer of its driver for {timeout_s:g} s, expected one; it hangs") from error
        except ProcessEndedError as error:
            raise self._lost(f"got no answer ({error}), expected images") from error
        if isinstance(answer, Fault):
            raise self._lost(answer.text) if self._was_open else _KINDS[answer.kind](f"{self._shown}: {answer.text}")
        return answer

    def _lost(self, text: str) -> SourceError:
        """Of a camera that was never open: it may not be there yet."""
        return (SourceLostError if self._was_open else SourceAbsentError)(f"{self._shown}: {text}")


def serve(pipe: Connection, connect: Connect, target: str) -> None:
    """The other process: one driver, one request after the other, until the pipe ends."""
    try:
        driver = connect(target)
    except Exception as error:
        pipe.send(_fault(error))
        return
    room: SharedMemory | None = None
    try:
        pipe.send(Opened(dict(driver.settings), driver.period_s))
        while True:
            request = pipe.recv()
            assert request is None
            try:
                image = driver.next(SILENCE_S + 2 * driver.period_s)
            except EndOfImages as end:
                pipe.send(end)
                continue
            if image is None:
                pipe.send(None)
                continue
            if room is None or room.size < image.data.size:
                pipe.send(NeedsRoom(image.data.size))
                if room is not None:
                    room.close()
                room = SharedMemory(pipe.recv().name)
            assert room.buf is not None
            np.frombuffer(room.buf, np.uint8, image.data.size)[:] = image.data
            pipe.send(Sent(replace(image, data=_EMPTY), image.data.size))
    except EOFError:
        pass  # nobody asks any more
    except Exception as error:
        pipe.send(_fault(error))
    finally:
        with contextlib.suppress(Exception):
            driver.close()
        if room is not None:
            room.close()


def _fault(error: Exception) -> Fault:
    for kind, meant in _KINDS.items():
        if isinstance(error, meant):
            return Fault(kind, str(error))
    return Fault("error", f"got {type(error).__name__} ({error}), expected that its driver works")
