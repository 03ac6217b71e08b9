"""The places of the panels on a screen of a given size."""

from __future__ import annotations

from streamer.dashboard.canvas import Line, Screenful, beside, fit, to_height
from streamer.dashboard.map_panel import map_panel
from streamer.dashboard.palette import FAINT
from streamer.dashboard.panels import (
    cells_panel,
    disclaimer_in_header,
    film_panel,
    has_film,
    header,
    picture_panel,
    source_line,
    sources_height,
    sources_panel,
)
from streamer.dashboard.picture import Colours, rows_needed
from streamer.dashboard.share_table import differential_height, differential_lines, differential_panel
from streamer.dashboard.state import DashboardState
from streamer.dashboard.words import NOT_A_DEVICE

LEAST_LIST = 4
"""Rows from which a panel of cells is worth its borders."""
LEAST_MAP = 9
"""The same for the map."""
LEAST_FILM = 8
"""The same for a panel of cell pictures."""
PANELS_FROM = (72, 18)
"""Columns and rows below which only the essentials are shown, without borders."""


def render(
    state: DashboardState, width: int, height: int, now_ns: int | None = None, *, colours: Colours = "truecolor"
) -> Screenful:
    """The dashboard as exactly `width` x `height` cells; `now_ns` (local monotonic) gives the age of the messages."""
    if width < PANELS_FROM[0] or height < PANELS_FROM[1]:
        lines = _essential(state, width, height, now_ns)
    else:
        lines = _panels(state, width, height, now_ns, colours)
    return Screenful(to_height(lines, width, height), width, height)


def _essential(state: DashboardState, width: int, height: int, now_ns: int | None) -> list[Line]:
    view = state.current
    lines = [header(state, width, now_ns)]
    if view is not None:
        lines.append(source_line(view, width))
    last = [] if disclaimer_in_header(state, width, now_ns) else [fit([(NOT_A_DEVICE, FAINT)], width)]
    lines += differential_lines(state, width, max(0, height - len(lines) - len(last)))
    return [*lines, *last]


def _panels(state: DashboardState, width: int, height: int, now_ns: int | None, colours: Colours) -> list[Line]:
    elsewhere = not disclaimer_in_header(state, width, now_ns)
    sources = sources_panel(state, width, sources_height(state, height), elsewhere)
    room = height - 1 - len(sources)
    right = min(max(44, width * 2 // 5), 84)
    if state.map:
        body = beside([map_panel(state, width - right, room, colours), _side(state, right, room, colours, film=True)])
    elif state.picture:
        body = _with_picture(state, width - right, right, room, colours)
    else:
        right = min(max(26, width * 2 // 5), 84)
        left = differential_panel(state, width - right, room)
        body = beside([left, _cells_and_map(state, right, room, colours, film=True)])
    return [header(state, width, now_ns), *body, *sources]


def _with_picture(state: DashboardState, left: int, right: int, room: int, colours: Colours) -> list[Line]:
    """The picture at the left, the differential at the right, the cells wherever there is room."""
    view = state.current
    frame = view.frame if view else None
    spare = 0
    if frame is not None:
        spare = max(0, room - 2 - rows_needed(frame.width, frame.height, left - 2))
    list_at_right = room - differential_height(state, right) >= LEAST_LIST
    film_at_left = spare >= LEAST_FILM and list_at_right and has_film(view, colours)
    below: list[Line] = []
    if film_at_left:
        below = film_panel(state, left, spare, colours)
    elif spare >= LEAST_LIST and not list_at_right:
        below = cells_panel(state, left, spare, colours, film=False)
    pictures = [*picture_panel(state, left, room - len(below), colours), *below]
    return beside([pictures, _side(state, right, room, colours, film=not film_at_left)])


def _side(state: DashboardState, width: int, room: int, colours: Colours, film: bool) -> list[Line]:
    """The differential, and below it the cells and the map if there is room."""
    table = differential_height(state, width)
    if room - table < LEAST_LIST:
        return differential_panel(state, width, room)
    below = _cells_and_map(state, width, room - table, colours, film)
    return [*differential_panel(state, width, table), *below]


def _cells_and_map(state: DashboardState, width: int, height: int, colours: Colours, film: bool) -> list[Line]:
    """The newest cells, and below them the map if there is room and it is not drawn large."""
    cells = LEAST_FILM + 2 if film and has_film(state.current, colours) else 2 * LEAST_LIST
    if state.map or height - cells < LEAST_MAP:
        return cells_panel(state, width, height, colours, film=film)
    rows = min(height - cells, max(LEAST_MAP, (width - 2) * 3 // 8 + 3))
    newest = cells_panel(state, width, height - rows, colours, film=film)
    return [*newest, *map_panel(state, width, rows, colours)]
