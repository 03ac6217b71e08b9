"""The panels of the dashboard, each a pure function of the state and the available room."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len

from streamer.dashboard.canvas import Line, Span, blank, crop, fit, framed, justify, span_len, to_height
from streamer.dashboard.palette import (
    ACCENT,
    BAD,
    CAUTION,
    FAINT,
    GOOD,
    PLAIN,
    STRONG,
    class_colour,
    ink,
)
from streamer.dashboard.picture import Colours, draw, thumbnail
from streamer.dashboard.state import DashboardState, SourceView
from streamer.dashboard.words import (
    LEAST_AGREEMENT,
    NOT_A_DEVICE,
    agreement,
    behind_in_words,
    described,
    duration,
    number,
    positions_in_words,
    tally,
)
from streamer.protocol import messages
from streamer.records import UNCLASSIFIED, UNLIKE_TRAINING, SourceStatus

SLIDE_WIDTH = 24
"""Terminal cells that the name of a slide takes at most."""
FILM_ROWS = 6
"""Height of a cell's picture, its caption not included."""
IN_WORDS = 3
"""Newest cells described in a line below their own. Below pictures only the newest is described."""
STALE_AFTER_NS = 5_000_000_000

_STATE_INK = {
    "starting": ink(CAUTION),
    "open": ink(GOOD),
    "reopening": ink(CAUTION, bold=True),
    "ended": FAINT,
    "failed": ink(BAD, bold=True),
}
_STATE_SIGN = {"starting": "◌", "open": "●", "reopening": "↻", "ended": "■", "failed": "✕"}


# --- header -----------------------------------------------------------------------------------------------------------


def header(state: DashboardState, width: int, now_ns: int | None) -> Line:
    """Name, uptime, backend, models, and the disclaimer if `disclaimer_in_header`."""
    return justify(_header_left(state, now_ns), [(NOT_A_DEVICE, FAINT)], width)


def disclaimer_in_header(state: DashboardState, width: int, now_ns: int | None) -> bool:
    """Whether the header has room for the disclaimer. If not it is elsewhere, so that every screen has it once."""
    return span_len(_header_left(state, now_ns)) + 1 + len(NOT_A_DEVICE) <= width


def _header_left(state: DashboardState, now_ns: int | None) -> list[Span]:
    health = state.health
    left: list[Span] = [("leuko", ink(ACCENT, bold=True)), ("stream", STRONG)]
    if health is None:
        left.append(("  waiting for the first message", FAINT))
    else:
        left += [("  ", PLAIN), (duration(health.uptime_s), PLAIN)]
        slide = None if state.current is None else state.current.slide
        for part in () if slide is None else filter(None, (slide.name, slide.accession)):
            left += [(" · ", FAINT), (crop(part, SLIDE_WIDTH), STRONG)]
        for part in filter(None, (health.backend, health.detector, health.classifier or "no classifier")):
            left += [(" · ", FAINT), (part, PLAIN)]
        agreed = agreement(health)
        if agreed is not None:
            style = PLAIN if agreed >= LEAST_AGREEMENT else ink(BAD, bold=True)
            left += [(" · ", FAINT), (f"{100 * agreed:.1f} % as the CPU", style)]
    if now_ns is not None and state.updated_ns is not None and now_ns - state.updated_ns > STALE_AFTER_NS:
        silent = (now_ns - state.updated_ns) // 1_000_000_000
        left[2:2] = [("  ", PLAIN), (f"no message for {silent} s", ink(BAD, bold=True))]
    return left


# --- sources ----------------------------------------------------------------------------------------------------------


