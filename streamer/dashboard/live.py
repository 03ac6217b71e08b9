"""The dashboard on a terminal: renders what came from the pipeline and sends the rows that changed."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self, TextIO

from rich.color import ColorSystem
from rich.console import Console
from rich.live import Live
from rich.segment import Segment

from streamer.config import FIVE_PART_RANGES
from streamer.dashboard.canvas import Line
from streamer.dashboard.display import Inbox
from streamer.dashboard.layout import render
from streamer.dashboard.picture import Colours
from streamer.dashboard.state import DashboardState
from streamer.dashboard.terminal import HeldErrors, Keys
from streamer.protocol import messages
from streamer.records import Frame

KEY_HINT = "q quit · p picture · m map · tab source"
REPAINT_NS = 5_000_000_000
"""All rows are sent again this often, which repairs what another program wrote over the screen."""
# Synchronised output: a terminal that supports it shows all of what is between at once; others ignore it.
_BEGIN = "\x1b[?2026h"
_END = "\x1b[?2026l"
_CLEAR = "\x1b[2J"
_SYSTEMS = {
    "standard": ColorSystem.STANDARD,
    "256": ColorSystem.EIGHT_BIT,
    "truecolor": ColorSystem.TRUECOLOR,
    "windows": ColorSystem.WINDOWS,
}
LARGEST_SHARE = 0.08
"""Share of a core for drawing: a screen that takes long to draw is drawn less often."""


class Dashboard:
    """A Display on a terminal. Nothing is drawn before `__enter__`. `__exit__` always restores the terminal.

    `stream` must be a terminal (see `is_usable`). Drawing is limited to `refresh_per_s`. A slow terminal delays only
    the thread that ticks.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        picture: bool = True,
        map_: bool = False,
        note: str | None = None,
        ranges: Mapping[str, tuple[float, float]] = FIVE_PART_RANGES,
        refresh_per_s: float = 8.0,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.state = DashboardState(picture=picture, map=map_, note=note, ranges=ranges)
        self._stream = stream if stream is not None else sys.stdout
        self._interval_ns = int(1e9 / refresh_per_s)
        self._clock = clock
        self._inbox = Inbox()
        self._keys = Keys()
        self._errors = HeldErrors()
        self._quit = False
        self._console: Console | None = None
        self._live: Live | None = None
        self._due_ns = 0
        self._repaint_ns = 0
        self._size = (0, 0)
        self._lines: list[Line] = []

    @property
    def quit_requested(self) -> bool:
        """True once q was pressed."""
        return self._quit

    def publish(self, message: messages.AnyMessage, payload: bytes | None = None) -> None:
        """Hand over a message and the JPEG of a cell, if any. Any thread; never waits."""
        self._inbox.publish(message, payload)

    def show(self, frame: Frame) -> None:
        """Hand over the image of a frame message, before or after it. Any thread; never waits, never copies."""
        self._inbox.show(frame)

    def close(self) -> None:
        """No more messages will come. The screen stays until `__exit__`."""

    def __enter__(self) -> Self:
        self._stream.flush()
        # The screen gets its own descriptor: standard error may be the same terminal, and is held back.
        file = os.fdopen(os.dup(self._stream.fileno()), "w", encoding=self._stream.encoding, errors="replace")
        self._console = Console(file=file)
        self._live = Live(
            console=self._console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )
        try:
            self._errors.start()
            self._keys.start()
            self.state.hint = KEY_HINT if self._keys.available else ""
            self._live.start()
        except BaseException:
            self._restore()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _restore(self) -> None:
        try:
            if self._live is not None:
                self._live.stop()
            if self._console is not None:
                self._console.file.close()
        finally:
            self._live = self._console = None
            self._lines, self._size = [], (0, 0)
            self._keys.stop()
            self._errors.stop()

    def run(self, running: Callable[[], bool]) -> None:
        """Draw until `running()` is false or q is pressed."""
        while not self._quit and running():
            self._keys.wait(self.tick(self._clock()))

    def tick(self, now_ns: int) -> float:
        """Read keys, and draw if it is due. Returns the seconds until then."""
        pressed = self._take_keys()
        if pressed or now_ns >= self._due_ns:
            began_ns = time.thread_time_ns()
            self._inbox.take_into(self.state, now_ns)
            self._paint(now_ns)
            self._errors.trim()
            spent_ns = time.thread_time_ns() - began_ns
            self._due_ns = now_ns + max(self._interval_ns, int(spent_ns / LARGEST_SHARE))
        return max(0.0, (self._due_ns - now_ns) / 1e9)

    def _take_keys(self) -> bool:
        keys = self._keys.read()
        for key in keys:
            if key == "q":
                self._quit = True
            elif key == "p":
                self.state.picture = self.state.map or not self.state.picture
                self.state.map = False
            elif key == "m":
                self.state.map = not self.state.map
            elif key == "\t":
                self.state.select_next()
        return bool(keys)

    def _paint(self, now_ns: int) -> None:
        console = self._console
        if console is None:
            raise RuntimeError("the dashboard draws only inside its `with` block")
        size = _size(console)
        screen = render(self.state, *size, now_ns, colours=_colours(console))
        resized = size != self._size
        if resized or now_ns >= self._repaint_ns:
            self._lines = []
            self._repaint_ns = now_ns + REPAINT_NS
        parts = [_BEGIN, _CLEAR] if resized else [_BEGIN]
        for row, line in enumerate(screen.lines):
            if row >= len(self._lines) or line != self._lines[row]:
                parts.append(f"\x1b[{row + 1};1H{encoded(line, console)}")
        parts.append(_END)
        console.file.write("".join(parts))
        console.file.flush()
        self._lines, self._size = screen.lines, size


def encoded(line: Line, console: Console) -> str:
    """A line with the colour codes for the terminal of `console`.

    Printing through the console takes three times as long, and a picture has thousands of segments.
    """
    system = _SYSTEMS.get(console.color_system or "")
    segments = Segment.remove_color(line) if console.no_color else line
    return "".join(style.render(text, color_system=system) if style else text for text, style, _ in segments)


def _size(console: Console) -> tuple[int, int]:
    columns, rows = os.get_terminal_size(console.file.fileno())
    return (columns or 80, rows or 24)


def _colours(console: Console) -> Colours:
    system = console.color_system
    if console.no_color or system is None:
        return "none"
    if system == "truecolor":
        return "truecolor"
    return "256" if system == "256" else "few"
