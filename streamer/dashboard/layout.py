"""The places of the panels on a screen of a given size."""

from __future__ import annotations

from streamer.dashboard.canvas import Line, Screenful, beside, fit, to_height
from streamer.dashboard.cells import cells_panel, chosen_panel, film_panel, has_film
from streamer.dashboard.guidance import guidance_panel, has_guidance
from streamer.dashboard.map_panel import map_panel
from streamer.dashboard.palette import FAINT
from streamer.dashboard.panels import (
    disclaimer_in_header,
    header,
    hint,
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
BESIDE_FROM = 100
"""Columns from which something stands beside the differential."""
PICTURE_FROM = 120
"""Columns from which cells can be recognised in the frame."""


def render(
    state: DashboardState, width: int, height: int, now_ns: int | None = None, *, colours: Colours = "truecolor"
) -> Screenful:
    """The dashboard as exactly `width` x `height` cells; `now_ns` (local monotonic) gives the age of the messages."""
    recognised = width >= PICTURE_FROM and (colours == "truecolor" or state.graphics)
    state.draws_picture = recognised if state.picture is None else state.picture
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
    if state.sure or state.is_over:
        last.append(fit(hint(state, now_ns), width))
    lines += differential_lines(state, width, max(0, height - len(lines) - len(last)))
    return [*lines, *last]


def _panels(state: DashboardState, width: int, height: int, now_ns: int | None, colours: Colours) -> list[Line]:
    elsewhere = not disclaimer_in_header(state, width, now_ns)
    sources = sources_panel(state, width, sources_height(state, height), elsewhere, now_ns)
    room = height - 1 - len(sources)
    return [header(state, width, now_ns), *_body(state, width, room, now_ns, colours), *sources]


def _body(state: DashboardState, width: int, room: int, now_ns: int | None, colours: Colours) -> list[Line]:
    view = state.current
    if has_guidance(state):
        return guidance_panel(state, width, room, now_ns)
    is_chosen = view is not None and view.chosen is not None
    right = min(max(44, width * 2 // 5), 84)
    if width < BESIDE_FROM:
        if is_chosen:
            return chosen_panel(state, width, room, colours)
        if state.map:
            return map_panel(state, width, room, colours)
        if state.picture:
            return picture_panel(state, width, room, colours)
        return _stacked(state, width, room, colours)
    if is_chosen:
        return beside([differential_panel(state, width - right, room), chosen_panel(state, right, room, colours)])
    if state.map:
        return beside([map_panel(state, width - right, room, colours), _side(state, right, room, colours, film=True)])
    if state.draws_picture:
        return _with_picture(state, width - right, right, room, colours)
    left = differential_panel(state, width - right, room)
    return beside([left, _cells_and_map(state, right, room, colours, film=True)])


def _stacked(state: DashboardState, width: int, room: int, colours: Colours) -> list[Line]:
    """The differential at the full width, and the cells below it where it leaves room."""
    table = differential_height(state, width)
    if room - table < LEAST_LIST:
        return differential_panel(state, width, room)
    below = _cells_and_map(state, width, room - table, colours, film=True)
    return [*differential_panel(state, width, table), *below]


def _with_picture(state: DashboardState, left: int, right: int, room: int, colours: Colours) -> list[Line]:
    """The picture at the left, the differential at the right, the cells wherever there is room."""
    view = state.current
    frame = view.frame if view else None
    spare = 0
    if frame is not None:
        spare = max(0, room - 2 - rows_needed(frame.width, frame.height, left - 2))
    list_at_right = room - differential_height(state, right) >= LEAST_LIST
    film_at_left = spare >= LEAST_FILM and list_at_right and has_film(state, colours)
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
    cells = LEAST_FILM + 2 if film and has_film(state, colours) else 2 * LEAST_LIST
    if state.map or height - cells < LEAST_MAP:
        return cells_panel(state, width, height, colours, film=film)
    rows = min(height - cells, max(LEAST_MAP, (width - 2) * 3 // 8 + 3))
    newest = cells_panel(state, width, height - rows, colours, film=film)
    return [*newest, *map_panel(state, width, rows, colours)]
