"""The simulated slide as a source of frames."""

from __future__ import annotations

import time
from collections.abc import Callable

from streamer.records import Frame, Mode
from streamer.sources.simulated.parameters import SlideParameters
from streamer.sources.simulated.slide import VirtualSlide

_SPARE_NS = 15_000_000
"""A wait longer than this is used to paint ahead, since new places cost 10 ms each."""


class SimulatedSource:
    """One pass over a virtual slide.

    live, or `paced`: at the parameters' fps like a camera; otherwise as fast as frames are read. `slide` has the ground
    truth of every frame, before `open` too. `open` starts the pass from its first frame.
    """

    default_mode: Mode = "analysis"

    def __init__(
        self,
        parameters: SlideParameters,
        *,
        name: str = "sim",
        live: bool = False,
        now_ns: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = name
        self.slide = VirtualSlide(parameters)
        self._paced = live or bool(parameters.paced)
        self._now_ns = now_ns
        self._sleep = sleep
        self._period_ns = round(1e9 / parameters.fps)
        self._next_id = 0
        self._due_ns: int | None = None

    @property
    def length(self) -> int:
        return len(self.slide)

    def open(self) -> None:
        """Go to the first frame."""
        self._next_id = 0
        self._due_ns = None

    def seek(self, frame_id: int) -> None:
        """Go to a frame of the pass."""
        self._next_id = frame_id
        self._due_ns = None

    def read(self) -> Frame | None:
        """The next frame, or None after the last one."""
        if self._next_id >= len(self.slide):
            return None
        image = self.slide.render(self._next_id)
        if self._paced:
            self._wait()
        readings = self.slide.readings
        frame = Frame(
            self.name,
            self._next_id,
            self._now_ns(),
            image,
            stage_um=readings.point(self._next_id),
            stage_error_um=readings.error_um,
            um_per_px=readings.um_per_px,
        )
        self._next_id += 1
        return frame

    def close(self) -> None:
        """Nothing is held open. `open` starts the pass again."""
        self._next_id = len(self.slide)

    def _wait(self) -> None:
        """Wait until this frame is due. A late reader gets its frame at once, and no burst after it."""
        now_ns = self._now_ns()
        if self._due_ns is None or now_ns > self._due_ns + self._period_ns:
            self._due_ns = now_ns
        elif now_ns < self._due_ns:
            while self._due_ns - now_ns > _SPARE_NS and self.slide.paint_ahead(self._next_id + 1):
                now_ns = self._now_ns()
            self._sleep(max(self._due_ns - now_ns, 0) / 1e9)
        self._due_ns += self._period_ns
