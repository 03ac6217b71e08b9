"""The dashboard on a terminal: renders what came from the pipeline and sends the rows that changed."""

from __future__ import annotations

import os
import struct
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TextIO

import numpy as np
from rich.color import ColorSystem
from rich.console import Console
from rich.live import Live
from rich.segment import Segment

from streamer.config import FIVE_PART_RANGES
from streamer.dashboard.canvas import Line
from streamer.dashboard.display import Inbox
from streamer.dashboard.graphics import (
    ANSWERED,
    QUESTION,
    PictureSegment,
    Protocol,
    character_px,
    encoded_picture,
    erased,
    protocol_of,
)
from streamer.dashboard.keyboard import Commands, Keyboard
from streamer.dashboard.layout import render
from streamer.dashboard.palette import in_sixteen
from streamer.dashboard.picture import Colours
from streamer.dashboard.state import DashboardState, Picture
from streamer.dashboard.terminal import HeldErrors, Keys
from streamer.network.silence import Waiting
from streamer.protocol import messages
from streamer.records import Frame

try:
    import fcntl
    import termios
except ImportError:  # Windows: characters are of the usual size
    termios = None  # type: ignore[assignment]

KEY_HINT = "? help · p pause · n new slide · s stop · q quit"
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
USUAL_CHARACTER_PX = (8, 16)
LEAVING_S = 0.2
"""How soon a last screen is left that nobody wants any more."""
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
        picture: bool | None = None,
        map_: bool = False,
        note: str | None = None,
        lengths: Callable[[], Mapping[str, int]] = dict,
        waits_for: str | None = None,
        ranges: Mapping[str, tuple[float, float]] = FIVE_PART_RANGES,
        refresh_per_s: float = 8.0,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """`lengths`: frames that each source holds, as far as known by now. `waits_for`: the endpoint of a streamer
        elsewhere, that messages come from."""
        waiting = None if waits_for is None else Waiting(waits_for, clock())
        self.state = DashboardState(picture=picture, map=map_, note=note, ranges=ranges, waits_for=waiting)
        self._lengths = lengths
        self._stream = stream if stream is not None else sys.stdout
        self._interval_ns = int(1e9 / refresh_per_s)
        self._clock = clock
        self._inbox = Inbox()
        self._keys = Keys()
        self._keyboard = Keyboard(self.state)
        self._errors = HeldErrors()
        self._leaves = False
        self._console: Console | None = None
        self._live: Live | None = None
        self._due_ns = 0
        self._repaint_ns = 0
        self._size = (0, 0)
        self._lines: list[Line] = []
        self._protocol: Protocol | None = None
        self._character_px = USUAL_CHARACTER_PX
        self._pictures: list[Shown] = []

    @property
    def quit_requested(self) -> bool:
        """True once q was pressed."""
        return self._keyboard.quit

    def obey(self, commands: Commands) -> None:
        """Give what keys ask for to `commands`."""
        self._keyboard.commands = commands

    def leave(self) -> None:
        """Do not stay at the end. Any thread."""
        self._leaves = True

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
            self._find_graphics(file)
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

    def _find_graphics(self, out: TextIO) -> None:
        """Ask the terminal whether it shows pictures, and of what size its characters are."""
        answers = self._keys.ask(QUESTION, ANSWERED, out)
        protocol = protocol_of(os.environ, answers)
        character = character_px(answers) or _character_px(out)
        if protocol == "sixel" and character is None:
            return  # they would be drawn too large or too small
        self._protocol, self._character_px = protocol, character or USUAL_CHARACTER_PX
        self.state.graphics = protocol is not None

    def run(self, running: Callable[[], bool]) -> None:
        """Draw until `running()` is false or q is pressed."""
        while not self.quit_requested and running():
            self._keys.wait(self.tick(self._clock()))

    def stay(self) -> None:
        """Keep the last screen until q is pressed, where a person is there who typed this command."""
        if not self._keys.belongs_to_a_person:
            return
        self.state.is_over = True
        self._due_ns = 0
        while not (self.quit_requested or self._leaves) and self._keys.available:
            self._keys.wait(min(LEAVING_S, self.tick(self._clock())))

    def tick(self, now_ns: int) -> float:
        """Read keys, and draw if it is due. Returns the seconds until then."""
        keys = self._keys.read()
        for key in keys:
            self._keyboard.press(key, now_ns)
        if keys or now_ns >= self._due_ns:
            began_ns = time.thread_time_ns()
            self._inbox.take_into(self.state, now_ns)
            self._keyboard.take_answers(now_ns)
            self.state.lengths = self._lengths()
            self._paint(now_ns)
            self._errors.trim()
            spent_ns = time.thread_time_ns() - began_ns
            self._due_ns = now_ns + max(self._interval_ns, int(spent_ns / LARGEST_SHARE))
        return max(0.0, (self._due_ns - now_ns) / 1e9)

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
        pictures = [one for row, line in enumerate(screen.lines) for one in shown_in(row, line)]
        moved = [one.place for one in pictures] != [one.place for one in self._pictures]
        if moved:  # where a picture was, characters are drawn again
            self._lines = []
        parts = [_BEGIN, _CLEAR] if resized else [_BEGIN]
        if moved and self._protocol is not None:
            parts.append(erased(self._protocol))
        redrawn = not self._lines
        for row, line in enumerate(screen.lines):
            if row >= len(self._lines) or line != self._lines[row]:
                parts.append(f"\x1b[{row + 1};1H{encoded(line, console)}")
        before = {one.place: one.picture for one in self._pictures}
        for number, one in enumerate(pictures, start=1):
            if self._protocol is not None and (redrawn or not _same(before.get(one.place), one.picture)):
                row, column, columns, rows = one.place
                codes = encoded_picture(self._protocol, one.picture, columns, rows, self._character_px, number)
                parts.append(f"\x1b[{row + 1};{column + 1}H{codes}")
        parts.append(_END)
        console.file.write("".join(parts))
        console.file.flush()
        self._lines, self._size, self._pictures = screen.lines, size, pictures


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """A picture on the screen."""

    place: tuple[int, int, int, int]
    """Row and column of its upper left corner, from 0; columns and rows that it takes."""
    picture: Picture


