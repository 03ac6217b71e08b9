"""Lines of terminal cells of an exact width, from which the panels are built."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style

from engines.base import printable
from streamer.dashboard.palette import FAINT, PLAIN

Line = list[Segment]
"""The segments of one row; whoever makes it answers for its width."""
Span = tuple[str, Style]
"""A piece of text, cleaned or not, and its style."""

Align = Literal["left", "right", "centre"]


@lru_cache(maxsize=4096)
def clean(text: str) -> str:
    """`text` without control and zero-width characters: names come from files and from the network."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(letter for letter in printable(unicodedata.normalize("NFC", text)) if cell_len(letter) > 0)


def crop(text: str, width: int) -> str:
    """`text` cleaned and at most `width` cells wide, with an ellipsis if it was cut."""
    text = clean(text)
    if cell_len(text) <= width:
        return text
    if width < 1:
        return ""
    return set_cell_size(text, width - 1) + "…"


def fit(spans: Iterable[Span], width: int, align: Align = "left") -> Line:
    """`spans` as a line of exactly `width` cells: padded, or cropped with an ellipsis."""
    line: Line = []
    left = width
    for text, style in spans:
        if left <= 0:
            if line and text:
                last = line[-1]
                line[-1] = Segment(set_cell_size(last.text, max(0, cell_len(last.text) - 1)) + "…", last.style)
            break
        text = crop(text, left)
        line.append(Segment(text, style))
        left -= cell_len(text)
    if left > 0:
        before = {"left": 0, "right": left, "centre": left // 2}[align]
        if before:
            line.insert(0, Segment(" " * before, PLAIN))
        if left - before:
            line.append(Segment(" " * (left - before), PLAIN))
    return line


def justify(left: Sequence[Span], right: Sequence[Span], width: int) -> Line:
    """`left` at the left edge and, if both fit with a gap, `right` at the right edge."""
    left_cells = span_len(left)
    right_cells = span_len(right)
    if left_cells + right_cells + 1 > width:
        return fit(left, width)
    return fit([*left, (" " * (width - left_cells - right_cells), PLAIN), *right], width)


def span_len(spans: Iterable[Span]) -> int:
    """Width in cells."""
    return sum(cell_len(clean(text)) for text, _ in spans)


def blank(width: int) -> Line:
    """An empty row."""
    return [Segment(" " * width, PLAIN)] if width > 0 else []


def to_height(lines: Sequence[Line], width: int, height: int) -> list[Line]:
    """The first `height` lines, filled up with empty ones."""
    return [*lines[:height], *(blank(width) for _ in range(height - len(lines)))]


def beside(blocks: Sequence[Sequence[Line]]) -> list[Line]:
    """Blocks of the same height, joined from left to right."""
    return [[segment for line in row for segment in line] for row in zip(*blocks, strict=True)]


def framed(
    lines: Sequence[Line],
    width: int,
    height: int,
    *,
    title: Sequence[Span] = (),
    aside: Sequence[Span] = (),
    foot: Sequence[Span] = (),
) -> list[Line]:
    """A panel of exactly `width` x `height` around lines of `width - 2` cells; `aside` is at the right of the title."""
    edge = Segment("│", FAINT)
    body = [[edge, *line, edge] for line in to_height(lines, width - 2, height - 2)]
    return [_rule("╭", "╮", title, aside, width), *body, _rule("╰", "╯", (), foot, width)]


def _rule(first: str, last: str, left: Sequence[Span], right: Sequence[Span], width: int) -> Line:
    room = width - 4
    line: list[Span] = [(first + "─", FAINT)]
    used = 0
    if left and room > 4:
        text = fit_within(left, room - 2)
        used = span_len(text) + 2
        line += [(" ", FAINT), *text, (" ", FAINT)]
    tail: list[Span] = []
    if right and span_len(right) + 2 + used <= room:
        tail = [(" ", FAINT), *right, (" ", FAINT)]
    line += [("─" * (room - used - span_len(tail)), FAINT), *tail, ("─" + last, FAINT)]
    return fit(line, width)


def fit_within(spans: Sequence[Span], width: int) -> list[Span]:
    """`spans`, cropped to `width` if they are wider, not padded if they are narrower."""
    spans = [(clean(text), style) for text, style in spans]
    if span_len(spans) <= width:
        return spans
    return [(segment.text, segment.style or PLAIN) for segment in fit(spans, width)]


class Screenful:
    """A whole screen as lines: a rich renderable of exactly `width` x `height` cells."""

    __slots__ = ("height", "lines", "width")

    def __init__(self, lines: list[Line], width: int, height: int) -> None:
        self.lines = lines
        self.width = width
        self.height = height

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for place, line in enumerate(self.lines):
            if place:
                yield Segment.line()
            yield from line
