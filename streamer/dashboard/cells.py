"""The newest white cells: as a list, as pictures, and the one that the arrow keys have chosen."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from streamer.dashboard.canvas import Line, Span, beside, blank, clean, crop, fit, framed, justify, to_height
from streamer.dashboard.graphics import PictureSegment
from streamer.dashboard.keyboard import class_keys
from streamer.dashboard.palette import ACCENT, FAINT, PLAIN, STRONG, class_colour, ink, letter_mark
from streamer.dashboard.picture import Colours, middle, thumbnail
from streamer.dashboard.state import DashboardState, Picture, SourceView
from streamer.dashboard.words import described, number, times
from streamer.protocol import messages
from streamer.records import UNCLASSIFIED, UNLIKE_TRAINING

FILM_ROWS = 6
"""Height of a cell's picture, its caption not included."""
IN_WORDS = 3
"""Newest cells described in a line below their own. Below pictures only the newest is described."""
LIKELIEST = 4
"""Classes of a chosen cell that are listed with their probability."""


def cells_panel(state: DashboardState, width: int, height: int, colours: Colours, film: bool) -> list[Line]:
    """The newest cells, newest first, with descriptions; with `film`, if there is room, the first ones as pictures."""
    view = state.current
    inner, rows = width - 2, height - 2
    lines: list[Line] = []
    cells = view.newest_cells() if view else []
    foot: list[Span] = []
    if view is None or not cells:
        lines.append(fit([(" none yet", FAINT)], inner))
    else:
        if film and has_film(state, colours) and rows >= FILM_ROWS + 2:
            strips = max(1, rows * 3 // 5 // (FILM_ROWS + 2))
            foot = _in_words(cells, inner)
            lines, cells = _film(state, view, cells, inner, strips, FILM_ROWS, colours)
        for place, cell in enumerate(cells[: rows - len(lines)]):
            lines.append(_cell_row(view, cell, inner))
            words = described(cell) if place < IN_WORDS and rows >= 2 * IN_WORDS and not foot else ""
            if words:
                lines.append(fit([(f"        {words}", FAINT)], inner))
        del lines[rows:]
    return framed(lines, width, height, title=[("last cells", STRONG)], foot=foot)


def _in_words(cells: Sequence[messages.CellMessage], width: int) -> list[Span]:
    """The description of the newest cell, cropped; empty if there is none."""
    words = described(cells[0]) if cells else ""
    return [(crop(f"#{cells[0].cell_id} {words}", width - 4), FAINT)] if words else []


def has_film(state: DashboardState, colours: Colours) -> bool:
    """Whether there are pictures of cells, and a terminal that can show them."""
    view = state.current
    return view is not None and bool(view.cell_pictures) and (colours in ("truecolor", "256") or state.graphics)


def film_panel(state: DashboardState, width: int, height: int, colours: Colours) -> list[Line]:
    """One strip of pictures of the newest cells."""
    view = state.current
    lines: list[Line] = []
    foot: list[Span] = []
    if view is not None:
        rows = min(FILM_ROWS + 2, height - 4)
        foot = _in_words(view.newest_cells(), width - 2)
        lines, _ = _film(state, view, view.newest_cells(), width - 2, 1, rows, colours)
    return framed(lines, width, height, title=[("last cells", STRONG)], foot=foot)


def _cell_row(view: SourceView, cell: messages.CellMessage, width: int) -> Line:
    left: list[Span] = [(" ", PLAIN), letter_mark(view.letters(), cell.class_), *_named(view, cell)]
    right: list[Span] = [(f"seen {times(cell.looks)} #{cell.cell_id} ", FAINT)]
    return justify(left, right, width)


def _named(view: SourceView, cell: messages.CellMessage) -> list[Span]:
    """How sure it is, its class, what it was before."""
    name = cell.class_
    if name == UNCLASSIFIED:
        like = "like no training cell, " if cell.unclassified_reason == UNLIKE_TRAINING else ""
        name = f"unclassified ({like}{cell.top_class}?)"
    sure = "" if cell.reclassified else f" {_sure(cell)}"  # of its looks, not of the person
    spans: list[Span] = [(f"{sure} ", FAINT), (name, PLAIN)]
    if cell.subclass:
        spans.append((f", {cell.subclass}", FAINT))
    if cell.reclassified:
        spans.append((", by a person", ink(ACCENT)))
    elif cell.cell_id in view.renamed:
        spans.append((f", was {view.renamed[cell.cell_id]}", FAINT))
    return spans


def _sure(cell: messages.CellMessage) -> str:
    """The probability of its likeliest class."""
    certain = cell.class_probabilities.get(cell.top_class)
    return "–" if certain is None else f"{number(100 * certain)} %"


def _picture(state: DashboardState, picture: Picture | None, columns: int, rows: int, colours: Colours) -> list[Line]:
    if picture is None or not (state.graphics or colours in ("truecolor", "256")):
        return to_height([fit([("no picture", FAINT)], columns, "centre")], columns, rows)
    if state.graphics:
        anchor: list[Line] = [[PictureSegment.of(middle(picture, columns, rows), columns, rows)]]
        return to_height(anchor, columns, rows)
    return thumbnail(picture, columns, rows, colours)


def chosen_panel(state: DashboardState, width: int, height: int, colours: Colours) -> list[Line]:
    """The chosen cell, large, with what is known of it; the classes to choose from while it is being named."""
    view = state.current
    cell = view.cells.get(view.chosen) if view is not None and view.chosen is not None else None
    if view is None or cell is None:
        return cells_panel(state, width, height, colours, film=True)
    inner, rows = width - 2, height - 2
    columns = max(12, min(2 * rows, inner // 2))
    drawn = min(rows, columns // 2)
    picture = to_height(_picture(state, view.cell_pictures.get(cell.cell_id), columns, drawn, colours), columns, rows)
    text = inner - columns - 2
    lines: list[Line] = [fit([letter_mark(view.letters(), cell.class_), *_named(view, cell)], text)]
    if state.naming:
        lines.append(fit([("its class? press a letter", STRONG)], text))
        for letter, name in class_keys(view):
            lines.append(
                fit([(f" {letter} ", ink("#ffffff", on=class_colour(name), bold=True)), (f" {name}", PLAIN)], text)
            )
    else:
        likely = sorted(cell.class_probabilities.items(), key=lambda item: -item[1])[:LIKELIEST]
        lines += [
            fit([(f"{number(100 * share):>4} % {name}", FAINT)], text) for name, share in likely if share >= 0.005
        ]
        words = described(cell)
        lines += [fit([(line, PLAIN)], text) for line in textwrap.wrap(clean(words), max(1, text))]
        cut = ", cut by an edge" if cell.partial else ""
        lines.append(
            fit([(f"seen {times(cell.looks)}, first in frame {number(cell.first_frame_id + 1)}{cut}", FAINT)], text)
        )
    gap = blank(1)
    body = beside([picture, [[*gap, *line, *gap] for line in to_height(lines, text, rows)]])
    ids = [one.cell_id for one in view.newest_cells()]
    title = [(f"cell {cell.cell_id}", STRONG), (f"  {ids.index(cell.cell_id) + 1} of the last {len(ids)}", FAINT)]
    foot = [("← → others · c another class · Esc back", FAINT)]
    return framed(body, width, height, title=title, foot=foot)


def _film(
    state: DashboardState,
    view: SourceView,
    cells: Sequence[messages.CellMessage],
    width: int,
    strips: int,
    rows: int,
    colours: Colours,
) -> tuple[list[Line], list[messages.CellMessage]]:
    """Strips of pictures `rows` high, each with class and confidence below, and the cells left over."""
    pitch = max(2 * rows, 12) + 1
    across = max(1, (width - 1) // pitch)
    lines: list[Line] = []
    for start in range(0, min(strips * across, len(cells)), across):
        lines += _film_strip(state, view, cells[start : start + across], pitch - 1, rows, width, colours)
    return lines, list(cells[strips * across :])


def _film_strip(
    state: DashboardState,
    view: SourceView,
    cells: Sequence[messages.CellMessage],
    columns: int,
    rows: int,
    width: int,
    colours: Colours,
) -> list[Line]:
    lines: list[Line] = [blank(1) for _ in range(rows + 2)]
    letters = view.letters()
    for cell in cells:
        frames = _picture(state, view.cell_pictures.get(cell.cell_id), columns, rows, colours)
        caption = [
            fit([letter_mark(letters, cell.class_), (f" {cell.class_}", PLAIN)], columns),
            fit([(f"{_sure(cell)} #{cell.cell_id}", FAINT)], columns),
        ]
        for line, part in zip(lines, [*frames, *caption], strict=True):
            line += [*part, *blank(1)]
    used = 1 + len(cells) * (columns + 1)
    return [
        fit([(segment.text, segment.style or PLAIN) for segment in line], width)
        if used > width
        else line + blank(width - used)
        for line in lines
    ]