def shown_in(row: int, line: Line) -> Iterator[Shown]:
    """The pictures that begin in a line."""
    column = 0
    for segment in line:
        if isinstance(segment, PictureSegment):
            yield Shown((row, column, segment.columns, segment.rows), segment.picture)
        column += segment.cell_length


def _same(one: Picture | None, other: Picture) -> bool:
    return one is other or (one is not None and np.array_equal(one, other))


def encoded(line: Line, console: Console) -> str:
    """A line with the colour codes for the terminal of `console`.

    Printing through the console takes three times as long, and a picture has thousands of segments.
    """
    system = _SYSTEMS.get(console.color_system or "")
    segments: Iterable[Segment] = Segment.remove_color(line) if console.no_color else line
    if system == ColorSystem.STANDARD:
        segments = [Segment(text, in_sixteen(style)) if style else Segment(text) for text, style, _ in segments]
    return "".join(style.render(text, color_system=system) if style else text for text, style, _ in segments)


def _size(console: Console) -> tuple[int, int]:
    columns, rows = os.get_terminal_size(console.file.fileno())
    return (columns or 80, rows or 24)


def _character_px(out: TextIO) -> tuple[int, int] | None:
    """Width and height of a character as the terminal tells the system; None where it does not."""
    if termios is None:
        return None
    rows, columns, width, height = struct.unpack("HHHH", fcntl.ioctl(out.fileno(), termios.TIOCGWINSZ, bytes(8)))
    return (width // columns, height // rows) if width and height and columns and rows else None


def _colours(console: Console) -> Colours:
    system = console.color_system
    if console.no_color or system is None:
        return "none"
    if system == "truecolor":
        return "truecolor"
    return "256" if system == "256" else "few"
