"""The panels of the dashboard, each a pure function of the state and the available room."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len

from streamer.dashboard.canvas import Line, Span, crop, fit, framed, justify, span_len
from streamer.dashboard.keyboard import SURE
from streamer.dashboard.palette import ACCENT, BAD, CAUTION, FAINT, GOOD, PLAIN, STRONG, ink
from streamer.dashboard.picture import Colours, draw, placed
from streamer.dashboard.state import DashboardState, SourceView
from streamer.dashboard.words import (
    LEAST_AGREEMENT,
    NOT_A_DEVICE,
    agreement,
    behind_in_words,
    duration,
    in_words,
    number,
    positions_in_words,
    progress,
)
from streamer.records import SourceStatus

SLIDE_WIDTH = 24
"""Terminal cells that the name of a slide takes at most."""
STALE_AFTER_NS = 5_000_000_000
NOTICED_NS = 6_000_000_000
"""How long it is shown what became of a command."""
WIDE = 140
"""Columns from which sources have all their figures."""
PAUSED = "paused"
"""The reason of what a camera gave while somebody had paused the count."""

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
    """Name, uptime, slide, and as much of backend and models as there is room for beside the disclaimer, which is in it
    if `disclaimer_in_header`."""
    first, more = _header_parts(state, now_ns)
    for count in range(len(more), -1, -1):
        left = [*first, *(span for part in more[:count] for span in part)]
        if span_len(left) + 1 + len(NOT_A_DEVICE) <= width:
            return justify(left, [(NOT_A_DEVICE, FAINT)], width)
    return fit([*first, *(span for part in more for span in part)], width)


def disclaimer_in_header(state: DashboardState, width: int, now_ns: int | None) -> bool:
    """Whether the header has room for the disclaimer. If not it is elsewhere, so that every screen has it once."""
    return span_len(_header_parts(state, now_ns)[0]) + 1 + len(NOT_A_DEVICE) <= width


def _header_parts(state: DashboardState, now_ns: int | None) -> tuple[list[Span], list[list[Span]]]:
    """What is always there, and the rest, the most important first."""
    health = state.health
    first: list[Span] = [("leuko", ink(ACCENT, bold=True)), ("stream", STRONG)]
    silent_ns = 0 if now_ns is None or state.updated_ns is None or state.is_over else now_ns - state.updated_ns
    if silent_ns > STALE_AFTER_NS:
        first += [("  ", PLAIN), (f"no message for {silent_ns // 1_000_000_000} s", ink(BAD, bold=True))]
    if health is None:
        return [*first, ("  starting" if state.waits_for is None else "  waiting", FAINT)], []
    first += [("  ", PLAIN), (duration(health.uptime_s), PLAIN)]
    slide = None if state.current is None else state.current.slide
    named = () if slide is None else filter(None, (slide.name, slide.accession))
    parts = [(crop(text, SLIDE_WIDTH), STRONG) for text in named]
    agreed = agreement(health)
    if agreed is not None:
        style = PLAIN if agreed >= LEAST_AGREEMENT else ink(BAD, bold=True)
        parts.append((f"{100 * agreed:.1f} % as the CPU", style))
    models = filter(None, (health.backend, health.detector, health.classifier or "no classifier"))
    more: list[list[Span]] = [[(" · ", FAINT), part] for part in [*parts, *((text, PLAIN) for text in models)]]
    return first, more


# --- sources ----------------------------------------------------------------------------------------------------------


def sources_height(state: DashboardState, height: int) -> int:
    """Rows that the sources panel wants on a screen of `height` rows, borders and heading included."""
    return 3 + min(max(1, len(state.sources)), max(1, height // 6))


def sources_panel(state: DashboardState, width: int, height: int, disclaimer: bool, now_ns: int | None) -> list[Line]:
    """One row per source; if not all fit, those around the selected one."""
    inner = width - 2
    name_width = max(6, min(24, max((cell_len(name) for name in state.sources), default=0), inner // 5))
    wide = inner >= WIDE
    heading = f"  {'source':<{name_width}} {'state':<11} {'mode':<8} {'frames/s':>8} {'delay s':>7} "
    heading += f"{'at most':>7} {'waiting':>7} {'published':>9} {'reopened':>8} " if wide else ""
    lines = [fit([(heading + " lost", FAINT)], inner)]
    shown, above, below = _window(list(state.sources.values()), state.current, height - 3)
    marked = state.current if len(state.sources) > 1 else None
    lines += [_source_row(view, view is marked, name_width, wide, inner) for view in shown]
    if not shown:
        lines.append(fit([("  none yet", FAINT)], inner))
    count = len(state.sources)
    title = [("sources", STRONG)] if count < 2 else [("sources ", STRONG), (str(count), PLAIN)]
    view = state.current
    if view is not None and (place := progress(view, state.lengths.get(view.name))):
        title.append((f"  {f'{view.name} ' if count > 1 else ''}{place}", PLAIN))
    more = [f"{above} above"] * bool(above) + [f"{below} below"] * bool(below)
    foot: list[Span] = [(f"{', '.join(more)} · ", ink(CAUTION))] if more else []
    aside = [(NOT_A_DEVICE, FAINT)] if disclaimer else []
    if span_len(title) + span_len(aside) + 8 > width:  # the disclaimer stays
        title = title[:1]
    return framed(lines, width, height, title=title, aside=aside, foot=[*foot, *hint(state, now_ns)])


def hint(state: DashboardState, now_ns: int | None) -> list[Span]:
    """What is asked, else what became of the last command, else the keys."""
    if state.sure is not None:
        return [(SURE[state.sure], ink(CAUTION, bold=True))]
    if state.notice and now_ns is not None and now_ns - state.noticed_ns < NOTICED_NS and not state.is_over:
        return [(state.notice, ink(BAD if state.is_fault else GOOD, bold=True))]
    if state.is_over:
        return [("this is the result · ", ink(GOOD, bold=True)), ("q leaves it", STRONG)]
    return [(state.hint, FAINT)] if state.hint else []


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
        (f" {crop(status.mode, 8):<8} {number(status.fps, 1):>8} {_seconds(latency.get('p50')):>7} ", PLAIN),
    ]
    if view.paused:
        lead[2] = (" ‖ paused   ", ink(CAUTION, bold=True))
    if wide:
        lead.append((f"{_seconds(latency.get('p95')):>7} {number(status.queue):>7} ", PLAIN))
        lead.append((f"{number(status.published):>9} {number(status.reopened):>8} ", PLAIN))
    lead.append((" ", PLAIN))
    lead += _losses(status, with_reopenings=not wide)
    return fit(lead, width)


def _seconds(milliseconds: float | None) -> str:
    return number(None if milliseconds is None else milliseconds / 1000, 2)


def _losses(status: SourceStatus, with_reopenings: bool) -> list[Span]:
    parts: list[Span] = []
    both = bool(sum(status.dropped.values()) and sum(status.skipped.values()))
    if sum(status.dropped.values()):
        meant = not set(status.dropped) - {PAUSED}
        parts.append((f"dropped {in_words(status.dropped, short=both)}", FAINT if meant else ink(BAD)))
    if sum(status.skipped.values()):
        parts.append((f"skipped {in_words(status.skipped, short=both)}", ink(CAUTION)))
    if with_reopenings and status.reopened:
        parts.append((f"reopened {number(status.reopened)}", ink(CAUTION)))
    if (behind := behind_in_words(status)) is not None:
        parts.append((behind, ink(CAUTION)))
    if status.hidden_px:
        count = len(status.hidden_px)
        parts.append((f"{number(count)} {'part' if count == 1 else 'parts'} of the frame left out", FAINT))
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


# --- picture ----------------------------------------------------------------------------------------------------------


KIND_WORDS = {"white": "white cell", "nucleated red": "nucleated red cell", "red": "red cell", "platelet": "platelet"}


def picture_panel(state: DashboardState, width: int, height: int, colours: Colours) -> list[Line]:
    """The current frame with its boxes, its name above and its contents below."""
    view = state.current
    frame = view.frame if view else None
    if view is None or frame is None:
        return framed([fit([(" no frame yet", FAINT)], width - 2)], width, height, title=[("frame", STRONG)])
    title: list[Span] = [(view.name, STRONG), (f" frame {number(frame.frame_id + 1)}", PLAIN)]
    if frame.file:
        title.append((f" {frame.file}", FAINT))
    if not frame.accepted:
        title.append((f" not counted: {', '.join(frame.reasons) or 'no reason given'}", ink(CAUTION, bold=True)))
    aside: list[Span] = [] if frame.stage is not None else [("not found on the map", ink(CAUTION))]
    kinds = tuple(KIND_WORDS)
    counts = {kind: sum(detection.kind == kind for detection in frame.detections) for kind in kinds}
    found = [f"{count} {KIND_WORDS[kind]}{'' if count == 1 else 's'}" for kind, count in counts.items() if count]
    foot: list[Span] = [(", ".join(found) or "empty", FAINT)]
    if frame.truncated:
        foot.append((" and more than the detector can tell", ink(CAUTION, bold=True)))
    room = width - 2, height - 2
    if state.graphics and view.picture is not None:
        lines = placed(frame, view.picture, *room, red_cells=state.red_cells)
    else:
        lines = draw(frame, view.picture, *room, colours, red_cells=state.red_cells)
    return framed(lines, width, height, title=title, aside=aside, foot=foot)