def sources_height(state: DashboardState, height: int) -> int:
    """Rows that the sources panel wants on a screen of `height` rows, borders and heading included."""
    return 3 + min(max(1, len(state.sources)), max(1, height // 6))


def sources_panel(state: DashboardState, width: int, height: int, disclaimer: bool) -> list[Line]:
    """One row per source; if not all fit, those around the selected one."""
    inner = width - 2
    name_width = max(6, min(24, max((cell_len(name) for name in state.sources), default=0), inner // 5))
    wide = inner >= 140
    heading = f"  {'source':<{name_width}} {'state':<11} {'mode':<8} {'fps':>5} {'p50':>5} {'p95':>5} ms {'queue':>5} "
    heading += f"{'published':>9} {'reopened':>8}  " if wide else ""
    lines = [fit([(heading + "lost", FAINT)], inner)]
    shown, above, below = _window(list(state.sources.values()), state.current, height - 3)
    marked = state.current if len(state.sources) > 1 else None
    lines += [_source_row(view, view is marked, name_width, wide, inner) for view in shown]
    if not shown:
        lines.append(fit([("  none yet", FAINT)], inner))
    count = len(state.sources)
    title = [("sources", STRONG)] if count < 2 else [("sources ", STRONG), (str(count), PLAIN)]
    more = [f"{above} above"] * bool(above) + [f"{below} below"] * bool(below)
    foot: list[Span] = [(", ".join(more), ink(CAUTION))] if more else []
    if state.hint:
        foot += [(" · " if more else "", FAINT), (state.hint, FAINT)]
    aside = [(NOT_A_DEVICE, FAINT)] if disclaimer else []
    return framed(lines, width, height, title=title, aside=aside, foot=foot)


def _window(views: list[SourceView], current: SourceView | None, rows: int) -> tuple[list[SourceView], int, int]:
    place = views.index(current) if current in views else 0
    first = max(0, min(place - rows // 2, len(views) - rows))
    shown = views[first : first + rows]
    return shown, first, len(views) - first - len(shown)


def _source_row(view: SourceView, marked: bool, name_width: int, wide: bool, width: int) -> Line:
    name = crop(view.name, name_width)
    name += " " * (name_width - cell_len(name))
    lead: list[Span] = [("▸ " if marked else "  ", ink(ACCENT, bold=True)), (name, STRONG if marked else PLAIN)]
    status = view.status
    if status is None:
        return fit([*lead, (" no health message yet", FAINT)], width)
    style = _STATE_INK.get(status.state, PLAIN)
    latency = status.latency_ms or {}
    lead += [
        (f" {_STATE_SIGN.get(status.state, '?')} {crop(status.state, 9):<9}", style),
        (f" {crop(status.mode, 8):<8} {number(status.fps, 1):>5}", PLAIN),
        (f" {number(latency.get('p50')):>5} {number(latency.get('p95')):>5}    {number(status.queue):>5} ", PLAIN),
    ]
    if wide:
        lead.append((f"{number(status.published):>9} {number(status.reopened):>8}  ", PLAIN))
    lead += _losses(status, with_reopenings=not wide)
    return fit(lead, width)


def _losses(status: SourceStatus, with_reopenings: bool) -> list[Span]:
    parts: list[Span] = []
    if sum(status.dropped.values()):
        parts.append((f"dropped {tally(status.dropped)}", ink(BAD)))
    if sum(status.skipped.values()):
        parts.append((f"skipped {tally(status.skipped)}", ink(CAUTION)))
    if with_reopenings and status.reopened:
        parts.append((f"reopened {number(status.reopened)}", ink(CAUTION)))
    if (behind := behind_in_words(status)) is not None:
        parts.append((behind, ink(CAUTION)))
    if status.hidden_px:
        parts.append((f"{number(len(status.hidden_px))} parts of the frame left out", FAINT))
    if (positions := positions_in_words(status)) is not None:
        ignored = status.positions is not None and status.positions.note is not None
        parts.append((positions, ink(CAUTION) if ignored else FAINT))
    if status.detail:
        parts.append((status.detail, ink(BAD) if status.state in ("failed", "reopening") else FAINT))
    if not parts:
        return [("none", FAINT)]
    spans: list[Span] = []
    for place, part in enumerate(parts):
        spans += [(" · ", FAINT), part] if place else [part]
    return spans


def source_line(view: SourceView, width: int) -> Line:
    """The source and its number of white cells in one short line, for small screens."""
    total: list[Span] = []
    if view.differential is not None:
        total = [(f" {number(view.differential.total)} white cells", STRONG)]
    room = max(0, width - span_len(total))
    status = view.status
    if status is None:
        return fit([*_filled([(view.name, STRONG), (" no health message yet", FAINT)], room), *total], width)
    style = _STATE_INK.get(status.state, PLAIN)
    spans: list[Span] = [(f"{_STATE_SIGN.get(status.state, '?')} ", style), (crop(view.name, 12), STRONG)]
    spans.append((f" {number(status.fps, 1)} fps", PLAIN) if status.state == "open" else (f" {status.state}", style))
    lost = sum(status.dropped.values()) + sum(status.skipped.values())
    spans += [(f" lost {number(lost)}", ink(BAD))] if lost else []
    return fit([*_filled(spans, room), *total], width)


def _filled(spans: Sequence[Span], width: int) -> list[Span]:
    return [(segment.text, segment.style or PLAIN) for segment in fit(spans, width)]


# --- cells ------------------------------------------------------------------------------------------------------------


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
        if film and has_film(view, colours) and rows >= FILM_ROWS + 2:
            strips = max(1, rows * 3 // 5 // (FILM_ROWS + 2))
            foot = _in_words(cells, inner)
            lines, cells = _film(view, cells, inner, strips, FILM_ROWS, colours)
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


def has_film(view: SourceView | None, colours: Colours) -> bool:
    """Whether there are pictures of cells, and colours to show them."""
    return view is not None and bool(view.cell_pictures) and colours in ("truecolor", "256")


def film_panel(state: DashboardState, width: int, height: int, colours: Colours) -> list[Line]:
    """One strip of pictures of the newest cells."""
    view = state.current
    lines: list[Line] = []
    foot: list[Span] = []
    if view is not None:
        rows = min(FILM_ROWS + 2, height - 4)
        foot = _in_words(view.newest_cells(), width - 2)
        lines, _ = _film(view, view.newest_cells(), width - 2, 1, rows, colours)
    return framed(lines, width, height, title=[("last cells", STRONG)], foot=foot)


def _cell_row(view: SourceView, cell: messages.CellMessage, width: int) -> Line:
    certain = cell.class_probabilities.get(cell.top_class)
    name = cell.class_
    if name == UNCLASSIFIED:
        like = "like no training cell, " if cell.unclassified_reason == UNLIKE_TRAINING else ""
        name = f"unclassified ({like}{cell.top_class}?)"
    left: list[Span] = [(" ● ", ink(class_colour(cell.class_))), (f"{number(certain, 2)} ", FAINT), (name, PLAIN)]
    if cell.subclass:
        left.append((f", {cell.subclass}", FAINT))
    if cell.cell_id in view.renamed:
        left.append((f", was {view.renamed[cell.cell_id]}", FAINT))
    looks = "1 look" if cell.looks == 1 else f"{cell.looks} looks"
    right: list[Span] = [(f"{looks} #{cell.cell_id} ", FAINT)]
    return justify(left, right, width)


def _film(
    view: SourceView, cells: Sequence[messages.CellMessage], width: int, strips: int, rows: int, colours: Colours
) -> tuple[list[Line], list[messages.CellMessage]]:
    """Strips of pictures `rows` high, each with class and confidence below, and the cells left over."""
    pitch = max(2 * rows, 12) + 1
    across = max(1, (width - 1) // pitch)
    lines: list[Line] = []
    for start in range(0, min(strips * across, len(cells)), across):
        lines += _film_strip(view, cells[start : start + across], pitch - 1, rows, width, colours)
    return lines, list(cells[strips * across :])


def _film_strip(
    view: SourceView, cells: Sequence[messages.CellMessage], columns: int, rows: int, width: int, colours: Colours
) -> list[Line]:
    lines: list[Line] = [blank(1) for _ in range(rows + 2)]
    for cell in cells:
        picture = view.cell_pictures.get(cell.cell_id)
        frames = thumbnail(picture, columns, rows, colours) if picture is not None else to_height([], columns, rows)
        certain = cell.class_probabilities.get(cell.top_class)
        caption = [
            fit([(cell.class_, ink(class_colour(cell.class_), bold=True))], columns),
            fit([(f"{number(certain, 2)} #{cell.cell_id}", FAINT)], columns),
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


# --- picture ----------------------------------------------------------------------------------------------------------


def picture_panel(state: DashboardState, width: int, height: int, colours: Colours) -> list[Line]:
    """The current frame with its boxes, its name above and its contents below."""
    view = state.current
    frame = view.frame if view else None
    if view is None or frame is None:
        return framed([fit([(" no frame yet", FAINT)], width - 2)], width, height, title=[("frame", STRONG)])
    title: list[Span] = [(view.name, STRONG), (f" frame {number(frame.frame_id)}", PLAIN)]
    if frame.file:
        title.append((f" {frame.file}", FAINT))
    if not frame.accepted:
        title.append((f" not counted: {', '.join(frame.reasons) or 'no reason given'}", ink(CAUTION, bold=True)))
    stage = frame.stage
    aside: list[Span] = [("off the map", ink(CAUTION))]
    if stage is not None:
        aside = [(f"island {stage.island}  {stage.x_px:+.0f} {stage.y_px:+.0f} px", FAINT)]
    kinds = ("white", "nucleated red", "red", "platelet")
    counts = {kind: sum(detection.kind == kind for detection in frame.detections) for kind in kinds}
    foot: list[Span] = [(", ".join(f"{count} {kind}" for kind, count in counts.items() if count) or "empty", FAINT)]
    if frame.truncated:
        foot.append((" and more than the detector can tell", ink(CAUTION, bold=True)))
    lines = draw(frame, view.picture, width - 2, height - 2, colours)
    return framed(lines, width, height, title=title, aside=aside, foot=foot)
