"""Picture of the dashboard: runs a command in a terminal of its own and saves what stands on its screen as SVG.

    python -m tools.report dashboard-picture -o dashboard.svg --size 120x34 --after 20
    python -m tools.report dashboard-picture -o dashboard.svg -- leukostream run --source frames/ --dashboard

The picture inside the dashboard becomes squares of colour rather than characters, so that it looks the same with any
font. POSIX only.
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from rich.ansi import AnsiDecoder
from rich.color import Color
from rich.console import Console
from rich.segment import Segment

from tools.commands import command_parser

# Geometry of rich's SVG export (rich.console.Console.export_svg): width of a cell, height of a row, top of the first.
CELL_PX = 12.2
ROW_PX = 24.4
TOP_PX = 1.5

_SCREEN = re.compile(r"\x1b\[\?2026h(.*?)\x1b\[\?2026l", re.DOTALL)
_ROW = re.compile(r"\x1b\[(\d+);1H([^\n]*?)(?=\x1b\[\d+;1H|\Z)")

Squares = dict[str, list[tuple[int, int, int]]]
"""Colour -> runs (column, half row, number of columns)."""


def screen_of(command: Sequence[str], columns: int, rows: int, after_s: float) -> list[str]:
    """The rows of the screen, with their escape codes, that `command` has drawn after `after_s` seconds."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    for name in ("NO_COLOR", "COLUMNS", "LINES"):
        environment.pop(name, None)
    # The terminal becomes its own, so that it reads keys there and shows which there are.
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    written = bytearray()
    end = time.monotonic() + after_s
    try:
        while (left := end - time.monotonic()) > 0:
            if select.select([ours], [], [], left)[0]:
                try:
                    written += os.read(ours, 65536)
                except OSError:  # the command ended and closed its terminal
                    break
    finally:
        process.terminate()
        try:
            os.close(ours)
            _, errors = process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            _, errors = process.communicate()
    screen = rows_of(written.decode("utf-8", "replace"), rows)
    if not any(screen):
        complaint = errors.decode("utf-8", "replace").strip()
        raise SystemExit(f"{' '.join(command)}: got no dashboard within {after_s:g} s, expected one: {complaint}")
    return screen


def rows_of(written: str, rows: int) -> list[str]:
    """The newest content of each row, from what the dashboard wrote."""
    screen = [""] * rows
    for update in _SCREEN.finditer(written):
        for row in _ROW.finditer(update.group(1)):
            place = int(row.group(1)) - 1
            if 0 <= place < rows:
                screen[place] = row.group(2)
    return screen


def svg_of(screen: Sequence[str], columns: int, title: str) -> str:
    """SVG of rows of text with escape codes; half blocks become squares."""
    console = Console(
        record=True,
        width=columns,
        height=len(screen),
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
    )
    squares: Squares = defaultdict(list)
    decoder = AnsiDecoder()
    for row, content in enumerate(screen):
        line = next(iter(decoder.decode(content)), None)
        column = 0
        kept: list[Segment] = []
        for segment in line.render(console) if line is not None else ():
            width = segment.cell_length
            if set(segment.text) == {"▀"} and segment.style is not None:
                _add(squares, segment.style.color, column, 2 * row, width)
                _add(squares, segment.style.bgcolor, column, 2 * row + 1, width)
                kept.append(Segment(" " * width))
            elif segment.text != "\n":
                kept.append(segment)
            column += width
        console.print(_Row(kept))
    svg = console.export_svg(title=title)
    head, mark, tail = svg.partition('<g class="')
    while mark and not re.match(r'[\w-]+-matrix">', tail):
        more, mark, tail = tail.partition('<g class="')
        head += '<g class="' + more
    return head + _drawn(squares) + mark + tail


class _Row:
    """One line of segments as something to print."""

    def __init__(self, segments: list[Segment]) -> None:
        self.segments = segments

    def __rich_console__(self, console: Console, options: object) -> list[Segment]:
        return [*self.segments, Segment.line()]


def _add(squares: Squares, colour: Color | None, column: int, half_row: int, count: int) -> None:
    if colour is not None:
        squares[colour.get_truecolor().hex].append((column, half_row, count))


def _drawn(squares: Squares) -> str:
    """A path a colour, in half cells; squares are a little too large: viewers leave hairlines between exact ones."""
    paths = [
        f'<path fill="{colour}" d="{"".join(f"M{x} {y}h{count}.05v1.05h-{count}.05z" for x, y, count in runs)}"/>'
        for colour, runs in squares.items()
    ]
    scale = f"translate(0 {TOP_PX}) scale({CELL_PX} {ROW_PX / 2})"
    return f'<g transform="{scale}" shape-rendering="crispEdges">\n' + "\n".join(paths) + "\n</g>\n"


def main(arguments: Sequence[str]) -> None:
    parser = command_parser("tools.report dashboard-picture", __doc__)
    parser.add_argument("-o", "--output", type=Path, required=True, help="the SVG to write")
    parser.add_argument("--size", default="120x34", help="columns x rows of the terminal (default: %(default)s)")
    parser.add_argument("--after", type=float, default=20.0, help="seconds until the picture is taken (default: 20)")
    parser.add_argument("--title", default="leukostream", help="title of the window (default: %(default)s)")
    parser.add_argument("command", nargs="*", help="what to run (default: leukostream demo)")
    given = parser.parse_args(arguments)
    size = re.fullmatch(r"(\d+)x(\d+)", given.size)
    if size is None:
        parser.error(f"--size: got {given.size!r}, expected columns x rows like 120x34")
    command = given.command or [sys.executable, "-m", "streamer", "demo"]
    screen = screen_of(command, int(size[1]), int(size[2]), given.after)
    given.output.write_text(svg_of(screen, int(size[1]), given.title), encoding="utf-8")
